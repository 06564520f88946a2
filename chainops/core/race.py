"""Several routes at work on one answer, where the first to speak gives it: `Race`, in threads and in tasks."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import time
from collections.abc import AsyncGenerator, Callable, Generator
from contextvars import copy_context
from dataclasses import replace
from typing import Any

from langchain_core.runnables import RunnableConfig

from chainops.core.calling import child_config, in_time, released, rest, through
from chainops.core.chunks import as_chunk, has_substance
from chainops.core.errors import PlanError
from chainops.core.report import Report
from chainops.core.run import Run
from chainops.core.steps import Forward, Race

_HELD = 16
"""Chunks of the winner that wait for a slow reader."""
_LOOK_S = 0.1
"""How often a winner whose reader is slow looks whether it was given up."""
_CLEANUP_S = 5.0
_END = object()
_News = tuple[int, BaseException | None]
"""The position of a route, and None for its first word, or its failure."""


class _Entry:
    """One route of a race, with a report of its own: the winner's becomes the answer's."""

    def __init__(self, step: Race, run: Run, position: int) -> None:
        self.position, self.call = position, step.calls[position]
        self.report = Report(run.request)
        terms = run.terms if position == 0 else replace(run.terms, purpose=step.purpose)
        self.config: RunnableConfig = child_config(run, run.scope(watched=True, report=self.report, terms=terms))


def course(step: Race, start: Callable[[], None]) -> Generator[float | None, _News | None, int]:
    """How a race goes until somebody speaks, in threads and in tasks alike.

    Args:
        start: Called when it is the next route's turn.

    Yields:
        For how many seconds to listen; None: until something is heard. It is sent the position of who was heard, with
        the error where that one failed; None for silence.

    Returns:
        The position of who spoke first.

    Raises:
        Exception: Of the first route, where no other may mend it, or of the first in order, where all failed.
    """
    start()
    began_s = time.monotonic()
    started, next_at_s = 1, began_s + step.after_s
    while True:
        may_start = started < len(step.calls)
        heard = yield max(0.0, next_at_s - time.monotonic()) if may_start else None
        if heard is None:
            is_due = time.monotonic() >= next_at_s
        else:
            position, error = heard
            if error is None:
                step.spoke_after_s = time.monotonic() - began_s
                return position
            _note_failure(step, position, error)
            is_due = True
        if may_start and is_due:
            start()
            started, next_at_s = started + 1, time.monotonic() + step.after_s


def _note_failure(step: Race, position: int, error: BaseException) -> None:
    """Raise the failure that ends the race, if this one does."""
    if not isinstance(error, Exception):
        raise error
    step.errors[position] = error
    if position == 0 and not step.can_mend(error):
        raise error
    if len(step.errors) == len(step.calls):
        raise step.errors[min(step.errors)]


# Sync


class _Thread(_Entry):
    """A route at work in a thread: what it says waits until it has won."""

    def __init__(self, step: Race, run: Run, position: int, news: queue.SimpleQueue[Any], *, streaming: bool) -> None:
        super().__init__(step, run, position)
        self._run, self._news, self._streaming = run, news, streaming
        self._decided, self._is_stopped = threading.Event(), False
        self.chunks: queue.Queue[Any] = queue.Queue(_HELD)
        work = copy_context()
        threading.Thread(target=work.run, args=(self._work,), name=f"race-{position}", daemon=True).start()

    def decide(self, *, won: bool) -> None:
        self._is_stopped = not won
        self._decided.set()

    def _work(self) -> None:
        error: BaseException | None = None
        with self._run.attempts.held_open():
            if self._is_stopped:  # it got going when the race was over: its call would be made for nothing
                return
            try:
                if self._streaming:
                    self._stream()
                else:
                    self._put(self.call.runnable.invoke(self.call.value, self.config, **self.call.kwargs))
            except BaseException as failure:  # noqa: BLE001 (told to the driver, whose business it is)
                error = failure
        # The end is told when it holds nothing open any more: the driver closes the books next.
        if error is None:
            self._put(_END)
        elif self._decided.is_set():
            self._put(error)
        else:
            self._news.put((self.position, error))

    def _stream(self) -> None:
        chunks = self.call.runnable.stream(self.call.value, self.config, **self.call.kwargs)
        held: list[Any] | None = []
        try:
            for chunk in chunks:
                if held is not None:
                    held.append(chunk)
                    if not has_substance(as_chunk(chunk)):
                        continue
                    for each in held:
                        self._put(each)
                    held = None
                else:
                    self._put(chunk)
                if self._is_stopped:
                    return
            for each in held or ():
                self._put(each)
        finally:
            if close := getattr(chunks, "close", None):
                close()

    def _put(self, chunk: Any) -> None:
        """Hand a chunk over; the first one waits for the decision whose answer is used."""
        if not self._decided.is_set():
            self._news.put((self.position, None))
            self._decided.wait()
        while not self._is_stopped:
            with contextlib.suppress(queue.Full):
                self.chunks.put(chunk, timeout=_LOOK_S)
                return


def race(step: Race, run: Run, *, streaming: bool) -> Generator[Any, None, Any]:
    """Play a race. Yields the winner's chunks when streaming; gives its whole answer."""
    run.check_deadline()
    news: queue.SimpleQueue[_News] = queue.SimpleQueue()
    entries: list[_Thread] = []

    def start() -> None:
        entries.append(_Thread(step, run, len(entries), news, streaming=streaming))

    try:
        step.winner = _first_to_speak(course(step, start), run, news)
        winner = entries[step.winner]
        for each in entries:
            each.decide(won=each is winner)
        yield from _said(winner, run, streaming=streaming)
    finally:
        for each in entries:
            each.decide(won=False)
        if step.winner is not None:
            run.report.take(entries[step.winner].report)
    return step.received


