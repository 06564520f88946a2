"""Row numbers in compressed lists: which of many rows may be near a query.

Sources:
    Inverted lists and their search: Jégou, Douze, Schmid, "Product quantization for nearest neighbor search", 2011,
    as FAISS implements it; here with one byte per number instead of product codes.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from chainops.core.errors import StoreUnavailable
from chainops.stores.vector_rows import BLOCK

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Integers = NDArray[np.int64]

PROBES = 16
"""Lists looked into for one query."""
_LIST_SHARE = 4.0  # lists: this times the root of the row count, to the nearest power of two
_SAMPLE_PER_LIST = 40  # rows the coarse quantiser learns from: bounds training to a minute at a million rows
_ITERATIONS = 8


ENDING = threading.Event()
"""Set when the process ends: a thread that is then inside native code would take the process down with it."""


def go_on() -> None:
    """Called between the parts of long work.

    Raises:
        StoreUnavailable: The process is ending.
    """
    if ENDING.is_set():
        raise StoreUnavailable("index", "the process is ending", "it is built again by the next one")


def load_faiss() -> Any:
    """FAISS; untyped, for its annotations are not right."""
    import faiss

    return faiss


class Alive:
    """One bit per row: whether it still counts. In the order of bits that FAISS expects."""

    def __init__(self, count: int) -> None:
        import numpy as np

        self.bits = np.full((count + 7) // 8, 255, np.uint8)
        self.dead = 0

    def at(self, numbers: Integers) -> NDArray[np.bool_]:
        import numpy as np

        found: NDArray[np.bool_] = (self.bits[numbers >> 3] >> (numbers & 7).astype(np.uint8) & 1).astype(np.bool_)
        return found

    def grow(self, count: int) -> None:
        import numpy as np

        bits = np.full((count + 7) // 8, 255, np.uint8)
        bits[: len(self.bits)] = self.bits
        self.bits = bits

    def kill(self, numbers: Integers) -> None:
        """Clear the bits of rows that are alive, each given once."""
        import numpy as np

        np.bitwise_and.at(self.bits, numbers >> 3, ~(1 << (numbers & 7)).astype(np.uint8))
        self.dead += len(numbers)

    def mask(self, count: int) -> NDArray[np.bool_]:
        import numpy as np

        return np.unpackbits(self.bits, count=count, bitorder="little").view(np.bool_)


class Lists:
    """Row numbers in inverted lists of one-byte codes: proposes rows that may be near, never decides.

    Reading is safe from many threads; `add` needs all others kept out.
    """

    def __init__(self, index: Any, owner: Lists | None = None) -> None:
        self._index = index
        self._coarse = load_faiss().downcast_index(index.quantizer)
        self._coarse.hnsw.efSearch = 2 * PROBES
        self._hows: dict[int, tuple[NDArray[np.uint8] | None, Any]] = {}
        self._owner = owner  # of the coarse quantiser, which C++ frees with its index

    @classmethod
    def build(cls, rows: Floats) -> Self:
        """Learn the lists from a sample of the rows and sort all rows into them, on the calling thread.

        Args:
            rows: Shape (n, d), unit length; may be mapped from a file.
        """
        import numpy as np

        faiss = load_faiss()
        count, dimensions = rows.shape
        lists = 1 << max(0, round(float(np.log2(_LIST_SHARE * count**0.5))))
        sample = _sample(rows, lists * _SAMPLE_PER_LIST)
        means = faiss.Kmeans(
            dimensions,
            min(lists, len(sample)),
            niter=_ITERATIONS,
            spherical=True,
            seed=1,
            min_points_per_centroid=1,
            max_points_per_centroid=_SAMPLE_PER_LIST + 1,
        )
        means.train(sample)
        go_on()
        coarse = faiss.IndexHNSWFlat(dimensions, 32, faiss.METRIC_L2)
        coarse.hnsw.efConstruction = 80
        coarse.add(means.centroids)
        index = _empty_like(coarse, dimensions)
        index.train(sample)  # only the range of each number: the coarse quantiser is trained
        built = cls(index)
        del sample, means
        for start in range(0, count, BLOCK):
            go_on()
            block = np.array(rows[start : start + BLOCK])
            built.add(block, np.arange(start, start + len(block)), built.assign(block))
        return built

    @classmethod
    def mapped(cls, path: Path) -> Self:
        """What `save` wrote, with the lists left in the file. The file's digest has to be known to be right."""
        faiss = load_faiss()
        can_map = os.name != "nt"
        index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY if can_map else 0)
        if can_map:
            # FAISS would start 32 threads for every query, to touch the pages of its lists.
            faiss.downcast_InvertedLists(index.invlists).prefetch_nthread = 0
        return cls(index)

    def save(self, path: Path) -> None:
        faiss = load_faiss()
        faiss.write_index(self._index, str(path))

    def beside(self) -> Lists:
        """Empty lists in memory that share what this has learnt."""
        index = _empty_like(self._coarse, self._index.d)
        index.sq = self._index.sq
        index.is_trained = True
        return Lists(index, self)

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def size_bytes(self) -> int:
        """Of codes and row numbers, without the coarse quantiser."""
        return len(self) * (int(self._index.code_size) + 8)

    def count(self) -> int:
        """How many lists there are."""
        return int(self._coarse.ntotal)

    def coarse_bytes(self) -> int:
        return self.count() * (4 * int(self._index.d) + 4 * 2 * 32 + 16)

    def assign(self, rows: Floats) -> Integers:
        """The list that each row belongs to."""
        numbers: Integers = self._coarse.search(rows, 1)[1].reshape(-1)
        return numbers

    def add(self, rows: Floats, numbers: Integers, assigned: Integers) -> None:
        faiss = load_faiss()
        pointer = faiss.swig_ptr
        self._index.add_core(len(rows), pointer(rows), pointer(numbers), pointer(assigned))

    def near(self, query: Floats, probes: int) -> tuple[Integers, Floats]:
        """The lists nearest to a query, here and in all that are `beside`, and how far they are."""
        import numpy as np

        pointer = load_faiss().swig_ptr
        lists, away = np.empty(probes, np.int64), np.empty(probes, np.float32)
        self._coarse.search_c(1, pointer(query), probes, pointer(away), pointer(lists))
        return lists, away

    def propose(self, query: Floats, k: int, alive: Alive, near: tuple[Integers, Floats]) -> Integers:
        """Row numbers of about the `k` nearest that are alive in these lists, in no particular order."""
        import numpy as np

        pointer, (lists, away) = load_faiss().swig_ptr, near
        found, similarities = np.empty(k, np.int64), np.empty(k, np.float32)
        how = self._how(alive, len(lists))
        # Not FAISS's own wrapper, which checks and builds more than the search itself takes at a few thousand rows.
        self._index.search_preassigned_c(
            1, pointer(query), k, pointer(lists), pointer(away), pointer(similarities), pointer(found), False, how
        )
        return found if found[-1] >= 0 else found[found >= 0]  # FAISS fills up with -1 at the end

    def _how(self, alive: Alive, probes: int) -> Any:
        """FAISS's parameters of a search, made once for as long as they hold."""
        bits = alive.bits if alive.dead else None
        made = self._hows.get(probes)
        if made is None or made[0] is not bits:
            faiss = load_faiss()
            selector = {} if bits is None else {"sel": faiss.IDSelectorBitmap(bits)}
            made = self._hows[probes] = (bits, faiss.SearchParametersIVF(nprobe=probes, **selector))
        return made[1]


def _empty_like(coarse: Any, dimensions: int) -> Any:
    faiss = load_faiss()
    code = faiss.ScalarQuantizer.QT_8bit
    return faiss.IndexIVFScalarQuantizer(coarse, dimensions, coarse.ntotal, code, faiss.METRIC_INNER_PRODUCT, False)


def _sample(rows: Floats, wanted: int) -> Floats:
    """At most `wanted` rows, evenly at random, the same for the same rows."""
    import numpy as np

    if wanted >= len(rows):
        return np.array(rows)
    picked = np.sort(np.random.default_rng(0).choice(len(rows), wanted, replace=False))
    sample = np.empty((wanted, rows.shape[1]), np.float32)
    for start in range(0, wanted, BLOCK):
        sample[start : start + BLOCK] = rows[picked[start : start + BLOCK]]
    return sample
