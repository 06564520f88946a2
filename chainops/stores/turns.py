"""Many may read at once; whoever changes something is alone."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class ReadersAndWriters:
    """A lock for short work in memory. Neither side may take it again while holding it.

    A waiting writer goes before readers that come later, so readers without end cannot keep it out.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._readers = 0
        self._waiting_writers = 0

    @contextmanager
    def reading(self) -> Iterator[None]:
        with self._lock:  # the condition's own, without the Python around it
            while self._waiting_writers:
                self._changed.wait()
            self._readers += 1
        try:
            yield
        finally:
            with self._lock:
                self._readers -= 1
                if not self._readers:
                    self._changed.notify_all()

    @contextmanager
    def writing(self) -> Iterator[None]:
        with self._changed:
            self._waiting_writers += 1
            try:
                while self._readers:
                    self._changed.wait()
            finally:
                self._waiting_writers -= 1
                self._changed.notify_all()  # readers wake once this writer, who still holds the lock, is done
            yield
