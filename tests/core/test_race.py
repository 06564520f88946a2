"""A race: who speaks first gives the answer, the others are cancelled and counted, in every driver."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import contextmanager
from typing import Any

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.runnables import RunnableGenerator, RunnableLambda

import chainops
from chainops.core.answer import Answer
from chainops.core.attempts import Attempts, Expected
from chainops.core.component import Component
from chainops.core.errors import DeadlineExceeded, PlanError
from chainops.core.race import course
from chainops.core.steps import Do, Forward, Race
from chainops.testing.listening import capture_events


class Slow(Component):
    """Says its words one by one; notes what became of it."""

    words: str
    wait_s: float = 0.0
    between_s: float = 0.0
    fails: str = ""
    until: Any = None
    """An event that it waits for in place of a time."""
    tells: bool = False
    """Whether it notes, too, that it was begun."""
    log: Any

    def plan(self, value, run):
        attempt = yield from run.attempt(self.words, expect=lambda: Expected(1, 1, 0.0))
        run.report.served_by = self.words
        call = Forward(_Words(self), value)
        try:
            answer = yield call
        except BaseException as error:
            attempt.settle("failed" if isinstance(error, Exception) else "cancelled", error=error)
            self.log.append((self.words, type(error).__name__))
            raise
        attempt.settle("ok")
        self.log.append((self.words, "ok"))
        return answer


def _Words(slow):
    def say(inputs):
        list(inputs)
        slow.until.wait(60) if slow.until is not None else time.sleep(slow.wait_s)
        if slow.fails == "first":
            raise ConnectionError(slow.words)
        for word in slow.words.split():
            yield AIMessageChunk(content=word + " ")
            time.sleep(slow.between_s)
        if slow.fails == "last":
            raise ConnectionError(slow.words)

    async def asay(inputs):
        async for _ in inputs:
            pass
        if slow.tells:
            slow.log.append("begun")
        await asyncio.sleep(slow.wait_s if slow.until is None else 60)
        if slow.fails == "first":
            raise ConnectionError(slow.words)
        for word in slow.words.split():
            yield AIMessageChunk(content=word + " ")
            await asyncio.sleep(slow.between_s)
        if slow.fails == "last":
            raise ConnectionError(slow.words)

    return RunnableGenerator(say, asay)


class Over(list):
    """A log that can be waited for: whoever loses goes on when the race is over, however busy the machine is."""

    def __init__(self):
        super().__init__()
        self.is_over = threading.Event()

    def append(self, entry):
        super().append(entry)
        self.is_over.set()


class Racing(Component):
    routes: tuple
    after_s: float = 0.05
    log: Any

    def plan(self, value, run):
        race = Race([Forward(each, value) for each in self.routes], after_s=self.after_s)
        try:
            answer = yield race
        finally:
            self.log.append(("winner", race.winner))
        return answer


def ask(driver, racing, config=None):
    if driver == "invoke":
        return racing.invoke("x", config)
    if driver == "ainvoke":
        return asyncio.run(racing.ainvoke("x", config))
    if driver == "stream":
        chunks = list(racing.stream("x", config))
    else:

        async def collect():
            return [each async for each in racing.astream("x", config)]

        chunks = asyncio.run(collect())
    total = chunks[0]
    for each in chunks[1:]:
        total += each
    return Answer.of(total)


@pytest.fixture(params=["invoke", "ainvoke", "stream", "astream"])
def driver(request):
    return request.param


def outcomes(events):
    return sorted((each.model, each.outcome, each.purpose) for each in events if type(each).__name__ == "Attempted")


def wait_for(told):
    until = time.monotonic() + 60
    while not told() and time.monotonic() < until:
        time.sleep(0.01)
    return told()


def test_a_quick_first_route_answers_and_no_second_call_is_made(driver):
    log: list = []
    racing = Racing(routes=(Slow(words="one two", log=log), Slow(words="other", log=log)), after_s=60, log=log)
    with capture_events() as events:
        answer = ask(driver, racing)
    assert answer.text.split() == ["one", "two"]
    assert outcomes(events) == [("one two", "ok", "answer")]
    assert log == [("one two", "ok"), ("winner", 0)]


def test_a_slow_first_route_loses_is_cancelled_and_every_call_is_settled_once(driver):
    log, over = [], Over()
    late = Slow(words="late", until=over.is_over, log=log)
    racing = Racing(routes=(late, Slow(words="quick one", log=log)), log=over)
    with capture_events() as events:
        answer = ask(driver, racing)
        assert answer.text.split() == ["quick", "one"]
        assert answer.served_by == "quick one"
        settled = wait_for(lambda: len(outcomes(events)) == 2 and outcomes(events))
    # A sync call cannot be broken off: a whole one is charged as what it is, a stream at its next chunk.
    assert settled == [("late", "ok" if driver == "invoke" else "cancelled", "answer"), ("quick one", "ok", "hedge")]


def test_a_first_route_that_fails_is_followed_by_the_second_at_once(driver):
    log: list = []
    routes = (Slow(words="broken", fails="first", log=log), Slow(words="second", log=log))
    began = time.monotonic()
    assert ask(driver, Racing(routes=routes, after_s=60, log=log)).text.split() == ["second"]
    assert time.monotonic() - began < 30
    assert ("winner", 1) in log


def test_when_all_fail_the_first_error_is_thrown_in(driver):
    log: list = []
    routes = (Slow(words="a", fails="first", log=log), Slow(words="b", fails="first", log=log))
    with pytest.raises(ConnectionError, match="a"):
        ask(driver, Racing(routes=routes, log=log))
    assert ("winner", None) in log


def test_a_winner_that_breaks_off_fails_and_what_it_said_is_known(driver):
    log: list = []
    routes = (Slow(words="one two", fails="last", log=log), Slow(words="other", log=log))
    racing = Racing(routes=routes, after_s=60, log=log)
    if driver in ("stream", "astream"):
        said = []

        async def collect():
            async for each in racing.astream("x"):
                said.append(each)

        with pytest.raises(ConnectionError):
            said.extend(racing.stream("x")) if driver == "stream" else asyncio.run(collect())
        assert "".join(each.text for each in said).split() == ["one", "two"]
    else:
        assert ask(driver, racing).text.split() == ["other"]  # whole answers: nothing had been said


def test_the_deadline_ends_a_race_in_which_nobody_speaks(driver):
    log: list = []
    routes = (Slow(words="a", wait_s=9, log=log), Slow(words="b", wait_s=9, log=log))
    began = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        ask(driver, Racing(routes=routes, log=log), chainops.caller(deadline_s=0.3))
    assert time.monotonic() - began < 8


def test_a_caller_who_hangs_up_ends_all_routes_of_a_streamed_race():
    log: list = []
    words = " ".join(["one"] * 40)  # more than may wait for a reader
    routes = (Slow(words=words, log=log), Slow(words="other", log=log))
    with capture_events() as events:
        stream = Racing(routes=routes, after_s=60, log=log).stream("x")
        next(stream)
        stream.close()
        assert wait_for(lambda: outcomes(events)) == [(words, "cancelled", "answer")]


def test_a_cancelled_task_ends_all_routes_of_its_race():
    log: list = []
    routes = tuple(Slow(words=name, wait_s=60, tells=True, log=log) for name in "ab")

    async def cancelled():
        task = asyncio.ensure_future(Racing(routes=routes, log=log).ainvoke("x"))
        while log.count("begun") < 2:
            await asyncio.sleep(0.002)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with capture_events() as events:
        asyncio.run(cancelled())
    assert outcomes(events) == [("a", "cancelled", "answer"), ("b", "cancelled", "hedge")]


def test_threads_of_losers_end_and_plain_runnables_race_too(driver):
    before, over = threading.active_count(), Over()

    def late(value):
        over.is_over.wait(60)
        return AIMessage(content="late")

    racing = Racing(routes=(RunnableLambda(late), RunnableLambda(lambda _: AIMessage(content="quick"))), log=over)
    assert ask(driver, racing).text == "quick"
    if driver in ("invoke", "stream"):
        assert wait_for(lambda: threading.active_count() <= before)


def test_many_requests_race_at_the_same_time_without_mixing_their_answers():
    log: list = []

    def named(value):
        return AIMessage(content=f"answer to {value}")

    def slow(value):
        time.sleep(0.05)
        return AIMessage(content=f"answer to {value}")

    racing = Racing(routes=(RunnableLambda(slow), RunnableLambda(named)), after_s=0.01, log=log)
    answers = racing.batch([f"q{n}" for n in range(24)])
    assert [each.text for each in answers] == [f"answer to q{n}" for n in range(24)]


def going(count, **options):
    """A race of so many routes, and what it has started so far: one for all drivers."""
    race, started = Race([Forward(None, "x")] * count, **options), []
    return race, started, course(race, lambda: started.append(len(started)))


def test_the_next_route_starts_when_one_fails_or_nobody_is_heard_in_time():
    race, started, steps = going(3, after_s=3600)
    assert 3599 < next(steps) <= 3600
    assert started == [0]
    assert 3599 < steps.send((0, ConnectionError("first"))) <= 3600
    assert started == [0, 1]
    assert steps.send(None) > 3599  # woken before the time: nothing is due
    assert started == [0, 1]
    assert steps.send((1, ConnectionError("second"))) is None  # nobody is left to start: it is only listened
    assert started == [0, 1, 2]
    with pytest.raises(StopIteration) as end:
        steps.send((2, None))
    assert (end.value.value, list(race.errors)) == (2, [0, 1])
    assert race.spoke_after_s is not None
    race, started, steps = going(3, after_s=0)
    assert [next(steps), steps.send(None), steps.send(None)] == [0, 0, None]
    assert started == [0, 1, 2]


def test_a_race_ends_with_the_first_failure_in_order_or_one_that_nobody_can_mend():
    _, _, steps = going(2, after_s=0)
    next(steps), steps.send(None), steps.send((1, ConnectionError("second")))
    with pytest.raises(ConnectionError, match="first"):
        steps.send((0, ConnectionError("first")))
    _, started, steps = going(2, after_s=0, can_mend=lambda error: isinstance(error, ConnectionError))
    next(steps)
    with pytest.raises(ValueError, match="wrong"):
        steps.send((0, ValueError("wrong")))
    assert started == [0]
    _, _, steps = going(2, after_s=0)
    next(steps)
    with pytest.raises(KeyboardInterrupt):
        steps.send((0, KeyboardInterrupt()))


def test_a_route_that_gets_going_when_the_race_is_over_makes_no_call(monkeypatch):
    """The machine was busy: its thread was started in time, and did nothing until the other had answered."""
    is_started, is_over = threading.Event(), threading.Event()
    late = []

    class Late(threading.Thread):
        def start(self):
            super().start()
            if self.name == "race-1":
                late.append(self)
                is_started.set()

        def run(self):
            if self.name == "race-1":
                is_over.wait(60)
            super().run()

    def first(_value):
        assert is_started.wait(60)
        return AIMessage(content="first")

    monkeypatch.setattr("chainops.core.race.threading.Thread", Late)
    log: list = []
    racing = Racing(routes=(RunnableLambda(first), Slow(words="second", log=log)), after_s=0, log=[])
    with capture_events() as events:
        assert racing.invoke("x").text == "first"
        is_over.set()
        late[0].join(60)
    assert outcomes(events) == []
    assert log == []


def test_a_winner_that_is_cancelled_from_inside_while_its_reader_is_slow_does_not_leave_him_waiting():
    ended = threading.Event()

    async def says(inputs):
        async for _ in inputs:
            pass
        try:
            for n in range(17):  # one is read at once, and sixteen wait
                yield AIMessageChunk(content=f"{n} ")
            raise asyncio.CancelledError
        finally:
            ended.set()

    racing = Racing(routes=(RunnableGenerator(says), RunnableLambda(str)), after_s=60, log=[])

    said = []

    async def read_slowly():
        async for chunk in racing.astream("x"):
            said.append(chunk.text)
            while not ended.is_set():
                await asyncio.sleep(0.002)
            await asyncio.sleep(0.01)

    with pytest.raises(PlanError, match="cancelled from inside"):
        asyncio.run(asyncio.wait_for(read_slowly(), 30))
    assert len(said) == 17


class Leaves(Component):
    """Does not settle its call."""

    def plan(self, value, run):
        yield from run.attempt("left", expect=lambda: Expected(1, 1, 0.0))
        return (yield Forward(RunnableLambda(lambda _: AIMessage(content="said")), value))


def test_a_call_that_the_winner_does_not_settle_is_lost_in_the_answers_report(driver, monkeypatch):
    held_open = Attempts.held_open

    @contextmanager
    def slow_to_let_go(ledger):
        with held_open(ledger):
            yield
            time.sleep(0.2)

    monkeypatch.setattr(Attempts, "held_open", slow_to_let_go)
    answer = ask(driver, Racing(routes=(Leaves(), Leaves()), after_s=60, log=[]))
    assert [each["outcome"] for each in answer.report["attempts"]] == ["lost"]


def test_what_a_loser_notes_later_does_not_change_the_report_that_was_given():
    over = Over()

    class Notes(Component):
        def plan(self, value, run):
            run.stage.facts["begun"] = True
            is_begun.set()
            yield Do(lambda: over.is_over.wait(60))
            run.stage.facts["later"] = True
            is_noted.set()
            return AIMessage(content="late")

    def quick(_value):
        assert is_begun.wait(60)
        return AIMessage(content="quick")

    is_begun, is_noted = threading.Event(), threading.Event()
    answer = Racing(routes=(Notes(name="notes"), RunnableLambda(quick)), log=over).invoke("x")
    assert is_noted.wait(60)
    facts = [stage["facts"] for stage in answer.report["stages"] if stage["name"] == "notes"]
    assert facts == [{"begun": True}]
