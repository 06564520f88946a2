"""A process that takes permits as fast as it can, and notes when. Started by the tests."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

from chainops.core.caller import Caller
from chainops.core.clock import Clock
from chainops.core.steps import Do, Hear
from chainops.resilience.limits.component import Pools
from chainops.resilience.limits.opening import open_keeper
from chainops.resilience.limits.permits import Queue
from chainops.resilience.limits.records import Overloaded

CALL_S = 0.01


def work(place, log, until, limits, window_s):
    """Four threads call until the time is over; each call is a line when it begins, and one when it ends."""
    pool = Pools("shared", limits, Queue(), lambda: open_keeper(place), window_s=window_s).of("", "chain")
    needs = dict.fromkeys(limits, 1)

    def calls():
        while time.time() < until:
            permit = take(pool, needs, until)
            if permit is not None:
                lines.write(f"{time.time():.6f} in\n")
                lines.flush()
                time.sleep(CALL_S)
                lines.write(f"{time.time():.6f} out\n")
                lines.flush()
                permit.close(time.perf_counter())

    with log.open("w") as lines:
        threads = [threading.Thread(target=calls) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def take(pool, needs, until):
    """As a sync driver does. None when it was refused, or the time is over."""
    stage = SimpleNamespace(facts={})
    run = SimpleNamespace(clock=Clock(), caller=Caller(), remaining_s=None, emit=lambda _: None, stage=stage)
    plan, reply = pool.enter(needs, run, "m"), None
    try:
        while time.time() < until:
            step = plan.send(reply)
            if isinstance(step, Do):
                reply = step.work()
            else:
                assert isinstance(step, Hear)
                reply = step.signal.wait_beyond(step.since, min(step.timeout_s or 1.0, 1.0))
    except StopIteration as stop:
        return stop.value
    except Overloaded:
        time.sleep(0.02)
    plan.close()
    return None


if __name__ == "__main__":
    place, log, window_s, *limits = sys.argv[1:]
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    until = float(sys.stdin.readline())
    amounts = {name: int(amount) for name, amount in (each.split("=") for each in limits)}
    work(place, Path(log), until, amounts, float(window_s))
