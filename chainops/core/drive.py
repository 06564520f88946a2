"""The drivers: they do what a plan asks for and send it what came of it.

One loop for sync calls and one for async ones; each serves a whole answer and a stream.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from typing import Any

from langchain_core.runnables.config import set_config_context, var_child_runnable_config

from chainops.core.answer import RestartChunk
from chainops.core.calling import in_time, released, rest, through, unwatched, watched
from chainops.core.chunks import as_chunk, as_whole, merge, spoken, words_of
from chainops.core.errors import PlanError
from chainops.core.events import CleanupFailed
from chainops.core.race import arace, race
from chainops.core.run import Run
from chainops.core.steps import Ask, AskAll, Cancelled, Do, Forward, Hear, Plan, Race, Restart, Say, Step, Wait

CLEANUP_S = 5.0
"""How long a cancelled plan may go on cleaning up."""
_MAX_REFUSALS = 100


class Talk:
    """A plan being played: its next step, what was said to the caller, and how it ended."""

    __slots__ = ("output", "plan", "run", "said")

    def __init__(self, plan: Plan[Any], run: Run) -> None:
        self.plan, self.run = plan, run
        self.said: list[Any] = []
        self.output: Any = None

    def send(self, reply: Any) -> Step | None:
        """The next step; None when the plan has returned."""
        try:
            return self.plan.send(reply)
        except StopIteration as stop:
            self.output = stop.value
            return None

    def throw(self, error: BaseException) -> Step | None:
        try:
            return self.plan.throw(error)
        except StopIteration as stop:
            self.output = stop.value
            return None

    def heard(self) -> Any:
        """All that was said to the caller, as one value."""
        return self.said[0] if len(self.said) == 1 else merge([spoken(value) for value in self.said])

    def check(self) -> None:
        """A plan that spoke must return what it said: a stream cannot take words back."""
        if not self.said or (len(self.said) == 1 and self.output is self.said[0]):
            return
        if words_of(self.heard()) != words_of(self.output):
            raise PlanError(
                f"{self.run.stage.name}: the plan said one thing to the caller and returned another; "
                "what is forwarded cannot be changed afterwards: use Ask, or a Forward with a filter"
            )

    def farewell(self, left: asyncio.Future[Any] | None = None) -> Generator[Do, tuple[Any, Exception | None], None]:
        """Tell the plan that the caller is gone. Gives the `Do` steps it still asks for; nothing else is answered.

        Args:
            left: What a `Do` came to that was at work meanwhile: the plan learns that first.

        It is sent the result and error of each step, and ends when the plan does, after `CLEANUP_S` at most.
        """
        until = time.monotonic() + CLEANUP_S
        refusals = 0
        try:
            if left is not None and left.done() and not left.cancelled():
                failure = left.exception()
                step = self.send(left.result()) if failure is None else self.throw(failure)
                if step is None:
                    return
            step = self.throw(Cancelled())
            while step is not None:
                if time.monotonic() >= until or refusals > _MAX_REFUSALS:
                    raise PlanError("the plan went on asking after it was cancelled, and was dropped")
                if isinstance(step, Do):
                    result, error = yield step
                    step = self.send(result) if error is None else self.throw(error)
                else:
                    refusals += 1
                    step = self.throw(Cancelled())
        except Cancelled:
            pass
        except Exception as error:  # noqa: BLE001 (the caller is gone: nobody else can be told)
            self.run.emit(CleanupFailed(component=self.run.stage.name, error=repr(error)))
        finally:
            try:
                self.plan.close()
            except Exception as error:  # noqa: BLE001 (as above; RuntimeError: it will not even be closed)
                self.run.emit(CleanupFailed(component=self.run.stage.name, error=repr(error)))


@contextmanager
def _nested(run: Run) -> Iterator[Callable[..., Any]]:
    """Gives `call(function, *args)`: runnables called inside without a config still nest under this one."""
    config = unwatched(run)
    if run.manager is not None:
        with set_config_context(config) as context:
            yield context.run
    else:
        context = copy_context()
        context.run(var_child_runnable_config.set, config)
        yield context.run


def _in_thread(run: Run, work: Callable[[], Any]) -> asyncio.Future[Any]:
    """`work` in a thread of the loop's, in a copy of this context."""

    def nested() -> Any:
        with _nested(run) as call:  # entered and left in the thread: a context is nobody else's meanwhile
            return call(work)

    return asyncio.get_running_loop().run_in_executor(None, copy_context().run, nested)


