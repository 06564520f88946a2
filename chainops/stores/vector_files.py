"""The folder that `Vectors` keeps: one snapshot, the base files it names, a lock for the one process that writes.

The snapshot is replaced atomically and names its base files by digest; those are complete and on disk before it is.
So whoever opens the folder finds the old state or the new one, whole, or is told that it is neither.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import struct
import time
import weakref
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from chainops.core.errors import StoreCorrupted, StoreUnavailable
from chainops.stores.failures import WRITABLE
from chainops.stores.index_file import IndexStale, replacing, sync_folder, writing_to
from chainops.stores.locks import locked

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Integers = NDArray[np.int64]

_MAGIC = b"chainops vectors 1\n".ljust(64, b"\0")  # rows begin at a multiple of 64 bytes
_HEAD_SIZE = struct.Struct("<Q")  # the head ends with its own size; the digest of all before it ends the file
_REBUILD = "build it again from the store"
_ORPHAN_S = 3600.0  # what other processes left is removed when older: a build of theirs takes less
_BLOCK_BYTES = 1 << 22


@dataclass(frozen=True, slots=True)
class BaseFacts:
    """What a snapshot says of the two files of a base, which have its generation in their names."""

    generation: str
    count: int
    rows_digest: str
    lists_digest: str


class Snapshot(NamedTuple):
    """What one snapshot holds; the arrays are mapped from its file."""

    mark: int | str
    dimensions: int
    base: BaseFacts | None
    dead: Integers
    """Row numbers of the base that do not count any more."""
    keys: Integers
    """Of the rows added since the base; negative for a row that does not count."""
    rows: Floats


class Folder:
    """One partition's folder."""

    def __init__(self, path: Path, stamp: str) -> None:
        self.path, self.stamp = path, stamp
        self.snapshot_path = path / "snapshot"
        self._lock: int | None = None
        self._replaced: set[str] = set()

    def claim(self) -> bool:
        """Whether this is the one that writes snapshots here; it stays so until `release` or the process's end."""
        if self._lock is None:
            with writing_to(self.path):
                self.path.mkdir(parents=True, exist_ok=True)
                handle = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o644)
            if not locked(handle):
                os.close(handle)
                return False
            self._lock = handle
            _claimed.add(self)
        return True

    def release(self) -> None:
        """Let another write. A forked child does this at once: what the parent has locked stays locked."""
        handle, self._lock = self._lock, None
        if handle is not None:
            os.close(handle)

    def rows_path(self, generation: str) -> Path:
        return self.path / f"base-{generation}.rows"

    def lists_path(self, generation: str) -> Path:
        return self.path / f"base-{generation}.lists"

    def write_rows(self, keys: Integers, blocks: Iterable[Floats]) -> tuple[str, str]:
        """Write a new base's keys and rows; they are on disk when this returns.

        Returns:
            The new generation, and the digest of the file.

        Raises:
            StoreUnavailable: The disk is full or read-only.
        """
        generation = secrets.token_hex(8)
        path = self.rows_path(generation)
        with writing_to(path):
            self.path.mkdir(parents=True, exist_ok=True)
            try:
                with path.open("xb") as file:
                    out = _Digesting(file)
                    out.write(_MAGIC)
                    out.write(keys.astype("<i8", copy=False))
                    for block in blocks:
                        out.write(block.astype("<f4", copy=False))
                    file.flush()
                    os.fsync(file.fileno())
            except BaseException:
                self.discard(generation)
                raise
        return generation, out.digest.hexdigest()

    def map_rows(self, generation: str, count: int, dimensions: int) -> tuple[Integers, Floats]:
        import numpy as np

        path = self.rows_path(generation)
        keys = np.memmap(path, "<i8", "r", len(_MAGIC), (count,))
        rows = np.memmap(path, "<f4", "r", len(_MAGIC) + keys.nbytes, (count, dimensions))
        return np.asarray(keys), np.asarray(rows)  # as plain arrays: every step with a `memmap` runs Python code

    def settle_lists(self, generation: str) -> str:
        """Bring a new base's lists, which FAISS has written, to disk.

        Returns:
            The digest of the file.
        """
        path = self.lists_path(generation)
        with writing_to(path), path.open("r+b") as file:
            os.fsync(file.fileno())
            return hashlib.file_digest(file, "sha256").hexdigest()

    def write(
        self,
        mark: int | str,
        base: BaseFacts | None,
        blocks: Iterable[Floats],
        last: Callable[[], tuple[Integers, Integers]],
        *,
        dimensions: int,
    ) -> None:
        """Replace the snapshot.

        Args:
            blocks: Rows added since the base.
            last: Called when those are written: their keys, and the dead rows of the base, as in `Snapshot`.
        """
        with replacing(self.snapshot_path) as file:
            out = _Digesting(file)
            out.write(_MAGIC)
            for block in blocks:
                out.write(block.astype("<f4", copy=False))
            keys, dead = last()
            out.write(keys.astype("<i8", copy=False))
            out.write(dead.astype("<i8", copy=False))
            facts = {"stamp": self.stamp, "mark": mark, "dimensions": dimensions, "count": len(keys), "dead": len(dead)}
            head = json.dumps(facts | {"base": None if base is None else asdict(base)}).encode("ascii")
            out.write(head + _HEAD_SIZE.pack(len(head)))
            file.write(out.digest.digest())

    def read(self) -> Snapshot:
        """The snapshot, once it is known to be what was written.

        Raises:
            IndexStale: There is none, or it was made with another stamp.
            StoreCorrupted: It was cut or changed.
            StoreUnavailable: It may not be read.
        """
        path = self.snapshot_path
        try:
            with path.open("rb") as file:
                head, start = _checked_head(file, path)
                if head["stamp"] != self.stamp:
                    raise IndexStale(str(path), f"made from {head['stamp']!r}, not from {self.stamp!r}", _REBUILD)
                return _mapped(file, head, start)
        except FileNotFoundError:
            raise IndexStale(str(path), "there is no such snapshot", _REBUILD) from None
        except OSError as error:
            raise StoreUnavailable(str(path), f"it cannot be read ({error.strerror})", WRITABLE) from error

    def check_base(self, facts: BaseFacts) -> None:
        """Read both files of a base through.

        Raises:
            StoreCorrupted: One is missing, cut or changed.
        """
        found = {self.rows_path: facts.rows_digest, self.lists_path: facts.lists_digest}
        for path_of, digest in found.items():
            path = path_of(facts.generation)
            try:
                with path.open("rb") as file:
                    is_right = hashlib.file_digest(file, "sha256").hexdigest() == digest
            except FileNotFoundError:
                is_right = False
            except OSError as error:
                raise StoreUnavailable(str(path), f"it cannot be read ({error.strerror})", WRITABLE) from error
            if not is_right:
                raise StoreCorrupted(str(path), "it is missing, cut short or changed", _REBUILD)

    def has(self, facts: BaseFacts) -> bool:
        """Whether a base's files are still here; where they are mapped they stay usable even if not."""
        return self.rows_path(facts.generation).exists() and self.lists_path(facts.generation).exists()

    def discard(self, generation: str) -> None:
        """Remove the files of a base that no snapshot names. Where the system refuses, `tidy` does it later."""
        self._replaced.add(generation)
        for path in (self.rows_path(generation), self.lists_path(generation)):
            with suppress(FileNotFoundError, PermissionError):
                path.unlink()

    def replaced(self, generation: str) -> None:
        """Tell that this process does not need a base any more, which the snapshot may still name."""
        self._replaced.add(generation)

    def tidy(self, *, keep: set[str]) -> None:
        """Remove replaced bases, and what ended processes left. Where the system refuses, the next one does."""
        now_s = time.time()
        for path in [*self.path.glob("base-*"), *self.path.glob(".snapshot.*.tmp")]:
            generation = path.stem.removeprefix("base-")
            with suppress(FileNotFoundError, PermissionError):
                is_orphan = now_s - path.stat().st_mtime > _ORPHAN_S
                if generation not in keep and (generation in self._replaced or is_orphan):
                    path.unlink()
        sync_folder(self.path)


