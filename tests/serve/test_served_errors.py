"""What a client is told of a failure: whose fault it is, when to come again, and none of the operator's sums."""

from __future__ import annotations

import pytest

from chainops.core.errors import AllRoutesFailed, AttemptsExhausted, CallRefused, DeadlineExceeded
from chainops.models.failures import Failure, ModelFailed, ModelUnavailable
from chainops.resilience.limits.records import Overloaded
from chainops.serve.served import http_status, retry_after, told

OVERLOADED = Overloaded("gpt", "tenant", "queue full", "100 wait already", retry_after_s=2.2, waiting=100)
OPEN = CallRefused("gpt", "circuit open", "it failed 5 times: secret details", retry_after_s=30.0)
BROKEN = ModelUnavailable("gpt", Failure("retryable", "server error"), next_move="wait")


@pytest.mark.parametrize(
    ("error", "status", "wait"),
    [
        (OVERLOADED, 429, "3"),
        (OPEN, 503, "30"),
        (AttemptsExhausted("gpt", "its retries are used up"), 503, None),
        (DeadlineExceeded("gpt", 1.0), 504, None),
        (ModelFailed("gpt", Failure("caller", "invalid request", status=400), next_move="correct it"), 422, None),
        (BROKEN, 502, None),
        (AllRoutesFailed([("a", OVERLOADED), ("b", OVERLOADED)]), 429, "3"),
        (AllRoutesFailed([("a", AllRoutesFailed([("x", OPEN)])), ("b", OPEN)]), 503, "30"),
        (AllRoutesFailed([("a", OPEN), ("b", BROKEN)]), 502, "30"),
    ],
    ids=lambda each: type(each).__name__ if isinstance(each, Exception) else str(each),
)
def test_each_failure_has_its_status_and_its_time(error, status, wait):
    assert http_status(error) == status
    assert retry_after(error).get("Retry-After") == wait


def test_refusals_tell_clients_why_and_when_and_nothing_of_the_operators():
    assert told(OPEN)["message"] == "not answered: circuit open; try again in 30 s"
    both = told(AllRoutesFailed([("a", OPEN), ("b", OVERLOADED)]))["message"]
    assert both == "not answered: circuit open; queue full; try again in 3 s"
    assert "secret" not in both
