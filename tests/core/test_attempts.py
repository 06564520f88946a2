"""Every call to a model is in one ledger, settled exactly once."""

from __future__ import annotations

import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableLambda

from chainops.core.attempts import Attempts
from chainops.core.errors import PlanError
from chainops.core.events import Attempted
from chainops.core.steps import Ask, AskAll, Do, Forward
from chainops.testing.listening import ManualClock, capture_events

USAGE = {"input_tokens": 10, "output_tokens": 4, "total_tokens": 14}


@pytest.fixture
def told():
    return []


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def ledger(told, clock):
    return Attempts(clock, told.append)


def test_a_settled_attempt_is_an_event_with_its_facts(ledger, told, clock):
    attempt = ledger.reserve("gpt", purpose="judge")
    clock.advance(2)
    attempt.settle("failed", usage=USAGE, cost_usd=0.25, error=TimeoutError("slow"))
    assert told == [
        Attempted(
            model="gpt",
            outcome="failed",
            purpose="judge",
            duration_s=2,
            input_tokens=10,
            output_tokens=4,
            cost_usd=0.25,
            error="TimeoutError: slow",
        )
    ]


def test_settling_twice_is_a_plan_error_and_changes_nothing(ledger, told):
    attempt = ledger.reserve("gpt")
    attempt.settle("ok", usage=USAGE, cost_usd=1.0)
    with pytest.raises(PlanError, match="a call to gpt was settled twice: ok, then failed"):
        attempt.settle("failed", cost_usd=5.0)
    assert (attempt.outcome, ledger.cost_usd, len(told)) == ("ok", 1.0, 1)


def test_who_sees_that_a_call_is_settled_sees_what_it_took(told):
    class Looks(ManualClock):
        """Another thread looks at the ledger whenever somebody asks for the time."""

        def monotonic(self):
            seen.extend((each.outcome, each.usage) for each in ledger.all)
            return super().monotonic()

    seen = []
    ledger = Attempts(Looks(), told.append)
    ledger.reserve("gpt").settle("ok", usage=USAGE, cost_usd=1.0)
    assert set(map(str, seen)) <= {str((None, None)), str(("ok", USAGE))}


def test_what_nobody_settles_is_lost(ledger, told):
    ledger.reserve("a").settle("ok")
    ledger.reserve("b")
    ledger.close()
    ledger.close()
    assert [(event.model, event.outcome) for event in told] == [("a", "ok"), ("b", "lost")]


def test_tokens_and_dollars_are_summed_over_all_attempts(ledger):
    assert (ledger.usage, ledger.cost_usd) == (None, 0.0)
    ledger.reserve("a").settle("failed", usage=USAGE, cost_usd=0.5)
    ledger.reserve("b").settle("ok", usage={**USAGE, "input_token_details": {"cache_read": 3}}, cost_usd=0.25)
    ledger.reserve("c").settle("cancelled")
    assert ledger.usage["total_tokens"] == 28
    assert ledger.usage["input_token_details"] == {"cache_read": 3}
    assert ledger.cost_usd == 0.75


def test_one_unknown_price_makes_the_total_unknown(ledger):
    ledger.reserve("a").settle("ok", usage=USAGE, cost_usd=0.5)
    ledger.reserve("b").settle("ok", usage=USAGE)
    assert ledger.cost_usd is None


def test_totals_hold_when_threads_reserve_settle_and_close_at_once(ledger, told):
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:

            def work(number):
                attempt = ledger.reserve(f"m{number}")
                if number % 3 == 0:
                    ledger.close()
                try:
                    attempt.settle("ok", usage=USAGE, cost_usd=1.0)
                except PlanError:
                    return "lost"
                return "ok"

            outcomes = list(pool.map(work, range(300)))
    finally:
        sys.setswitchinterval(before)
    assert len(told) == len(ledger.all) == 300
    assert sorted(event.outcome for event in told) == sorted(outcomes)
    assert ledger.cost_usd == outcomes.count("ok")


def model(play, name, usage=USAGE, error=None):
    def plan(value, run):
        attempt = run.attempts.reserve(name)
        try:
            answer = yield Do(lambda: AIMessage(content=name, usage_metadata=usage), blocks=False)
            if error is not None:
                raise error
        except Exception as raised:
            attempt.settle("failed", usage=usage, cost_usd=1.0, error=raised)
            raise
        attempt.settle("ok", usage=usage, cost_usd=1.0)
        return answer

    return play(plan, name=name)


def test_an_answer_carries_the_tokens_of_all_attempts_of_its_request(play, drive_by):
    def plan(value, run):
        yield AskAll([Ask(model(play, "judge"), value)] * 2)
        try:
            return (yield Forward(model(play, "a", error=ConnectionError("down")), value))
        except ConnectionError:
            return (yield Forward(model(play, "b"), value))

    with capture_events() as heard:
        given = drive_by(play(plan), "q")
    answer = sum(given[1:], given[0]) if isinstance(given, list) else given
    assert answer.text == "b"
    assert answer.usage_metadata["total_tokens"] == 4 * 14
    assert answer.report["cost_usd"] == 4.0
    assert sorted((event.model, event.outcome) for event in heard.of(Attempted)) == [
        ("a", "failed"),
        ("b", "ok"),
        ("judge", "ok"),
        ("judge", "ok"),
    ]


def test_an_attempt_that_a_request_never_settles_is_reported_lost(play, drive_by):
    def plan(value, run):
        run.attempts.reserve("forgotten")
        return (yield Forward(RunnableLambda(lambda _: AIMessage(content="x")), value))

    with capture_events() as heard:
        drive_by(play(plan), "q")
    assert [event.outcome for event in heard.of(Attempted)] == ["lost"]


def test_a_stream_that_is_collected_while_the_ledger_is_written_is_settled(ledger, told):
    class Collects(list):
        """As the garbage collector does, wherever something is made."""

        def append(self, attempt):
            super().append(attempt)
            forgotten.settle("cancelled")

    forgotten = ledger.reserve("forgotten")
    ledger.all = Collects(ledger.all)
    reserving = threading.Thread(target=ledger.reserve, args=["gpt"], daemon=True)
    reserving.start()
    reserving.join(30)
    assert [each.model for each in told] == ["forgotten"]
    assert not reserving.is_alive()