class _Digesting:
    """Writes to a file, and knows the digest of all it wrote."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.digest = hashlib.sha256()  # the fastest of the standard library's, where the processor knows it

    def write(self, part: bytes | NDArray[np.generic]) -> None:
        data = part if isinstance(part, bytes) else part.reshape(-1).view("u1").data
        self.digest.update(data)
        self._file.write(data)


def _checked_head(file: BinaryIO, path: Path) -> tuple[dict[str, object], int]:
    """What the end of a snapshot says of the rest, and where that begins."""
    digest = hashlib.sha256()
    end = os.fstat(file.fileno()).st_size - digest.digest_size
    if end < len(_MAGIC) + _HEAD_SIZE.size or file.read(len(_MAGIC)) != _MAGIC:
        raise StoreCorrupted(str(path), "not a snapshot of a known format", _REBUILD)
    file.seek(0)
    while block := file.read(min(_BLOCK_BYTES, end - file.tell())):
        digest.update(block)
    if file.read() != digest.digest():
        raise StoreCorrupted(str(path), "it was cut short or changed", _REBUILD)
    file.seek(end - _HEAD_SIZE.size)
    (head_size,) = _HEAD_SIZE.unpack(file.read(_HEAD_SIZE.size))
    start = end - _HEAD_SIZE.size - head_size
    file.seek(start)
    head: dict[str, object] = json.loads(file.read(head_size))
    return head, start


def _mapped(file: BinaryIO, head: dict[str, Any], head_start: int) -> Snapshot:
    import numpy as np

    def part(kind: str, start: int, *shape: int) -> NDArray[Any]:
        # Nothing cannot be mapped.
        return np.zeros(shape, kind) if 0 in shape else np.memmap(file, kind, "r", start, shape)

    count, dead, dimensions = head["count"], head["dead"], head["dimensions"]
    dead_start = head_start - 8 * dead
    return Snapshot(
        mark=head["mark"],
        dimensions=dimensions,
        base=None if head["base"] is None else BaseFacts(**head["base"]),
        dead=part("<i8", dead_start, dead),
        keys=part("<i8", dead_start - 8 * count, count),
        rows=part("<f4", len(_MAGIC), count, dimensions),
    )


_claimed: weakref.WeakSet[Folder] = weakref.WeakSet()


def _release_in_child() -> None:
    for folder in list(_claimed):
        folder.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_release_in_child)
