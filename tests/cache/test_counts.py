"""What a cache counts, on its way to the store."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from chainops.cache.counts import Counts
from chainops.cache.stores.sql_records import SqlRecords
from chainops.core.errors import StoreUnavailable
from chainops.testing.cache_pieces import NOW, entry


class Busy(SqlRecords):
    """Tells when counts come, and takes its time to write them."""

    def __init__(self, store):
        super().__init__(store)
        self.began, self.go_on = threading.Event(), threading.Event()

    def tally(self, *told):
        self.began.set()
        assert self.go_on.wait(60)
        super().tally(*told)


def test_totals_hold_what_another_thread_was_just_writing(store):
    records = Busy(store)
    counts = Counts(records, "cache")
    counts.count("missed", tenant="acme")
    with ThreadPoolExecutor(2) as threads:
        writing = threads.submit(counts.flush, now=1.0, at_once=True)
        assert records.began.wait(60)
        totals = threads.submit(counts.totals, now=1.0)
        time.sleep(0.1)  # time enough to answer without it
        records.go_on.set()
        writing.result()
        assert totals.result()["missed"].count == 1
    assert counts.totals(now=1.0)["missed"].count == 1


def test_a_request_does_not_wait_for_counts_that_another_one_writes(store, monkeypatch):
    records = Busy(store)
    counts = Counts(records, "cache")
    counts.count("missed", tenant="acme")
    monkeypatch.setattr("chainops.cache.counts.EVERY_S", 0.0)
    with ThreadPoolExecutor(1) as threads:
        writing = threads.submit(counts.flush, now=1.0)
        assert records.began.wait(60)
        counts.flush(now=1.0)
        assert not writing.done()
        records.go_on.set()


class Flaky(SqlRecords):
    """Cannot be reached at one of its steps, the n-th of those that are named."""

    fails_at = ("", 0)

    def _step(self, name):
        failing, after = self.fails_at
        if name == failing:
            self.fails_at = (name, after - 1)
            if after == 1:
                raise StoreUnavailable("cache.db", "locked", "repeat")

    def tally(self, *told):
        self._step("tally")
        super().tally(*told)

    def served(self, *told, **more):
        self._step("served")
        super().served(*told, **more)


@pytest.mark.parametrize("fails_at", [("tally", 1), ("tally", 2), ("served", 1), ("served", 2)])
def test_what_a_store_refuses_is_counted_once_when_it_is_back(store, fails_at):
    records = Flaky(store)
    names = [f"e{n}" for n in range(400)]
    for name in names:
        records.put(entry(name), None)
    counts = Counts(records, "o")
    for tenant in ("acme", "other"):
        counts.count("missed", tenant=tenant)
    for name in names:
        counts.count_hit(name)
    records.fails_at = fails_at
    with pytest.raises(StoreUnavailable):
        counts.flush(now=NOW, at_once=True)
    counts.count_hit("e0")
    counts.flush(now=NOW, at_once=True)
    assert counts.totals(now=NOW)["missed"].count == 2
    told = {each.id: hits for each, hits, _ in records.entries("o", limit=1_000)}
    assert told == dict.fromkeys(names, 1) | {"e0": 2}