def _results(asked: AskAll, results: list[Any]) -> list[Any]:
    if not asked.return_exceptions:
        for result in results:
            if isinstance(result, BaseException):
                raise result
    return results


# Sync


def drive(talk: Talk, *, streaming: bool, tell: Callable[[], None]) -> Generator[Any, None, None]:
    """Play a plan. Yields chunks when streaming; `talk.output` is the result at the end.

    Args:
        tell: Hands queued events to LangChain's callbacks.
    """
    run = talk.run
    try:
        step = talk.send(None)
        while step is not None:
            try:
                if isinstance(step, Forward):
                    reply = (yield from _forward(step, run)) if streaming else _whole(step, run)
                    talk.said.append(reply)
                elif isinstance(step, Race):
                    reply = yield from race(step, run, streaming=streaming)
                    talk.said.append(reply)
                elif isinstance(step, Restart):
                    talk.said.clear()
                    reply = None
                    if streaming:
                        yield RestartChunk.new()
                elif isinstance(step, Say):
                    talk.said.append(step.chunk)
                    if streaming:
                        yield run.outward(as_chunk(step.chunk))
                    reply = None
                else:
                    reply = _answer(step, run)
            except Exception as error:  # noqa: BLE001 (thrown into the plan, whose business it is)
                if isinstance(step, Forward | Race) and (received := step.received) is not None:
                    talk.said.append(received)
                step = talk.throw(error)
            else:
                step = talk.send(reply)
            tell()
        talk.check()
        if streaming and not talk.said and talk.output is not None:
            yield run.outward(as_chunk(talk.output))
        if streaming and (last := run.last_chunk(talk.output)) is not None:
            yield last
    except BaseException:  # a failure, a stream that was closed, a program being stopped
        _cancel(talk)
        raise
    finally:
        tell()


def _cancel(talk: Talk) -> None:
    """Let a plan that has not ended clean up."""
    cleaning = talk.farewell()
    step = next(cleaning, None)
    while step is not None:
        with _nested(talk.run) as call:
            outcome = call(_outcome, step.work)
        try:
            step = cleaning.send(outcome)
        except StopIteration:
            return


def _outcome(work: Callable[[], Any]) -> tuple[Any, Exception | None]:
    try:
        return work(), None
    except Exception as error:  # noqa: BLE001 (the plan decides what its own failure means)
        return None, error


def _answer(step: Step, run: Run) -> Any:
    if isinstance(step, Do):
        with _nested(run) as call:
            return call(step.work)
    run.check_deadline()
    if isinstance(step, Ask):
        reply = as_whole(step.runnable.invoke(step.value, unwatched(run), **step.kwargs))
        run.check_deadline()  # a sync call cannot be broken off, but late is late in every driver
        return reply
    if isinstance(step, Wait):
        remaining = run.remaining_s
        run.clock.sleep(step.seconds if remaining is None else min(step.seconds, remaining))
        return run.check_deadline()
    if isinstance(step, Hear):
        return _hear(step, run)
    if isinstance(step, AskAll):
        return _ask_all(step, run)
    raise PlanError(f"{run.stage.name}: the plan asked for {step!r}, which is no step")


