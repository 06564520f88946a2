"""Time is a parameter."""

from __future__ import annotations

import asyncio

from chainops.core.clock import Clock, current_clock, use_clock
from chainops.core.steps import Wait
from chainops.testing.listening import ManualClock


def test_requests_read_the_clock_of_their_block(play, drive_by):
    def plan(value, run):
        yield Wait(60)
        return run.clock.time()

    with use_clock(ManualClock(1000.0)) as clock:
        assert drive_by(play(plan), "q") in (1060.0, [1060.0])
    assert clock.slept == [60]
    assert type(current_clock()) is Clock


def test_the_machines_clock_goes_forward():
    clock = Clock()
    before = clock.monotonic()
    clock.sleep(0.001)
    asyncio.run(clock.asleep(0.001))
    assert clock.monotonic() - before >= 0.002
    assert clock.time() > 1_700_000_000
