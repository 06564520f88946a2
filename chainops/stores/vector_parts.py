"""What `Vectors` holds: a large base that never grows, and the fresh rows that were added since it was built."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from chainops.core.errors import StoreCorrupted, StoreUnavailable
from chainops.stores.failures import SPACE
from chainops.stores.vector_files import BaseFacts, Folder
from chainops.stores.vector_lists import PROBES, Alive, Lists, load_faiss
from chainops.stores.vector_rows import BLOCK, GrowingRows

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Integers = NDArray[np.int64]

_SPARE = 8  # candidates beyond `k`, for one-byte codes are only roughly right
_FLOAT32_UNIT = 2.0**-24  # largest relative rounding error


@dataclass(eq=False)
class Base:
    """Rows that never change, in ascending order of their keys, and lists over them; only what counts may shrink."""

    keys: Integers
    rows: Floats
    lists: Lists
    facts: BaseFacts | None = None
    """The files it is mapped from; None where it is in memory."""
    alive: Alive = field(init=False)

    @property
    def generation(self) -> str:
        return "" if self.facts is None else self.facts.generation

    @property
    def count(self) -> int:
        return len(self.keys)

    def __post_init__(self) -> None:
        self.alive = Alive(len(self.keys))

    @classmethod
    def build(cls, keys: Integers, blocks: Iterable[Floats], dimensions: int, folder: Folder | None) -> Self:
        """A base of these rows, on disk where there is a folder, on the calling thread.

        Args:
            keys: Ascending, each once.
            blocks: Their rows, in that order.

        Raises:
            StoreUnavailable: The disk is full or read-only.
        """
        import numpy as np

        if folder is None:
            rows = np.empty((len(keys), dimensions), np.float32)
            start = 0
            for block in blocks:
                rows[start : start + len(block)] = block
                start += len(block)
            return cls(keys, rows, Lists.build(rows))
        generation, rows_digest = folder.write_rows(keys, blocks)
        keys, rows = folder.map_rows(generation, len(keys), dimensions)
        path = folder.lists_path(generation)
        try:
            Lists.build(rows).save(path)
            facts = BaseFacts(generation, len(keys), rows_digest, folder.settle_lists(generation))
            return cls(keys, rows, Lists.mapped(path), facts)
        except BaseException as error:
            folder.discard(generation)
            if isinstance(error, RuntimeError):  # what FAISS raises when it cannot write
                raise StoreUnavailable(str(path), f"it cannot be written ({error})", SPACE) from error
            raise

    @classmethod
    def open(cls, facts: BaseFacts, dimensions: int, folder: Folder) -> Self:
        """A base from its files.

        Raises:
            StoreCorrupted: They are not what was written.
        """
        folder.check_base(facts)
        path = folder.lists_path(facts.generation)
        try:
            keys, rows = folder.map_rows(facts.generation, facts.count, dimensions)
            return cls(keys, rows, Lists.mapped(path), facts)
        except (OSError, RuntimeError, ValueError) as error:
            raise StoreCorrupted(str(path), f"it cannot be used ({error})", "build it again from the store") from error

    def places(self, keys: Integers) -> Integers:
        """The row number of each key; -1 where it is not here, or dead."""
        import numpy as np

        places = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        is_here = (self.keys[places] == keys) & self.alive.at(places)
        return np.where(is_here, places, -1)

    def propose(self, query: Floats, k: int, near: tuple[Integers, Floats] | None) -> Integers:
        """Row numbers among which the `k` nearest most probably are.

        Args:
            near: What `Lists.near` said of the query.
        """
        assert near is not None
        return self.lists.propose(query, k + _SPARE, self.alive, near)

    def kill(self, numbers: Integers) -> None:
        self.alive.kill(numbers)

    def living(self) -> Integers:
        import numpy as np

        return np.flatnonzero(self.alive.mask(len(self.keys)))

    def dead(self) -> Integers:
        import numpy as np

        return np.flatnonzero(~self.alive.mask(len(self.keys)))


class Fresh:
    """Rows added since the base was built, in slots that never move: a slot is used once, and may die.

    Without lists they are compared one by one.

    Args:
        folder: Where a scratch file may be, that many rows are kept in; None: in memory.
    """

    def __init__(self, dimensions: int, lists: Lists | None, folder: Folder | None) -> None:
        import numpy as np

        self.dimensions, self.lists = dimensions, lists
        self.count = 0
        self.keys: Integers = np.zeros(0, np.int64)
        self._room = GrowingRows(dimensions, None if folder is None else folder.path)
        self.rows = self._room.rows
        self.slots: dict[int, int] = {}
        self.alive = Alive(0)

    def append(self, keys: Integers, rows: Floats, assigned: Integers | None) -> None:
        """Add rows under keys that are not here, or only dead."""
        import numpy as np

        start, end = self.count, self.count + len(keys)
        if end > len(self.keys):
            self._grow(max(end, 64, len(self.keys) + len(self.keys) // 2))
        self.rows[start:end], self.keys[start:end] = rows, keys
        if self.lists is not None and assigned is not None:
            self.lists.add(rows, np.arange(start, end), assigned)
        self.slots.update(zip(keys.tolist(), range(start, end), strict=True))
        self.count = end

    def assign(self, rows: Floats) -> Integers | None:
        return None if self.lists is None else self.lists.assign(rows)

    def places(self, keys: Integers) -> Integers:
        """The slot of each key; -1 where it is not here."""
        import numpy as np

        return np.array([self.slots.get(key, -1) for key in keys.tolist()], np.int64)

    def kill(self, slots: Integers) -> None:
        """Forget rows that are alive. They stay as they are: a build or a save may be reading them."""
        for slot, key in zip(slots.tolist(), self.keys[slots].tolist(), strict=True):
            if self.slots.get(key) == slot:  # a row that replaces it may have been added already
                del self.slots[key]
        self.alive.kill(slots)

    def living(self) -> Integers:
        import numpy as np

        return np.flatnonzero(self.alive.mask(self.count))

    def propose(self, query: Floats, k: int, near: tuple[Integers, Floats] | None) -> Integers:
        """Slots among which the `k` nearest are: without lists surely, with lists most probably."""
        if self.lists is not None and near is not None:
            return self.lists.propose(query, k + _SPARE, self.alive, near)
        import numpy as np

        faiss = load_faiss()
        rough, pointer = np.empty(self.count, np.float32), faiss.swig_ptr
        faiss.fvec_inner_products_ny(pointer(rough), pointer(query), pointer(self.rows), self.dimensions, self.count)
        if self.alive.dead:
            rough[~self.alive.mask(self.count)] = -np.inf
        living = self.count - self.alive.dead
        if living <= k:
            return self.living()
        # Rounding may have wronged rows of unit length by `error`: all that could be among the best are kept.
        error = 4 * (self.dimensions + 1) * _FLOAT32_UNIT
        found: Integers = np.flatnonzero(rough >= np.partition(rough, -k)[-k] - error)
        return found

    def size_bytes(self) -> int:
        rows = 0 if self._room.is_mapped else self.rows[: self.count].nbytes
        names = 8 * len(self.keys) + 100 * len(self.slots)  # a dictionary's place and two integers for each
        return rows + names + (self.lists.size_bytes() if self.lists is not None else 0)

    def mapped_bytes(self) -> int:
        return self.rows[: self.count].nbytes if self._room.is_mapped else 0

    def _grow(self, room: int) -> None:
        import numpy as np

        keys = np.zeros(room, np.int64)
        keys[: self.count] = self.keys[: self.count]
        self._room.grow(room)
        self.keys, self.rows = keys, self._room.rows
        self.alive.grow(room)


@dataclass(frozen=True, eq=False)
class Parts:
    """Base and fresh rows, replaced together: whoever holds one of these sees a whole."""

    base: Base | None
    fresh: Fresh

    def __len__(self) -> int:
        return sum(part.count - part.alive.dead for part in self.present())

    def changed(self) -> int:
        """How many rows are new since the base was built, or dead in it."""
        return self.fresh.count + (0 if self.base is None else self.base.alive.dead)

    def holds(self, keys: Integers, rows: Floats) -> NDArray[np.bool_]:
        """Which of the keys are here with exactly that row."""
        import numpy as np

        same = np.zeros(len(keys), np.bool_)
        for part in self.present():
            places = part.places(keys)
            here = np.flatnonzero(places >= 0)
            same[here] = (part.rows[places[here]] == rows[here]).all(axis=1)
        return same

    def kill(self, keys: Integers) -> Integers:
        """Forget keys, each given once.

        Returns:
            Those that were here.
        """
        import numpy as np

        gone = [keys[:0]]
        for part in self.present():
            places = part.places(keys)
            gone.append(keys[places >= 0])
            part.kill(places[places >= 0])
        return np.concatenate(gone)

    def candidates(self, query: Floats, k: int) -> tuple[Integers, Floats]:
        """Keys and rows among which the `k` nearest are."""
        import numpy as np

        probes, lists = PROBES, self.fresh.lists
        while True:
            near = None if lists is None else lists.near(query, min(probes, lists.count()))
            keys, rows = [self.fresh.keys[:0]], [self.fresh.rows[:0]]
            for part in self.present():
                if part.alive.dead < part.count:
                    places = part.propose(query, k, near)
                    keys.append(part.keys[places])
                    rows.append(part.rows[places])
            # Where all that was near has been removed, the rest may be in any list.
            if lists is None or sum(map(len, keys)) >= min(k, len(self)) or probes >= lists.count():
                return (keys[-1], rows[-1]) if len(keys) <= 2 else (np.concatenate(keys), np.concatenate(rows))
            probes *= 8

    def present(self) -> list[Base | Fresh]:
        return [self.fresh] if self.base is None else [self.base, self.fresh]

    def by_key(self, living: list[Integers]) -> tuple[Integers, Iterator[Floats]]:
        """Keys, ascending, and their rows in blocks.

        Args:
            living: The places to take, for each part that is present.
        """
        import numpy as np

        parts = self.present()
        keys = np.concatenate([part.keys[at] for part, at in zip(parts, living, strict=True)])
        places, ends = np.concatenate(living), np.cumsum([len(at) for at in living])
        order = np.argsort(keys)

        def blocks() -> Iterator[Floats]:
            for start in range(0, len(order), BLOCK):
                picked = order[start : start + BLOCK]
                block = np.empty((len(picked), self.fresh.dimensions), np.float32)
                whose = np.searchsorted(ends, picked, side="right")
                for number, part in enumerate(parts):
                    block[whose == number] = part.rows[places[picked[whose == number]]]
                yield block

        return keys[order], blocks()
