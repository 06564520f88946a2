"""Work that nobody waits for is done, in order, whatever one piece of it does."""

from __future__ import annotations

import queue
import sys
import threading
import time

import pytest

from chainops.core.background import Background


@pytest.fixture
def background():
    return Background("test", waiting_at_most=10)


@pytest.fixture
def told(monkeypatch):
    told = []
    monkeypatch.setattr(threading, "excepthook", told.append)
    return told


def test_what_waits_behind_work_that_fails_is_done_and_the_failure_is_told(background, told):
    begun, go_on, done = threading.Event(), threading.Event(), []

    def fail():
        begun.set()
        assert go_on.wait(60)
        raise ValueError("no")

    assert background.submit(fail)
    assert begun.wait(60)
    assert background.submit(lambda: done.append(1))
    go_on.set()
    assert background.drain(60)
    assert done == [1]
    assert [str(each.exc_value) for each in told] == ["no"]


def test_drained_means_that_the_last_work_is_over(background):
    done = []
    for number in range(10):
        assert background.submit(lambda number=number: done.append(number))
        assert background.drain(60)
        assert done[-1] == number


class Meddled(Background):
    """Lets something happen once, between the end of a drain and what is made of it."""

    after = None

    def drain(self, timeout_s=5.0):
        came = super().drain(timeout_s)
        once, self.after = self.after, None
        if once is not None:
            once()
        return came


def test_all_that_is_taken_before_the_end_is_done_where_that_is_promised():
    background, done = Meddled("test", waiting_at_most=10, finishes=True), []

    def late():
        assert background.submit(until_it_ends_or_a_moment)
        assert background.submit(lambda: done.append(1))

    def until_it_ends_or_a_moment():
        for _ in range(200):
            if not background.is_ending:
                time.sleep(0.001)

    background.after = late
    background.end(60)
    assert done == [1]
    assert not background.submit(lambda: done.append(2))


def test_the_end_waits_no_longer_than_it_is_told_to():
    background, go_on = Background("test", waiting_at_most=10, finishes=True), threading.Event()
    assert background.submit(go_on.wait)
    background.end(0.01)
    assert background.is_ending
    go_on.set()
    assert background.drain(60)


def test_what_waits_is_not_begun_at_the_end_where_nothing_else_is_promised(background):
    begun, go_on, done = threading.Event(), threading.Event(), []
    assert background.submit(lambda: (begun.set(), go_on.wait(60)))
    assert begun.wait(60)
    assert background.submit(lambda: done.append(1))
    background.end(0.01)
    go_on.set()
    assert background.drain(60)
    assert done == []


def test_work_is_taken_also_from_within_submit_as_when_the_garbage_collector_closes_a_stream_there(background):
    done, inner = [], iter([lambda: done.append("inner")])

    class Interrupted(queue.SimpleQueue):
        def put(self, work):
            for each in inner:
                assert background.submit(each)
            super().put(work)

    background._waiting = Interrupted()
    thread = threading.Thread(target=background.submit, args=[lambda: done.append("outer")], daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive()
    assert background.drain(60)
    assert sorted(done) == ["inner", "outer"]


def test_no_more_than_is_allowed_waits(background):
    go_on = threading.Event()
    assert background.submit(lambda: go_on.wait(60))
    taken = sum(background.submit(lambda: None) for _ in range(30))
    assert taken in (9, 10), "the first may be under way or still wait"
    go_on.set()
    assert background.drain(60)


def test_work_is_not_taken_while_the_system_gives_no_thread(background, monkeypatch):
    done = []

    def start(_):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        assert not background.submit(lambda: done.append(1))
        assert background.drain(0.01)
    assert background.submit(lambda: done.append(2))
    assert background.drain(60)
    assert done == [2]


def test_work_goes_on_where_whoever_is_told_of_failures_fails_too(background, monkeypatch):
    done, told = [], []

    def hook(_):
        raise ValueError("the hook's own")

    monkeypatch.setattr(threading, "excepthook", hook)
    monkeypatch.setattr(sys, "excepthook", lambda _, error, __: told.append(str(error)))
    assert background.submit(lambda: 1 / 0)
    assert background.submit(lambda: done.append(1))
    assert background.drain(60)
    assert (done, told) == ([1], ["the hook's own"])
