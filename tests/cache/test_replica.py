"""What a process has just stored, dropped or been told counts at once, whatever it was reading at that moment."""

from __future__ import annotations

import pytest

from chainops.cache.policy import Key
from chainops.cache.records import Limits, Where
from chainops.cache.stores.sql_records import SqlRecords
from chainops.testing.cache_pieces import NOW, entry

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
