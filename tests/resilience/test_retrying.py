"""Retries: what is tried again, how long is waited, and that it never multiplies."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage

import chainops
from chainops.core.clock import use_clock
from chainops.core.errors import AllRoutesFailed, ChainopsError
from chainops.models.failures import Failure
from chainops.resilience.component import Fallback, Sentence
from chainops.resilience.policy import delay_s
from chainops.resilience.records import Retried
from chainops.resilience.retrying import Retry
from chainops.testing.faults import Cut, Hang, Status
from chainops.testing.listening import ManualClock, capture_events
from chainops.testing.server import ModelServer

BUSY = Failure("retryable", "overloaded")


def test_a_busy_server_is_asked_again_in_every_driver(served, ask, driver):
    with ModelServer("answer") as server, capture_events() as events:
        server.fail(Status(503), times=2)
        answer = ask(driver, Retry(inner=served(server), attempts=3, base_s=0.01))
        assert (answer.text, answer.status) == ("answer", "ok")
        assert len(server.requests) == 3
        assert [each.turn for each in events.of(Retried)] == [1, 2]
        attempts = [each["outcome"] for each in answer.report["events"] if each["kind"] == "Attempted"]
        assert attempts == ["failed", "failed", "ok"]


def test_no_more_than_the_declared_tries_are_made(served, ask, driver):
    with ModelServer("answer") as server:
        server.fail(Status(503))
        with pytest.raises(ChainopsError, match="HTTP 503"):
            ask(driver, Retry(inner=served(server), attempts=3, base_s=0.001))
        assert len(server.requests) == 3


@pytest.mark.parametrize("fault", [Status(400), Status(401), Status(404)], ids=str)
def test_what_will_not_pass_is_not_tried_again(served, fault):
    with ModelServer("answer") as server:
        server.fail(fault)
        with pytest.raises(ChainopsError):
            Retry(inner=served(server), base_s=0.001).invoke("hello")
        assert len(server.requests) == 1


def test_a_bug_is_not_tried_again():
    tries = []

    def broken(_):
        tries.append(1)
        raise TypeError("a bug")

    with pytest.raises(TypeError):
        Retry(inner=broken).invoke("x")
    assert len(tries) == 1


@pytest.mark.parametrize("driver", ["stream", "astream"])
def test_a_stream_is_not_tried_again_after_its_first_words(served, ask, driver):
    with ModelServer("one two three four five six") as server:
        server.fail(Cut(after_chunks=2))
        answer = ask(driver, Fallback(routes=(Retry(inner=served(server), base_s=0.001),)))
        assert answer.status == "truncated"
        assert len(server.requests) == 1


def test_litellm_20722_each_failure_is_waited_for_as_long_as_that_very_failure_asks():
    clock, waits = ManualClock(), []
    replies = [3.0, 7.0, None]

    def busy(_):
        waits.append(clock.monotonic())
        asked = replies.pop(0)
        if asked is None:
            return AIMessage(content="done")
        raise Refused(asked)

    with use_clock(clock):
        assert Retry(inner=busy, attempts=5, base_s=0.5, draw=lambda: 0.0).invoke("x").text == "done"
    assert [round(b - a, 3) for a, b in itertools.pairwise(waits)] == [3.0, 7.0]


class Refused(ChainopsError):
    """A rate limit, as `classify` sees one."""

    def __new__(cls, after_s):
        from chainops.models.failures import ModelUnavailable

        return ModelUnavailable("gpt", Failure("retryable", "rate limit", after_s, 429), next_move="wait")


def test_litellm_34399_a_retry_after_is_honoured_when_there_are_several_routes(served):
    clock = ManualClock()
    with ModelServer("one") as first, ModelServer("two") as second, use_clock(clock):
        first.fail(Status(429, retry_after_s=4))
        second.fail(Status(429, retry_after_s=6), times=1)
        began = clock.monotonic()
        chain = Retry(inner=Fallback(routes=(served(first), served(second))), attempts=3, base_s=0, draw=lambda: 0.0)
        chain.invoke("hello")
        # Any of the two may answer again after the shorter of the two waits.
        assert clock.monotonic() - began == pytest.approx(4)


def test_a_server_that_asks_for_too_long_a_wait_is_left_to_the_next_route(served):
    with ModelServer("one") as first, ModelServer("two") as second:
        first.fail(Status(429, retry_after_s=3600))
        routes = (Retry(inner=served(first), max_wait_s=20), served(second))
        assert Fallback(routes=routes).invoke("hello").text == "two"
        assert len(first.requests) == 1


def test_no_wait_goes_beyond_the_deadline():
    clock = ManualClock()

    def busy(_):
        raise ConnectionError("busy")

    with use_clock(clock):
        began = clock.monotonic()
        retry = Retry(inner=busy, attempts=9, base_s=4, draw=lambda: 0.99)
        with pytest.raises(ConnectionError):
            retry.invoke("x", chainops.caller(deadline_s=5))
        assert clock.monotonic() - began < 5


def test_bifrost_retries_and_routes_add_up_and_do_not_multiply(served, ask, driver):
    with ModelServer("x") as a, ModelServer("x") as b, ModelServer("x") as c:
        for server in (a, b, c):
            server.fail(Status(503))
        routes = tuple(Retry(inner=served(server), attempts=4, base_s=0.001) for server in (a, b, c))
        with pytest.raises(AllRoutesFailed):
            ask(driver, Fallback(routes=routes))
        assert sum(len(each.requests) for each in (a, b, c)) == 3 + 3  # not 3 x 4


def test_a_retry_around_a_fallback_shares_the_same_number(served):
    with ModelServer("x") as a, ModelServer("x") as b:
        for server in (a, b):
            server.fail(Status(503))
        inner = Fallback(routes=tuple(Retry(inner=served(server), attempts=2, base_s=0) for server in (a, b)))
        with pytest.raises(AllRoutesFailed):
            Retry(inner=inner, attempts=3, base_s=0).invoke("hello")
        assert len(a.requests) + len(b.requests) <= 2 + 2


def test_the_last_resort_still_answers_when_no_attempts_are_left(served):
    with ModelServer("x") as a, ModelServer("x") as b:
        for server in (a, b):
            server.fail(Status(503))
        chain = Fallback(routes=(served(a), served(b), Sentence(text="sorry", name="say")))
        answer = chain.invoke("hello", chainops.caller(max_attempts=1))
        assert (answer.text, answer.status) == ("sorry", "degraded")
        assert (len(a.requests), len(b.requests)) == (1, 0)
        assert "no attempts left" in answer.reasons[0]


def test_a_hanging_server_costs_its_time_and_no_more(served):
    with ModelServer("answer") as server:
        server.fail(Hang(), times=1)
        answer = Retry(inner=served(server, timeout_s=1.0), attempts=5, base_s=0.01).invoke("hello")
        assert answer.text == "answer"


@given(turn=st.integers(1, 200), base_s=st.floats(0, 100), most_s=st.floats(0, 100), seed=st.integers())
def test_a_wait_is_never_negative_and_never_beyond_its_most(turn, base_s, most_s, seed):
    draw = random.Random(seed).random
    assert 0 <= delay_s(BUSY, turn=turn, base_s=base_s, most_s=most_s, draw=draw) <= most_s


@given(asked_s=st.floats(0, 1000), turn=st.integers(1, 9))
def test_a_server_is_never_asked_before_the_time_it_named(asked_s, turn):
    failure = Failure("retryable", "rate limit", asked_s)
    waited = delay_s(failure, turn=turn, base_s=0.5, most_s=30, draw=random.random)
    assert waited is None if asked_s > 30 else waited >= asked_s