def _first_to_speak(going: Generator[float | None, _News | None, int], run: Run, news: queue.SimpleQueue[_News]) -> int:
    try:
        wait_s = next(going)
        while True:
            wait_s = going.send(_heard(run, news, wait_s))
    except StopIteration as end:
        winner: int = end.value
        return winner


def _heard(run: Run, news: queue.SimpleQueue[_News], wait_s: float | None) -> _News | None:
    waits = [each for each in (wait_s, run.remaining_s) if each is not None]
    try:
        return news.get(timeout=min(waits, default=None))
    except queue.Empty:
        run.check_deadline()
        return None


def _said(winner: _Thread, run: Run, *, streaming: bool) -> Generator[Any, None, None]:
    """What the winner says, as the caller gets it."""
    call: Forward = winner.call
    held: list[Any] = []
    while True:
        try:
            chunk = winner.chunks.get(timeout=run.remaining_s)
        except queue.Empty:
            run.check_deadline()
            continue
        run.check_deadline()
        if isinstance(chunk, BaseException):
            raise chunk
        if chunk is _END:
            break
        if not streaming:
            call.released.append(through(call, chunk))
            continue
        for each in released(call, held, chunk):
            yield run.outward(each)
    for each in rest(call, held) if streaming else ():
        yield run.outward(each)


# Async


