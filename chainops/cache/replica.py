"""What this process holds of the cache: recent exact entries and one vector index per scope.

All of it is derived from the store and may be dropped at any time.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from chainops.cache.policy import Key
from chainops.cache.records import CacheRecords, Entry
from chainops.stores.faiss_index import FaissIndex

if TYPE_CHECKING:
    import numpy as np

    from chainops.models.embeddings import Embedder

FRESH_S = 1.0
"""How long an entry held in process is trusted before the store is asked again whether it still exists."""
_EXACT_HELD = 4096
_SCOPES_HELD = 64


@dataclass(frozen=True, slots=True)
class Found:
    """The best that a lookup found."""

    entry: Entry | None = None
    similarity: float | None = None
    """Cosine to the nearest stored question; 1.0 for an exact repeat; None when nothing is stored."""
    vector: np.ndarray | None = None
    """The question's own vector, if it was computed: kept for storing the answer."""
    is_exact: bool = False


class _Partition:
    """One scope's index, and how far in the store's log it has read."""

    def __init__(self, dimensions: int) -> None:
        self.index = FaissIndex(dimensions)
        self.seq = 0
        self.lock = threading.Lock()


class Replica:
    """Lookups for one cache. Thread-safe; other processes' entries are seen at the next lookup."""

    def __init__(self, records: CacheRecords, embedder: Embedder) -> None:
        self.records, self._embedder = records, embedder
        self._lock = threading.Lock()
        self._exact: OrderedDict[tuple[str, str], tuple[Entry, float]] = OrderedDict()
        self._partitions: OrderedDict[str, _Partition] = OrderedDict()

    def held(self, key: Key, *, now_s: float) -> Entry | None:
        """An exact entry this process verified within the last second. Never blocks.

        Args:
            now_s: Monotonic.
        """
        with self._lock:
            found = self._exact.get((key.scope, key.exact))
        return found[0] if found is not None and now_s - found[1] < FRESH_S else None

    def look_up(self, key: Key, *, now_s: float, near: bool, is_alive: Callable[[Entry], bool]) -> Found:
        """Exact in the store, then the nearest question of the same scope. Blocks: store and embedding.

        Entries that are no longer alive are dropped on the way.
        """
        entry = self.records.exact(key.scope, key.exact)
        if entry is not None and is_alive(entry):
            self._hold(entry, now_s)
            return Found(entry, 1.0, is_exact=True)
        if not near:
            return Found()
        vector = self._embedder.embed([key.question])[0]
        partition = self._partition(key.scope)
        with partition.lock:
            self._catch_up(partition, key.scope)
        # An entry deleted elsewhere is still in the index: the store, asked for it, has the last word.
        while nearest := partition.index.search(vector, 1):
            entry = self.records.get(nearest[0].key)
            if entry is not None and is_alive(entry):
                return Found(entry, nearest[0].similarity, vector)
            if entry is not None:
                self.drop(entry)
            partition.index.remove([nearest[0].key])
        return Found(vector=vector)

    def keep(self, entry: Entry, vector: np.ndarray | None, *, now_s: float, limit: int) -> None:
        if vector is None:
            vector = self._embedder.embed([entry.question])[0]
        self.records.put(entry, vector, keep=limit)
        self._hold(entry, now_s)

    def drop(self, entry: Entry) -> None:
        """Forget an entry here and in the store."""
        with self._lock:
            self._exact.pop((entry.scope, entry.exact), None)
        self.records.delete(entry.id)

    def clear(self) -> int:
        with self._lock:
            self._exact.clear()
            self._partitions.clear()
        return self.records.clear()

    def _hold(self, entry: Entry, now_s: float) -> None:
        with self._lock:
            self._exact[entry.scope, entry.exact] = (entry, now_s)
            self._exact.move_to_end((entry.scope, entry.exact))
            while len(self._exact) > _EXACT_HELD:
                self._exact.popitem(last=False)

    def _partition(self, scope: str) -> _Partition:
        with self._lock:
            partition = self._partitions.get(scope)
            if partition is None:
                partition = self._partitions[scope] = _Partition(self._embedder.dimensions)
            self._partitions.move_to_end(scope)
            while len(self._partitions) > _SCOPES_HELD:
                self._partitions.popitem(last=False)
        return partition

    def _catch_up(self, partition: _Partition, scope: str) -> None:
        import numpy as np

        new = self.records.vectors_after(scope, partition.seq)
        if new:
            vectors = np.stack([np.frombuffer(vector, dtype="<f4") for _, _, vector in new])
            partition.index.add([entry for _, entry, _ in new], vectors)
            partition.seq = new[-1][0]
