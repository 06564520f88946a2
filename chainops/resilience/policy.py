"""What a failure means for the request: pure decisions."""

from __future__ import annotations

from chainops.core.errors import DeadlineExceeded
from chainops.models.failures import Failure, classify
from chainops.resilience.records import AllRoutesFailed


def judge(error: Exception) -> Failure:
    """`classify`, with what only a request can run into: its deadline, and routes that all failed."""
    if isinstance(error, DeadlineExceeded):
        return Failure("retryable", "deadline passed", detail=str(error))
    if isinstance(error, AllRoutesFailed):
        return Failure("next_route", "all its routes failed", detail=str(error))
    return classify(error)


def can_mend(failure: Failure) -> bool:
    """Whether another route may answer."""
    return failure.kind in ("retryable", "next_route")