def _hear(step: Hear, run: Run) -> bool | None:
    if not step.may_block and step.signal.seen <= step.since:
        return None
    until = None if step.timeout_s is None else time.monotonic() + step.timeout_s
    while True:
        left = [] if until is None else [max(0.0, until - time.monotonic())]
        if (remaining := run.remaining_s) is not None:
            left.append(remaining)
        has_news = step.signal.wait_beyond(step.since, min(left, default=None))
        run.check_deadline()
        if has_news or (until is not None and time.monotonic() >= until):
            return has_news


def _ask_all(step: AskAll, run: Run) -> list[Any]:
    def one(ask: Ask) -> Any:
        try:
            return as_whole(ask.runnable.invoke(ask.value, unwatched(run), **ask.kwargs))
        except Exception as error:  # noqa: BLE001 (kept as data: the others run to their end)
            return error

    if not step.asks:
        return []
    # A pool of its own: nested calls cannot wait for each other's threads.
    with ThreadPoolExecutor(max_workers=len(step.asks)) as pool:
        contexts = [copy_context() for _ in step.asks]
        futures = [pool.submit(context.run, one, ask) for context, ask in zip(contexts, step.asks, strict=True)]
        return _results(step, [future.result() for future in futures])


def _whole(step: Forward, run: Run) -> Any:
    run.check_deadline()
    step.is_sent = True
    step.came = step.runnable.invoke(step.value, watched(run), **step.kwargs)
    run.check_deadline()
    return through(step, step.came)


def _forward(step: Forward, run: Run) -> Generator[Any, None, Any]:
    """Stream a child through. Chunks before the first with substance are held back: until then
    nobody has heard anything, and the plan may still take another way.
    """
    run.check_deadline()
    step.is_sent = True
    held: list[Any] = []
    chunks = step.runnable.stream(step.value, watched(run), **step.kwargs)
    try:
        for chunk in chunks:
            run.check_deadline()
            for each in released(step, held, chunk):
                yield run.outward(each)
        for each in rest(step, held):
            yield run.outward(each)
    finally:
        if close := getattr(chunks, "close", None):
            try:
                close()
            except Exception as error:  # noqa: BLE001 (must not hide why it is closed; it is recorded)
                run.emit(CleanupFailed(component=run.stage.name, error=repr(error)))
    return step.received


# Async


async def adrive(talk: Talk, *, streaming: bool, tell: Callable[[], Any]) -> AsyncGenerator[Any, None]:
    """The async twin of `drive`: the same loop with the same meaning."""
    run = talk.run
    try:
        step = talk.send(None)
        while step is not None:
            try:
                if isinstance(step, Forward):
                    if streaming:
                        async with contextlib.aclosing(_aforward(step, run)) as chunks:
                            async for chunk in chunks:
                                yield chunk
                        reply = step.received
                    else:
                        reply = await _awhole(step, run)
                    talk.said.append(reply)
                elif isinstance(step, Race):
                    async with contextlib.aclosing(arace(step, run, streaming=streaming)) as chunks:
                        async for chunk in chunks:
                            yield chunk
                    reply = step.received
                    talk.said.append(reply)
                elif isinstance(step, Restart):
                    talk.said.clear()
                    reply = None
                    if streaming:
                        yield RestartChunk.new()
                elif isinstance(step, Say):
                    talk.said.append(step.chunk)
                    if streaming:
                        yield run.outward(as_chunk(step.chunk))
                    reply = None
                else:
                    reply = await _aanswer(step, run)
            except Exception as error:  # noqa: BLE001 (thrown into the plan, whose business it is)
                if isinstance(step, Forward | Race) and (received := step.received) is not None:
                    talk.said.append(received)
                step = talk.throw(error)
            else:
                step = talk.send(reply)
            await tell()
        talk.check()
        if streaming and not talk.said and talk.output is not None:
            yield run.outward(as_chunk(talk.output))
        if streaming and (last := run.last_chunk(talk.output)) is not None:
            yield last
    except _Unfinished as left:  # cancelled while a Do was at work: the plan must learn what it did
        await _shielded(left.work)
        await _acancel(talk, left.work)
        raise left.cancelled from None
    except BaseException:
        await _acancel(talk, None)
        raise
    finally:
        await tell()


