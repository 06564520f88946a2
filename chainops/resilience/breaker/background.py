"""Work for a store that nobody waits for: one thread, bounded, finished when the process ends."""

from __future__ import annotations

import atexit
import os
import queue
import threading
import time
import weakref
from collections.abc import Callable
from typing import Protocol

_LAST_S = 5.0
"""How long the end of the process waits for what is still to be written."""


class Background:
    """One daemon thread that works off a bounded queue, in order."""

    def __init__(self, name: str, *, waiting_at_most: int = 10_000) -> None:
        self._name, self._most = name, waiting_at_most
        self.reset()
        _instances.add(self)
        reset_in_child(self)

    def reset(self) -> None:
        """For a forked child: what waits is its parent's work."""
        self._lock = threading.Lock()
        self._waiting: queue.Queue[Callable[[], None]] = queue.Queue(self._most)
        self._thread: threading.Thread | None = None
        self._unfinished = 0

    def submit(self, work: Callable[[], None]) -> bool:
        """Queue work, which must not raise; False when too much is waiting. Never blocks."""
        with self._lock:
            try:
                self._waiting.put_nowait(work)
            except queue.Full:
                return False
            self._unfinished += 1
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
                self._thread.start()
        return True

    def drain(self, timeout_s: float = _LAST_S) -> bool:
        """Wait until all that was submitted is done; False when the time ran out first."""
        until = time.monotonic() + timeout_s
        while self._unfinished:
            if time.monotonic() >= until:
                return False
            time.sleep(0.002)
        return True

    def _work(self) -> None:
        while True:
            work = self._waiting.get()
            try:
                work()
            finally:
                with self._lock:
                    self._unfinished -= 1


class OfThisProcess(Protocol):
    """Begins anew in a forked child: what it knew is at work in the parent."""

    def reset(self) -> None:
        """Forget what is under way, locks included: a thread that the child does not have may hold them."""


def reset_in_child(thing: OfThisProcess) -> None:
    """Call `thing.reset()` in every child that is forked while it lives."""
    _of_this_process.add(thing)


_instances: weakref.WeakSet[Background] = weakref.WeakSet()
_of_this_process: weakref.WeakSet[OfThisProcess] = weakref.WeakSet()


def _drain_all() -> None:
    for each in list(_instances):
        each.drain()


def _reset_all() -> None:
    for each in list(_of_this_process):
        each.reset()


atexit.register(_drain_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_all)
