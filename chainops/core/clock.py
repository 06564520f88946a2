"""Time as a parameter: components ask the request's clock, tests hand in their own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar


class Clock:
    """The machine's time. Tests use `chainops.testing.ManualClock`."""

    def time(self) -> float:
        """Seconds since 1970, as shown to people."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds that only go forward, for durations and deadlines."""
        return time.perf_counter()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    async def asleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


_SYSTEM = Clock()
_current: ContextVar[Clock] = ContextVar("chainops_clock", default=_SYSTEM)


def current_clock() -> Clock:
    return _current.get()


@contextmanager
def use_clock(clock: Clock) -> Iterator[Clock]:
    """Requests that begin inside the block read this clock."""
    token = _current.set(clock)
    try:
        yield clock
    finally:
        _current.reset(token)
