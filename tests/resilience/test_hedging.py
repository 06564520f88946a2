"""Hedges: a slow first route does not make everybody wait, and what both consume is counted."""

from __future__ import annotations

import pytest

import chainops
from chainops.resilience.hedging import Hedge, Patience
from chainops.resilience.records import Hedged
from chainops.testing.faults import Hang, Status
from chainops.testing.listening import capture_events
from chainops.testing.server import ModelServer


def test_a_second_route_answers_for_a_slow_first_one(served, ask, driver):
    with ModelServer("the first") as first, ModelServer("the second") as second, capture_events() as events:
        first.fail(Hang())
        hedge = Hedge(inner=served(first), other=served(second), names=("a", "b"), after_s=0.2)
        answer = ask(driver, hedge)
        assert (answer.text, answer.status) == ("the second", "ok")
        (hedged,) = events.of(Hedged)
        assert (hedged.winner, hedged.loser) == ("b", "a")


def test_a_quick_first_route_is_the_only_one_asked(served, ask, driver):
    with ModelServer("the first") as first, ModelServer("the second") as second:
        hedge = Hedge(inner=served(first), other=served(second), after_s=60)
        assert ask(driver, hedge).text == "the first"
        assert not second.requests


def test_a_failed_first_route_is_told_as_a_degraded_answer(served, ask, driver):
    with ModelServer("the first") as first, ModelServer("the second") as second:
        first.fail(Status(503))
        answer = ask(driver, Hedge(inner=served(first), other=served(second), names=("a", "b"), after_s=60))
        assert (answer.text, answer.status) == ("the second", "degraded")
        assert answer.reasons == ["answered by b because a: overloaded"]


@pytest.mark.parametrize("driver", ["ainvoke", "astream"])
def test_a_cancelled_loser_is_charged_for_what_it_was_asked(served, ask, driver):
    with ModelServer("the first") as first, ModelServer("the second") as second:
        first.fail(Hang())
        answer = ask(driver, Hedge(inner=served(first), other=served(second), after_s=0.1))
        attempts = [each for each in answer.report["events"] if each["kind"] == "Attempted"]
        assert sorted((each["outcome"], each["purpose"]) for each in attempts) == [
            ("cancelled", "answer"),
            ("ok", "hedge"),
        ]
        cancelled = next(each for each in attempts if each["outcome"] == "cancelled")
        assert cancelled["input_tokens"] > 0
        assert cancelled["cost_usd"] is None or cancelled["cost_usd"] >= 0
        assert first.wait_idle(30)


def test_a_sync_loser_is_settled_when_its_time_is_out(served, ask, eventually):
    with ModelServer("the first") as first, ModelServer("the second") as second, capture_events() as events:
        first.fail(Hang())
        hedge = Hedge(inner=served(first, timeout_s=0.6), other=served(second), after_s=0.1)
        assert ask("invoke", hedge).text == "the second"

        def outcomes():
            return sorted(each.outcome for each in events if type(each).__name__ == "Attempted")

        eventually(lambda: len(outcomes()) == 2)
        assert outcomes() == ["failed", "ok"]


def test_the_wait_is_learned_from_what_the_first_route_usually_takes():
    patience = Patience(at_first_s=2.0)
    for _ in range(19):
        patience.took(0.1)
    assert patience.p95_s == 2.0
    for _ in range(181):
        patience.took(0.1)
    patience.took(9.0)
    assert patience.p95_s == 0.1
    for _ in range(15):
        patience.took(9.0)
    assert patience.p95_s == 9.0


def test_hedges_of_many_requests_ask_the_second_route_seldom_once_the_wait_is_learned(served):
    with ModelServer("the first") as first, ModelServer("the second") as second:
        first.fail(Hang(0.5), times=2)  # so half a second is usual: a machine that gets busy takes no longer
        hedge = Hedge(inner=served(first), other=served(second), patience=Patience(30.0))
        for _ in range(40):
            hedge.invoke("hello")
        assert len(second.requests) <= 10
        assert hedge.patience.p95_s < 5


def test_a_hedge_keeps_within_the_attempts_of_its_caller(served):
    with ModelServer("the first") as first, ModelServer("the second") as second:
        first.fail(Status(503))
        with pytest.raises(chainops.ChainopsError, match="HTTP 503"):
            Hedge(inner=served(first), other=served(second), after_s=60).invoke("x", chainops.caller(max_attempts=1))
        assert not second.requests
