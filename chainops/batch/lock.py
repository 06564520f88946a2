"""One run at a time on one output."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from chainops.batch.records import OutputTaken
from chainops.stores.locks import locked as is_locked


@contextmanager
def locked(path: Path, output: Path) -> Iterator[None]:
    """Hold the lock file, which says who holds it. The lock of a dead process is free: the system lets go of it.

    Raises:
        OutputTaken: Another process, or another run of this one, writes the output.
    """
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        if not is_locked(handle):
            pid = os.pread(handle, 20, 0).decode("ascii", "replace").strip() or "?"
            os.close(handle)
            raise OutputTaken(
                f"{output}: process {pid} is writing it; wait until that is done, or choose another output"
            )
        if _is_still(path, handle):
            break
        os.close(handle)  # its holder finished and took it away between our two steps
    try:
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(handle)


def _is_still(path: Path, handle: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(handle))
    except FileNotFoundError:
        return False
