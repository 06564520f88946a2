"""A component is strict about its fields, an ordinary Runnable in LangChain, and fair to every item of a batch."""

from __future__ import annotations

import asyncio
import threading
import time
import warnings
from typing import Any

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.output_parsers import StrOutputParser
from langchain_core.runnables import RunnableGenerator, RunnableLambda, RunnableParallel
from pydantic import ValidationError

from chainops.core.component import AnyRunnable, Component
from chainops.core.errors import PlanError
from chainops.core.events import RequestEnded
from chainops.core.steps import Ask, AskAll, Do, Forward, Say
from chainops.testing.listening import capture_events

pytestmark = pytest.mark.usefixtures("leaves_nothing")


class Through(Component[Any, Any]):
    inner: AnyRunnable

    def plan(self, value, run):
        return (yield Forward(self.inner, value))


class Both(Component[Any, Any]):
    left: AnyRunnable
    right: AnyRunnable

    def plan(self, value, run):
        return (yield AskAll([Ask(self.left, value), Ask(self.right, value)]))


# Fields


def test_a_misspelt_field_is_refused():
    with pytest.raises(ValidationError, match="iner"):
        Through(inner=len, iner=len)


def test_a_component_is_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        Through(inner=len).inner = RunnableLambda(len)


def test_a_function_or_a_dict_of_them_is_taken_as_a_runnable(drive_by):
    assert drive_by(Through(inner=len), "four") in (4, [4])
    assert Through(inner={"n": len, "up": str.upper}).invoke("ab") == {"n": 2, "up": "AB"}


def test_what_is_no_runnable_is_refused():
    with pytest.raises((ValidationError, TypeError), match="Runnable"):
        Through(inner=3)


def test_a_plan_without_a_yield_is_a_plan_error(drive_by):
    class Plain(Component[Any, Any]):
        def plan(self, value, run):
            return value

    with pytest.raises(PlanError, match="Plain: plan\\(\\) must be a generator"):
        drive_by(Plain(), "q")


def test_keyword_arguments_reach_the_plan(play, drive_by):
    seen = {}

    def plan(value, run):
        seen.update(run.kwargs)
        yield Say("x")
        return "x"

    drive_by(play(plan).bind(stop=["."]), "q")
    assert seen == {"stop": ["."]}


# Sync calls in a running loop


def test_sync_calls_work_inside_a_running_event_loop():
    component = Both(left=Through(inner=str.upper), right=str.lower)

    async def cell() -> Any:
        return (
            component.invoke("Ab"),
            list(Through(inner=component).stream("Ab")),
            component.batch(["Ab", "Cd"]),
        )

    assert asyncio.run(cell()) == (["AB", "ab"], [["AB", "ab"]], [["AB", "ab"], ["CD", "cd"]])


# In LangChain


def count_requests(call: Any) -> int:
    with capture_events() as heard:
        call()
    return len(heard.of(RequestEnded))


def test_calls_below_a_component_belong_to_its_request_whatever_langchain_puts_between():
    leaf = Through(inner=str.upper)
    between = [
        RunnableLambda(lambda value: leaf.invoke(value)),
        RunnableLambda(lambda value: leaf.invoke(value, {"configurable": {"thread_id": "7"}, "tags": ["own"]})),
        RunnableLambda(lambda value: "".join(leaf.stream(value))),
        RunnableLambda(lambda value: leaf.batch([value])[0]),
        RunnableLambda(lambda value: leaf.with_config(configurable={"a": 1}).invoke(value)),
        RunnableLambda(str.strip) | leaf | str.lower,
        RunnableParallel(a=leaf, b=leaf) | (lambda both: both["a"] + both["b"]),
        leaf.with_config(tags=["t"], configurable={"thread_id": "7"}),
        leaf.bind(stop=["x"]),
        RunnableLambda(lambda _: 1 / 0).with_fallbacks([leaf]),
        leaf.with_retry(),
    ]
    for runnable in between:
        chain = Through(inner=runnable)
        assert count_requests(lambda: chain.invoke(" ab")) == 1
        assert count_requests(lambda: asyncio.run(chain.ainvoke(" ab"))) == 1
        assert count_requests(lambda: list(chain.stream(" ab"))) == 1
        with capture_events() as heard:
            chain.invoke(" ab")
        (ended,) = heard.of(RequestEnded)
        names = [(stage.name, stage.parent) for stage in ended.request.stages]
        assert names[0] == ("Through", None)
        assert set(names[1:]) == {("Through", 0)}


