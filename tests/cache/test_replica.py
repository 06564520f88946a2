"""What a process has just stored, dropped or been told counts at once, whatever it was reading at that moment."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from langchain_core.messages import AIMessage

from chainops.cache.policy import Key
from chainops.cache.records import CacheRecovered, Limits, Where
from chainops.cache.stores.sql_records import SqlRecords
from chainops.core.errors import StoreUnavailable
from chainops.testing.cache_pieces import NOW, entry
from chainops.testing.listening import capture_events

KEY = Key(scope="s", exact="e", question="question e", may_be_near=False)
LIMITS = Limits(100, 10**9)


class Meddled(SqlRecords):
    """Lets something happen once, between a step of the store and what is made of it."""

    def __init__(self, store):
        super().__init__(store)
        self.after = {}

    def _meanwhile(self, step, came):
        if (once := self.after.pop(step, None)) is not None:
            once()
        return came

    def exact(self, scope, exact):
        return self._meanwhile("exact", super().exact(scope, exact))

    def position(self, scope):
        return self._meanwhile("position", super().position(scope))

    def put(self, *told, **more):
        return self._meanwhile("put", super().put(*told, **more))


@pytest.fixture
def records(store):
    return Meddled(store)


@pytest.fixture
def replica(make_replica, records):
    return make_replica(records=records, owner="o")


@pytest.mark.parametrize("step", ["exact", "put"])
@pytest.mark.parametrize("how", ["drop", "clear", "forget"])
def test_what_is_dropped_while_it_is_read_or_stored_is_not_served_any_more(replica, records, step, how):
    def drop():
        if how == "drop":
            replica.drop(Where(ids=("e",)), reason="wrong", now=NOW)
        elif how == "clear":
            replica.clear()
        else:
            replica.forget(user="ann", tenant=None, now=NOW)

    if step == "exact":
        records.put(entry(user="ann"), None)
    records.after[step] = drop
    if step == "exact":
        replica.exact(KEY, now_s=0.0)
    else:
        replica.keep(entry(user="ann"), None, now_s=0.0, limits=LIMITS)
    assert replica.held(KEY, now_s=0.0) is None
    assert replica.exact(KEY, now_s=0.0) is None


def test_what_is_stored_while_the_one_before_it_is_read_is_served(replica, records):
    records.put(entry("old", exact="e"), None)
    records.after["exact"] = lambda: replica.keep(entry("new", exact="e"), None, now_s=0.0, limits=LIMITS)
    replica.exact(KEY, now_s=0.0)
    assert replica.held(KEY, now_s=0.0).id == "new"


def test_of_two_that_are_stored_at_once_the_later_one_is_served(replica, records):
    records.after["put"] = lambda: replica.keep(entry("later", exact="e"), None, now_s=0.0, limits=LIMITS)
    replica.keep(entry("earlier", exact="e"), None, now_s=0.0, limits=LIMITS)
    assert replica.held(KEY, now_s=0.0).id == records.exact("s", "e").id == "later"


def test_what_is_stored_while_others_are_dropped_is_served_and_not_the_one_before_it(replica, records):
    replica.keep(entry("old", exact="e"), None, now_s=0.0, limits=LIMITS)
    records.after["put"] = lambda: replica.drop(Where(ids=("another",)), reason="wrong", now=NOW)
    replica.keep(entry("new", exact="e"), None, now_s=0.0, limits=LIMITS)
    found = replica.held(KEY, now_s=0.0) or replica.exact(KEY, now_s=0.0)
    assert found.id == "new"


def fail(replica, meanwhile=lambda: None):
    def work():
        with replica.guarded():
            meanwhile()
            raise StoreUnavailable("cache.db", "locked", "repeat")

    with pytest.raises(StoreUnavailable):
        work()


def test_of_calls_that_fail_at_the_same_moment_one_counts(replica, monkeypatch):
    now = 100.0
    monkeypatch.setattr("chainops.cache.replica.time", SimpleNamespace(monotonic=lambda: now))
    fail(replica, lambda: fail(replica, lambda: fail(replica)))
    assert replica.is_down
    now += 0.25
    assert not replica.is_down
    fail(replica)
    now += 0.25
    assert replica.is_down, "the second time it is left alone for longer"
    now += 0.25
    assert not replica.is_down


def test_a_call_that_began_before_the_store_failed_does_not_say_that_it_is_back(replica, records):
    records.put(entry(), None)
    before = replica.trouble
    replica.exact(KEY, now_s=0.0)
    fail(replica)
    assert replica.recovered(before) is None
    assert replica.is_down
    assert replica.held(KEY, now_s=0.0).id == "e"
    assert replica.recovered(replica.trouble) is not None
    assert not replica.is_down
    assert replica.held(KEY, now_s=0.0) is None


def test_a_lookup_that_was_on_its_way_when_the_store_failed_leaves_it_alone(make_cache, make_replica, store):
    records = Meddled(store)
    replica = make_replica(records=records)
    cache = make_cache(lambda _: AIMessage(content="answer"), replica=replica)
    records.after["exact"] = lambda: fail(replica)
    with capture_events() as events:
        cache.invoke("how do I sort a list")
    assert not events.of(CacheRecovered)
    assert replica.is_down


def test_a_child_that_is_forked_while_a_thread_reads_is_not_kept_waiting(replica, records):
    records.put(entry(embedder=replica.embedder_digest), replica.embed("question e"))
    begun, go_on, vector = threading.Event(), threading.Event(), replica.embed("question e")

    def read():
        records.after["position"] = lambda: (begun.set(), go_on.wait(60))
        replica.neighbours("s", vector)

    def works():
        found = [each.outline.id for each in replica.neighbours("s", vector)]
        replica.learn()
        return found == ["e"] and replica.exact(KEY, now_s=0.0).id == "e"

    with ThreadPoolExecutor(1) as threads:
        reading = threads.submit(read)
        assert begun.wait(60)
        pid = os.fork()
        if not pid:
            done = []
            try:
                child = threading.Thread(target=lambda: done.append(works()), daemon=True)
                child.start()
                child.join(30)
            finally:
                os._exit(0 if done == [True] else 1)
        go_on.set()
        reading.result()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert works()
