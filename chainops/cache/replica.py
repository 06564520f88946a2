"""What this process holds of the cache: recent exact entries and one vector index per scope.

All of it is derived from the store and may be dropped at any time.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from chainops.cache.policy import Key, is_alive
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
        self.ages: deque[tuple[float, str]] = deque()
        """When entries were stored, and their ids; about oldest first."""
        self.lock = threading.Lock()

    def forget_before(self, alive_since: float) -> None:
        """Drop what is too old to be served; the store does the same when it next keeps an answer."""
        dead = []
        while self.ages and self.ages[0][0] <= alive_since:
            dead.append(self.ages.popleft()[1])
        if dead:
            self.index.remove(dead)


class Replica:
    """Lookups for one cache. Thread-safe; other processes' entries are seen at the next lookup.

    Args:
        owner: Names the cache in its store: how many entries it may have is counted by this.
        embedder: Gives the embedding model; opened when a similar question is first looked for.
    """

    def __init__(self, records: CacheRecords, embedder: Callable[[], Embedder], *, owner: str = "cache") -> None:
        self.records, self._embedder, self.owner = records, embedder, owner
        self._lock = threading.Lock()
        self._exact: OrderedDict[tuple[str, str], tuple[Entry, float]] = OrderedDict()
        self._partitions: OrderedDict[str, _Partition] = OrderedDict()
        self._kept = 0

    def held(self, key: Key, *, now_s: float) -> Entry | None:
        """An exact entry this process verified within the last second. Never blocks.

        Args:
            now_s: Monotonic.
        """
        with self._lock:
            found = self._exact.get((key.scope, key.exact))
        return found[0] if found is not None and now_s - found[1] < FRESH_S else None

    def look_up(self, key: Key, *, now_s: float, near: bool, alive_since: float | None) -> Found:
        """Exact in the store, then the nearest question of the same scope. Blocks: store and embedding.

        Args:
            near: Whether a similar question will do.
            alive_since: Entries stored then or before, in seconds since 1970, are not served.
        """
        entry = self.records.exact(key.scope, key.exact)
        if entry is not None and is_alive(entry.created_at, alive_since=alive_since):
            self._hold(entry, now_s)
            return Found(entry, 1.0, is_exact=True)
        if not near:
            return Found()
        vector = self._embedder().embed([key.question])[0]
        partition = self._partition(key.scope)
        with partition.lock:
            self._catch_up(partition, key.scope)
            if alive_since is not None:
                partition.forget_before(alive_since)
        # An entry deleted elsewhere is still in the index: the store, asked for it, has the last word.
        while nearest := partition.index.search(vector, 1):
            entry = self.records.get(nearest[0].key)
            if entry is not None and is_alive(entry.created_at, alive_since=alive_since):
                return Found(entry, nearest[0].similarity, vector)
            partition.index.remove([nearest[0].key])
        return Found(vector=vector)

    def keep(
        self,
        entry: Entry,
        vector: np.ndarray | None,
        *,
        near: bool,
        now_s: float,
        limit: int,
        alive_since: float | None,
    ) -> None:
        """Store an answer. Blocks.

        Args:
            vector: The question's, where the lookup has computed it.
            limit: How many entries this cache may have; counted now and then, so it may be passed by 1%.
        """
        if vector is None and near:
            vector = self._embedder().embed([entry.question])[0]
        with self._lock:
            counts = self._kept % max(1, min(64, limit // 100)) == 0
            self._kept += 1
        keep = limit if counts else None
        self.records.put(entry, vector, owner=self.owner, keep=keep, alive_since=alive_since)
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
                partition = self._partitions[scope] = _Partition(self._embedder().dimensions)
            self._partitions.move_to_end(scope)
            while len(self._partitions) > _SCOPES_HELD:
                self._partitions.popitem(last=False)
        return partition

    def _catch_up(self, partition: _Partition, scope: str) -> None:
        import numpy as np

        new = self.records.vectors_after(scope, partition.seq)
        if new:
            vectors = np.stack([np.frombuffer(vector, dtype="<f4") for _, _, vector, _ in new])
            partition.index.add([entry for _, entry, _, _ in new], vectors)
            partition.ages.extend((created_at, entry) for _, entry, _, created_at in new)
            partition.seq = new[-1][0]
