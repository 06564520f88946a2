"""A caller that goes away: everything open is closed, what was held is released, and nothing is left running."""

from __future__ import annotations

import asyncio
import gc
import threading
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langchain_core.runnables import RunnableGenerator, RunnableLambda

from chainops.core import drive
from chainops.core.events import Attempted, CleanupFailed, RequestEnded
from chainops.core.signal import Signal
from chainops.core.steps import Ask, AskAll, Cancelled, Do, Forward, Hear, Say, Wait
from chainops.testing.listening import capture_events

pytestmark = pytest.mark.usefixtures("leaves_nothing")


class Diary:
    """What happened to one nested pair of plans, in order."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def nested(self, play: Any, runnable: Any, depth: int = 2) -> Any:
        """`depth` plans around a runnable; each holds an attempt and a lease, and cleans up with `Do`."""
        for level in range(depth):
            runnable = play(self._plan(runnable, level), name=f"level {level}")
        return runnable

    def _plan(self, runnable: Any, level: int) -> Any:
        def plan(value: Any, run: Any) -> Any:
            attempt = run.attempts.reserve(f"model {level}")
            run.on_close(lambda: self.lines.append(f"released {level}"))
            try:
                answer = yield Forward(runnable, value)
            except Cancelled:
                self.lines.append(f"cancelled {level}")
                assert (yield Do(lambda: f"done {level}")) == f"done {level}"
                with pytest.raises(Cancelled):
                    yield Say("too late")
                attempt.settle("cancelled")
                raise
            else:
                attempt.settle("ok")
                return answer
            finally:
                self.lines.append(f"finally {level}")

        return plan

    def assert_cancelled(self, depth: int = 2) -> None:
        for level in range(depth):
            of_level = [line for line in self.lines if line.endswith(str(level))]
            assert of_level == [f"cancelled {level}", f"finally {level}", f"released {level}"]


def assert_settled(heard: Any) -> None:
    assert {event.outcome for event in heard.of(Attempted)} == {"cancelled"}
    (ended,) = heard.of(RequestEnded)
    assert {stage.error for stage in ended.request.stages} == {"cancelled: the caller went away"}
    assert not heard.of(CleanupFailed)


@pytest.mark.parametrize("taken", [1, 2, 3])
def test_closing_a_stream_closes_the_children_and_lets_the_plans_clean_up(play, child, taken):
    diary, drip = Diary(), child(*"abcd")
    with capture_events() as heard:
        stream = diary.nested(play, drip.runnable).stream("q")
        assert [next(stream) for _ in range(taken)] == list("abcd")[:taken]
        stream.close()
    assert (drip.opened, drip.closed, drip.finished) == (1, 1, 0)
    diary.assert_cancelled()
    assert_settled(heard)


@pytest.mark.parametrize("taken", [1, 2, 3])
def test_closing_an_async_stream_closes_the_children_and_lets_the_plans_clean_up(play, child, taken):
    diary, drip = Diary(), child(*"abcd")

    async def main() -> None:
        stream = diary.nested(play, drip.runnable).astream("q")
        for expected in list("abcd")[:taken]:
            assert await anext(stream) == expected
        await stream.aclose()
        gc.collect()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    with capture_events() as heard:
        asyncio.run(main(), debug=True)
    assert (drip.opened, drip.closed, drip.finished) == (1, 1, 0)
    diary.assert_cancelled()
    assert_settled(heard)


def test_an_async_stream_that_is_tapped_is_closed_as_well(play, child):
    diary, drip = Diary(), child(*"abcd")

    async def main() -> None:
        async for event in diary.nested(play, drip.runnable).astream_events("q", version="v2"):
            if event["event"] == "on_chain_stream" and event["name"] == "level 1":
                break
        gc.collect()
        async with asyncio.timeout(60):  # LangChain ends its own task, which has the rest closed
            while asyncio.all_tasks() != {asyncio.current_task()}:
                await asyncio.sleep(0.005)

    asyncio.run(main())
    assert drip.closed == 1
    diary.assert_cancelled()


def test_a_stream_that_is_never_begun_opens_nothing(play, child):
    drip = child("a")
    diary = Diary()
    diary.nested(play, drip.runnable).stream("q").close()
    asyncio.run(diary.nested(play, drip.runnable).astream("q").aclose())
    assert (drip.opened, diary.lines) == (0, [])


def slow_steps(log: list[str]) -> Any:
    """A plan with every kind of step; `log` ends with "out" however it is left."""

    async def think(value: Any) -> Any:
        await asyncio.sleep(0.003)
        return "thought"

    async def drip(_: Any) -> Any:
        try:
            for letter in "ab":
                await asyncio.sleep(0.002)
                yield letter
        finally:
            log.append("drip closed")

    def work() -> str:
        threading.Event().wait(0.004)
        log.append("worked")
        return "worked"

    def plan(value: Any, run: Any) -> Any:
        thinker = RunnableLambda(lambda _: "", think)
        attempt = run.attempts.reserve("m")
        run.on_close(lambda: log.append("released"))
        try:
            yield Ask(thinker, value)
            done = yield Do(work)
            log.append(f"learnt {done}")
            yield Wait(0.003)
            yield Hear(Signal(), 0, 0.003)
            yield AskAll([Ask(thinker, value), Ask(thinker, value)])
            answer = yield Forward(RunnableGenerator(drip), value)
        except Cancelled:
            log.append((yield Do(lambda: "cleaned")))
            attempt.settle("cancelled")
            raise
        else:
            attempt.settle("ok")
            return answer
        finally:
            log.append("out")

    return plan


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(after_s=st.floats(min_value=0, max_value=0.025), streaming=st.booleans(), times=st.integers(1, 3))
def test_cancelling_a_task_at_any_point_lets_the_plan_clean_up(play, after_s, streaming, times):
    log: list[str] = []
    component = play(lambda v, run: (yield Forward(play(slow_steps(log), name="inner"), v)), name="outer")

    async def consume() -> Any:
        return [each async for each in component.astream("q")] if streaming else await component.ainvoke("q")

    async def main() -> bool:
        task = asyncio.create_task(consume())
        await asyncio.sleep(after_s)
        for _ in range(times):  # impatient callers cancel again
            task.cancel()
            await asyncio.sleep(0)
        was_cancelled = False
        try:
            await task
        except asyncio.CancelledError:
            was_cancelled = True
        gc.collect()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return was_cancelled

    with capture_events() as heard:
        was_cancelled = asyncio.run(main())
    if not log:
        return  # cancelled before it began
    assert log.count("out") == log.count("released") == 1
    assert log.count("worked") == log.count("learnt worked"), "the plan learns what its work came to"
    assert not heard.of(CleanupFailed)
    assert ("cleaned" in log) == was_cancelled
    assert [each.outcome for each in heard.of(Attempted)] == ["cancelled" if was_cancelled else "ok"]
    assert len(heard.of(RequestEnded)) == 1


def test_a_plan_learns_what_a_blocking_do_came_to_before_it_is_cancelled(play):
    begun, may_end = threading.Event(), threading.Event()
    learnt: list[Any] = []

    def work() -> str:
        begun.set()
        may_end.wait(60)
        return "lease 7"

    def plan(value: Any, run: Any) -> Any:
        lease = yield Do(work)
        try:
            yield Wait(10)
        finally:
            learnt.append(lease)

    async def main() -> None:
        task = asyncio.create_task(play(plan).ainvoke("q"))
        await asyncio.to_thread(begun.wait, 60)
        task.cancel()
        await asyncio.sleep(0.01)
        may_end.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert learnt == ["lease 7"]


def test_a_plan_learns_that_a_blocking_do_failed_before_it_is_cancelled(play):
    begun = threading.Event()
    learnt: list[Any] = []

    def work() -> str:
        begun.set()
        threading.Event().wait(0.02)
        raise OSError("disk full")

    def plan(value: Any, run: Any) -> Any:
        try:
            yield Do(work)
        except OSError as error:
            learnt.append(str(error))
        yield Wait(10)

    async def main() -> None:
        task = asyncio.create_task(play(plan).ainvoke("q"))
        await asyncio.to_thread(begun.wait, 60)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert learnt == ["disk full"]


def test_a_keyboard_interrupt_in_a_step_closes_the_plans_and_goes_on(play):
    diary = Diary()

    def interrupted(_: Any) -> Any:
        raise KeyboardInterrupt

    component = diary.nested(play, RunnableLambda(interrupted))
    for call in (component.invoke, lambda value: list(component.stream(value))):
        diary.lines.clear()
        with capture_events() as heard, pytest.raises(KeyboardInterrupt):
            call("q")
        diary.assert_cancelled()
        assert_settled(heard)


@pytest.mark.parametrize("asks", [Wait(0), Do(lambda: None, blocks=False), Do(lambda: None)])
def test_a_cancelled_plan_that_keeps_asking_is_dropped_in_time(play, monkeypatch, asks):
    monkeypatch.setattr(drive, "CLEANUP_S", 0.05)

    def plan(value: Any, run: Any) -> Any:
        step = Say("a")
        while True:
            try:
                yield step
            except Cancelled:
                step = asks

    async def main() -> None:
        stream = play(plan).astream("q")
        assert await anext(stream) == "a"
        await stream.aclose()

    with capture_events() as heard:
        stream = play(plan).stream("q")
        assert next(stream) == "a"
        stream.close()
        asyncio.run(main())
    failed = heard.of(CleanupFailed)
    assert len(failed) == 2
    # The second where the machine was so busy that a step of its own took longer than there is.
    known = "went on asking after it was cancelled", "still at work after"
    assert all(any(each in event.error for each in known) for event in failed)


def test_a_plan_that_fails_while_it_is_dropped_does_not_stop_the_caller(play):
    def plan(value: Any, run: Any) -> Any:
        while True:
            try:
                yield Say("a")
            except Cancelled:
                continue
            except GeneratorExit:
                raise OSError("will not go") from None

    with capture_events() as heard:
        stream = play(plan).stream("q")
        next(stream)
        stream.close()
    dropped, closed = (event.error for event in heard.of(CleanupFailed))
    assert "went on asking" in dropped
    assert closed == "OSError('will not go')"
    assert len(heard.of(RequestEnded)) == 1


def test_a_failure_while_cleaning_up_is_recorded_and_hides_nothing(play, child):
    def plan(value: Any, run: Any) -> Any:
        run.on_close(lambda: 1 / 0)
        try:
            return (yield Forward(child("a", "b").runnable, value))
        except Cancelled:
            yield Do(lambda: int("no number"))

    with capture_events() as heard:
        stream = play(plan).stream("q")
        next(stream)
        stream.close()
    assert [event.error for event in heard.of(CleanupFailed)] == [
        "ValueError(\"invalid literal for int() with base 10: 'no number'\")",
        "ZeroDivisionError('division by zero')",
    ]


def test_a_child_that_fails_while_being_closed_does_not_restart_the_plan(play):
    def bad(_: Any) -> Any:
        try:
            yield "a"
            yield "b"
        finally:
            raise OSError("closed badly")

    tried: list[str] = []

    def plan(value: Any, run: Any) -> Any:
        for name in ("first", "second"):
            tried.append(name)
            try:
                return (yield Forward(Raw(bad), value))
            except OSError:
                continue

    class Raw(RunnableLambda):  # type: ignore[type-arg]
        """Streams without LangChain's own wrapping, which swallows what happens while closing."""

        def stream(self, value: Any, config: Any = None, **kwargs: Any) -> Any:
            yield from bad(value)

        async def astream(self, value: Any, config: Any = None, **kwargs: Any) -> Any:
            chunks = bad(value)
            try:
                yield next(chunks)
            finally:
                chunks.close()

    async def main() -> None:
        stream = play(plan).astream("q")
        await anext(stream)
        await stream.aclose()

    with capture_events() as heard:
        stream = play(plan).stream("q")
        next(stream)
        stream.close()
        asyncio.run(main())
    assert tried == ["first", "first"]
    assert [event.error for event in heard.of(CleanupFailed)] == ["OSError('closed badly')"] * 2


def test_cancelling_a_batch_ends_every_item_first(play, child):
    diary = Diary()

    begun: list[str] = []

    async def hang(item: str) -> Any:
        begun.append(item)
        await asyncio.sleep(60)

    component = diary.nested(play, RunnableLambda(lambda v: v, hang), depth=1)

    async def main() -> None:
        task = asyncio.create_task(component.abatch(["a", "b", "c"]))
        while len(begun) < 3:
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert asyncio.all_tasks() == {asyncio.current_task()}

    with capture_events() as heard:
        asyncio.run(main())
    assert diary.lines.count("released 0") == 3
    assert len(heard.of(RequestEnded)) == 3
