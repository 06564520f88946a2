"""What a failure means for the request, and how long to wait before it is tried again: pure decisions."""

from __future__ import annotations

from collections.abc import Callable

from chainops.core.errors import DeadlineExceeded
from chainops.models.failures import Failure, classify


def judge(error: Exception) -> Failure:
    """`classify`, with what only a request can run into: its deadline."""
    if isinstance(error, DeadlineExceeded):
        return Failure("retryable", "deadline passed", detail=str(error))
    return classify(error)


def can_mend(failure: Failure) -> bool:
    """Whether another route may answer."""
    return failure.kind in ("retryable", "next_route")


def delay_s(failure: Failure, *, turn: int, base_s: float, most_s: float, draw: Callable[[], float]) -> float | None:
    """How long to wait before trying again; None: not at all.

    Args:
        turn: How often it was tried, from 1.
        base_s: The first wait is up to this long, each further one up to twice the one before.
        most_s: No wait is longer. A server that asks for a longer one is not asked again.
        draw: Gives random numbers in [0, 1).

    Source:
        Full jitter (M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015): a wait drawn evenly
        from nothing to the cap spreads clients that failed together best. A server's own `Retry-After` is waited in
        full, plus a draw from `base_s`.
    """
    if failure.kind != "retryable":
        return None
    if failure.retry_after_s is not None:
        return None if failure.retry_after_s > most_s else failure.retry_after_s + draw() * base_s
    return draw() * min(most_s, base_s * 2.0 ** min(turn - 1, 60))
