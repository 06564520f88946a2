"""What a cache counts, on its way to the store."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

from chainops.cache.counts import Counts
from chainops.cache.stores.sql_records import SqlRecords


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
