"""Rows of numbers: checked, brought to unit length, compared, and room for more of them."""

from __future__ import annotations

import math
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from chainops.core.errors import InvalidInput

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Integers = NDArray[np.int64]

BLOCK = 1024
"""Rows copied while Python's global lock is held: that takes less than a millisecond."""
_SCRATCH_ROWS = 1 << 14  # more rows than this grow in a scratch file, where there is a folder
_NOT_FINITE = "a number that is not finite in single precision"
_ZEROS = "a vector of zeros, which has no direction"
_UNIT = 1e-5  # a length that close to 1 is left as it is


def checked_keys(given: Sequence[int]) -> Integers:
    import numpy as np

    keys = np.asarray(given)
    if keys.size == 0:
        return np.zeros(0, np.int64)
    if keys.ndim != 1 or keys.dtype.kind not in "iu" or keys.min() < 0 or keys.max() >= 1 << 63:
        raise InvalidInput("keys", repr(given)[:80], "integers of 0 or more, below 2**63")
    return keys.astype(np.int64)


def checked_rows(given: Any, what: str, dimensions: int) -> tuple[Floats, NDArray[np.float64]]:
    """As an (n, d) array of float32, and the lengths of its rows."""
    import numpy as np

    rows = _floats(given, what, (-1, dimensions))
    blocks = [lengths_of(rows[start : start + BLOCK]) for start in range(0, len(rows), BLOCK)]
    lengths = np.concatenate(blocks) if blocks else np.zeros(0)
    if not np.isfinite(lengths).all():
        raise InvalidInput(what, _NOT_FINITE, "finite numbers")
    if not lengths.all():
        raise InvalidInput(what, _ZEROS, "vectors of some length")
    return rows, lengths


def checked_query(given: Any, dimensions: int) -> tuple[Floats, NDArray[np.float64]]:
    """At unit length, as float32 to look with and in double precision to compare with; both of shape (d,)."""
    import numpy as np

    query = _floats(given, "query", (dimensions,))
    double = query.astype(np.float64)
    length = math.sqrt(double.dot(double))
    if not math.isfinite(length):
        raise InvalidInput("query", _NOT_FINITE, "finite numbers")
    if not length:
        raise InvalidInput("query", _ZEROS, "vectors of some length")
    return query if abs(length - 1) <= _UNIT else (query / length).astype(np.float32), double / length


def _floats(given: Any, what: str, shape: tuple[int, ...]) -> Floats:
    """As contiguous float32 of a shape, in which -1 stands for any number of rows."""
    import numpy as np

    if type(given) is np.ndarray and given.dtype == np.float32 and given.shape == shape and given.flags.c_contiguous:
        return given
    expected = f"shape {shape}".replace("-1", "n")
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            array = np.asarray(given, np.float32, "C")
    except (TypeError, ValueError):
        raise InvalidInput(what, type(given).__name__, f"numbers of {expected}") from None
    if array.ndim != len(shape) or array.shape[-1] != shape[-1]:
        raise InvalidInput(what, f"shape {array.shape}", expected)
    return array


def lengths_of(rows: Floats) -> NDArray[np.float64]:
    import numpy as np

    double = rows.astype(np.float64)
    lengths: NDArray[np.float64] = np.sqrt((double * double).sum(axis=1))
    return lengths


def of_unit_length(rows: Floats, lengths: NDArray[np.float64]) -> Floats:
    import numpy as np

    off = np.abs(lengths - 1) > _UNIT
    if not off.any():
        return rows
    unit = rows.copy()
    unit[off] = rows[off] / lengths[off, None]
    return unit


def cosines(query: NDArray[np.float64], rows: Floats) -> NDArray[np.float64]:
    """Of a query of unit length; in double precision, each computed alike wherever its row lies; -1..1."""
    import numpy as np

    double = rows.astype(np.float64)
    row = double[:, None, :]  # a product for each row by itself: one of the whole matrix depends on what is around it
    products, squares = row @ query[:, None], row @ double[:, :, None]
    found: NDArray[np.float64] = products[:, 0, 0] / np.sqrt(squares[:, 0, 0])
    return np.minimum(np.maximum(found, -1.0), 1.0)  # not `clip`, which runs more Python around that


class GrowingRows:
    """Room for rows that grows: in memory, or in an unnamed file where there is a folder and many rows.

    The file costs no memory that cannot be written out, and grows without being copied.
    """

    def __init__(self, dimensions: int, folder: Path | None) -> None:
        import numpy as np

        self._folder = folder
        self._file: BinaryIO | None = None
        self.rows: Floats = np.zeros((0, dimensions), np.float32)

    @property
    def is_mapped(self) -> bool:
        return self._file is not None

    def grow(self, room: int) -> None:
        """Replace `rows` by a longer array with the same content; who holds the old one may go on reading it."""
        import numpy as np

        old, shape = self.rows, (room, self.rows.shape[1])
        was_mapped = self.is_mapped
        mapped = self._map(shape) if self._folder is not None and room > _SCRATCH_ROWS else None
        self.rows = np.zeros(shape, np.float32) if mapped is None else mapped
        if not (was_mapped and mapped is not None):
            self.rows[: len(old)] = old

    def _map(self, shape: tuple[int, int]) -> Floats | None:
        """The file, made that long; None where the system or the disk has no room, which memory then has to have."""
        import numpy as np

        if not sys.platform.startswith("linux"):  # elsewhere room cannot be reserved, and running out would be fatal
            return None
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115  # open as long as this lives
            os.posix_fallocate(self._file.fileno(), 0, 4 * shape[0] * shape[1])
        except OSError:
            self._file = None
            return None
        return np.asarray(np.memmap(self._file, np.float32, "r+", 0, shape))  # plain: see `Folder.map_rows`
