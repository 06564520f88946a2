"""One file that holds an index: a header, the vectors, the keys, and a digest of all of it."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from chainops.core.errors import StoreCorrupted, StoreError, StoreUnavailable
from chainops.stores.failures import SPACE, WRITABLE

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_MAGIC = b"chainops index 1\n"
_LENGTHS = struct.Struct("<QQQQ")  # dimensions, vectors, bytes of the stamp, bytes of the keys
_DIGEST_BYTES = 32
_BLOCK_BYTES = 1 << 22
_REBUILD = "build it again"
_LARGEST = 1 << 48
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class IndexStale(StoreError):
    """An index is missing, or was made from something other than what it would be used for: build it again."""


def write(path: Path, *, keys: list[str], vectors: NDArray[np.float32], stamp: str) -> None:
    """Replace the file at `path` by a complete new one.

    Raises:
        StoreUnavailable: The disk is full or read-only; what was at `path` is still there.
    """
    dimensions = vectors.shape[1]
    stamp_bytes = _json(stamp)
    key_bytes = _json(keys)
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    with replacing(path) as file:
        head = _MAGIC + _LENGTHS.pack(dimensions, len(keys), len(stamp_bytes), len(key_bytes))
        for part in (head, stamp_bytes, key_bytes, _bytes_of(vectors.astype("<f4", copy=False))):
            digest.update(part)
            file.write(part)
        file.write(digest.digest())


def read(path: Path, *, stamp: str) -> tuple[list[str], NDArray[np.float32]]:
    """The keys and vectors of a file made with the same stamp.

    Raises:
        IndexStale: No such file, or another stamp.
        StoreCorrupted: Not the bytes that were written.
        StoreUnavailable: The file may not be read.
    """
    try:
        with path.open("rb") as file:
            return _read(file, path, stamp)
    except FileNotFoundError:
        raise IndexStale(str(path), "there is no such index", _REBUILD) from None
    except OSError as error:
        raise StoreUnavailable(str(path), f"it cannot be read ({error.strerror})", WRITABLE) from error


def _read(file: BinaryIO, path: Path, stamp: str) -> tuple[list[str], NDArray[np.float32]]:
    import numpy as np

    head = file.read(len(_MAGIC) + _LENGTHS.size)
    if len(head) < len(_MAGIC) + _LENGTHS.size or not head.startswith(_MAGIC):
        raise StoreCorrupted(str(path), "not an index of a known format", _REBUILD)
    dimensions, count, stamp_size, key_size = _LENGTHS.unpack_from(head, len(_MAGIC))
    # Sizes are believed only once they add up to the file, so a garbled one cannot ask for all memory.
    expected = len(head) + stamp_size + key_size + 4 * dimensions * count + _DIGEST_BYTES
    if dimensions == 0 or expected > _LARGEST or expected != os.fstat(file.fileno()).st_size:
        raise StoreCorrupted(str(path), "it was cut short or changed", _REBUILD)
    stamp_bytes, key_bytes = file.read(stamp_size), file.read(key_size)
    vectors = np.empty((count, dimensions), "<f4")
    digest = hashlib.blake2b(head, digest_size=_DIGEST_BYTES)
    digest.update(stamp_bytes)
    digest.update(key_bytes)
    _fill(file, vectors, digest)
    if file.read() != digest.digest():
        raise StoreCorrupted(str(path), "it was cut short or changed", _REBUILD)
    if (found := json.loads(stamp_bytes)) != stamp:
        raise IndexStale(str(path), f"made from {found!r}, not from {stamp!r}", _REBUILD)
    return json.loads(key_bytes), vectors.astype(np.float32, copy=False)


def _bytes_of(vectors: NDArray[np.float32]) -> memoryview:
    return vectors.reshape(-1).view("u1").data


def _fill(file: BinaryIO, vectors: NDArray[np.float32], digest: Any) -> None:
    view = _bytes_of(vectors)
    for start in range(0, len(view), _BLOCK_BYTES):
        block = view[start : start + _BLOCK_BYTES]
        file.readinto(block)  # type: ignore[attr-defined]  # BinaryIO hides it; a short read shows in the digest
        digest.update(block)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A new file that takes the name `path` once it is complete and on disk; on any failure, it goes.

    Raises:
        StoreUnavailable: The disk is full or read-only; what was at `path` is still there.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    with writing_to(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with beside.open("xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            beside.replace(path)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


@contextmanager
def writing_to(path: Path) -> Iterator[None]:
    """Turn what the system says when it cannot write there into StoreUnavailable."""
    try:
        yield
    except OSError as error:
        problem = f"it cannot be written ({error.strerror})"
        raise StoreUnavailable(str(path), problem, SPACE if error.errno in _NO_SPACE else WRITABLE) from error


def sync_folder(folder: Path) -> None:
    """Make the new name itself survive a power cut; Windows has no such call, and keeps names in order itself."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode("ascii")