class _Unfinished(BaseException):
    """A `Do` was at work when the task was cancelled."""

    def __init__(self, work: asyncio.Future[Any], cancelled: BaseException) -> None:
        self.work, self.cancelled = work, cancelled


async def _acancel(talk: Talk, left: asyncio.Future[Any] | None) -> None:
    """The async twin of `_cancel`."""
    cleaning = talk.farewell(left)
    step = next(cleaning, None)
    while step is not None:
        outcome = await _aoutcome(talk.run, step)
        try:
            step = cleaning.send(outcome)
        except StopIteration:
            return


async def _aoutcome(run: Run, step: Do) -> tuple[Any, Exception | None]:
    outcome: tuple[Any, Exception | None]
    if step.blocks:
        try:
            work = _in_thread(run, lambda: _outcome(step.work))
        except RuntimeError:  # the loop's threads are already gone: do it here
            pass
        else:
            await _shielded(work)
            outcome = work.result() if work.done() else (None, TimeoutError(f"still at work after {CLEANUP_S:g} s"))
            return outcome
    with _nested(run) as call:
        outcome = call(_outcome, step.work)
    return outcome


async def _shielded(work: asyncio.Future[Any]) -> None:
    """Wait for work that must not be given up, however often this task is cancelled, for `CLEANUP_S` at most."""
    until = time.monotonic() + CLEANUP_S
    while not work.done() and (left := until - time.monotonic()) > 0:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait({work}, timeout=left)


async def _aanswer(step: Step, run: Run) -> Any:
    if isinstance(step, Do):
        if not step.blocks:
            with _nested(run) as call:
                return call(step.work)
        work = _in_thread(run, step.work)
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError as cancelled:
            raise _Unfinished(work, cancelled) from None
    if isinstance(step, Wait):
        run.check_deadline()
        remaining = run.remaining_s
        await run.clock.asleep(step.seconds if remaining is None else min(step.seconds, remaining))
        return run.check_deadline()
    if isinstance(step, Hear):
        has_news: bool = await in_time(run, step.signal.await_beyond, step.since, step.timeout_s)
        run.check_deadline()
        return has_news
    if isinstance(step, Ask):
        config = unwatched(run)
        return as_whole(await in_time(run, step.runnable.ainvoke, step.value, config, **step.kwargs))
    if isinstance(step, AskAll):
        return _results(step, await in_time(run, _aask_all, step, run))
    raise PlanError(f"{run.stage.name}: the plan asked for {step!r}, which is no step")


async def _aask_all(step: AskAll, run: Run) -> list[Any]:
    asked = [each.runnable.ainvoke(each.value, unwatched(run), **each.kwargs) for each in step.asks]
    return [as_whole(result) for result in await asyncio.gather(*asked, return_exceptions=True)]


async def _awhole(step: Forward, run: Run) -> Any:
    run.check_deadline()
    step.is_sent = True
    config = watched(run)
    return through(step, await in_time(run, step.runnable.ainvoke, step.value, config, **step.kwargs))


async def _aforward(step: Forward, run: Run) -> AsyncGenerator[Any, None]:
    """The async twin of `_forward`; the whole answer is `step.received`."""
    run.check_deadline()
    step.is_sent = True
    held: list[Any] = []
    chunks = step.runnable.astream(step.value, watched(run), **step.kwargs)
    try:
        while (chunk := await in_time(run, anext, chunks, _END)) is not _END:
            run.check_deadline()
            for each in released(step, held, chunk):
                yield run.outward(each)
        for each in rest(step, held):
            yield run.outward(each)
    finally:
        if close := getattr(chunks, "aclose", None):
            try:
                await close()
            except Exception as error:  # noqa: BLE001 (must not hide why it is closed; it is recorded)
                run.emit(CleanupFailed(component=run.stage.name, error=repr(error)))


_END = object()
