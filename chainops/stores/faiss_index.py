"""Which stored vectors are nearest: exact, in memory, and rebuilt from the records whenever it is lost."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from chainops.core.errors import InvalidInput
from chainops.stores import index_file
from chainops.stores.index_file import IndexStale
from chainops.stores.turns import ReadersAndWriters

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

__all__ = ["FaissIndex", "IndexStale", "Neighbour"]

_SMALLEST = 64  # rows of room to begin with
_SPARE = 8  # candidates beyond k, among which exact scores decide
_BLOCK = 4096  # rows scored at once in double precision
_FLOAT32_UNIT = 2.0**-24  # largest relative rounding error
_FLOAT32_TINIEST = 2.0**-149  # largest absolute one, where numbers underflow


class Neighbour(NamedTuple):
    """A stored key and its inner product with the query: the cosine, where both are of unit length."""

    key: str
    similarity: float


class FaissIndex:
    """An exact inner-product index with string keys, for many threads.

    FAISS proposes candidates in single precision, whose rounding depends on where a row happens to lie; the last word
    is the inner product in double precision. So the answer depends on what is stored and in which order it was
    first added, and on nothing else: a saved and loaded index gives the same.

    One query is searched on the calling thread; `search_many` uses as many as `OMP_NUM_THREADS` or
    `faiss.omp_set_num_threads` allow.

    Args:
        dimensions: Length of every vector.
    """

    _keys: list[str]
    _rows: dict[str, int]
    _vectors: Floats
    _ages: NDArray[np.int64]
    _next_age: int
    _longest: float

    def __init__(self, dimensions: int) -> None:
        if dimensions < 1:
            raise InvalidInput("dimensions", str(dimensions), "1 or more")
        self.dimensions = dimensions
        self._turns = ReadersAndWriters()
        self._empty()

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, key: object) -> bool:
        return key in self._rows

    @property
    def size_bytes(self) -> int:
        """Memory held for vectors, used or not."""
        return int(self._vectors.nbytes)

    def keys(self) -> list[str]:
        """All keys, in the order they were first added."""
        with self._turns.reading():
            return [self._keys[row] for row in self._by_age()]

    def add(self, keys: Sequence[str], vectors: Any) -> None:
        """Store vectors under keys, all or none.

        A key that is already there gets the new vector and keeps its place in the order; of a key given twice, the
        last vector counts.

        Args:
            keys: One per vector.
            vectors: Shape (n, d), numbers that float32 can hold.

        Raises:
            InvalidInput: The counts or shapes do not match, a key is no string, or a number is not finite.
        """
        if len(keys) == 0 and len(vectors) == 0:
            return
        rows = self._checked(vectors, "vectors", axes=2)
        if len(keys) != len(rows):
            raise InvalidInput("keys", f"{len(keys)} for {len(rows)} vectors", "one key per vector")
        for key in keys:
            if not isinstance(key, str):
                raise InvalidInput("key", repr(key)[:80], "a string")
        with self._turns.writing():
            self._make_room(len(self._keys) + len(set(keys) - self._rows.keys()))
            for key, vector in zip(keys, rows, strict=True):
                row = self._rows.get(key)
                if row is None:
                    row = self._rows[key] = len(self._keys)
                    self._keys.append(key)
                    self._ages[row] = self._next_age
                    self._next_age += 1
                self._vectors[row] = vector
            self._longest = max(self._longest, _longest(rows))

    def remove(self, keys: Iterable[str]) -> int:
        """Forget keys and their vectors; unknown keys are passed over.

        Returns:
            How many were there. Memory is given back once three quarters of it are unused.
        """
        removed = 0
        with self._turns.writing():
            for key in keys:
                row = self._rows.pop(key, None)
                if row is None:
                    continue
                removed += 1
                # The last row fills the gap: nothing else moves, and ages still tell the order.
                last, moved = len(self._keys) - 1, self._keys.pop()
                if row != last:
                    self._keys[row], self._rows[moved] = moved, row
                    self._vectors[row], self._ages[row] = self._vectors[last], self._ages[last]
                self._vectors[last] = 0  # what is forgotten does not linger
            if not self._keys:
                self._empty()
            elif len(self._keys) < len(self._vectors) // 4:
                self._move(max(_SMALLEST, 2 * len(self._keys)))
        return removed

    def search(self, query: Any, k: int, *, floor: float = -1.0) -> list[Neighbour]:
        """The stored vectors most similar to one query, best first.

        Args:
            query: Shape (d,).
            k: At most so many; may exceed what is stored.
            floor: Only similarities of at least this.

        Returns:
            Neighbours; equal similarities in the order the keys were first added. Empty for an empty index.

        Raises:
            InvalidInput: Wrong shape, a number that is not finite, or a negative `k`.
        """
        return self._search(self._checked(query, "query", axes=1), k, floor)[0]

    def search_many(self, queries: Any, k: int, *, floor: float = -1.0) -> list[list[Neighbour]]:
        """As `search`, for queries of shape (n, d): one list per query, in order."""
        return self._search(self._checked(queries, "queries", axes=2), k, floor)

    def save(self, path: Path, stamp: str) -> None:
        """Write the index to one file, atomically: a reader finds the old file or the new one, whole.

        Args:
            path: Its folder is made if need be.
            stamp: What this was made from, such as the digest of the model and documents. `load` compares it.

        Raises:
            StoreUnavailable: The disk is full or read-only. A file that was there before is unharmed.
        """
        with self._turns.reading():
            order = self._by_age()
            keys, vectors = [self._keys[row] for row in order], self._vectors[order]
        index_file.write(path, keys=keys, vectors=vectors, stamp=stamp)

    @classmethod
    def load(cls, path: Path, *, stamp: str) -> Self:
        """Read what `save` wrote.

        Raises:
            IndexStale: There is no file, or it was made from something else.
            StoreCorrupted: It was cut or changed since it was written.
            StoreUnavailable: It may not be read.
        """
        keys, vectors = index_file.read(path, stamp=stamp)
        index = cls(vectors.shape[1])
        index.add(keys, vectors)
        return index

    def _search(self, queries: Floats, k: int, floor: float) -> list[list[Neighbour]]:
        import faiss

        if k < 0:
            raise InvalidInput("k", str(k), "0 or more")
        with self._turns.reading():
            stored = len(self._keys)
            wanted = min(k, stored)
            if wanted == 0 or len(queries) == 0:
                return [[] for _ in queries]
            fetched = min(stored, wanted + _SPARE)
            with _one_thread() if len(queries) == 1 else nullcontext():
                scores, rows = faiss.knn(queries, self._vectors[:stored], fetched, metric=faiss.METRIC_INNER_PRODUCT)
            return [
                self._decide(query, found, float(last), wanted, floor)
                for query, found, last in zip(queries, rows, scores[:, -1], strict=True)
            ]

    def _decide(self, query: Floats, candidates: Any, last: float, wanted: int, floor: float) -> list[Neighbour]:
        """The best `wanted` by exact score and age, given FAISS's best and its own score of the last of those."""
        import numpy as np

        exact = self._exact(query, candidates)
        if len(candidates) < len(self._keys):
            # FAISS left rows out whose own score is at most `last`; rounding may have wronged them by `error`.
            length = float(np.linalg.norm(query.astype(np.float64)))
            error = 2 * (self.dimensions + 1) * (_FLOAT32_UNIT * length * self._longest + _FLOAT32_TINIEST)
            worst = float(np.partition(exact, -wanted)[-wanted])
            if last + error >= worst:
                rough = self._vectors[: len(self._keys)] @ query
                candidates = np.flatnonzero(rough >= worst - error)
                exact = self._exact(query, candidates)
        order = np.lexsort((self._ages[candidates], -exact))[:wanted]
        return [
            Neighbour(self._keys[candidates[place]], float(exact[place])) for place in order if exact[place] >= floor
        ]

    def _exact(self, query: Floats, rows: Any) -> NDArray[np.float64]:
        """Inner products in double precision, each computed alike wherever its row lies."""
        import numpy as np

        double = query.astype(np.float64)
        blocks = [
            (self._vectors[rows[start : start + _BLOCK]] * double).sum(axis=1) for start in range(0, len(rows), _BLOCK)
        ]
        return np.concatenate(blocks)

    def _by_age(self) -> Any:
        import numpy as np

        return np.argsort(self._ages[: len(self._keys)])

    def _empty(self) -> None:
        import numpy as np

        self._keys = []
        self._rows = {}
        self._next_age = 0
        self._longest = 0.0
        self._vectors = self._rows_of_zeros(0)
        self._ages = np.zeros(0, np.int64)

    def _make_room(self, rows: int) -> None:
        if rows > len(self._vectors):
            self._move(max(rows, _SMALLEST, 2 * len(self._keys)))

    def _move(self, room: int) -> None:
        import numpy as np

        used = len(self._keys)
        vectors, ages = self._rows_of_zeros(room), np.zeros(room, np.int64)
        vectors[:used], ages[:used] = self._vectors[:used], self._ages[:used]
        self._vectors, self._ages = vectors, ages

    def _rows_of_zeros(self, rows: int) -> Floats:
        import numpy as np

        return np.zeros((rows, self.dimensions), np.float32)  # the system hands out zeroed pages when they are touched

    def _checked(self, given: Any, what: str, *, axes: int) -> Floats:
        """As a contiguous (n, d) array of float32."""
        import numpy as np

        try:
            with np.errstate(over="ignore", invalid="ignore"):
                array = np.ascontiguousarray(given, np.float32)
                is_finite = bool(np.isfinite(np.einsum("...i,...i->...", array, array)).all())
        except (TypeError, ValueError):
            raise InvalidInput(what, type(given).__name__, f"numbers of shape {self._shape(axes)}") from None
        if np.ndim(given) != axes or array.shape[-1] != self.dimensions:
            raise InvalidInput(what, f"shape {np.shape(given)}", f"shape {self._shape(axes)}")
        if not is_finite:
            raise InvalidInput(what, "a number that is not finite, or too large to square", "finite numbers")
        return array.reshape(-1, self.dimensions)

    def _shape(self, axes: int) -> str:
        return f"({self.dimensions},)" if axes == 1 else f"(n, {self.dimensions})"


@contextmanager
def _one_thread() -> Iterator[None]:
    """Search on the calling thread alone. OpenMP's setting is the calling thread's own, and put back after.

    One query cannot be divided, yet FAISS would start a team for it: where other work keeps the cores busy, waiting
    for that team takes 16 ms instead of the 0.3 ms of the search (10,000 vectors, 2 cores).
    """
    import faiss

    threads = faiss.omp_get_max_threads()
    if threads == 1:
        yield
        return
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(threads)


def _longest(rows: Floats) -> float:
    import numpy as np

    return float(np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64).max())) if len(rows) else 0.0
