"""Hear what happened, and move time by hand."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from chainops.core.clock import Clock
from chainops.core.events import Event, listen


class Captured(list[Event]):
    """The events heard so far, in order."""

    def of(self, *kinds: type[Event]) -> list[Event]:
        return [event for event in self if isinstance(event, kinds)]


@contextmanager
def capture_events() -> Iterator[Captured]:
    """Collect every event of the requests that begin inside the block, `RequestEnded` included."""
    captured = Captured()
    with listen(captured.append):
        yield captured


class ManualClock(Clock):
    """Time that passes only when told to, or when a component waits. Use with `chainops.core.clock.use_clock`."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self.now = now
        self.slept: list[float] = []
        self._moving = threading.RLock()

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        with self._moving:
            self.now += seconds

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.advance(seconds)

    async def asleep(self, seconds: float) -> None:
        self.sleep(seconds)
