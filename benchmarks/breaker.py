"""What a breaker costs: closed around a call that does nothing, open, and its store.

    python benchmarks/breaker.py [--peers PYTHON]

PYTHON is the interpreter of another environment with `purgatory` and `pybreaker` installed; without it they are named
and not measured. CPU microseconds of this process (`time.process_time`), median of 7 rounds. Ours stands as in a chain:
called by a component, with the call inside it a component too; "adds" is over the same without the
breaker. Theirs wrap a bare function, which is less than a Runnable does; `decide` is the comparable part of ours. The
open one is also measured as seconds on the clock, since the target is 50 µs of those.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from chainops.core.component import AnyRunnable, Component
from chainops.core.steps import Ask
from chainops.resilience.breaker.circuit import Circuit
from chainops.resilience.breaker.component import Breaker
from chainops.resilience.breaker.policy import CLOSED, Opening, Route
from chainops.resilience.breaker.records import CircuitOpen, Circuits
from chainops.resilience.breaker.redis_circuits import RedisCircuits
from chainops.resilience.breaker.sql_circuits import SqlCircuits
from chainops.stores.redis import redis_store
from chainops.stores.sql import SqlStore
from chainops.testing.servers import redis_server

PEERS = r"""
import asyncio, json, statistics, time

def cpu(work, times=20_000, clock=time.process_time):
    rounds = []
    for _ in range(7):
        began = clock()
        for _ in range(times):
            work()
        rounds.append((clock() - began) / times * 1e6)
    return round(statistics.median(rounds), 2)

def refused(call):
    def run():
        try:
            call()
        except Exception:
            pass
    return run

found = {}
def nothing(): return None
def fail(): raise ValueError
found["nothing"] = {"closed": cpu(nothing)}
try:
    import pybreaker
    closed = pybreaker.CircuitBreaker(fail_max=5, reset_timeout=1e6)
    opened = pybreaker.CircuitBreaker(fail_max=1, reset_timeout=1e6)
    refused(lambda: opened.call(fail))()
    found["pybreaker"] = {
        "closed": cpu(lambda: closed.call(nothing)),
        "open": cpu(refused(lambda: opened.call(nothing))),
    }
except ImportError:
    pass
try:
    import purgatory
    factory = purgatory.SyncCircuitBreakerFactory(default_threshold=1, default_ttl=1e6)
    def closed():
        with factory.get_breaker("closed"):
            pass
    def opened():
        with factory.get_breaker("open"):
            raise ValueError
    refused(opened)()
    found["purgatory"] = {"closed": cpu(closed), "open": cpu(refused(opened))}
except ImportError:
    pass
