"""News reach every waiter, in threads and on event loops, and nobody waits past a deadline."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

import chainops.core.caller as callers
from chainops.core.clock import use_clock
from chainops.core.errors import DeadlineExceeded
from chainops.core.signal import Signal
from chainops.core.steps import Cancelled, Hear
from chainops.testing.listening import ManualClock

pytestmark = pytest.mark.usefixtures("leaves_nothing")


def soon(work, after_s=0.02):
    timer = threading.Timer(after_s, work)
    timer.start()
    return timer


def hearing(signal, since=0, timeout_s=None, **options):
    """A plan that waits for the signal and returns what it was sent."""

    def plan(value, run):
        heard = yield Hear(signal, since, timeout_s, **options)
        return [heard]

    return plan


def heard_by(drive_by, component, config=None):
    """What the plan was sent, whichever driver played it."""
    told = drive_by(component, "q", config)
    while isinstance(told, list) and told and isinstance(told[0], list):
        told = told[0]
    return told[0]


def test_a_plan_hears_what_another_thread_tells(play, drive_by):
    signal = Signal()
    timer = soon(signal.tell)
    assert heard_by(drive_by, play(hearing(signal, timeout_s=60))) is True
    timer.join()


def test_news_between_looking_and_waiting_are_not_lost(play, drive_by):
    signal = Signal()
    seen = signal.seen
    signal.tell()
    assert heard_by(drive_by, play(hearing(signal, seen))) is True


def test_old_news_are_no_news(play, drive_by):
    signal = Signal()
    signal.tell()
    assert heard_by(drive_by, play(hearing(signal, signal.seen, 0.01))) is False


def test_a_deadline_ends_the_waiting_and_is_thrown_in(play, drive_by):
    caught = []

    def plan(value, run):
        try:
            yield Hear(Signal(), 0)
        except DeadlineExceeded as error:
            caught.append(error)
            raise

    began = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        drive_by(play(plan), "q", callers.caller(deadline_s=0.05))
    assert len(caught) == 1
    assert time.monotonic() - began >= 0.05


def test_the_deadline_is_the_requests_clocks(play, drive_by):
    clock, signal = ManualClock(), Signal()

    def late():
        clock.advance(61)
        signal.tell()

    def plan(value, run):
        timers.append(soon(late))  # not before: the deadline is counted from the request's beginning
        yield Hear(signal, 0)

    timers = []
    with use_clock(clock), pytest.raises(DeadlineExceeded):
        drive_by(play(plan), "q", callers.caller(deadline_s=60))
    timers[0].join()


def test_a_sync_call_does_not_hold_up_the_loop_that_would_tell_it(play):
    signal = Signal()
    component = play(hearing(signal, may_block=False))

    async def main():
        asyncio.get_running_loop().call_soon(signal.tell)
        assert component.invoke("q") == [None]
        assert await component.ainvoke("q") == [True]

    asyncio.run(main())


def test_one_signal_wakes_threads_and_tasks_of_several_loops():
    signal, heard = Signal(), []

    def thread():
        heard.append(signal.wait_beyond(0, 60))

    async def tasks():
        heard.extend(await asyncio.gather(*(signal.await_beyond(0, 60) for _ in range(20))))

    threads = [threading.Thread(target=thread) for _ in range(4)]
    threads += [threading.Thread(target=lambda: asyncio.run(tasks())) for _ in range(3)]
    for each in threads:
        each.start()
    while signal.waiting_tasks < 60:
        time.sleep(0.001)
    signal.tell()
    for each in threads:
        each.join(60)
    assert heard == [True] * 64
    assert signal.waiting_tasks == 0


def test_ten_thousand_tasks_wait_without_a_thread(play):
    signal = Signal()
    component = play(hearing(signal))

    async def main():
        before = threading.active_count()
        tasks = [asyncio.create_task(component.ainvoke("q")) for _ in range(10_000)]
        while signal.waiting_tasks < 10_000:
            await asyncio.sleep(0.001)
        assert threading.active_count() <= before  # a thread of an earlier test may have ended meanwhile
        signal.tell()
        assert await asyncio.gather(*tasks) == [[True]] * 10_000

    asyncio.run(main())


def test_a_cancelled_task_waits_no_longer_and_its_plan_is_told(play):
    signal, told = Signal(), []

    def plan(value, run):
        try:
            yield Hear(signal, 0)
        except Cancelled:
            told.append("cancelled")
            raise

    async def main():
        task = asyncio.create_task(play(plan).ainvoke("q"))
        while not signal.waiting_tasks:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert told == ["cancelled"]
    assert signal.waiting_tasks == 0


def test_a_loop_that_is_gone_does_not_stop_the_teller():
    signal = Signal()
    loop = asyncio.new_event_loop()
    task = loop.create_task(signal.await_beyond(0))
    loop.run_until_complete(asyncio.sleep(0))
    assert signal.waiting_tasks == 1
    task.cancel()
    loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
    waiting = loop.create_future()
    signal._tasks[loop] = {waiting}
    loop.close()
    signal.tell()
    assert signal.seen == 1


def test_a_telling_inside_a_telling_is_no_deadlock():
    """As when the garbage collector closes a forgotten stream in the middle of one."""
    signal = Signal()
    with signal._changed:
        signal.tell()
    assert signal.wait_beyond(0, 0)
