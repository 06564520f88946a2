"""One vector index per scope, made from the store's change log and kept in snapshots."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from chainops.cache.background import UPKEEP
from chainops.cache.outlines import Outlines
from chainops.cache.records import CacheStore, Change, Outline
from chainops.core.errors import ChainopsError, StoreError
from chainops.core.forking import reset_in_child

if TYPE_CHECKING:
    import numpy as np

    from chainops.models.embeddings import Embedder
    from chainops.stores.vectors import Vectors

NEIGHBOURS = 16
_NEVER = float("-inf")
_CATCH_UP_S = 0.1
"""How often a scope's change log is read for what other processes wrote."""
_SCOPES_HELD = 64
_SNAPSHOT_FROM = 5_000
"""Entries of a scope from which its vectors are kept in a file; fewer are read from the store in no time."""
_BATCH = 256


class Neighbour(NamedTuple):
    """A stored question near the one asked."""

    outline: Outline
    similarity: float
    """Cosine."""
    newer: int = 1000
    """How many changes of its scope came after it."""


@dataclass(slots=True)
class _Partition:
    """One scope's index, and how far in the change log it has read."""

    index: Vectors
    lock: threading.Lock
    seq: int = 0
    saved: int = 0
    """How many changes the snapshot lacks."""
    read_at: float = _NEVER
    asked: int = 0
    """How often somebody wanted the change log read at the next lookup."""
    heard: int = 0
    """How many of these the last reading began after."""
    is_known: bool = False
    """Whether the outlines of its entries have been asked for ahead."""
    saving: threading.Lock = field(default_factory=threading.Lock)
    is_over: bool = False
    """Whether it was let go: who still has it may look, and writes no snapshot any more."""

    def close(self) -> None:
        with self.saving:  # a snapshot that is being written is finished first
            self.is_over = True
        self.index.close()