def test_separate_calls_do_not_share_a_request():
    leaf = Through(inner=str.upper)
    assert count_requests(lambda: (leaf.invoke("a"), leaf.invoke("a"))) == 2
    assert count_requests(lambda: leaf.batch(["a", "b", "c"])) == 3
    assert count_requests(lambda: (leaf | leaf).invoke("a")) == 2
    with capture_events() as heard:
        asyncio.run(leaf.abatch(["a", "b"]))
    first, second = heard.of(RequestEnded)
    assert first.request.id != second.request.id
    assert [len(each.request.stages) for each in (first, second)] == [1, 1]


def test_a_call_that_outlives_its_request_opens_one_of_its_own():
    leaf = Through(inner=str.upper)
    go, late = threading.Event(), []

    def start(value):
        from contextvars import copy_context

        def later():
            go.wait(60)
            with capture_events() as heard:
                leaf.invoke(value)
            late.extend(heard.of(RequestEnded))

        thread = threading.Thread(target=copy_context().run, args=(later,))
        thread.start()
        return thread

    with capture_events() as heard:
        thread = Through(inner=start).invoke("a")
    (ended,) = heard.of(RequestEnded)
    go.set()
    thread.join(60)
    assert len(ended.request.stages) == 1
    assert [each.request.id == ended.request.id for each in late] == [False]


def test_a_component_parses_streams_to_text_like_any_model(play, child):
    model = child(AIMessageChunk(content="he"), AIMessageChunk(content="llo"))
    chain = Through(inner=model.runnable) | StrOutputParser()
    assert chain.invoke("q") == "hello"
    assert [each for each in chain.stream("q") if each] == ["he", "llo"]


def test_astream_events_see_chunks_custom_events_and_the_facts(play, child):
    from chainops.core.events import CleanupFailed

    def plan(value, run):
        run.emit(CleanupFailed(component="s", error="e"))
        return (yield Forward(child(AIMessageChunk(content="a"), AIMessageChunk(content="b")).runnable, value))

    async def main() -> list[Any]:
        return [event async for event in Through(inner=play(plan, name="inner")).astream_events("q", version="v2")]

    events = asyncio.run(main())
    streamed = {
        name: [e["data"]["chunk"] for e in events if e["event"] == "on_chain_stream" and e["name"] == name]
        for name in ("Through", "inner", "child")
    }
    assert ["".join(chunk.text for chunk in chunks) for chunks in streamed.values()] == ["ab", "ab", "ab"]
    assert streamed["Through"][-1].status == "ok"
    (custom,) = (event for event in events if event["event"] == "on_custom_event")
    assert (custom["name"], custom["data"]) == ("CleanupFailed", {"component": "s", "error": "e"})
    ended = {event["name"]: event["data"]["output"] for event in events if event["event"] == "on_chain_end"}
    assert ended["Through"].text == "ab"
    assert ended["Through"].status == "ok"
    starts = {event["name"]: event for event in events if event["event"] == "on_chain_start"}
    assert starts["child"]["parent_ids"] == [starts["Through"]["run_id"], starts["inner"]["run_id"]]


def test_astream_log_sees_chunks_and_the_output(child):
    async def main() -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            total = None
            async for patch in Through(inner=child("a", "b").runnable).astream_log("q"):
                total = patch if total is None else total + patch
        return total.state

    state = asyncio.run(main())
    assert state["streamed_output"] == ["a", "b"]
    assert state["final_output"] == "ab"
    assert state["logs"]["child"]["streamed_output"] == ["a", "b"]


def test_astream_events_of_an_invoke_inside_stream_through_a_lambda(child):
    """`astream_events` taps components that are only invoked, too: their run appears with start and end."""
    leaf = Through(inner=child("a", "b").runnable, name="leaf")
    outer = Through(inner=RunnableLambda(lambda value: leaf.invoke(value)), name="outer")

    async def main() -> list[Any]:
        return [event async for event in outer.astream_events("q", version="v2")]

    events = asyncio.run(main())
    assert [e["event"] for e in events if e["name"] == "leaf"] == ["on_chain_start", "on_chain_end"]


# Batches


def sometimes(value: str) -> str:
    if value.startswith("bad"):
        raise ValueError(value)
    return value.upper()


async def _abatch(component: Any, *args: Any, **kwargs: Any) -> Any:
    return await component.abatch(*args, **kwargs)


BATCHES = {
    "batch": lambda component, *args, **kwargs: component.batch(*args, **kwargs),
    "abatch": lambda component, *args, **kwargs: asyncio.run(_abatch(component, *args, **kwargs)),
}


@pytest.fixture(params=BATCHES)
def batch(request):
    return BATCHES[request.param]


def test_an_error_in_a_batch_stands_in_its_place(batch):
    results = batch(Through(inner=sometimes), ["a", "bad 1", "b", "bad 2"], return_exceptions=True)
    assert [repr(each) for each in results] == ["'A'", "ValueError('bad 1')", "'B'", "ValueError('bad 2')"]


