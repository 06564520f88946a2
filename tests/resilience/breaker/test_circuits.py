"""What processes tell each other, in every store."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from langchain_core.runnables import RunnableLambda

from chainops.core.clock import use_clock
from chainops.models.failures import Failure, ModelUnavailable
from chainops.resilience.breaker import policy
from chainops.resilience.breaker.circuit import BACKGROUND
from chainops.resilience.breaker.component import Breaker
from chainops.resilience.breaker.policy import BreakerSettings, Opening, Route
from chainops.resilience.breaker.records import CircuitOpen, of_text, to_text
from chainops.testing.listening import ManualClock

SETTINGS = BreakerSettings(failures=3, within_s=10, open_s=8, most_open_s=60, probe_s=20)


def test_an_unknown_route_is_closed(circuits):
    assert circuits.look("never seen") == Route()


def test_a_change_is_seen_as_it_was_made(circuits):
    new = Opening("rate limit", "naïve ☃ reason", 1.25, 2.5e9, 3)
    assert circuits.change("r", lambda route: policy.opened(route, new)) == Route((new,))
    assert circuits.look("r") == Route((new,))
    assert circuits.look("another") == Route()


def test_one_of_many_claims_is_granted(circuits):
    circuits.change("r", lambda route: policy.opened(route, Opening("server", "r", 0.0, 10.0)))

    def claim(n):
        return circuits.change("r", lambda route: policy.claimed(route, f"t{n}", 11.0, SETTINGS)).probe == f"t{n}"

    with ThreadPoolExecutor(16) as threads:
        assert sum(threads.map(claim, range(16))) == 1


def test_no_change_is_lost_between_writers(circuits):
    def add(n):
        circuits.change("r", lambda route: policy.opened(route, Opening("server", "r", 0.0, float(n), n)))

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(add, range(1, 41)))
    assert circuits.look("r").openings == (Opening("server", "r", 0.0, 40.0, 40),)


@pytest.mark.parametrize("text", [None, "", "no json", "[]", '{"openings": [{"a": 1}]}', '{"openings": 3}'])
def test_what_cannot_be_read_is_a_closed_circuit(text):
    assert of_text(text) == Route()


def test_text_and_back():
    route = Route((Opening("setup", "quota", 1.0, 2.0, 2),), "token", 3.5)
    assert of_text(to_text(route)) == route
    assert of_text(to_text(route).replace("setup", "of a later version")).openings == ()


def broken(_value):
    raise ModelUnavailable("m", Failure("retryable", "overloaded"), next_move="-")


def of_another_process(url, open_circuits, inner):
    circuits = open_circuits(url)
    return Breaker(inner=RunnableLambda(inner), settings=SETTINGS, store=lambda: circuits, name="route")


def test_another_process_knows_within_a_second_and_the_probe_is_one(url, open_circuits):
    with use_clock(ManualClock()) as clock:
        first = of_another_process(url, open_circuits, broken)
        second = of_another_process(url, open_circuits, lambda _: "fine")
        assert second.invoke("x") == "fine"  # its copy is fresh now
        for _ in range(3):
            with pytest.raises(ModelUnavailable):
                first.invoke("x")
        assert BACKGROUND.drain(60)
        clock.advance(0.95)
        with pytest.raises(CircuitOpen):
            second.invoke("x")
        clock.advance(8)
        assert second.invoke("x") == "fine"
        assert BACKGROUND.drain(60)
        clock.advance(0.95)
        with pytest.raises(ModelUnavailable):  # closed for the first, too
            first.invoke("x")


WORKER = """
import json, sys, time
from langchain_core.runnables import RunnableLambda
from chainops.core.clock import Clock
from chainops.resilience.breaker.component import Breaker
from chainops.resilience.breaker.policy import BreakerSettings
from chainops.resilience.breaker.records import CircuitOpen
from chainops.resilience.breaker.redis_circuits import RedisCircuits
from chainops.resilience.breaker.sql_circuits import SqlCircuits
from chainops.stores.redis import redis_store
from chainops.stores.sql import SqlStore

url, name, until = sys.argv[1], sys.argv[2], float(sys.argv[3])
circuits = RedisCircuits(redis_store(url, timeout_s=30)) if url.startswith("redis") else SqlCircuits(SqlStore(url))

def inner(value):
    print(json.dumps(["asked", name, time.time()]), flush=True)
    time.sleep(3.0)
    return time.time()

breaker = Breaker(
    inner=RunnableLambda(inner),
    settings=BreakerSettings(open_s=1, most_open_s=60, probe_s=8),
    store=lambda: circuits,
    name="route",
)
print(json.dumps(["ready", name, 0]), flush=True)
while time.time() < until:
    try:
        print(json.dumps(["answered", name, breaker.invoke("x")]), flush=True)
        break
    except CircuitOpen:
        time.sleep(0.01)
"""


@pytest.mark.slow
def test_of_four_processes_one_probes_and_when_it_is_killed_another_does(url, open_circuits, tmp_path):
    circuits = open_circuits(url)
    now = time.time()
    circuits.change("route", lambda route: policy.opened(route, Opening("server", "r", now, now + 5.0)))
    processes = {}
    for n in range(4):
        with (tmp_path / f"p{n}").open("w") as said:
            command = [sys.executable, "-c", WORKER, url, f"p{n}", str(now + 120)]
            processes[f"p{n}"] = subprocess.Popen(command, stdout=said)
    try:
        while not (asked := told(tmp_path, "asked")):
            assert time.time() < now + 60
            time.sleep(0.005)
        first = asked[0][1]
        processes[first].kill()
        for process in processes.values():
            process.wait(180)
    finally:
        for process in processes.values():
            process.kill()
            process.wait()
    asked, answered = told(tmp_path, "asked"), told(tmp_path, "answered")
    assert first not in {name for _, name in answered}
    assert len(answered) == 3
    assert asked[1][0] > asked[0][0] + 5, "the killed one's claim held for its time"
    assert asked[2][0] >= answered[0][0], "nobody else was let through before the probe had answered"


def told(folder, what):
    lines = [json.loads(line) for each in folder.glob("p?") for line in each.read_text().splitlines() if "]" in line]
    return sorted((at, name) for kind, name, at in lines if kind == what)
