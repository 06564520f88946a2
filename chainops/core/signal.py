"""Wait for news, in threads and on event loops alike."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time


class Signal:
    """A count of news that any number of threads and event loops can wait for.

    Read `seen`, look at whatever the news is about, then wait beyond what was read: news that came in between
    counts, so none is lost. Telling costs one wake-up per thread and one per event loop, however many tasks wait.
    """

    __slots__ = ("_changed", "_count", "_tasks")

    def __init__(self) -> None:
        # Re-entrant: a forgotten stream is closed by the garbage collector, perhaps in the middle of one of these
        # methods, and may have news to tell.
        self._changed = threading.Condition(threading.RLock())
        self._count = 0
        self._tasks: dict[asyncio.AbstractEventLoop, set[asyncio.Future[bool]]] = {}

    @property
    def seen(self) -> int:
        """How often there was news until now."""
        return self._count

    @property
    def waiting_tasks(self) -> int:
        """How many tasks wait on event loops."""
        with self._changed:
            return sum(map(len, self._tasks.values()))

    def tell(self) -> None:
        """There is news: wake all who wait. May be called from any thread."""
        with self._changed:
            self._count += 1
            self._changed.notify_all()
            waiting, self._tasks = self._tasks, {}
        for loop, futures in waiting.items():
            with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits there any more
                loop.call_soon_threadsafe(_wake, futures)

    def wait_beyond(self, seen: int, timeout_s: float | None = None) -> bool:
        """Block this thread until there is news after `seen`.

        Args:
            timeout_s: None waits for as long as it takes.

        Returns:
            False when the time ran out first.
        """
        until = None if timeout_s is None else time.monotonic() + timeout_s
        with self._changed:
            while self._count <= seen:
                left = None if until is None else until - time.monotonic()
                if left is not None and left <= 0:
                    return False
                self._changed.wait(left)
        return True

    async def await_beyond(self, seen: int, timeout_s: float | None = None) -> bool:
        """`wait_beyond` for a task: no thread is occupied. A task that is cancelled waits no longer."""
        loop = asyncio.get_running_loop()
        news = loop.create_future()
        with self._changed:
            if self._count > seen:
                return True
            self._tasks.setdefault(loop, set()).add(news)
        timer = None if timeout_s is None else loop.call_later(timeout_s, _settle, news, False)
        try:
            return bool(await news)
        finally:
            if timer is not None:
                timer.cancel()
            self._forget(loop, news)

    def _forget(self, loop: asyncio.AbstractEventLoop, news: asyncio.Future[bool]) -> None:
        with self._changed:
            if (waiting := self._tasks.get(loop)) is not None:
                waiting.discard(news)
                if not waiting:
                    del self._tasks[loop]


def _settle(news: asyncio.Future[bool], came: bool) -> None:
    if not news.done():
        news.set_result(came)


def _wake(futures: set[asyncio.Future[bool]]) -> None:
    for news in futures:
        _settle(news, True)
