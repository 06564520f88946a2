"""A lock on an open file, which ends with the process that holds it, however that ends."""

from __future__ import annotations

import sys


def locked(handle: int) -> bool:
    """Whether this process now holds the file's lock. Does not wait.

    Args:
        handle: Of a file open for writing. Closing it gives the lock back.
    """
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
