"""What is known of entries without asking the store: read ahead, held within bounds, and read again behind."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any

from chainops.cache.background import UPKEEP
from chainops.cache.evidence import content_of
from chainops.cache.records import CacheStore, Outline
from chainops.core.errors import ChainopsError
from chainops.core.forking import reset_in_child

FRESH_S = 60.0
"""One that was read longer ago is still used, and then read again behind: another process may have found that the
entry has the same answer as another. Until that is heard the two count as different, which errs on the cautious side.
It is found out soon after an entry is stored, or never: one that was N seconds old when it was read is read again
after N seconds, if that is longer. Reading 16 again takes a millisecond."""
HELD_BYTES = 96 * 2**20
"""Of all scopes of a cache together, estimated: some 120,000 entries with questions of ten words."""
_EACH_BYTES = 750
"""What an outline takes beside its question's text: 580 measured, and 8 for each content word, whose texts are
shared."""
_BATCH = 250
_PAUSE_S = 0.005
"""Between batches that are read ahead: a request waits for a batch's share of Python's global lock at most."""


class Outlines:
    """The outlines of entries that this process has looked at or read ahead; the newest stay. Thread-safe."""

    def __init__(self, store: CacheStore, *, held_bytes: int = HELD_BYTES) -> None:
        self._store, self._most = store, held_bytes
        self.reset()
        reset_in_child(self)

    def reset(self) -> None:
        """For a forked child: a thread of its parent's may be changing this."""
        self._lock = threading.Lock()
        # Tuples of plain values, with the time to read them again: the garbage collector does not look at those.
        self._held: OrderedDict[tuple[str, int], tuple[Any, ...]] = OrderedDict()
        self.size_bytes = 0
        """Estimated."""
        self._due: dict[str, set[int]] = {}
        self._changed = 0

    def __len__(self) -> int:
        return len(self._held)

    def of(self, scope: str, seqs: Sequence[int]) -> dict[int, Outline]:
        """Of those entries that there are. Blocks for those that are not held."""
        found: dict[int, Outline] = {}
        now, old = time.monotonic(), []
        held = self._held
        for seq in seqs:
            if (known := held.get((scope, seq))) is not None:
                found[seq] = Outline._make(known[:-1])
                if known[-1] < now:
                    old.append(seq)
        if len(found) < len(seqs):
            found |= self._fetch(scope, [seq for seq in seqs if seq not in found])
        if old:
            self.read_behind(scope, old)
        return found

    def hold(self, scope: str, outlines: Iterable[Outline]) -> None:
        """Know these without asking the store."""
        with self._lock:
            self._hold(scope, outlines)

    def _hold(self, scope: str, outlines: Iterable[Outline]) -> None:
        now, today = time.monotonic(), time.time()
        for each in outlines:
            self._let_go((scope, each.seq))
            again = now + max(FRESH_S, today - each.created_at)
            self._held[scope, each.seq] = (*each, again)
            self.size_bytes += _size(each.question)
        while self.size_bytes > self._most:
            self._let_go(next(iter(self._held)))

    def _fetch(self, scope: str, seqs: Sequence[int], *, reads_words: bool = False) -> dict[int, Outline]:
        """Read from the store, and hold: once more if an entry was regrouped, or all were let go, while it was read."""
        while True:
            changed = self._changed
            read = self._store.at(scope, seqs)
            if reads_words:
                read = {seq: each._replace(content=content_of(each.question)) for seq, each in read.items()}
            with self._lock:
                if changed == self._changed:
                    self._hold(scope, read.values())
                    return read

    def regroup(self, scope: str, seq: int, group: str) -> None:
        """An entry was found to have this group's answer."""
        with self._lock:
            self._changed += 1
            if (known := self._held.get((scope, seq))) is not None:
                self._held[scope, seq] = (*known[:3], group, *known[4:])

    def forget(self, scope: str, seqs: Iterable[int]) -> None:
        with self._lock:
            for seq in seqs:
                self._let_go((scope, seq))

    def clear(self) -> None:
        with self._lock:
            self._changed += 1
            self._held.clear()
            self.size_bytes = 0

    def read_behind(self, scope: str, seqs: Iterable[int]) -> None:
        """Read these from the store in the background. What is not read, for too much is waiting there, is read when
        it is asked for.
        """
        with self._lock:
            is_first = scope not in self._due
            self._due.setdefault(scope, set()).update(seqs)
        if is_first and not UPKEEP.submit(lambda: self._read(scope)):
            self._due.pop(scope, None)

    def _read(self, scope: str) -> None:
        with self._lock:
            due = sorted(self._due.pop(scope, ()))
        due = due[-(self._most // _EACH_BYTES) :]  # those for which there is room, the newest last
        with contextlib.suppress(ChainopsError):  # each is read when it is asked for
            for start in range(0, len(due), _BATCH):
                if UPKEEP.is_ending:
                    return
                some = due[start : start + _BATCH]
                read = self._fetch(scope, some, reads_words=True)
                self.forget(scope, set(some) - set(read))
                time.sleep(_PAUSE_S)

    def _let_go(self, key: tuple[str, int]) -> None:
        known = self._held.pop(key, None)
        if known is not None:
            self.size_bytes -= _size(known[2])


def _size(question: str) -> int:
    return _EACH_BYTES + len(question)