class Partitions:
    """The scopes of one cache that this process has looked at lately. Scopes never meet. Thread-safe.

    Args:
        folder: Where snapshots of large indexes lie; None: they are read from the store each time.
        notices: Takes what was repaired or could not be done on the side.
    """

    def __init__(
        self,
        store: CacheStore,
        embedder: Callable[[], Embedder],
        *,
        owner: str,
        folder: Path | None,
        notices: deque[str],
    ) -> None:
        self._store, self._embedder, self._owner = store, embedder, owner
        self._folder, self._notices = folder, notices
        self.outlines = Outlines(store)
        self.reset()
        reset_in_child(self)

    def reset(self) -> None:
        """For a forked child: indexes that a thread of its parent's may be changing are opened anew."""
        self._lock = threading.Lock()
        self._partitions: OrderedDict[str, _Partition] = OrderedDict()
        self._remaking = False

    def look_again(self, scope: str | None = None) -> None:
        """Read the change log at the next lookup, of one scope or of all."""
        with self._lock:
            partitions = self._partitions.values() if scope is None else [self._partitions.get(scope)]
            for partition in partitions:
                if partition is not None:
                    partition.asked += 1

    def look_behind(self, scope: str) -> None:
        """Read the change log now, in the background: then what was just stored is found, and no lookup has to wait."""
        partition = self._partitions.get(scope)
        if partition is not None:
            with contextlib.suppress(ChainopsError):  # the next lookup tries again, and tells
                self._catch_up(scope, partition)

    def let_go(self, *, snapshots: bool = False) -> None:
        """Hold nothing any more; with `snapshots`, not on disk either."""
        with self._lock:
            partitions = list(self._partitions.values())
            self._partitions.clear()
        self.outlines.clear()
        for partition in partitions:
            partition.close()
        if snapshots and self._folder is not None:
            for partition in partitions:
                partition.index.settle()  # a build writes files, too
            shutil.rmtree(self._folder, ignore_errors=True)

    def catch_up(self, scope: str) -> None:
        """Read what other processes stored, if that is a while ago."""
        self._catch_up(scope, self._partition(scope))

    def nearest(self, scope: str, vector: np.ndarray) -> list[Neighbour]:
        """The nearest stored questions of a scope, best first."""
        partition = self._partition(scope)
        self._catch_up(scope, partition)
        found = partition.index.search(vector, NEIGHBOURS)
        outlines = self.outlines.of(scope, [seq for seq, _ in found])
        if gone := [seq for seq, _ in found if seq not in outlines]:
            partition.index.remove(gone)  # dropped in this very moment: the log will say the same
        last = partition.seq
        return [
            Neighbour(outlines[seq], similarity, max(0, last - seq)) for seq, similarity in found if seq in outlines
        ]

    def _partition(self, scope: str) -> _Partition:
        with self._lock:
            partition = self._partitions.get(scope)
            if partition is not None:
                self._partitions.move_to_end(scope)
                return partition
        opened = self._open(scope)
        with self._lock:
            partition = self._partitions.setdefault(scope, opened)
            let_go = [self._partitions.popitem(last=False)[1] for _ in range(len(self._partitions) - _SCOPES_HELD)]
        if partition is not opened:  # another thread was first
            let_go.append(opened)
        for each in let_go:
            each.close()
        return partition

    def _open(self, scope: str) -> _Partition:
        """From its snapshot where there is one that fits; the change log tells the rest."""
        from chainops.stores.vectors import Vectors

        folder = self._snapshot(scope)
        if folder is not None and folder.exists():
            try:
                index = Vectors.open(folder, stamp=self._stamp(scope))
            except StoreError as error:  # made for other entries or another model, cut or changed
                self._notices.append(f"the snapshot is made again: {error}")
            else:
                return _Partition(index, threading.Lock(), seq=int(index.mark or 0))
        return _Partition(self._empty(scope), threading.Lock())

    def _empty(self, scope: str) -> Vectors:
        from chainops.stores.vectors import Vectors

        return Vectors(self._embedder().dimensions, folder=self._snapshot(scope), stamp=self._stamp(scope))

    def _snapshot(self, scope: str) -> Path | None:
        return None if self._folder is None else self._folder / scope[:32]

    def _stamp(self, scope: str) -> str:
        told = f"{self._store.place}:{self._owner}:{scope}:{self._embedder().digest}"
        return hashlib.sha256(told.encode()).hexdigest()

    def _catch_up(self, scope: str, partition: _Partition) -> None:
        """Read what the change log says since last time, if that is a while ago."""
        if _is_fresh(partition):
            return
        with partition.lock:
            if _is_fresh(partition):
                return
            # Both before reading: what is stored meanwhile is read next time.
            began, asked = time.monotonic(), partition.asked
            foreign = self._read(scope, partition)
            partition.read_at, partition.heard = began, asked
        if not partition.is_known and len(partition.index):
            partition.is_known = True
            self.outlines.read_behind(scope, partition.index.keys())
        if foreign:
            self._remake(scope, foreign)
        if self._folder is not None and partition.saved > max(_SNAPSHOT_FROM, len(partition.index) // 5):
            partition.saved = 0
            UPKEEP.submit(lambda: self._save(partition))

    def _read(self, scope: str, partition: _Partition) -> list[int]:
        """Apply the change log to its end; gives the entries whose vectors another model made."""
        began = self._store.position(scope) if partition.seq == 0 else 0
        foreign: list[int] = []
        while True:
            changes = self._store.changes(scope, partition.seq, began=began)
            if changes is None:  # the log was cut, or is another one: what is held may be anything
                partition.index.close()
                partition.index, partition.seq, foreign = self._empty(scope), 0, []
                began = self._store.position(scope)
            elif changes:
                foreign += self._apply(scope, partition, changes)
            else:
                return foreign

    def _apply(self, scope: str, partition: _Partition, changes: list[Change]) -> list[int]:
        """Take changes over; gives those whose vectors another model made."""
        import numpy as np

        digest, dimensions = self._embedder().digest, self._embedder().dimensions
        gone = {change.dropped for change in changes if change.dropped is not None}
        foreign, keys, rows = [], [], []
        for change in changes:
            if change.dropped is not None or change.vector is None or change.seq in gone:
                continue
            row = np.frombuffer(change.vector, dtype="<f4")
            if change.embedder != digest or len(row) != dimensions or not np.isfinite(row).all():
                foreign.append(change.seq)  # of another model, or damaged: never compared
            else:
                keys.append(change.seq)
                rows.append(row)
        if keys:
            partition.index.add(keys, np.stack(rows))
        if gone:
            partition.index.remove(gone)
            self.outlines.forget(scope, gone)
        partition.seq = changes[-1].seq
        partition.saved += len(changes)
        return foreign

    def _save(self, partition: _Partition) -> None:
        while not partition.index.settle(0.2):  # saved in the middle of a build, whoever opens it builds it again
            if UPKEEP.is_ending:
                return
        with partition.lock:
            mark, index = partition.seq, partition.index
        with partition.saving:
            if partition.is_over:
                return
            try:  # later changes may be in the snapshot too: reading them again from the mark on changes nothing
                index.save(mark=mark)
            except ChainopsError as error:  # a snapshot only spares time
                self._notices.append(f"the snapshot was not saved: {error}")
        if index.build_error is not None:
            self._notices.append(f"the index was not built: {index.build_error}")

    def _remake(self, scope: str, seqs: list[int]) -> None:
        """Embed entries of another model again, in the background. One thread at a time; what it leaves is found
        again when the scope is next opened.
        """
        with self._lock:
            if self._remaking:
                return
            self._remaking = True

        def remake() -> None:
            try:
                for start in range(0, len(seqs), _BATCH):
                    if UPKEEP.is_ending:
                        return
                    self._embed_again(scope, seqs[start : start + _BATCH])
            except ChainopsError as error:  # those entries go on as exact ones
                self._notices.append(f"entries of another embedding model were not embedded again: {error}")
            finally:
                self._remaking = False

        if not UPKEEP.submit(remake):
            self._remaking = False

    def _embed_again(self, scope: str, seqs: Sequence[int]) -> None:
        outlines = self._store.at(scope, seqs).values()
        if outlines:
            vectors = self._embedder().embed([outline.question for outline in outlines])
            for outline, vector in zip(outlines, vectors, strict=True):
                entry = self._store.entry_at(scope, outline.seq)  # after the slow part: it may have changed meanwhile
                if entry is not None:
                    self._store.put(replace(entry, embedder=self._embedder().digest), vector, over=entry.seq)


def _is_fresh(partition: _Partition) -> bool:
    """Whether the change log was read a moment ago, and nobody wanted it read again since that reading began."""
    return partition.heard == partition.asked and time.monotonic() - partition.read_at < _CATCH_UP_S
