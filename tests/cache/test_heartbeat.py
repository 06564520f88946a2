"""Leases live as long as they are held, and not longer."""

from __future__ import annotations

import os
import threading
import time

import pytest

from chainops.cache.sharing.heartbeat import Heartbeat
from chainops.testing.listening import ManualClock


class Place:
    """Renews in memory; can be down, and can say that a lease is somebody else's."""

    def __init__(self):
        self.asked, self.taken, self.is_down = [], set(), False
        self.beat = threading.Event()

    def renew(self, keys):
        self.asked.append(sorted(keys))
        self.beat.set()
        if self.is_down:
            raise ConnectionError("down")
        return self.taken & set(keys)

    def wait(self):
        self.beat.clear()
        assert self.beat.wait(60)


def eventually(is_so):
    for _ in range(60_000):
        if is_so():
            return
        time.sleep(0.001)
    pytest.fail("it never came to that")


@pytest.fixture
def place():
    return Place()


@pytest.fixture
def clock(monkeypatch):
    """What leases live by; the beats come in real time."""
    stopped = ManualClock()
    monkeypatch.setattr("chainops.cache.sharing.heartbeat.time", stopped)
    return stopped


def test_nothing_runs_until_something_is_held(place):
    heartbeat = Heartbeat(place.renew, ttl_s=0.03)
    assert not heartbeat.is_beating
    assert heartbeat.release("a") is False


def test_one_thread_renews_all_that_is_held_and_ends_with_the_last(place):
    heartbeat = Heartbeat(place.renew, ttl_s=0.06)
    before = set(threading.enumerate())
    for key in "abc":
        heartbeat.hold(key)
    assert len(set(threading.enumerate()) - before) == 1
    eventually(lambda: place.asked[-1:] == [["a", "b", "c"]])
    assert heartbeat.release("b")
    place.wait()
    eventually(lambda: place.asked[-1] == ["a", "c"])
    heartbeat.release("a")
    heartbeat.release("c")
    eventually(lambda: not heartbeat.is_beating)
    assert len(heartbeat) == 0


def test_it_begins_again_after_it_stopped(place):
    heartbeat = Heartbeat(place.renew, ttl_s=0.03)
    for _ in range(50):
        heartbeat.hold("a")
        assert heartbeat.release("a")
    heartbeat.hold("b")
    place.wait()
    eventually(lambda: place.asked[-1] == ["b"])
    heartbeat.release("b")
    eventually(lambda: not heartbeat.is_beating)


def test_a_long_wait_ends_at_once_when_the_last_is_released(place):
    heartbeat = Heartbeat(place.renew, ttl_s=3000)
    heartbeat.hold("a")
    time.sleep(0.05)  # until the thread waits
    heartbeat.release("a")
    eventually(lambda: not heartbeat.is_beating)
    assert place.asked == []


def test_a_lease_that_is_lost_is_told_once_and_renewed_no_more(place):
    heartbeat, lost = Heartbeat(place.renew, ttl_s=0.03), []
    place.taken = {"a"}
    heartbeat.hold("a", on_lost=lambda: lost.append("a"))
    heartbeat.hold("b", on_lost=lambda: lost.append("b"))
    eventually(lambda: place.asked[-2:] == [["b"], ["b"]])
    assert lost == ["a"]
    assert heartbeat.release("a") is False
    assert heartbeat.release("b") is True


def test_a_lease_taken_anew_while_the_one_before_it_is_asked_about_is_held():
    heartbeat, asked = Heartbeat(lambda keys: renew(keys), ttl_s=0.03), []

    def renew(keys):
        asked.append(keys)
        if len(asked) > 1:
            return set()
        heartbeat.release("a")
        heartbeat.hold("a", on_lost=lambda: pytest.fail("lost"))
        return {"a"}  # the one that was released

    heartbeat.hold("a")
    eventually(lambda: len(asked) > 1)
    assert asked[1] == ["a"]
    assert heartbeat.release("a") is True


def test_a_lease_that_cannot_be_renewed_is_lost_when_its_time_is_over_and_not_before(place, clock):
    heartbeat, lost = Heartbeat(place.renew, ttl_s=0.03), threading.Event()
    place.is_down = True
    heartbeat.hold("a", on_lost=lost.set)
    clock.now += 0.029
    asked = len(place.asked)
    eventually(lambda: len(place.asked) >= asked + 3)
    assert not lost.is_set()
    clock.now += 0.002
    assert lost.wait(60)
    assert isinstance(heartbeat.error, ConnectionError)
    eventually(lambda: not heartbeat.is_beating)


def test_it_goes_on_after_the_place_was_down_for_a_moment(place, clock):
    heartbeat = Heartbeat(place.renew, ttl_s=0.03)
    heartbeat.hold("a", on_lost=lambda: pytest.fail("lost"))
    clock.now += 0.029  # before it is down: so the beat after one that failed began at this time
    place.is_down = True
    eventually(lambda: heartbeat.error is not None)
    place.is_down = False
    eventually(lambda: heartbeat.error is None)
    clock.now += 0.029
    place.is_down = True
    eventually(lambda: heartbeat.error is not None)
    assert heartbeat.release("a") is True


def test_a_forked_child_holds_nothing_and_can_hold_its_own(place):
    heartbeat = Heartbeat(place.renew, ttl_s=0.03)
    heartbeat.hold("parent's")
    place.wait()
    pid = os.fork()
    if not pid:
        place.asked, place.beat = [], threading.Event()
        is_clean = len(heartbeat) == 0 and not heartbeat.is_beating
        heartbeat.hold("child's")
        os._exit(0 if is_clean and place.beat.wait(60) and place.asked[0] == ["child's"] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert heartbeat.release("parent's")
    eventually(lambda: not heartbeat.is_beating)
