"""Which of up to a million stored vectors are nearest: a lookup takes less than a millisecond, and waits for no build.

Few rows are compared one by one; many are proposed by inverted lists of one-byte codes (IVF-SQ8), then scored exactly.
Of 1,000 nearest among 1,000,000 embeddings (`benchmarks/cache_index.py` says which) these found 996 in 0.46 ms, an HNSW
graph over such codes 941 in 0.43 ms, product codes of 96 bytes 980 in 0.54 ms; and lists can be mapped from a file.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from chainops.core.errors import InvalidInput, StoreCorrupted
from chainops.stores.index_file import IndexStale
from chainops.stores.vector_files import Folder
from chainops.stores.vector_live import Live
from chainops.stores.vector_parts import Base
from chainops.stores.vector_rows import BLOCK, checked_keys, checked_query, checked_rows, cosines, of_unit_length

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Integers = NDArray[np.int64]

__all__ = ["IndexStale", "Near", "Vectors"]

FLAT_BELOW = 10_240
"""Lists are faster from some 5,000 rows of 384 numbers on; up to here, comparing all takes half a millisecond (measured
on one core), and misses nothing."""
_ADDED_AT_ONCE = 512  # rows added while lookups wait: a few milliseconds


class Near(NamedTuple):
    """A stored key and its cosine to the query, in double precision."""

    key: int
    similarity: float


class Vectors:
    """Vectors under integer keys, for many threads; cosine similarity.

    What is here is derived: it can be rebuilt from the store whose change log it follows. New rows are found at once.
    When a quarter of the rows are new or removed, the lists are built anew on a thread of their own.

    Args:
        dimensions: Length of every vector.
        folder: Where the snapshot and the mapped files are; None: everything is in memory, and `save` does nothing.
            Several processes may use one folder: one of them writes snapshots.
        stamp: What the vectors were made with, such as the embedding model's digest. `open` compares it.
        flat_below: From so many rows on, lists are used.
    """

    mark: int | str | None
    """Of the snapshot that was last saved or opened: the change log has to be read from there on."""

    def __init__(
        self, dimensions: int, *, folder: Path | None = None, stamp: str = "", flat_below: int = FLAT_BELOW
    ) -> None:
        if dimensions < 1:
            raise InvalidInput("dimensions", str(dimensions), "1 or more")
        self.dimensions = dimensions
        self._folder = None if folder is None else Folder(folder, stamp)
        self._live = Live(dimensions, flat_below, self._folder, self._drop)
        self.mark = None
        self._needed: set[str] = set()  # bases that the snapshot names, or the one being written will
        self._saving = threading.Lock()

    def __len__(self) -> int:
        return len(self._live.parts)

    def __contains__(self, key: object) -> bool:
        import numpy as np

        if not isinstance(key, int) or not 0 <= key < 1 << 63:
            return False
        with self._live.turns.reading():
            return any(part.places(np.array([key]))[0] >= 0 for part in self._live.parts.present())

    def keys(self) -> list[int]:
        """All keys, ascending."""
        import numpy as np

        with self._live.turns.reading():
            keys = [part.keys[part.living()] for part in self._live.parts.present()]
        found: list[int] = np.sort(np.concatenate(keys)).tolist()
        return found

    @property
    def build_error(self) -> Exception | None:
        """Why the last build in the background failed; None when it did not. It is tried again as more rows change."""
        return self._live.build_error

    @property
    def generation(self) -> str:
        """Names the base in use; changes with every build that has a folder."""
        base = self._live.parts.base
        return "" if base is None else base.generation

    @property
    def size_bytes(self) -> int:
        """Memory of the process's own that this takes, estimated; pages of mapped files are not in it."""
        parts = self._live.parts
        base, fresh = parts.base, parts.fresh
        if base is None:
            return fresh.size_bytes()
        in_memory = 0 if base.facts is not None else base.keys.nbytes + base.rows.nbytes + base.lists.size_bytes()
        return fresh.size_bytes() + base.lists.coarse_bytes() + len(base.alive.bits) + in_memory

    @property
    def mapped_bytes(self) -> int:
        """Size of the mapped files' parts in use; how much of it is in memory is the system's to say."""
        parts = self._live.parts
        base, fresh = parts.base, parts.fresh
        if base is None or base.facts is None:
            return fresh.mapped_bytes()
        return fresh.mapped_bytes() + base.keys.nbytes + base.rows.nbytes + base.lists.size_bytes()

    def add(self, keys: Sequence[int], rows: Any) -> None:
        """Store vectors under keys.

        A key that is there already gets the new vector; of one given twice, the last counts. Lookups find what has been
        added so far; they wait for at most some 500 rows at a time.

        Args:
            keys: One per row, 0 or more.
            rows: Shape (n, d), any length but zero: it is scaled to 1.

        Raises:
            InvalidInput: Counts or shapes do not match, a key is negative or no integer, a row is zero or not finite.
                Nothing was stored then.
        """
        import numpy as np

        if len(keys) == 0 and len(rows) == 0:
            return
        names = checked_keys(keys)
        vectors, lengths = checked_rows(rows, "rows", self.dimensions)
        if len(names) != len(vectors):
            raise InvalidInput("keys", f"{len(names)} for {len(vectors)} rows", "one key per row")
        last = np.sort(len(names) - 1 - np.unique(names[::-1], return_index=True)[1])
        for start in range(0, len(last), _ADDED_AT_ONCE):
            some = last[start : start + _ADDED_AT_ONCE]
            self._live.add(names[some], of_unit_length(vectors[some], lengths[some]))
            self._live.build_if_due()

    def remove(self, keys: Iterable[int]) -> int:
        """Forget keys; unknown ones are passed over. They are not found from now on.

        Memory is given back when a quarter of the rows are new or removed; the disk at the `save` after that.

        Returns:
            How many were there.
        """
        import numpy as np

        names = np.unique(checked_keys(list(keys)))
        removed = sum(self._live.remove(names[start : start + BLOCK]) for start in range(0, len(names), BLOCK))
        self._live.build_if_due()
        return removed

    def search(self, query: Any, k: int) -> list[Near]:
        """The stored vectors most similar to one query, best first.

        Args:
            query: Shape (d,), any length but zero.
            k: At most so many; may exceed what is stored.

        Returns:
            Exact similarities; equal ones in the order of keys. All of the nearest below `flat_below` rows, beyond
            that nearly all.

        Raises:
            InvalidInput: Wrong shape, zero, a number that is not finite, or a negative `k`.
        """
        if k < 0:
            raise InvalidInput("k", str(k), "0 or more")
        unit, double = checked_query(query, self.dimensions)
        if k == 0:
            return []
        with self._live.turns.reading():
            keys, rows = self._live.parts.candidates(unit, k)
        # Not sorted by NumPy: for so few that takes longer, and much longer where the processor's caches are cold.
        found = sorted(zip((-cosines(double, rows)).tolist(), keys.tolist(), strict=True))
        return [Near(key, -away) for away, key in found[:k]]

    def save(self, *, mark: int | str, whole: bool = False) -> bool:
        """Write a snapshot, atomically. Lookups, adds and removes go on meanwhile.

        What it holds is everything up to `mark` and perhaps some of what came later: reading the change log again
        from there gives the same.

        Args:
            mark: Position in the change log up to which everything has been added and removed here.
            whole: Build anew first if need be, so that nothing removed is left on the disk. Takes minutes for a
                million rows.

        Returns:
            False when nothing was written, since there is no folder or another process writes there.

        Raises:
            StoreUnavailable: The disk is full or read-only. The snapshot that was there is unharmed.
        """
        folder = self._folder
        with self._saving:
            if folder is None or not folder.claim():
                return False
            base = self._live.parts.base
            if base is not None and base.facts is not None:
                is_missing = not folder.has(base.facts)  # another process wrote here until now, and tidied up
                if is_missing or (whole and base.alive.dead):
                    self._live.build()
            while not self._write(folder, mark):
                pass
            self.mark = mark
            folder.tidy(keep={*self._needed, self.generation})
        self._live.build_if_due()
        return True

    @classmethod
    def open(cls, folder: Path, *, stamp: str = "", flat_below: int = FLAT_BELOW) -> Self:
        """What `save` wrote last, once it is known to be that. `mark` tells what has to be added to it.

        Raises:
            IndexStale: There is no snapshot, or it was made with another stamp.
            StoreCorrupted: It was cut or changed.
            StoreUnavailable: It may not be read.
        """
        while True:
            files = Folder(folder, stamp)
            snapshot = files.read()
            try:
                base = None if snapshot.base is None else Base.open(snapshot.base, snapshot.dimensions, files)
                break
            except StoreCorrupted:
                if files.read().base == snapshot.base:  # otherwise another process has replaced it just now
                    raise
        vectors = cls(snapshot.dimensions, folder=folder, stamp=stamp, flat_below=flat_below)
        if base is not None:
            base.kill(snapshot.dead)
            vectors._live.begin_with(base)
            vectors._needed = {base.generation}
        for start in range(0, len(snapshot.keys), _ADDED_AT_ONCE):
            some = slice(start, start + _ADDED_AT_ONCE)
            counts = snapshot.keys[some] >= 0
            vectors._live.add(snapshot.keys[some][counts], snapshot.rows[some][counts])
        vectors.mark = snapshot.mark
        vectors._live.build_if_due()
        return vectors

    def settle(self, timeout_s: float | None = None) -> bool:
        """Wait for the build that goes on in the background.

        Returns:
            Whether none goes on any more.
        """
        return self._live.settle(timeout_s)

    def close(self) -> None:
        """Begin no more builds, and let another process write snapshots."""
        self._live.stop()
        if self._folder is not None:
            with self._saving:
                self._folder.release()

    def _write(self, folder: Folder, mark: int | str) -> bool:
        """Write a snapshot of the parts in use; False, and none, if they were replaced meanwhile."""
        import numpy as np

        parts = self._live.parts
        base, fresh = parts.base, parts.fresh
        facts, count = None if base is None else base.facts, fresh.count
        named = set() if facts is None else {facts.generation}
        self._needed |= named  # before it is written: a build that ends now must not remove it

        def last() -> tuple[Integers, Integers]:
            with self._live.turns.reading():
                if self._live.parts is not parts:
                    raise _Replaced
                keys = np.where(fresh.alive.mask(count), fresh.keys[:count], -1)
                return keys, np.zeros(0, np.int64) if base is None else base.dead()

        counts = fresh.alive.mask(count)[:, None]
        blocks = (  # of what has been removed, nothing goes to the disk
            np.where(counts[start : start + BLOCK], fresh.rows[start : min(start + BLOCK, count)], np.float32(0))
            for start in range(0, count, BLOCK)
        )
        try:
            folder.write(mark, facts, blocks, last, dimensions=self.dimensions)
        except _Replaced:
            return False
        self._needed = named
        return True

    def _drop(self, base: Base) -> None:
        """Free the disk of a base that was replaced, unless a snapshot needs it until the next one is written."""
        if self._folder is None or base.facts is None:
            return
        if base.generation in self._needed:
            self._folder.replaced(base.generation)
        else:
            self._folder.discard(base.generation)


class _Replaced(Exception):  # never leaves this file
    """The parts being written are not those in use any more."""
