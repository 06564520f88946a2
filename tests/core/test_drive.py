"""For random plans, chunkings and failures the four drivers give the same answer, events, errors and nesting."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.runnables import Runnable, RunnableGenerator, RunnableLambda

from chainops.core.clock import use_clock
from chainops.core.component import Component
from chainops.core.events import Event, RequestEnded
from chainops.core.signal import Signal
from chainops.core.steps import Ask, AskAll, Do, Forward, Hear, Plan, Say, Wait
from chainops.testing.listening import ManualClock, capture_events

Node = tuple[Any, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Noted(Event):
    label: str


class Boom(Exception):
    pass


class Journal:
    """Travels as the input; learns whether a child broke off after its first words."""

    def __init__(self) -> None:
        self.broke_off = False


def text_of(value: Any) -> str:
    return value.text if isinstance(value, BaseMessage) else "" if value is None else str(value)


class Scripted(Component[Any, Any]):
    """Plays a program of the little language below."""

    program: tuple[Node, ...]
    speaks: str

    def plan(self, value: Journal, run: Any) -> Plan[Any]:
        said: list[Any] = []
        heard: list[str] = []
        yield from self._body(self.program, value, run, said, heard)
        if len(said) == 1:
            return said[0]
        text = "".join(map(text_of, said)) if said else "|".join(heard)
        return AIMessage(content=text) if self.speaks == "message" else text

    def _body(self, body: tuple[Node, ...], value: Journal, run: Any, said: list[Any], heard: list[str]) -> Any:
        """Generator; returns True after a `return` statement."""
        for word, *rest in body:
            if word == "return":
                return True
            if word == "try":
                try:
                    if (yield from self._body(rest[0], value, run, said, heard)):
                        return True
                except Exception as error:
                    run.emit(Noted(label=f"{type(error).__name__}: {error}"))
                    if (yield from self._body(rest[1], value, run, said, heard)):
                        return True
            elif word == "raise":
                raise Boom(rest[0])
            elif word == "emit":
                run.emit(Noted(label=rest[0]))
            elif word == "mark":
                run.report.mark(rest[0], "told to")
                run.stage.facts["marked"] = rest[0]
            else:
                yield from self._step(word, rest, value, said, heard)
        return False

    def _step(self, word: str, rest: list[Any], value: Journal, said: list[Any], heard: list[str]) -> Any:
        if word == "forward":
            call = Forward(build(rest[0], self.speaks), value)
            try:
                said.append((yield call))
            except Exception:
                if call.received is not None:
                    value.broke_off = True
                    said.append(call.received)
                raise
        elif word == "say":
            chunk = AIMessage(content=rest[0]) if self.speaks == "message" else rest[0]
            yield Say(chunk)
            said.append(chunk)
        elif word == "ask":
            heard.append(text_of((yield Ask(build(rest[0], self.speaks), value))))
        elif word == "ask_all":
            replies = yield AskAll(
                [Ask(build(each, self.speaks), value) for each in rest[0]], return_exceptions=rest[1]
            )
            heard.extend(repr(each) if isinstance(each, Exception) else text_of(each) for each in replies)
        elif word == "do":
            heard.append((yield Do(lambda: work(rest[0]), blocks=rest[1])))
        elif word == "wait":
            yield Wait(rest[0])
        elif word == "hear":
            signal = Signal()
            if rest[0] == "news":
                signal.tell()
            heard.append(str((yield Hear(signal, 0, 0.0))))


def work(outcome: str) -> str:
    if outcome == "fail":
        raise Boom("work failed")
    return outcome


def leaf(speaks: str, chunks: tuple[str, ...], fail_after: int | None) -> Runnable[Any, Any]:
    def say() -> Any:
        for position, text in enumerate((*chunks, None)):
            if position == fail_after:
                raise Boom("leaf broke")
            if text is not None:
                yield AIMessageChunk(content=text) if speaks == "message" else text

    def transform(inputs: Any) -> Any:
        list(inputs)
        yield from say()

    async def atransform(inputs: Any) -> Any:
        async for _ in inputs:
            pass
        for chunk in say():
            yield chunk

    return RunnableGenerator(transform, atransform, name="leaf")


def build(child: Node, speaks: str) -> Runnable[Any, Any]:
    word, *rest = child
    if word == "leaf":
        return leaf(speaks, *rest)
    if word == "nested":
        return Scripted(program=rest[0], speaks=speaks, name="nested")
    inner = build(rest[0], speaks)
    if word == "sequence":
        return RunnableLambda(lambda value: value, name="first") | inner
    if word == "tagged":
        return inner.with_config(tags=["tagged"], configurable={"thread_id": "1"})
    assert word == "inside a function"

    async def acall(value: Any) -> Any:
        return await inner.ainvoke(value)

    return RunnableLambda(lambda value: inner.invoke(value), acall, name="function")


words = st.sampled_from(["", "a", "b ", "c\n", "é"])
leaves = st.tuples(
    st.just("leaf"),
    st.lists(words, min_size=1, max_size=4).map(tuple),
    st.none() | st.integers(min_value=0, max_value=4),
)


def programs(children: st.SearchStrategy[Node]) -> st.SearchStrategy[tuple[Node, ...]]:
    simple = st.one_of(
        st.tuples(st.just("forward"), children),
        st.tuples(st.just("forward"), children),
        st.tuples(st.just("ask"), children),
        st.tuples(st.just("ask_all"), st.lists(children, max_size=3).map(tuple), st.booleans()),
        st.tuples(st.just("do"), st.sampled_from(["1", "2", "fail"]), st.booleans()),
        st.tuples(st.just("say"), words),
        st.tuples(st.just("wait"), st.sampled_from([0.0, 0.5])),
        st.tuples(st.just("hear"), st.sampled_from(["news", "silence"])),
        st.tuples(st.just("emit"), words),
        st.tuples(st.just("mark"), st.sampled_from(["cached", "degraded"])),
        st.tuples(st.just("raise"), words),
        st.just(("return",)),
    )
    bodies = st.lists(simple, max_size=3).map(tuple)
    tries = st.tuples(st.just("try"), bodies, bodies)
    return st.lists(simple | tries, min_size=1, max_size=4).map(tuple)


def deeper(children: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
    wrappers = st.sampled_from(["sequence", "tagged", "inside a function"])
    return st.tuples(st.just("nested"), programs(children)) | st.tuples(wrappers, children)


any_program = programs(st.recursive(leaves, deeper, max_leaves=6))


def stages_of(request: Any, *, in_order: bool) -> list[Any]:
    """Stages as a tree of names, errors, facts and their events."""

    def below(parent: int | None) -> list[Any]:
        found = [
            [
                stage.name,
                stage.error,
                stage.facts,
                [event.to_dict() for _, where, event in request.events if where == stage.id],
                below(stage.id),
            ]
            for stage in request.stages
            if stage.parent == parent
        ]
        return found if in_order else sorted(found, key=repr)

    return below(None)


def observe(run_it: Any, component: Any, handler: Any, *, in_order: bool) -> tuple[Any, Any, bool]:
    """What a caller notices (the same for all), what only a streaming caller notices, and whether a child broke off."""
    journal = Journal()
    pieces: list[Any] = []
    with use_clock(ManualClock()), capture_events() as heard:
        try:
            given_back = run_it(component, journal, {"callbacks": [handler]})
            pieces = given_back if isinstance(given_back, list) else [given_back]
            outcome: Any = ("said", "".join(map(text_of, pieces)))
        except Exception as error:
            outcome = ("raised", type(error), str(error))
    (ended,) = heard.of(RequestEnded)
    facts = [{k: v for k, v in each.facts.items() if k != "report"} for each in pieces if getattr(each, "facts", None)]
    assert all(stage.duration_s is not None for stage in ended.request.stages)
    seen = (
        outcome,
        facts,
        stages_of(ended.request, in_order=in_order),
        handler.tree(in_order=in_order),
        text_of(ended.output),
    )
    return seen, [text_of(piece) for piece in pieces], journal.broke_off


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(program=any_program, speaks=st.sampled_from(["text", "message"]))
def test_the_four_drivers_give_the_same_answer_events_errors_and_nesting(program, speaks, drivers, tracer):
    check_the_four_drivers(program, speaks, drivers, tracer)


@pytest.mark.slow
@settings(max_examples=5000, deadline=None, suppress_health_check=list(HealthCheck))
@given(program=any_program, speaks=st.sampled_from(["text", "message"]))
def test_five_thousand_more_random_plans_are_driven_alike(program, speaks, drivers, tracer):
    check_the_four_drivers(program, speaks, drivers, tracer)


def check_the_four_drivers(program, speaks, drivers, tracer):
    component = Scripted(program=program, speaks=speaks, name="root")
    # Children asked at the same time begin in any order, and LangChain's sequences start from the end when streaming.
    in_order = not any(word in repr(program) for word in ("ask_all", "sequence"))
    seen = {name: observe(run, component, tracer(), in_order=in_order) for name, run in drivers.items()}
    assert seen["invoke"][0] == seen["ainvoke"][0]
    assert seen["stream"] == seen["astream"]
    if not seen["stream"][2]:  # words that are out cannot be taken back: only a stream has that case
        assert seen["invoke"][0] == seen["stream"][0]


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    chunks=st.lists(words, min_size=1, max_size=5).map(tuple),
    fail_after=st.integers(min_value=0, max_value=5),
    speaks=st.sampled_from(["text", "message"]),
)
def test_after_a_failure_received_is_what_reached_the_caller(chunks, fail_after, speaks, drivers):
    received: list[Any] = []

    class Keeper(Component[Any, Any]):
        def plan(self, value, run):
            call = Forward(leaf(speaks, chunks, fail_after), value)
            try:
                return (yield call)
            except Boom:
                received.append(call.received)
                return (
                    call.received
                    if call.received is not None
                    else (yield Forward(leaf(speaks, ("other",), None), value))
                )

    told = {name: run(Keeper(), Journal()) for name, run in drivers.items()}
    out = "".join(chunks[:fail_after])
    fails = fail_after <= len(chunks)
    for name in ("invoke", "ainvoke"):
        assert text_of(told[name]) == ("other" if fails else "".join(chunks))
    for name in ("stream", "astream"):
        assert "".join(map(text_of, told[name])) == ((out or "other") if fails else "".join(chunks))
    if fails:
        assert [text_of(each) for each in received] == ["", "", out, out]
        assert [each is None for each in received] == [True, True, not out, not out]


def test_async_handlers_see_the_same_tree_as_sync_ones(drivers, tracer, async_tracer):
    program = (
        ("emit", "a"),
        ("try", (("forward", ("leaf", ("x",), 0)),), ()),
        ("ask", ("inside a function", ("leaf", ("y",), None))),
        ("forward", ("nested", (("forward", ("leaf", ("z", "w"), None)), ("emit", "b")))),
    )
    trees = []
    for handler in (tracer, async_tracer):
        for run in drivers.values():
            listening = handler()
            run(Scripted(program=program, speaks="message", name="root"), Journal(), {"callbacks": [listening]})
            trees.append(listening.tree())
    assert all(tree == trees[0] for tree in trees)
    ((name, end, events, below),) = trees[0]
    assert (name, end, events) == ("root", "ended", ["Noted", "Noted"])
    assert [each[0] for each in below] == ["leaf", "function", "nested"]
    assert below[0][1] == "failed: Boom"
    assert below[2][3] == [["leaf", "ended", [], []]]


def test_chunks_before_the_first_words_do_not_commit_a_route(play, child, drivers):
    preamble = child(AIMessageChunk(content="", response_metadata={"m": "1"}), fail_after=1)
    good = child(AIMessageChunk(content=""), AIMessageChunk(content="hello"))

    def plan(value, run):
        try:
            return (yield Forward(preamble.runnable, value))
        except ConnectionError:
            return (yield Forward(good.runnable, value))

    for name, run in drivers.items():
        told = run(play(plan), "q")
        pieces = told if isinstance(told, list) else [told]
        assert "".join(piece.text for piece in pieces) == "hello", name
        assert not any("m" in piece.response_metadata for piece in pieces)


def test_a_filter_decides_what_is_let_out_in_every_driver(play, child, drive_by):
    class Hold:
        """Keeps back one chunk, and ends with a mark."""

        def __init__(self):
            self.held = ""

        def feed(self, chunk):
            out, self.held = self.held, chunk.upper()
            return [out] if out else []

        def finish(self):
            return [self.held, "."]

    def plan(value, run):
        return (yield Forward(child("a", "b", "c").runnable, value, filter=Hold()))

    assert "".join(drive_by(play(plan), "q")) == "ABC."


def test_a_plan_is_sent_messages_never_chunks(play, child, drive_by):
    sent = []

    def plan(value, run):
        chunks = child(AIMessageChunk(content="x"), AIMessageChunk(content="y")).runnable
        sent.append((yield Ask(chunks, value)))
        sent.extend((yield AskAll([Ask(chunks, value)])))
        answer = yield Forward(chunks, value)
        sent.append(answer)
        return answer

    drive_by(play(plan), "q")
    assert [type(each) for each in sent] == [AIMessage] * 3
    assert [each.text for each in sent] == ["xy"] * 3


def test_forwarding_one_thing_and_returning_another_is_a_plan_error(play, child, drive_by):
    def plan(value, run):
        yield Forward(child("one").runnable, value)
        return "another"

    with pytest.raises(Exception, match="said one thing to the caller and returned another") as caught:
        drive_by(play(plan), "q")
    assert type(caught.value).__name__ == "PlanError"


def test_something_that_is_no_step_is_a_plan_error(play, drive_by):
    def plan(value, run):
        yield "hello"

    with pytest.raises(Exception, match="'hello', which is no step"):
        drive_by(play(plan), "q")


def test_what_a_plan_calls_directly_in_a_do_nests_under_it(play, tracer, drive_by):
    inner = play(lambda value, run: (yield Do(lambda: "x", blocks=False)), name="inner")

    def plan(value, run):
        return (yield Do(lambda: inner.invoke(value)))

    handler = tracer()
    drive_by(play(plan, name="outer"), "q", {"callbacks": [handler]})
    assert handler.tree() == [["outer", "ended", [], [["inner", "ended", [], []]]]]


def test_what_a_slow_do_calls_nests_under_it_also_in_a_thread_used_before(play, tracer, drive_by):
    inner = play(lambda value, run: (yield Do(lambda: value, blocks=False)), name="inner")

    def slow(value):
        threading.Event().wait(0.02)
        return inner.invoke(value)

    def plan(value, run):
        yield Do(lambda: None)
        yield Do(lambda: slow(value))
        return (yield Do(lambda: inner.invoke(value)))

    handler = tracer()
    with capture_events() as heard:
        assert drive_by(play(plan, name="outer"), "q", {"callbacks": [handler]}) in ("q", ["q"])
    assert handler.tree() == [["outer", "ended", [], [["inner", "ended", [], []]] * 2]]
    (ended,) = heard.of(RequestEnded)
    assert len(ended.request.stages) == 3
