"""Single flight: requests that come together make one call."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from langchain_core.messages import AIMessage

import chainops
from chainops.cache.records import CacheServed
from chainops.cache.sharing.flight import Flights
from chainops.core.component import Component
from chainops.core.errors import DeadlineExceeded
from chainops.core.steps import Do, Say
from chainops.testing.listening import capture_events


class Slow(Component[object, AIMessage]):
    """Answers in three pieces once it is let go; counts how often it is asked."""

    asked: list
    go: threading.Event

    def plan(self, value, run):
        self.asked.append(value)
        number = len(self.asked)
        yield Do(lambda: self.go.wait(120))
        for piece in (f"answer {number}", " in", " pieces"):
            yield Say(AIMessage(content=piece))
        return AIMessage(content=f"answer {number} in pieces")


@pytest.fixture
def slow():
    return Slow(asked=[], go=threading.Event())


def wait_until(condition, timeout_s=60.0):
    until = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < until, "it never happened"
        time.sleep(0.002)


def on_board(flights):
    return sum(flight.on_board for flight in list(flights._boarded))


def who_wait(replica):
    """The threads that have found something being answered in another process: they wait for that."""
    seen, others = set(), replica.leases.others

    def look(*args, **more):
        found = others(*args, **more)
        if found:
            seen.add(threading.current_thread())
        return found

    replica.leases.others = look
    return seen


def test_many_threads_that_ask_the_same_make_one_call(make_cache, slow):
    flights = Flights()
    cache = make_cache(slow, flights=flights)
    with ThreadPoolExecutor(16) as pool:
        calls = [pool.submit(cache.invoke, "the same question") for _ in range(16)]
        wait_until(lambda: on_board(flights) == 16)
        slow.go.set()
        answers = [call.result() for call in calls]
    assert len(slow.asked) == 1
    assert {answer.text for answer in answers} == {"answer 1 in pieces"}
    assert sorted(answer.status for answer in answers) == ["cached"] * 15 + ["ok"]
    assert {answer.served_by for answer in answers if answer.status == "cached"} == {"cache (joined)"}
    assert len(flights) == 0


def test_many_tasks_and_streams_get_the_one_answer_from_its_start(make_cache, slow):
    flights = Flights()
    cache = make_cache(slow, flights=flights)

    async def streamed():
        return "".join([chunk.text async for chunk in cache.astream("q")])

    async def everybody():
        calls = [asyncio.create_task(streamed() if n % 2 else cache.ainvoke("q")) for n in range(32)]
        while on_board(flights) < 32:
            await asyncio.sleep(0.002)
        slow.go.set()
        return await asyncio.gather(*calls)

    answers = asyncio.run(everybody())
    assert len(slow.asked) == 1
    assert {answer if isinstance(answer, str) else answer.text for answer in answers} == {"answer 1 in pieces"}


def test_near_equal_questions_that_would_be_served_from_each_other_make_one_call(make_cache, slow):
    flights = Flights()
    cache = make_cache(slow, flights=flights)
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(cache.invoke, "how do I write a good decorator")
        wait_until(lambda: slow.asked)
        near = pool.submit(cache.invoke, "how do I write a nice decorator")
        far = pool.submit(cache.invoke, "who wrote moby dick")
        wait_until(lambda: on_board(flights) == 3 and len(slow.asked) == 2)
        slow.go.set()
        answers = [call.result() for call in (first, near, far)]
    assert answers[0].text == answers[1].text != answers[2].text
    assert answers[1].served_by == "cache (joined)"


def test_tenants_never_share_a_call(make_cache, slow):
    cache = make_cache(slow)
    with ThreadPoolExecutor(2) as pool:
        calls = [pool.submit(cache.invoke, "q", chainops.caller(tenant=tenant)) for tenant in ("acme", "globex")]
        wait_until(lambda: len(slow.asked) == 2)
        slow.go.set()
        assert {call.result().status for call in calls} == {"ok"}


def test_a_follower_takes_over_when_the_leader_is_cancelled(make_cache, slow):
    flights = Flights()
    cache = make_cache(slow, flights=flights)

    async def both():
        leader = asyncio.create_task(cache.ainvoke("q"))
        while not slow.asked:
            await asyncio.sleep(0.002)
        follower = asyncio.create_task(cache.ainvoke("q"))
        while on_board(flights) < 2:
            await asyncio.sleep(0.002)
        leader.cancel()
        slow.go.set()
        answer = await follower
        with pytest.raises(asyncio.CancelledError):
            await leader
        return answer

    answer = asyncio.run(both())
    assert (answer.text, answer.status) == ("answer 2 in pieces", "ok")


def test_an_error_is_its_askers_own(make_cache):
    asked = []
    first, go = threading.Event(), threading.Event()

    def inner(_):
        asked.append(1)
        if len(asked) == 1:
            first.set()
            go.wait(120)
            raise ConnectionError("this one only")
        return AIMessage(content="fine")

    flights = Flights()
    cache = make_cache(inner, flights=flights)
    with ThreadPoolExecutor(3) as pool:
        leader = pool.submit(cache.invoke, "q")
        assert first.wait(60)
        followers = [pool.submit(cache.invoke, "q") for _ in range(2)]
        wait_until(lambda: on_board(flights) == 3)
        go.set()
        assert {call.result().text for call in followers} == {"fine"}
        with pytest.raises(ConnectionError):
            leader.result()
    assert len(asked) == 2


def test_nobody_waits_past_their_own_deadline(make_cache, slow):
    flights = Flights()
    cache = make_cache(slow, flights=flights)
    with ThreadPoolExecutor(2) as pool:
        leader = pool.submit(cache.invoke, "q")
        wait_until(lambda: slow.asked)
        with pytest.raises(DeadlineExceeded):
            cache.invoke("q", chainops.caller(deadline_s=0.05))
        slow.go.set()
        assert leader.result().status == "ok"
    assert len(slow.asked) == 1


def test_another_process_is_waited_for_and_its_answer_served(make_cache, make_replica, slow):
    # Two replicas with flights of their own, on one store: what two processes are to each other.
    flights = Flights()
    here = make_cache(slow, flights=Flights())
    there = make_cache(slow, replica=make_replica(), flights=flights)
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(here.invoke, "how do I write a good decorator")
        wait_until(lambda: slow.asked)
        same = pool.submit(there.invoke, "how do I write a good decorator")
        near = pool.submit(there.invoke, "how do I write a nice decorator")
        wait_until(lambda: on_board(flights) == 2)
        time.sleep(0.2)
        assert not same.done()
        assert not near.done()
        slow.go.set()
        answers = [call.result() for call in (first, same, near)]
    assert len(slow.asked) == 1
    assert {answer.text for answer in answers} == {"answer 1 in pieces"}
    assert [answer.status for answer in answers] == ["ok", "cached", "cached"]


def test_what_another_process_was_waited_for_is_served_however_short_ago_the_change_log_was_read(
    make_cache, make_replica, slow, monkeypatch
):
    monkeypatch.setattr("chainops.cache.partitions._CATCH_UP_S", 3600.0)
    here, second = make_cache(slow, flights=Flights()), make_replica()
    there, waiting = make_cache(slow, replica=second, flights=Flights()), who_wait(second)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(here.invoke, "how do I write a good decorator")
        wait_until(lambda: slow.asked)
        near = pool.submit(there.invoke, "how do I write a nice decorator")
        wait_until(lambda: waiting)
        slow.go.set()
        assert near.result().text == first.result().text == "answer 1 in pieces"
    assert len(slow.asked) == 1


def test_a_killed_process_is_not_waited_for_longer_than_its_lease(make_cache, replica, make_replica, monkeypatch):
    dead = make_replica()
    dead.leases._ttl_s = 0.5
    cache = make_cache(lambda _: AIMessage(content="fine"))
    key = []
    original = replica.leases.take
    monkeypatch.setattr(replica.leases, "take", lambda *args, **kwargs: key.append(args) or original(*args, **kwargs))
    cache.invoke("one question")
    scope = key[0][0]
    monkeypatch.undo()
    from chainops.cache.policy import digest

    began, now = time.monotonic(), time.time()
    assert (
        dead.leases.take(scope, digest("another question"), question="another question", vector=None, now=now) is None
    )
    dead.leases._heartbeat.release((scope, digest("another question")))  # its process is gone: nobody renews it
    assert cache.invoke("another question").status == "ok"
    assert 0.4 < time.monotonic() - began < 30


def test_a_degraded_answer_is_shared_by_those_who_wait_and_kept_for_nobody(make_cache, replica):
    go, asked = threading.Event(), []

    class Degraded(Component[str, AIMessage]):
        def plan(self, value, run):
            asked.append(value)
            yield Do(lambda: go.wait(120))
            run.report.mark("degraded", "told to")
            message = AIMessage(content="a stand-in")
            yield Say(message)
            return message

    flights = Flights()
    cache = make_cache(Degraded(), flights=flights)
    with ThreadPoolExecutor(4) as pool, capture_events() as events:
        calls = [pool.submit(cache.invoke, "q") for _ in range(4)]
        wait_until(lambda: on_board(flights) == 4)
        go.set()
        answers = [call.result() for call in calls]
    assert len(asked) == 1
    assert {answer.status for answer in answers} == {"degraded"}
    assert not events.of(CacheServed)
    assert replica.store.size("cache")[0] == 0
