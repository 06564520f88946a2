"""What once went wrong between fallbacks, deadlines, budgets and streams, each a promise since."""

from __future__ import annotations

import asyncio
import time
from typing import ClassVar

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.runnables import RunnableGenerator, RunnableLambda

import chainops
from chainops.core.clock import use_clock
from chainops.core.component import AnyRunnable, Component
from chainops.core.errors import AllRoutesFailed, CallRefused
from chainops.core.steps import Forward, Race
from chainops.models.failures import Failure, ModelFailed, ModelUnavailable
from chainops.resilience.component import Fallback, Sentence
from chainops.resilience.deadline import Deadline
from chainops.resilience.hedging import Hedge
from chainops.resilience.retrying import Retry
from chainops.testing.faults import Cut, Drip, Hang, Status
from chainops.testing.listening import ManualClock, capture_events
from chainops.testing.server import ModelServer

SORRY = Sentence(text="sorry", name="say")
BUSY = ModelUnavailable("m", Failure("retryable", "overloaded"), next_move="wait")


class Late(Component):
    """Answers late, as a stale cache would, or fails."""

    answers_late: ClassVar[bool] = True

    def plan(self, value, run):
        raise CallRefused("late", "nothing stored", "it is empty")
        yield


def slow(_):
    time.sleep(1.5)
    return AIMessage(content="slow")


async def aslow(_):
    await asyncio.sleep(1.5)
    return AIMessage(content="slow")


async def hangs(_):
    await asyncio.sleep(60)
    return AIMessage(content="never")


def test_a_deadline_counts_again_after_a_late_route_failed(ask):
    hanging = RunnableLambda(slow, hangs)
    chain = Fallback(routes=(hanging, Late(), hanging, SORRY))
    began = time.monotonic()
    assert ask("ainvoke", chain, config=chainops.caller(deadline_s=0.4)).text == "sorry"
    assert time.monotonic() - began < 20


def test_a_deadline_inside_a_route_is_that_route_s_alone(ask, driver):
    routes = (Deadline(inner=RunnableLambda(slow, aslow), within_s=0.2), lambda _: AIMessage(content="fine"))
    answer = ask(driver, Fallback(routes=routes))
    assert (answer.text, answer.status) == ("fine", "degraded")


def test_a_share_of_an_attempt_ends_a_drip_too(served, ask, driver):
    with ModelServer("one two three four five six seven eight nine ten") as first:
        first.fail(Drip(interval_s=0.15, step_bytes=20))
        second = RunnableLambda(lambda _: AIMessage(content="second"))  # has no share that a busy machine could use up
        inner = Fallback(routes=(served(first, timeout_s=30), second))
        answer = ask(driver, Deadline(inner=inner, within_s=25, shares={"attempt": 0.08}))
        assert answer.status in ("degraded", "truncated")  # a stream had begun to speak
        assert answer.text == "second" or answer.status == "truncated"


@pytest.mark.parametrize("driver", ["stream", "astream"])
def test_where_nobody_begins_anew_what_was_taken_back_is_said_again_and_marked(served, ask, driver):
    with ModelServer("first answer that is long enough") as first, ModelServer("second") as second:
        first.fail(Cut(after_chunks=3))
        second.fail(Status(503))
        chain = Fallback(routes=(served(first), served(second), SORRY), on_cut="restart")
        answer = ask(driver, chain, config=chainops.caller(restarts=True))
        assert answer.status == "truncated"
        assert answer.text
        assert "first answer that is long enough".startswith(answer.text.strip())


def speaks(*chunks, error=None):
    def say(inputs):
        list(inputs)
        yield from chunks
        if error is not None:
            raise error

    async def asay(inputs):
        async for _ in inputs:
            pass
        for each in chunks:
            yield each
        if error is not None:
            raise error

    return RunnableGenerator(say, asay)


