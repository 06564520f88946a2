"""What taking a permit costs: in process, through SQLite and through Redis with several processes at it.

    python benchmarks/limits.py [--permits 2000] [--processes 4]

Each process takes permits for one request and 700 tokens, 1 ms apart, from limits that are not reached, and gives back
what was not used: so what is measured is the taking, with all that it has to wait for, and not the limit. `blocks` is
what chainops does: permits are leased in blocks. `per permit` asks the store for each, one transaction or script at a
time. LangChain's limiter is asked in the same process: it counts requests only, and is no queue. Those two rows never
wait, and are CPU time of the thread, so that what else the machine does is not in them; the others are time on the
clock.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from chainops.core.caller import Caller
from chainops.core.clock import Clock
from chainops.core.steps import Do, Hear
from chainops.resilience.limits.component import Pools
from chainops.resilience.limits.exchange import WINDOW_MS
from chainops.resilience.limits.opening import open_keeper
from chainops.resilience.limits.permits import Queue
from chainops.resilience.limits.pool import Pool
from chainops.testing.servers import redis_server

LIMITS = {"requests": 100_000_000, "tokens": 100_000_000_000}
NEEDS = {"requests": 1, "tokens": 700}
PAUSE_S = 0.001
IN_PROCESS = 100_000


def taking(pool: Pool, run: Any) -> None:
    """One permit, as a sync driver gets it."""
    plan = pool.enter(NEEDS, run, "model")
    reply: Any = None
    try:
        while True:
            step = plan.send(reply)
            if isinstance(step, Do):
                reply = step.work()
            else:
                assert isinstance(step, Hear)
                reply = step.signal.wait_beyond(step.since, step.timeout_s)
    except StopIteration as stop:
        permit = stop.value
    permit.close(time.perf_counter(), used={"tokens": 400})


def fake_run() -> Any:
    stage = SimpleNamespace(facts={})
    return SimpleNamespace(clock=Clock(), caller=Caller(), remaining_s=None, emit=lambda _: None, stage=stage)


def timed(
    work: Callable[[], None], times: int, pause_s: float, clock: Callable[[], float] = time.perf_counter
) -> list[float]:
    took = []
    for _ in range(times):
        started = clock()
        work()
        took.append(clock() - started)
        if pause_s:
            time.sleep(pause_s)
    return took


def process(place: str, how: str, times: int, start: Any, results: Any) -> None:
    keeper = open_keeper(place)
    if how == "blocks":
        pool, run = Pools("benchmark", LIMITS, Queue(), lambda: keeper).of("", "chain"), fake_run()

        def work() -> None:
            taking(pool, run)
    else:
        ask = {
            "holder": str(id(keeper)), "limits": LIMITS, "window": WINDOW_MS, "seats": 0, "back": [], "over": {},
            "must": NEEDS, "may": {}, "waited": 0, "gone": False,
        }  # fmt: skip

        def work() -> None:
            keeper.bank.exchange([("one", ask)])

    work()
    start.wait()
    results.put(timed(work, times, PAUSE_S))
    keeper.close()


def together(place: str, how: str, times: int, processes: int) -> list[float]:
    context = multiprocessing.get_context("spawn")
    start, results = context.Barrier(processes), context.Queue()
    started = [context.Process(target=process, args=(place, how, times, start, results)) for _ in range(processes)]
    for each in started:
        each.start()
    took = [second for _ in started for second in results.get()]
    for each in started:
        each.join()
    return took


def langchain(times: int) -> list[float]:
    from langchain_core.rate_limiters import InMemoryRateLimiter

    limiter = InMemoryRateLimiter(requests_per_second=1e9, max_bucket_size=1e9)
    limiter.acquire(blocking=False)
    return timed(lambda: bool(limiter.acquire(blocking=False)) and None, times, 0.0, time.thread_time)


def in_process(times: int) -> list[float]:
    pool, run = Pools("benchmark", LIMITS, Queue()).of("", "chain"), fake_run()
    return timed(lambda: taking(pool, run), times, 0.0, time.thread_time)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--permits", type=int, default=2_000, help="per process")
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--data", help="not used: nothing is read")
    asked = parser.parse_args()
    n, times = asked.processes, asked.permits
    rows: dict[str, list[float]] = {
        "LangChain InMemoryRateLimiter, CPU": langchain(IN_PROCESS),
        "in process, CPU": in_process(IN_PROCESS),
    }
    with tempfile.TemporaryDirectory() as folder:
        for how in ("blocks", "per permit"):
            place = f"sqlite:///{Path(folder) / how.replace(' ', '-')}.db"
            rows[f"SQLite, {n} processes, {how}"] = together(place, how, times, n)
    with redis_server() as server:
        for how in ("blocks", "per permit"):
            rows[f"Redis, {n} processes, {how}"] = together(server.url, how, times, n)
    print(f"{'taking a permit, in µs':46} {'p50':>9} {'p99':>9} {'p99.9':>9} {'worst':>9}")
    told = {}
    for name, took in rows.items():
        took.sort()
        at = {f"p{p}": took[min(len(took) - 1, int(len(took) * p / 100))] * 1e6 for p in (50, 99, 99.9)}
        at["worst"] = took[-1] * 1e6
        told[name] = {key: round(value, 1) for key, value in at.items()}
        print(f"{name:46} " + " ".join(f"{value:9.1f}" for value in at.values()))
    print(json.dumps({"benchmark": "limits", "permits": times * n, "microseconds": told}))


if __name__ == "__main__":
    main()
