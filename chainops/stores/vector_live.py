"""The parts of `Vectors` that are in use: changed while others look, built anew in the background."""

from __future__ import annotations

import atexit
import ctypes
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from chainops.stores.turns import ReadersAndWriters
from chainops.stores.vector_files import Folder
from chainops.stores.vector_lists import ENDING
from chainops.stores.vector_parts import Base, Fresh, Parts
from chainops.stores.vector_rows import BLOCK

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Integers = NDArray[np.int64]

_DUE_SHARE = 0.25  # of the rows new or dead, and the base is built anew
_ADDED_AT_LAST = 64  # rows that a new base's lists are given while lookups wait: some two milliseconds
_NICE = 5
_one_build = threading.Lock()  # builds of all partitions of this process go one after the other


class Live:
    """Holds the parts, and replaces them by better ones. Reads take `turns.reading()`.

    Args:
        flat_below: From so many rows on there is a base with lists.
        on_drop: Told of a base that is not in use any more.
    """

    def __init__(
        self, dimensions: int, flat_below: int, folder: Folder | None, on_drop: Callable[[Base], None]
    ) -> None:
        self._dimensions, self._flat_below, self._folder, self._on_drop = dimensions, flat_below, folder, on_drop
        self.turns = ReadersAndWriters()
        self.parts = Parts(None, self._empty())
        self.build_error: Exception | None = None
        self._removed: list[Integers] | None = None  # while a build goes on: keys that it may have taken
        self._starting = threading.Lock()
        self._builder: threading.Thread | None = None
        self._is_building = False
        self._due_again = 0  # after a failure: at so many changed rows
        self._is_stopped = False

    def begin_with(self, base: Base) -> None:
        """Hold a base and nothing else; before anybody else knows this."""
        self.parts = Parts(base, self._empty(base))

    def settle(self, timeout_s: float | None) -> bool:
        """Wait for the build that goes on; whether none does any more."""
        with self._starting:  # one that is only being started cannot be joined
            builder = self._builder
        if builder is not None:
            builder.join(timeout_s)
        return builder is None or not builder.is_alive()

    def stop(self) -> None:
        """Begin no more builds."""
        self._is_stopped = True

    def _empty(self, base: Base | None = None) -> Fresh:
        return Fresh(self._dimensions, None if base is None else base.lists.beside(), self._folder)

    def add(self, keys: Integers, rows: Floats) -> None:
        """Add rows of unit length under keys that are each given once. Lookups wait for some of that."""
        while True:
            parts = self.parts
            assigned = parts.fresh.assign(rows)  # the slow part: lookups do not wait for it
            with self.turns.writing():
                if self.parts is not parts:
                    continue
                is_new = ~parts.holds(keys, rows)
                self._forget(keys[is_new])
                parts.fresh.append(keys[is_new], rows[is_new], None if assigned is None else assigned[is_new])
                self._compact()
                return

    def remove(self, keys: Integers) -> int:
        """Forget keys, each given once.

        Returns:
            How many were here.
        """
        with self.turns.writing():
            removed = self._forget(keys)
            self._compact()
        return removed

    def _forget(self, keys: Integers) -> int:
        gone = self.parts.kill(keys)
        if self._removed is not None:
            self._removed.append(gone)
        return len(gone)

    def _compact(self) -> None:
        """Give memory back, where no build does that. A build counts slots: while one goes on, they stay."""
        fresh = self.parts.fresh
        if fresh.lists is None and self._removed is None and fresh.alive.dead > max(64, fresh.count // 4):
            self._flatten()

    def _flatten(self) -> None:
        """Replace both parts by fresh rows alone: few, for lookups wait."""
        flat = self._empty()
        for part in self.parts.present():
            living = part.living()
            for start in range(0, len(living), BLOCK):
                places = living[start : start + BLOCK]
                flat.append(part.keys[places], part.rows[places], None)
        self.parts = Parts(None, flat)

    def _is_due(self) -> bool:
        parts = self.parts
        if parts.changed() < self._due_again:
            return False
        if parts.base is None:
            return len(parts) >= self._flat_below
        return parts.changed() > _DUE_SHARE * sum(part.count for part in parts.present())

    def build_if_due(self) -> None:
        with self._starting:
            # A forked child has no such thread, whatever its parent was doing.
            is_building = self._is_building and self._builder is not None and self._builder.is_alive()
            if not is_building and self._is_to_build():
                self._is_building = True
                self._builder = threading.Thread(target=self._build_while_due, daemon=True, name=_NAME)
                self._builder.start()

    def _is_to_build(self) -> bool:
        return self._is_due() and not self._is_stopped and not ENDING.is_set()

    def _goes_on(self) -> bool:
        """Whether there is more to build. If not, the next for whom there is begins another thread: this one ends."""
        with self._starting:
            self._is_building = self._is_to_build()
            return self._is_building

    def _build_while_due(self) -> None:
        _let_others_go_first()
        while self._goes_on():
            try:
                self.build()
                self.build_error, self._due_again = None, 0
            except Exception as error:  # noqa: BLE001  # nobody waits for this thread: it is kept as data
                self.build_error, self._due_again = error, self.parts.changed() * 5 // 4 + 1
        _give_back_memory()

    def build(self) -> None:
        """Make a base of all that is here, then let it take the place of what was."""
        with _one_build:
            with self.turns.writing():
                old, count = self.parts, self.parts.fresh.count
                if is_small := len(old) < max(1, self._flat_below // 2):
                    self._flatten()
                else:
                    living = [part.living() for part in old.present()]
                    self._removed = []
            try:
                if not is_small:
                    self._swap(old, count, Base.build(*old.by_key(living), self._dimensions, self._folder))
            finally:
                with self.turns.writing():  # whoever removes asks first whether it is there
                    self._removed = None
        if old.base is not None:
            self._on_drop(old.base)

    def _swap(self, old: Parts, count: int, base: Base) -> None:
        """Let a new base take the place of old parts, whose first `count` slots are in it."""
        import numpy as np

        fresh, done = self._empty(base), count
        # What came meanwhile follows in rounds while lookups go on; the last few rows while they wait.
        while old.fresh.count - done > _ADDED_AT_LAST:
            done = _follow(old.fresh, fresh, done, min(old.fresh.count, done + BLOCK))
        with self.turns.writing():
            _follow(old.fresh, fresh, done, old.fresh.count)
            fresh.kill(np.flatnonzero(~old.fresh.alive.mask(old.fresh.count)[count:]))
            for keys in self._removed or ():
                places = base.places(keys)
                base.kill(places[places >= 0])
            self.parts = Parts(base, fresh)


_NAME = "chainops vectors"
_LAST_S = 60.0
"""How long the end of the process waits for a build to stop: learning the lists of a million rows takes 45 s."""


def _end_builds() -> None:
    ENDING.set()
    until = time.monotonic() + _LAST_S
    for thread in threading.enumerate():
        if thread.name == _NAME and thread.is_alive():
            thread.join(max(0.0, until - time.monotonic()))


atexit.register(_end_builds)


def _follow(old: Fresh, new: Fresh, start: int, end: int) -> int:
    """Copy slots, dead ones too, so that they keep their order."""
    import numpy as np

    rows = np.array(old.rows[start:end])
    if len(rows):
        new.append(old.keys[start:end], rows, new.assign(rows))
    return end


def _let_others_go_first() -> None:
    """Give this thread a lower priority, on Linux, where that can be said of one thread; and work on it alone."""
    import faiss

    faiss.omp_set_num_threads(1)  # OpenMP's setting is each thread's own
    if sys.platform.startswith("linux"):
        with suppress(OSError):
            # Not the lowest: this thread holds Python's global lock for moments, and lookups wait for that.
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)


def _give_back_memory() -> None:
    """Return what a build freed to the system; GNU's C library keeps it otherwise."""
    if sys.platform.startswith("linux"):
        with suppress(AttributeError, OSError):
            ctypes.CDLL(None).malloc_trim(0)
