"""Open something heavy when it is first needed, once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

Value = TypeVar("Value")


class Lazy(Generic[Value]):
    """A function that is called once, by whoever needs its result first; thread-safe.

    A failure is not remembered: the next call tries again.
    """

    def __init__(self, make: Callable[[], Value]) -> None:
        self._make = make
        self._lock = threading.RLock()
        self._made: list[Value] = []

    def __call__(self) -> Value:
        if not self._made:
            with self._lock:
                if not self._made:
                    self._made.append(self._make())
        return self._made[0]

    @property
    def is_made(self) -> bool:
        return bool(self._made)
