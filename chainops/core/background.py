"""Work that nobody waits for: one thread for each kind, bounded, and ended in order."""

from __future__ import annotations

import atexit
import contextlib
import queue
import sys
import threading
import time
import weakref
from collections.abc import Callable

from chainops.core.forking import reset_in_child

_LAST_S = 5.0
"""How long the end of the process waits for what is being worked on."""


class Background:
    """One daemon thread that works off a bounded queue.

    When the process ends, what is being worked on is finished, for some seconds at most: a thread that is cut off
    inside native code would take the process down with it.

    Args:
        waiting_at_most: More is not taken.
        finishes: Whether what still waits at the end of the process is worked off then, too, or not begun.
    """

    def __init__(self, name: str, *, waiting_at_most: int, finishes: bool = False) -> None:
        self._name, self._finishes = name, finishes
        self._waiting_at_most = waiting_at_most
        self.reset()
        reset_in_child(self)
        self.is_ending = False
        """Long work looks at this between its parts."""
        _instances.add(self)

    def reset(self) -> None:
        """For a forked child: what waits is its parent's work."""
        # Re-entrant, both: a forgotten stream is closed by the garbage collector, perhaps in the middle of `submit`.
        self._lock = threading.RLock()
        self._waiting: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._unfinished = 0

    def submit(self, work: Callable[[], None]) -> bool:
        """Queue work, which must not raise. Never blocks.

        Returns:
            False when it is not taken: too much is waiting, or the system gives no thread. The next work tries again.
        """
        with self._lock:
            if self.is_ending or self._waiting.qsize() >= self._waiting_at_most:
                return False
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
                try:
                    self._thread.start()
                except RuntimeError:
                    self._thread = None
                    return False
            self._unfinished += 1
            self._waiting.put(work)
        return True

    def drain(self, timeout_s: float = _LAST_S) -> bool:
        """Wait until all that was submitted is done; False when the time ran out first."""
        until = time.monotonic() + timeout_s
        while self._unfinished:
            if time.monotonic() >= until:
                return False
            time.sleep(0.002)
        return True

    def end(self, timeout_s: float = _LAST_S) -> None:
        """Take nothing more, and wait for what is being worked on."""
        until = time.monotonic() + timeout_s
        while not self.is_ending:
            is_time = not self._finishes or not self.drain(until - time.monotonic())
            with self._lock:  # what was taken after the drain is worked off, too; after this nothing is taken
                self.is_ending = is_time or not self._unfinished
        with contextlib.suppress(queue.Empty):
            while True:
                self._waiting.get_nowait()
                with self._lock:
                    self._unfinished -= 1
        self.drain(timeout_s)

    def _work(self) -> None:
        while True:
            work = self._waiting.get()
            try:
                if not self.is_ending:
                    work()
            except BaseException:  # noqa: BLE001 (told as what ends a thread is; what waits is not lost with it)
                _tell_failure()
            finally:
                with self._lock:
                    self._unfinished -= 1


def _tell_failure() -> None:
    try:
        threading.excepthook(threading.ExceptHookArgs((*sys.exc_info(), threading.current_thread())))
    except Exception:  # noqa: BLE001 (a hook of anybody's; this is what Python does then)
        sys.excepthook(*sys.exc_info())


_instances: weakref.WeakSet[Background] = weakref.WeakSet()


def _end_all() -> None:
    for each in list(_instances):
        each.end()


atexit.register(_end_all)