CALL = {"name": "look", "args": '{"x": 1}', "id": "1", "index": 0, "type": "tool_call_chunk"}
CUT = ModelUnavailable("m", Failure("retryable", "connection cut"), next_move="ask again")


@pytest.mark.parametrize("driver", ["stream", "astream"])
def test_a_continuation_keeps_its_tool_calls_and_content_of_other_kinds(ask, driver):
    first = speaks(AIMessageChunk(content="Half of it "), error=CUT)
    usage = {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}
    with_call = speaks(
        AIMessageChunk(content="", tool_call_chunks=[CALL]), AIMessageChunk(content="", usage_metadata=usage)
    )
    answer = ask(driver, Fallback(routes=(first, with_call), on_cut="continue"))
    assert [each["name"] for each in answer.tool_calls] == ["look"]
    parts = speaks(AIMessageChunk(content=[{"type": "text", "text": "and the rest", "index": 0}]))
    answer = ask(driver, Fallback(routes=(first, parts), on_cut="continue"))
    assert answer.text.endswith("and the rest")


def test_a_fallback_inside_one_that_continues_hands_on_all_that_was_said(ask):
    handed = []

    class Finishes(Component):
        def plan(self, value, run):
            handed.append(run.terms.continues)
            return (yield Forward(RunnableLambda(lambda _: AIMessage(content="the end")), value))

    long = "word " * 60
    first = speaks(AIMessageChunk(content="Half of the "), error=CUT)
    second = speaks(AIMessageChunk(content=long), error=CUT)
    inner = Fallback(routes=(second, Finishes()), on_cut="continue")
    ask("stream", Fallback(routes=(first, inner), on_cut="continue"))
    assert handed == [f"Half of the {long}"]


def test_a_route_does_not_begin_anew_where_part_of_the_answer_is_another_s(ask):
    first = speaks(AIMessageChunk(content="Half of it, "), error=CUT)
    second = speaks(AIMessageChunk(content="which goes on " * 30), error=CUT)
    inner = Fallback(routes=(second, lambda _: AIMessage(content="anew")), on_cut="restart")
    answer = ask("stream", Fallback(routes=(first, inner), on_cut="continue"), config=chainops.caller(restarts=True))
    assert answer.text.startswith("Half of it, which goes on")
    assert "anew" not in answer.text


def test_a_call_that_was_never_sent_costs_nothing(served):
    clock = ManualClock()
    with ModelServer("answer") as server, capture_events() as events, use_clock(clock):

        class Gate:
            def enter(self, attempt, run):
                clock.advance(0.3)  # asking its store takes until the deadline
                yield from ()

            def leave(self, attempt):
                pass

        model = served(server).model_copy(update={"gates": (Gate(),)})
        with pytest.raises(chainops.ChainopsError):
            model.invoke("hello", chainops.caller(deadline_s=0.2))
        assert not server.requests
        (attempt,) = (each for each in events if type(each).__name__ == "Attempted")
        assert (attempt.input_tokens, attempt.cost_usd) == (0, None)


def test_a_whole_answer_that_comes_too_late_is_charged_as_it_was_counted():
    from chainops.models.model import Model
    from chainops.models.prices import Price
    from chainops.testing.chat import Reply, ScriptedChatModel

    clock = ManualClock()

    class Slow(ScriptedChatModel):
        def _generate(self, *args, **kwargs):
            clock.advance(0.4)
            return super()._generate(*args, **kwargs)

    chat = Slow(replies=[Reply("one two three")])
    price = Price(input_usd_per_million_tokens=0, output_usd_per_million_tokens=1_000_000)
    model = Model(chat=lambda: chat, model="openai:m", price=price, name="m")
    with use_clock(clock), capture_events() as events, pytest.raises(chainops.ChainopsError):
        model.invoke("hello", chainops.caller(deadline_s=0.2))
    (attempt,) = (each for each in events if type(each).__name__ == "Attempted")
    assert attempt.output_tokens > 0
    assert attempt.cost_usd == attempt.output_tokens


