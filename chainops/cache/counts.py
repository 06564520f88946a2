"""What a cache did, counted in this process and written to the store once a second."""

from __future__ import annotations

import atexit
import contextlib
import threading
import time
import weakref
from collections.abc import Mapping

from chainops.cache.records import CacheStore, Kind, Tally
from chainops.core.errors import ChainopsError, StoreError
from chainops.core.forking import reset_in_child

EVERY_S = 1.0
"""So much of the counts a killed process loses."""
_AT_ONCE = 250
"""Hits in one step of the store, which takes all of them or none: what is put back was not counted."""


class Counts:
    """Hits, misses and what they saved, by tenant. Thread-safe."""

    def __init__(self, store: CacheStore, owner: str) -> None:
        self._store, self._owner = store, owner
        self.reset()
        reset_in_child(self)
        _instances.add(self)

    def reset(self) -> None:
        """For a forked child: what is not written yet its parent writes."""
        self._lock, self._writing = threading.Lock(), threading.Lock()
        self._hits: dict[str, int] = {}
        self._counts: dict[tuple[str | None, Kind], Tally] = {}
        self._flushed_at = time.monotonic()
        self._is_due = False

    def count(self, kind: Kind, *, tenant: str | None, usd: float = 0.0, seconds: float = 0.0) -> None:
        """Count what happened; written to the store once a second. Never blocks."""
        with self._lock:
            self._counts[tenant, kind] = self._counts.get((tenant, kind), Tally()) + Tally(1, usd, seconds)
            is_first, self._is_due = not self._is_due, True
        if is_first:  # written also when no other request comes
            timer = threading.Timer(EVERY_S, self._flush_later)
            timer.daemon = True
            timer.start()

    def _flush_later(self) -> None:
        with contextlib.suppress(ChainopsError):
            self.flush(now=time.time(), at_once=True)

    def count_hit(self, entry: str) -> None:
        with self._lock:
            self._hits[entry] = self._hits.get(entry, 0) + 1

    def flush(self, *, now: float, at_once: bool = False) -> None:
        """Write the counts, if it is time. Blocks. Up to a second of counts is lost with a killed process.

        Afterwards, with `at_once`, the store has all that was counted, also what another thread was just writing.
        """
        if not at_once and time.monotonic() - self._flushed_at < EVERY_S:
            return
        if self._writing.acquire(blocking=at_once):
            try:
                self._write(now)
            finally:
                self._writing.release()

    def _write(self, now: float) -> None:
        with self._lock:
            counts, self._counts, hits, self._hits = self._counts, {}, self._hits, {}
            self._flushed_at, self._is_due = time.monotonic(), False
        by_tenant: dict[str | None, dict[Kind, Tally]] = {}
        for (tenant, kind), tally in counts.items():
            by_tenant.setdefault(tenant, {})[kind] = tally
        while by_tenant:
            tenant, tallies = by_tenant.popitem()
            try:
                self._store.tally(self._owner, tenant, tallies)
            except StoreError:
                by_tenant[tenant] = tallies
                self._put_back(by_tenant, hits)
                raise
        served = list(hits.items())
        for start in range(0, len(served), _AT_ONCE):
            try:
                self._store.served(self._owner, dict(served[start : start + _AT_ONCE]), now=now)
            except StoreError:
                self._put_back({}, dict(served[start:]))
                raise

    def _put_back(self, counts: Mapping[str | None, Mapping[Kind, Tally]], hits: Mapping[str, int]) -> None:
        """What could not be written, for the next time."""
        with self._lock:
            for entry, times in hits.items():
                self._hits[entry] = self._hits.get(entry, 0) + times
            for tenant, tallies in counts.items():
                for kind, tally in tallies.items():
                    self._counts[tenant, kind] = self._counts.get((tenant, kind), Tally()) + tally

    def totals(self, *, now: float, tenant: str | None = None) -> Mapping[Kind, Tally]:
        self.flush(now=now, at_once=True)
        return self._store.totals(self._owner, tenant)


_instances: weakref.WeakSet[Counts] = weakref.WeakSet()


def _flush_all() -> None:
    """When the process ends: a command that asked once counts too."""
    for counts in list(_instances):
        with contextlib.suppress(ChainopsError):
            counts.flush(now=time.time(), at_once=True)


atexit.register(_flush_all)