def test_the_first_error_in_order_is_raised_after_the_others_finished(batch):
    done = []

    def work(value):
        if value == "bad late":
            time.sleep(0.05)
        elif not value.startswith("bad"):
            time.sleep(0.1)
            done.append(value)
        return sometimes(value)

    with pytest.raises(ValueError, match="bad late"):
        batch(Through(inner=work), ["a", "bad late", "bad early", "b"])
    assert sorted(done) == ["a", "b"]


def test_an_empty_batch_is_empty(batch):
    assert batch(Through(inner=len), []) == []


def test_no_more_than_max_concurrency_items_run_at_a_time(batch):
    lock, now, most = threading.Lock(), 0, 0
    pair = threading.Barrier(2, timeout=60)

    def work(value):
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        pair.wait()
        time.sleep(0.01)
        with lock:
            now -= 1
        return value

    assert batch(Through(inner=work), list(range(8)), {"max_concurrency": 2}) == list(range(8))
    assert most == 2


def test_each_item_of_a_batch_may_have_a_config_of_its_own(batch, play):
    def plan(value, run):
        return (yield Do(lambda: (value, run.config["tags"]), blocks=False))

    results = batch(play(plan), ["a", "b"], [{"tags": ["one"]}, {"tags": ["two"]}])
    assert results == [("a", ["one"]), ("b", ["two"])]


def test_batches_in_batches_in_asked_all_do_not_deadlock(batch):
    class Fan(Component[Any, Any]):
        inner: AnyRunnable

        def plan(self, value, run):
            results = yield AskAll([Ask(Many(inner=self.inner), value) for _ in range(3)])
            return sum(results)

    class Many(Component[Any, Any]):
        inner: AnyRunnable

        def plan(self, value, run):
            batches = RunnableLambda(
                lambda v: self.inner.batch([v] * 3, {"max_concurrency": 1}),
                lambda v: self.inner.abatch([v] * 3, {"max_concurrency": 1}),
            )
            return sum((yield Ask(batches, value)))

    leaf = Through(inner=RunnableLambda(lambda v: 1))
    nested = Fan(inner=Fan(inner=leaf))
    with capture_events() as heard:
        results = batch(nested, ["x"] * 4, {"max_concurrency": 2})
    assert results == [81] * 4
    assert len(heard.of(RequestEnded)) == 4
    assert all(len(each.request.stages) == 1 + 3 + 9 + 27 + 81 for each in heard.of(RequestEnded))


def test_blocking_work_in_many_async_requests_does_not_deadlock(play):
    def plan(value, run):
        inner = play(lambda v, run: (yield Do(lambda: v)))
        return (yield Do(lambda: inner.invoke(value)))

    async def main() -> Any:
        return await asyncio.wait_for(play(plan).abatch(list(range(60)), {"max_concurrency": 60}), 60)

    assert asyncio.run(main()) == list(range(60))


# Steps answered


def test_all_that_was_asked_ends_before_the_first_error_in_order_is_thrown_in(play, drive_by):
    done = []

    def late(value):
        time.sleep(0.05)
        done.append("late")

    def fail(name):
        def work(value):
            raise ValueError(name)

        return RunnableLambda(work)

    def plan(value, run):
        try:
            yield AskAll([Ask(fail("one"), value), Ask(fail("two"), value), Ask(RunnableLambda(late), value)])
        except ValueError as error:
            return f"{error} {done}"

    assert drive_by(play(plan), "q") in ("one ['late']", ["one ['late']"])


def test_asked_all_run_at_the_same_time(play, drive_by):
    meeting = threading.Barrier(3)

    def plan(value, run):
        together = RunnableLambda(lambda v: meeting.wait(60) * 0 + 1)
        return sum((yield AskAll([Ask(together, value)] * 3)))

    assert drive_by(play(plan), "q") in (3, [3])


def test_a_generator_child_that_says_nothing_gives_nothing(play, drive_by):
    def nothing(chunks):
        list(chunks)
        return
        yield

    async def anothing(chunks):
        async for _ in chunks:
            pass
        return
        yield

    heard = []

    def plan(value, run):
        heard.append((yield Forward(RunnableGenerator(nothing, anothing), value)))
        return heard[-1]

    drive_by(play(plan), "q")
    assert heard == [None]


def test_a_whole_message_said_is_one_chunk_of_a_stream(play):
    def plan(value, run):
        message = AIMessage(content="x", id="7")
        yield Say(message)
        return message

    chunks = list(play(plan).stream("q"))
    assert [type(each).__name__ for each in chunks] == ["AnswerChunk", "AnswerChunk"]
    assert [each.text for each in chunks] == ["x", ""]