class _Task(_Entry):
    """A route at work in a task: the async twin of `_Thread`."""

    def __init__(self, step: Race, run: Run, position: int, news: asyncio.Queue[Any], *, streaming: bool) -> None:
        super().__init__(step, run, position)
        self._run, self._news, self._streaming = run, news, streaming
        self._spoke = False
        self.gone: PlanError | None = None
        """Why nothing more will come, where there was no room to say so among the chunks."""
        self.chunks: asyncio.Queue[Any] = asyncio.Queue(_HELD)
        self.task = asyncio.get_running_loop().create_task(self._work())
        self.task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """A route that was cancelled from inside says nothing any more: that is a failure of its own."""
        if task.cancelled():
            gone = PlanError("a route of a race was cancelled from inside")
            if self._spoke:
                try:
                    self.chunks.put_nowait(gone)
                except asyncio.QueueFull:
                    self.gone = gone
            else:
                self._news.put_nowait((self.position, gone))

    async def _work(self) -> None:
        with self._run.attempts.held_open():
            try:
                if self._streaming:
                    await self._stream()
                else:
                    await self._put(await self.call.runnable.ainvoke(self.call.value, self.config, **self.call.kwargs))
                await self._put(_END)
            except Exception as error:  # noqa: BLE001 (told to the driver, whose business it is)
                if self._spoke:
                    await self.chunks.put(error)
                else:
                    self._news.put_nowait((self.position, error))

    async def _stream(self) -> None:
        chunks: Any = self.call.runnable.astream(self.call.value, self.config, **self.call.kwargs)
        held: list[Any] | None = []
        try:
            async for chunk in chunks:
                if held is None:
                    await self._put(chunk)
                    continue
                held.append(chunk)
                if has_substance(as_chunk(chunk)):
                    for each in held:
                        await self._put(each)
                    held = None
            for each in held or ():
                await self._put(each)
        finally:
            if close := getattr(chunks, "aclose", None):
                await close()

    async def _put(self, chunk: Any) -> None:
        if not self._spoke:
            self._spoke = True
            self._news.put_nowait((self.position, None))
        await self.chunks.put(chunk)


async def arace(step: Race, run: Run, *, streaming: bool) -> AsyncGenerator[Any, None]:
    """The async twin of `race`; the whole answer is `step.received`."""
    run.check_deadline()
    news: asyncio.Queue[_News] = asyncio.Queue()
    entries: list[_Task] = []

    def start() -> None:
        entries.append(_Task(step, run, len(entries), news, streaming=streaming))

    try:
        step.winner = await _afirst_to_speak(course(step, start), run, news)
        winner = entries[step.winner]
        for each in entries:
            if each is not winner:
                each.task.cancel()
        async with contextlib.aclosing(_asaid(winner, run, streaming=streaming)) as chunks:
            async for chunk in chunks:
                yield chunk
    finally:
        for each in entries:
            each.task.cancel()
        if step.winner is not None:
            run.report.take(entries[step.winner].report)
        await _ended({each.task for each in entries})


async def _ended(tasks: set[asyncio.Task[None]]) -> None:
    """Wait for what was cancelled to clean up, however often this task is cancelled itself."""
    until = time.monotonic() + _CLEANUP_S
    while (left := {task for task in tasks if not task.done()}) and (wait_s := until - time.monotonic()) > 0:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait(left, timeout=wait_s)


async def _afirst_to_speak(
    going: Generator[float | None, _News | None, int], run: Run, news: asyncio.Queue[_News]
) -> int:
    try:
        wait_s = next(going)
        while True:
            wait_s = going.send(await _aheard(run, news, wait_s))
    except StopIteration as end:
        winner: int = end.value
        return winner


async def _aheard(run: Run, news: asyncio.Queue[_News], wait_s: float | None) -> _News | None:
    try:
        told: _News = await in_time(run, _within, news, wait_s)
    except TimeoutError:
        run.check_deadline()
        return None
    return told


async def _within(news: asyncio.Queue[_News], timeout_s: float | None) -> _News:
    return await asyncio.wait_for(news.get(), timeout_s)


async def _asaid(winner: _Task, run: Run, *, streaming: bool) -> AsyncGenerator[Any, None]:
    call: Forward = winner.call
    held: list[Any] = []
    while True:
        if winner.gone is not None and winner.chunks.empty():
            raise winner.gone
        if (chunk := await in_time(run, winner.chunks.get)) is _END:
            break
        run.check_deadline()
        if isinstance(chunk, BaseException):
            raise chunk
        if not streaming:
            call.released.append(through(call, chunk))
            continue
        for each in released(call, held, chunk):
            yield run.outward(each)
    for each in rest(call, held) if streaming else ():
        yield run.outward(each)
