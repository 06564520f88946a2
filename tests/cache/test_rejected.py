"""An answer that was reported as wrong is not kept again, whatever was being read or stored at that moment."""

from __future__ import annotations

import pytest
from langchain_core.messages import AIMessage

import chainops
from chainops.cache.cache import Cache
from chainops.cache.records import CacheKept, Where
from chainops.cache.rejected import Rejected
from chainops.cache.stores.sql_records import SqlRecords
from chainops.testing.cache_pieces import NOW, entry
from chainops.testing.listening import capture_events

QUESTION = "How do I sort a list in Python?"


class Meddled(SqlRecords):
    """Lets something happen once, around a step of the store."""

    def __init__(self, store):
        super().__init__(store)
        self.before, self.after = {}, {}

    def tombstones(self, *told, **more):
        return self._around("tombstones", lambda: super(Meddled, self).tombstones(*told, **more))

    def put(self, *told, **more):
        return self._around("put", lambda: super(Meddled, self).put(*told, **more))

    def _around(self, step, work):
        self.before.pop(step, lambda: None)()
        came = work()
        self.after.pop(step, lambda: None)()
        return came


@pytest.fixture
def records(store):
    return Meddled(store)


@pytest.mark.parametrize("reads_once_more", [False, True])
def test_what_is_dropped_while_the_list_is_read_is_on_it_at_the_next_look(records, reads_once_more):
    rejected = Rejected(records, "o")
    records.put(entry(group="wrong:x"), None)

    def drop():
        with rejected.dropping():
            if reads_once_more:
                assert not rejected.has("wrong:x")
            records.drop("o", Where(ids=("e",)), reason="wrong", now=NOW)
            if reads_once_more:
                assert rejected.has("wrong:x")

    records.after["tombstones"] = drop
    assert not rejected.has("wrong:x")
    assert rejected.has("wrong:x")


@pytest.mark.parametrize("step", ["before", "after"])
def test_an_answer_that_is_reported_while_it_is_being_stored_once_more_is_not_kept(
    make_cache, make_replica, records, step
):
    cache = make_cache(lambda _: AIMessage(content="always this"), replica=make_replica(records=records))
    cache.invoke(QUESTION, chainops.caller(tenant="acme"))
    ((stored, _, _),) = Cache(cache).entries()
    getattr(records, step)["put"] = lambda: Cache(cache).wrong(stored.id, "no")
    with capture_events() as events:
        cache.invoke(QUESTION, chainops.caller(tenant="globex"))
    assert "reported as wrong" in events.of(CacheKept)[0].reason
    assert Cache(cache).entries() == []
    assert cache.invoke(QUESTION, chainops.caller(tenant="globex")).status == "ok"


def test_a_comparison_that_ends_while_an_answer_is_reported_does_not_undo_that(make_cache, make_replica, records):
    replica = make_replica(records=records)
    cache = make_cache(lambda _: AIMessage(content="always this"), replica=replica)
    cache.invoke(QUESTION)
    ((stored, _, _),) = Cache(cache).entries()
    update = records.update

    def compared_at_the_same_time(entry, **changes):
        records.update = update
        assert update(entry, **changes)
        replica.learn_of(stored, group="another's", label=None)
        return True

    records.update = compared_at_the_same_time
    Cache(cache).wrong(stored.id, "no")
    assert [cache.invoke(QUESTION).status for _ in range(2)] == ["ok", "ok"]
