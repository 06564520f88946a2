"""A lease is its holder's: not a forked child's, and not another request's of the same process."""

from __future__ import annotations

import os
import time

from langchain_core.messages import AIMessage

from chainops.cache.sharing.flight import Flights
from chainops.cache.sharing.leases import Leases
from chainops.cache.stores.sql_records import SqlRecords
from chainops.core.errors import StoreUnavailable

QUESTION = "how do I sort a list"


class Meddled(SqlRecords):
    """Lets something happen once, after a lease was given back or another process's answer was found."""

    after = None

    def release(self, *told):
        super().release(*told)
        once, self.after = self.after, None
        if once is not None:
            once()


def test_a_lease_that_is_given_back_and_taken_by_another_request_stays_taken(make_cache, make_replica, store):
    records = Meddled(store)
    replica = make_replica(records=records)
    cache = make_cache(lambda _: AIMessage(content="answer"), replica=replica, flights=Flights())
    taken, take = [], replica.leases.take
    replica.leases.take = lambda *key, **more: (taken.append(key), take(*key, **more))[1]

    def another():
        assert take(*taken[0], question=QUESTION, vector=None, now=time.time()) is None

    records.after = another
    cache.invoke(QUESTION)
    scope, exact = taken[0]
    assert [each.exact for each in records.leases(scope, now=time.time())] == [exact]
    replica.leases.release(scope, exact)
    assert records.leases(scope, now=time.time()) == []


class FailsOnceLeased(SqlRecords):
    """Cannot be read any more once a lease was taken."""

    is_leased = False

    def lease(self, *told, **more):
        self.is_leased = True
        return super().lease(*told, **more)

    def exact(self, *told):
        if self.is_leased:
            raise StoreUnavailable(self.place, "gone", "wait")
        return super().exact(*told)


def test_a_lease_is_not_held_for_ever_when_the_store_fails_just_after_it_was_taken(make_cache, make_replica, store):
    replica = make_replica(records=FailsOnceLeased(store))
    cache = make_cache(lambda _: AIMessage(content="answer"), replica=replica, flights=Flights())
    assert cache.invoke(QUESTION).text == "answer"
    assert replica.store.is_leased
    assert len(replica.leases._heartbeat) == 0


def test_every_thread_of_a_forked_child_takes_leases_in_the_childs_name(store):
    leases = Leases(SqlRecords(store), "o")
    parents = leases.holder
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.write(writing, vars(leases).get("holder", "not yet").encode())
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    childs = os.read(reading, 1000).decode()
    assert len(childs) == len(parents)
    assert childs != parents == leases.holder