print(json.dumps(found))
"""


class Nothing(Component[Any, Any]):
    """The call inside."""

    def plan(self, value: Any, run: Any) -> Any:
        return value
        yield


class Caller(Component[Any, Any]):
    """Calls `inner` many times and measures each time on its own; a refusal is an answer, too."""

    inner: AnyRunnable
    times: int

    def plan(self, value: Any, run: Any) -> Any:
        spent, waited = time.process_time(), time.perf_counter()
        for _ in range(self.times):
            with suppress(CircuitOpen):
                yield Ask(self.inner, value)
        spent, waited = time.process_time() - spent, time.perf_counter() - waited
        return [spent / self.times * 1e6, waited / self.times * 1e6]


def in_chain(inner: Any, *, asynchronous: bool = False, times: int = 1_000) -> tuple[float, float]:
    """CPU and clock microseconds of one call."""
    caller, rounds = Caller(inner=inner, times=times), []
    for _ in range(7):
        rounds.append(asyncio.run(caller.ainvoke("x")) if asynchronous else caller.invoke("x"))
    return statistics.median(each[0] for each in rounds), statistics.median(each[1] for each in rounds)


def p50(work: Callable[[], Any], times: int = 300) -> float:
    spent = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        spent.append(time.perf_counter() - began)
    return statistics.median(spent) * 1e6


def made_open(circuit: Circuit) -> Circuit:
    now = time.time()
    opening = Opening("server", "overloaded", now, now + 290)
    circuit._route = Route((opening,))
    return circuit


@contextmanager
def stores() -> Iterator[dict[str, Circuits]]:
    with tempfile.TemporaryDirectory() as folder, redis_server() as server:
        sql = SqlStore(Path(folder) / "circuits.db")
        yield {"SQLite": SqlCircuits(sql), "Redis": RedisCircuits(redis_store(server.url))}
        sql.close()


def decide(circuit: Circuit) -> float:
    """CPU microseconds of the decision alone, without the Runnable around it."""

    class Deciding(Component[Any, Any]):
        def plan(self, value: Any, run: Any) -> Any:
            began = time.process_time()
            for _ in range(10_000):
                try:
                    token = yield from circuit.admit(run)
                    circuit.succeeded(run, token)
                except CircuitOpen:
                    pass
            return (time.process_time() - began) / 10_000 * 1e6
            yield

    return statistics.median(Deciding().invoke("x") for _ in range(7))


def ours() -> dict[str, Any]:
    found: dict[str, Any] = {}
    print(f"{'ours, CPU µs per call':<40}{'sync':>9}{'async':>9}")
    plain = [in_chain(Nothing(), asynchronous=each) for each in (False, True)]
    print(f"{'the call without a breaker':<40}{plain[0][0]:>9.1f}{plain[1][0]:>9.1f}")
    with stores() as places:
        for name, circuits in ({"in process": None} | places).items():
            store = None if circuits is None else lambda circuits=circuits: circuits
            closed = Breaker(inner=Nothing(), circuit=Circuit("closed", store=store))
            opened = Breaker(inner=Nothing(), circuit=made_open(Circuit("open", store=store)))
            if circuits is not None:
                circuits.change("open", lambda _, route=opened._circuit.route: route)
            through = [in_chain(closed, asynchronous=each) for each in (False, True)]
            refused = [in_chain(opened, asynchronous=each) for each in (False, True)]
            added = [a[0] - b[0] for a, b in zip(through, plain, strict=True)]
            print(f"{f'closed, {name}: adds':<40}{added[0]:>9.1f}{added[1]:>9.1f}")
            print(f"{f'open, {name}: the whole refused call':<40}{refused[0][0]:>9.1f}{refused[1][0]:>9.1f}")
            print(f"{'    the same on the clock':<40}{refused[0][1]:>9.1f}{refused[1][1]:>9.1f}")
            alone = decide(closed._circuit), decide(opened._circuit)
            print(f"{f'    decide: closed / open, {name}':<40}{alone[0]:>9.2f}{alone[1]:>9.2f}")
            found[name] = {
                "closed_adds_us": [round(each, 1) for each in added],
                "open_us": [round(each[0], 1) for each in refused],
                "open_clock_us": [round(each[1], 1) for each in refused],
                "decide_us": [round(each, 2) for each in alone],
            }
        print(f"\n{'the store itself, clock µs, p50':<40}{'look':>9}{'change':>9}")
        for name, circuits in places.items():
            flip = [CLOSED, Route((Opening("server", "r", 0.0, 1.0),))]
            looks = p50(lambda circuits=circuits: circuits.look("open"))
            changes = p50(lambda circuits=circuits: circuits.change("r", lambda route: flip[route == CLOSED]))
            print(f"{name:<40}{looks:>9.0f}{changes:>9.0f}")
            found[name] |= {"look_us": round(looks), "change_us": round(changes)}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", help="python of an environment with purgatory and pybreaker")
    peers = parser.parse_args().peers
    result: dict[str, Any] = {"benchmark": "breaker", "ours": ours()}
    if peers is None:
        print("\nnot measured: purgatory and pybreaker (give --peers PYTHON)")
    else:
        said = subprocess.run([peers, "-c", PEERS], capture_output=True, text=True, check=True).stdout
        result["peers"] = json.loads(said)
        print(f"\n{'in process, around a bare function':<40}{'closed':>9}{'open':>9}")
        for name, told in result["peers"].items():
            print(f"{name:<40}{told['closed']:>9.2f}{told.get('open', float('nan')):>9.2f}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