def test_a_route_of_a_race_that_is_cancelled_from_inside_does_not_hang_it():
    async def cancels(_):
        raise asyncio.CancelledError

    class Racing(Component):
        routes: tuple[AnyRunnable, ...]

        def plan(self, value, run):
            return (yield Race([Forward(each, value) for each in self.routes], after_s=60))

    routes = (RunnableLambda(lambda _: None, cancels), RunnableLambda(lambda _: AIMessage(content="second")))
    assert asyncio.run(asyncio.wait_for(Racing(routes=routes).ainvoke("x"), 60)).text == "second"


def test_langchain_35475_an_item_of_a_batch_never_gets_another_one_s_answer():
    def answers(value):
        if value == "broken":
            raise BUSY
        return AIMessage(content=f"answer to {value}")

    retry = Retry(inner=answers, attempts=3, base_s=0.001)
    results = retry.batch(["one", "two", "broken", "four"], return_exceptions=True)
    assert [getattr(each, "text", None) for each in results] == [
        "answer to one",
        "answer to two",
        None,
        "answer to four",
    ]
    assert isinstance(results[2], ModelUnavailable)


def test_routes_that_all_hang_are_given_up_at_the_deadline_with_the_reason(served):
    with ModelServer() as first, ModelServer() as second:
        first.fail(Hang())
        second.fail(Hang())
        began = time.monotonic()
        with pytest.raises((AllRoutesFailed, chainops.ChainopsError)):
            Fallback(routes=(served(first), served(second))).invoke("x", chainops.caller(deadline_s=0.5))
        assert time.monotonic() - began < 20


def test_a_hedge_does_not_hide_a_bug_or_a_wrong_request(served, ask, driver):
    def bug(_):
        raise TypeError("a bug")

    with ModelServer("second") as second:
        with pytest.raises(TypeError, match="a bug"):
            ask(driver, Hedge(inner=bug, other=served(second), after_s=60))
        assert not second.requests


def test_a_continuation_that_is_refused_is_no_failure_of_the_request(ask):
    wrong = ModelFailed("m", Failure("caller", "invalid request", status=400), next_move="correct it")

    def refuses(_):
        raise wrong

    first = speaks(AIMessageChunk(content="Half of it "), error=CUT)
    answer = ask("stream", Fallback(routes=(first, refuses), on_cut="continue"))
    assert (answer.text.strip(), answer.status) == ("Half of it", "truncated")


def test_a_truncated_answer_names_who_broke_off(ask):
    def busy(_):
        raise BUSY

    first = speaks(AIMessageChunk(content="Half of it "), error=CUT)
    answer = ask("stream", Fallback(routes=(first, busy), names=("a", "b"), on_cut="continue"))
    assert answer.reasons == ["a broke off: connection cut; b: overloaded"]


def test_time_in_a_queue_is_not_given_to_the_call_again(served):
    clock = ManualClock()

    class Queue:
        def enter(self, attempt, run):
            clock.advance(59.5)
            yield from ()

        def leave(self, attempt):
            pass

    with ModelServer("answer") as server, use_clock(clock):
        server.fail(Hang())
        model = served(server, timeout_s=60).model_copy(update={"gates": (Queue(),)})
        began = time.monotonic()
        with pytest.raises(chainops.ChainopsError):
            model.invoke("hello", chainops.caller(deadline_s=60))
        assert time.monotonic() - began < 20  # half a second was left, and 60 were not


def test_the_failure_stands_where_no_attempts_are_left_to_retry_it(served):
    with ModelServer("answer") as server:
        server.fail(Status(503))
        with pytest.raises(ModelUnavailable):
            Retry(inner=served(server), attempts=5, base_s=0.01).invoke("hello", chainops.caller(max_attempts=2))
        assert len(server.requests) == 2
