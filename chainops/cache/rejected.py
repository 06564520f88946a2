"""Which answers were reported as wrong: read once a second, and again as soon as something was dropped here."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from chainops.cache.records import WRONG, CacheStore
from chainops.core.forking import reset_in_child

_FRESH_S = 1.0
"""How long what was read is trusted: so long it takes until a report in another process is heard of."""
_HELD = 1000


class _Known(NamedTuple):
    marks: frozenset[str]
    drops: int
    """How many there had been here when the reading began."""
    read_at: float


class Rejected:
    """The marks (`policy.rejected`) of answers that people took out as wrong. Thread-safe."""

    def __init__(self, store: CacheStore, owner: str) -> None:
        self._store, self._owner = store, owner
        self.reset()
        reset_in_child(self)

    def reset(self) -> None:
        """For a forked child: what its parent was just doing it does not do."""
        self._lock = threading.Lock()
        self._known = _Known(frozenset(), 0, float("-inf"))
        self._drops = self._dropping = 0

    def has(self, mark: str) -> bool:
        """Whether this answer to this question is one of them. Blocks now and then."""
        known = self._known
        if self._dropping or known.drops != self._drops or time.monotonic() - known.read_at >= _FRESH_S:
            known = self._known = self._read()
        return mark in known.marks

    def _read(self) -> _Known:
        drops, began = self._drops, time.monotonic()  # before reading: what is dropped meanwhile is read next time
        tombstones = self._store.tombstones(self._owner, limit=_HELD)
        return _Known(frozenset(each.group for each in tombstones if each.group.startswith(WRONG)), drops, began)

    @contextmanager
    def dropping(self) -> Iterator[None]:
        """Around taking entries out: what is read before it has ended is not trusted after it."""
        with self._lock:
            self._dropping += 1
        try:
            yield
        finally:
            with self._lock:
                self._dropping -= 1
                self._drops += 1
