"""The request in flight: one deadline, one caller, one report, whoever works on it."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest
from langchain_core.load import dumps
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.runnables import RunnableGenerator, RunnableLambda

from chainops.core.caller import STATE_KEY, Caller, caller
from chainops.core.clock import use_clock
from chainops.core.errors import DeadlineExceeded
from chainops.core.events import Event, RequestEnded
from chainops.core.run import Request, Scope
from chainops.core.steps import Ask, AskAll, Do, Forward, Say, Wait
from chainops.testing.listening import ManualClock, capture_events

pytestmark = pytest.mark.usefixtures("leaves_nothing")


# Deadlines


def test_a_slow_drip_is_cut_between_chunks(play, drivers):
    for name in ("stream", "astream"):
        clock = ManualClock()

        def drip(_: Any, clock: ManualClock = clock) -> Any:
            for letter in "abcdef":
                clock.advance(2)
                yield letter

        async def adrip(_: Any, drip: Any = drip) -> Any:
            for letter in drip(_):
                yield letter

        said: list[str] = []

        def plan(value: Any, run: Any) -> Any:
            call = Forward(RunnableGenerator(drip, adrip), value)
            try:
                return (yield call)
            except DeadlineExceeded:
                said.append(call.received)
                raise

        with use_clock(clock), pytest.raises(DeadlineExceeded, match="deadline of 5 s") as caught:
            drivers[name](play(plan, name="dripping"), "q", caller(deadline_s=5))
        assert (caught.value.stage, caught.value.deadline_s) == ("dripping", 5)
        assert said == ["ab"]


def test_waiting_ends_at_the_deadline(play, drive_by):
    def plan(value: Any, run: Any) -> Any:
        yield Wait(3)
        yield Wait(1000)

    clock = ManualClock()
    with use_clock(clock), pytest.raises(DeadlineExceeded):
        drive_by(play(plan), "q", caller(deadline_s=10))
    assert clock.slept == [3, 7]


def test_nothing_is_asked_after_the_deadline_but_work_may_still_be_done(play, drive_by):
    clock = ManualClock()
    asked, done = [], []

    def plan(value: Any, run: Any) -> Any:
        clock.advance(6)
        for step in (
            Ask(RunnableLambda(asked.append), value),
            Forward(RunnableLambda(asked.append), value),
            AskAll([Ask(RunnableLambda(asked.append), value)]),
            Wait(0),
        ):
            with pytest.raises(DeadlineExceeded):
                yield step
        yield Do(lambda: done.append("stored"), blocks=False)
        yield Say("late")
        return "late"

    with use_clock(clock):
        assert drive_by(play(plan), "q", caller(deadline_s=5)) in ("late", ["late"])
    assert (asked, done) == ([], ["stored"])


async def hang(_: Any) -> Any:
    await asyncio.sleep(60)


@pytest.mark.parametrize("how", ["ainvoke", "astream"])
@pytest.mark.parametrize("step", ["forward", "ask", "ask_all"])
def test_an_async_child_that_hangs_is_cut_at_the_deadline_by_the_innermost_stage(play, drivers, how, step):
    hanging = RunnableLambda(lambda v: v, hang)

    def plan(value: Any, run: Any) -> Any:
        if step == "forward":
            return (yield Forward(hanging, value))
        return (yield Ask(hanging, value) if step == "ask" else AskAll([Ask(hanging, value)] * 2))

    component = play(plan, name="innermost")
    for level in range(3):
        component = play(lambda v, run, inner=component: (yield Forward(inner, v)), name=f"level {level}")
    with pytest.raises(DeadlineExceeded) as caught:
        drivers[how](component, "q", caller(deadline_s=1))
    assert caught.value.stage == "innermost"


@pytest.mark.parametrize("how", ["ainvoke", "astream"])
def test_a_plan_may_answer_although_it_is_late(play, drivers, how):
    def plan(value: Any, run: Any) -> Any:
        try:
            return (yield Forward(RunnableLambda(lambda v: v, hang), value))
        except DeadlineExceeded:
            with run.without_deadline():
                yield Wait(0.05)
                return (yield Forward(RunnableLambda(lambda _: "sorry"), value))

    component = play(plan)
    for _ in range(3):
        component = play(lambda v, run, inner=component: (yield Forward(inner, v)))
    assert drivers[how](component, "q", caller(deadline_s=1)) in ("sorry", ["sorry"])


def test_a_plan_that_does_not_waive_the_deadline_is_cut_from_above(play):
    def plan(value: Any, run: Any) -> Any:
        try:
            yield Forward(RunnableLambda(lambda v: v, hang), value)
        except DeadlineExceeded:
            yield Do(lambda: time.sleep(0.5))
            return "never heard"

    chain = play(lambda v, run: (yield Forward(play(plan, name="inner"), v)), name="outer")
    with pytest.raises(DeadlineExceeded) as caught:
        asyncio.run(chain.ainvoke("q", caller(deadline_s=0.3)))
    assert caught.value.stage == "outer"


def test_a_relative_deadline_is_set_once_at_the_root(play, drive_by):
    clock = ManualClock()
    remaining = []

    def leaf(value: Any, run: Any) -> Any:
        remaining.append(run.remaining_s)
        return (yield Do(lambda: "x", blocks=False))

    def plan(value: Any, run: Any) -> Any:
        remaining.append(run.remaining_s)
        yield Wait(2)
        yield Ask(play(leaf), value)
        clock.advance(3)
        return (yield Forward(RunnableLambda(lambda v: play(leaf).invoke(v)), value))

    with use_clock(clock):
        drive_by(play(plan), "q", caller(deadline_s=8))
    assert remaining == [8, 6, 3]


def test_without_a_deadline_there_is_no_limit(play):
    seen = []

    def plan(value: Any, run: Any) -> Any:
        run.check_deadline()
        seen.append(run.remaining_s)
        return (yield Do(lambda: "x"))

    assert play(plan).invoke("q") == "x"
    assert seen == [None]


# The caller


ANN = caller(user="ann-7", tenant="acme-7", feature="help", session="s-7", flags={"beta-7": True})


def test_the_caller_rides_to_every_component(play, drive_by):
    seen = []

    def leaf(value: Any, run: Any) -> Any:
        seen.append(run.caller.user)
        return (yield Do(lambda: "x", blocks=False))

    def plan(value: Any, run: Any) -> Any:
        yield Ask(play(leaf), value)
        return (yield Forward(RunnableLambda(str) | play(leaf), value))

    drive_by(play(plan), "q", ANN)
    assert seen == ["ann-7", "ann-7"]


def test_the_caller_never_reaches_traces_dumps_or_reprs(play, drive_by, tracer):
    configs: list[Any] = []
    handler = tracer()

    def keep(value: Any, config: Any) -> str:
        configs.append(config)
        return "x"

    def plan(value: Any, run: Any) -> Any:
        configs.append(run.config)
        yield Ask(RunnableLambda(keep), value)
        return (yield Forward(play(lambda v, run: (yield Forward(RunnableLambda(keep), v))), value))

    drive_by(play(plan), "q", {**ANN, "callbacks": [handler]})
    assert len(configs) == 3
    for config in [*configs, ANN]:
        shown = {key: value for key, value in config.items() if key != "callbacks"}
        for told in (repr(shown), str(shown), dumps(shown), f"{shown}"):
            assert "-7" not in told
    assert handler.nodes
    for node in handler.nodes.values():
        assert "-7" not in repr(node["metadata"])
        assert STATE_KEY not in (node["metadata"] or {})


@pytest.mark.parametrize("claimed", [{"user": "root"}, "root", 7, None])
def test_a_caller_claimed_in_plain_data_is_nobody(play, claimed):
    seen = []

    def plan(value: Any, run: Any) -> Any:
        seen.append(run.caller)
        return (yield Do(lambda: "x"))

    play(plan).invoke("q", {"configurable": {STATE_KEY: claimed}})
    assert seen == [Caller()]


def test_a_scope_shows_nothing_of_its_request():
    request = Request(Caller(user="ann-7"), ())
    assert "ann" not in repr(Scope(request, request.report, None, watched=False))


# The report


def test_a_side_call_writes_its_own_facts_and_a_forward_the_answers(play, drive_by):
    def judge(value: Any, run: Any) -> Any:
        run.report.mark("refused", "the judge said so")
        return (yield Do(lambda: AIMessage(content="no"), blocks=False))

    def search(value: Any, run: Any) -> Any:
        run.report.sources.append({"n": 1, "document": "d"})
        run.report.mark("degraded", "half of the index")
        answer = AIMessage(content="yes")
        yield Say(answer)
        return answer

    judged = []

    def plan(value: Any, run: Any) -> Any:
        judged.append((yield Ask(play(judge), value)))
        return (yield Forward(play(search), value))

    told = drive_by(play(plan), "q")
    answer = told[-1] if isinstance(told, list) else told
    assert judged[0].status == "refused"
    assert "report" not in judged[0].facts
    assert (answer.status, answer.reasons) == ("degraded", ["half of the index"])
    assert answer.sources == [{"n": 1, "document": "d"}]
    assert [stage["name"] for stage in answer.report["stages"]] == ["Played", "Played", "Played"]
    json.dumps(answer.report.to_dict())


def test_facts_of_an_answer_made_elsewhere_do_not_double(play, child, drive_by):
    far = AIMessageChunk(content="x", response_metadata={"chainops": {"status": "ok", "sources": [1]}, "m": "gpt"})
    remote = child(AIMessageChunk(content="a"), far)

    def plan(value: Any, run: Any) -> Any:
        answer = yield Forward(remote.runnable, value)
        run.report.adopt(answer.response_metadata["chainops"])
        return answer

    told = drive_by(play(plan), "q")
    total = told
    if isinstance(told, list):
        total = told[0]
        for chunk in told[1:]:
            total += chunk
    assert (total.status, total.sources) == ("ok", [1])
    assert total.response_metadata["m"] == "gpt"


def test_an_error_carries_the_report_of_its_request(play, drive_by):
    clock = ManualClock()
    with use_clock(clock), pytest.raises(DeadlineExceeded) as caught:
        drive_by(play(lambda v, run: (yield Wait(9)), name="root"), "q", caller(deadline_s=1))
    (stage,) = caught.value.report["stages"]
    assert stage["name"] == "root"
    assert stage["error"].startswith("DeadlineExceeded: root: the deadline of 1 s")


def test_what_is_registered_on_close_runs_once_last_first(play, drive_by):
    log: list[str] = []

    def plan(value: Any, run: Any) -> Any:
        run.on_close(lambda: log.append("first"))
        run.on_close(lambda: log.append("second"))
        if value == "fail":
            raise ValueError
        return (yield Do(lambda: "x", blocks=False))

    drive_by(play(plan), "q")
    with pytest.raises(ValueError):
        drive_by(play(plan), "fail")
    assert log == ["second", "first"] * 2


def test_listeners_of_the_component_hear_the_requests_that_begin_there(play):
    heard: list[Event] = []

    class Root(type(play(len))):  # type: ignore[misc]
        def listeners(self) -> Any:
            return (heard.append,)

    inner = Root(script=lambda v, run: (yield Do(lambda: "x")), name="inner")
    inner.invoke("q")
    assert [type(each) for each in heard] == [RequestEnded]
    play(lambda v, run: (yield Forward(inner, v))).invoke("q")
    assert len(heard) == 1


def test_a_listener_that_keeps_values_gets_inputs_and_outputs(play, drive_by):
    class Keeps:
        keeps_values = True

        def __init__(self) -> None:
            self.ended: Any = None

        def __call__(self, event: Event) -> None:
            self.ended = event

    from chainops.core.events import listen

    keeps = Keeps()
    inner = play(lambda v, run: (yield Do(lambda: v + "!", blocks=False)))
    with listen(keeps):
        drive_by(play(lambda v, run: (yield Forward(inner, v))), "q")
    assert [(stage.input, stage.output) for stage in keeps.ended.request.stages] == [("q", "q!")] * 2


def test_a_caller_named_inside_opens_a_request_of_its_own(play, drive_by):
    seen = []
    inner = play(lambda v, run: seen.append(run.caller.user) or (yield Do(lambda: v, blocks=False)))

    def plan(value: Any, run: Any) -> Any:
        yield Ask(inner.with_config(caller(user="bob")), value)
        return (yield Do(lambda: inner.invoke(value, caller(user="bob"))))

    with capture_events() as heard:
        drive_by(play(plan), "q", caller(user="ann"))
    assert seen == ["ann", "bob"]
    assert [event.request.caller.user for event in heard.of(RequestEnded)] == ["bob", "ann"]
