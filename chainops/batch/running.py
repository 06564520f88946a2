"""Ask a chain every row of a file: so many at a time, taken up again where it was left."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from contextvars import copy_context
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Unpack

from chainops.batch.formats import Format, format_of, pyarrow
from chainops.batch.journal import SYNC_EVERY_S, Journal
from chainops.batch.lock import locked
from chainops.batch.options import Options
from chainops.batch.output import TAKEN, write
from chainops.batch.parts import left_behind
from chainops.batch.progress import Pace, shown
from chainops.batch.records import OutputTaken, Stopped, answered, failed
from chainops.batch.rows import CARRIED, Row, Source, source_of
from chainops.batch.summary import Summary, summary_of
from chainops.batch.workers import workers
from chainops.core.errors import AllRoutesFailed, CallRefused, InvalidInput
from chainops.spec.chain import Chain, load

if TYPE_CHECKING:
    from chainops.batch.openai_api import OpenAIBatch

SHOWN_EVERY_S = 0.2
"""How often progress is told, in seconds."""
MOST_WAIT_S = 300.0
"""A row that a limit or an open breaker turns away is asked again when that lets it; unless that is further off."""


def run(
    chain: Chain | str | Path, rows: str | Path | Iterable[Any], out: str | Path, **options: Unpack[Options]
) -> Summary:
    """Ask a chain every row and write the answers.

    Beside the output stand, while it is made, `OUT.partial` (the journal of what is done) and `OUT.lock`. After a
    crash the same call goes on: a row in the journal is not asked again, those in flight then (at most `concurrency`)
    are. The journal stays while rows have failed, for `retry_errors`, or are left over by `limit`.

    An interrupt (Ctrl-C, a notebook's stop button) lets the rows in flight finish; a second one does not wait.

    Args:
        chain: A chain, or the path of a chain file.
        rows: The path of a .jsonl, .csv, .parquet or .txt file (.gz too), or dicts or questions. A row has a
            `question`, and may have `id`, `history`, what the prompt asks for, and who asks: `user`, `tenant`,
            `feature`, `session`; the answers carry `id`, and what `keep` names. Rows are asked at the same time:
            turns of one session are better given as `history`.
        out: Where the answers go. It appears when all is done, whole.
        options: See `Options`.

    Returns:
        What it came to. Failed rows are rows of the output.

    Raises:
        InvalidInput: The rows cannot be read at all, none of them has the question's column, or an option makes no
            sense.
        OutputTaken: The output exists and no journal says it is this run's; or another run is writing it.
        OtherRun: What was begun is a run with other rows, another chain or another way of asking.
        OSError: The disk is full, or the output cannot be written. What was done until then is kept.
        Stopped: It was interrupted. The same call goes on from there.
    """
    runner = Runner(chain, rows, out, **options)
    outcome: list[Summary] = []
    errors: list[BaseException] = []
    done = threading.Event()

    def work() -> None:
        try:
            outcome.append(asyncio.run(runner.go()))
        except BaseException as error:  # noqa: BLE001 (raised again in the caller's thread)
            errors.append(error)
        finally:
            done.set()

    # A thread of its own: a notebook's has an event loop already, and only the main one hears interrupts.
    thread = threading.Thread(target=copy_context().run, args=(work,), name="chainops batch", daemon=True)
    thread.start()
    while True:
        try:
            done.wait()  # not `join`: interrupted, Python 3.11's takes the thread for ended
            break
        except KeyboardInterrupt:
            runner.interrupt()
    if errors:
        raise errors[0]
    if outcome[0].is_stopped:
        raise Stopped(outcome[0])
    return outcome[0]


async def arun(
    chain: Chain | str | Path, rows: str | Path | Iterable[Any], out: str | Path, **options: Unpack[Options]
) -> Summary:
    """`run`, inside an event loop. Cancelled, it drops the rows in flight; the same call goes on from there."""
    return await Runner(chain, rows, out, **options).go()


class Runner:
    """One run. `Options` says what its options mean."""

    def __init__(
        self,
        chain: Chain | str | Path,
        rows: str | Path | Iterable[Any],
        out: str | Path,
        *,
        concurrency: int = 8,
        in_order: bool = False,
        format: Format | None = None,  # noqa: A002
        limit: int | None = None,
        question: str = "question",
        keep: Sequence[str] = (),
        retry_errors: bool = False,
        restart: bool = False,
        via: Literal["openai-batch"] | OpenAIBatch | None = None,
        skip_wrappers: bool = False,
        progress: bool = True,
    ) -> None:
        self.chain = load(chain) if isinstance(chain, str | Path) else chain
        self._out_as_given = str(out)
        self.out = Path(out).resolve()
        self.kind = format_of(self.out, format, written=True)
        if self.kind == "parquet":
            pyarrow()  # now, not after the last row
        self._check(rows, concurrency, limit)
        self.concurrency, self.in_order, self.limit = concurrency, in_order, limit
        self.retry_errors, self.restart, self.progress = retry_errors, restart, progress
        self.via = _provider(via, self.chain, skip_wrappers=skip_wrappers)
        self._rows, self._question, self._kept = rows, question, _names_to_keep(keep, question)
        self._wanted = self.chain.site.prompt.variables | {"question", "history"}
        self.is_stopping = False
        self._interrupting = threading.Lock()
        """Held to see or change `is_stopping` together with the two below."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[Any] | None = None
        """Set while rows are asked: only then can they be dropped."""
        self._tell: Callable[[], None] = lambda: None
        self._refused_since: float | None = None
        """Since when limits and breakers let nothing through."""
        self.notes: list[str] = []
        self.journal: Journal
        self.source: Source
        self.pace: Pace

    def _check(self, rows: Any, concurrency: int, limit: int | None) -> None:
        if concurrency < 1:
            raise InvalidInput("concurrency", str(concurrency), "at least 1")
        if limit is not None and limit < 1:
            raise InvalidInput("limit", str(limit), "at least 1")
        if not self.out.parent.is_dir():
            raise InvalidInput(str(self.out.parent), "no folder", "an existing one for the output")
        if self.out.is_dir():
            raise InvalidInput(str(self.out), "a folder", "a file for the output")
        if isinstance(rows, str | Path) and Path(rows).resolve() == self.out:
            raise InvalidInput(str(self.out), "the input", "another file for the output")

    # The run

    async def go(self) -> Summary:
        began = time.monotonic()

        def open_journal() -> None:
            self.journal = open_until_done.enter_context(self._open_journal())

        with ExitStack() as open_until_done:
            open_until_done.enter_context(locked(self._beside("lock"), self.out))
            self.source = await asyncio.to_thread(source_of, self._rows, question=self._question, keep=self._kept)
            await _whole(open_journal)
            if self.journal.damaged:
                self.notes.append(f"{self.journal.damaged} damaged lines of the journal: those rows were asked again")
            total = self.source.total if self.limit is None else min(self.limit, self.source.total or self.limit)
            self.pace = Pace(self.journal, total)
            title = f"{self.chain.declared.name}: {Path(self.source.name).name}"
            self._tell = open_until_done.enter_context(shown(title, self.pace, silent=not self.progress))
            try:
                if self._begins():
                    await self._ask_all()
            except asyncio.CancelledError:
                if not self.is_stopping:
                    raise
            if self._ends():
                return self._summary(time.monotonic() - began, is_stopped=True)
            await _whole(lambda: write(self.out, self.journal.lines(in_order=self.in_order), self.kind, self._kept))
            summary = self._summary(time.monotonic() - began)
            if not summary.failed and not self._is_limited:
                self._beside("partial").unlink()
            return summary

    def interrupt(self) -> None:
        """Begin no more rows; the second time, drop those in flight. From any thread."""
        with self._interrupting:
            first, self.is_stopping = not self.is_stopping, True
            waits = first and self.via is None  # a provider's answers wait for us: nothing in flight can get lost
            if not waits and self._loop is not None and self._task is not None:
                with suppress(RuntimeError):  # the loop ended meanwhile
                    self._loop.call_soon_threadsafe(self._task.cancel)
        if self.progress:
            told = "waiting for the rows in flight; interrupt again to drop them" if waits else "stopped"
            print(f"\n{told}", file=sys.stderr, flush=True)  # noqa: T201 (whoever interrupts wants to know)

    def _begins(self) -> bool:
        """From now on an interrupt can drop rows. Whether there was none before."""
        with self._interrupting:
            self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
            return not self.is_stopping

    def _ends(self) -> bool:
        """From now on interrupts come too late: what is left is quick. Whether there was one before."""
        with self._interrupting:
            self._task = None
            return self.is_stopping

    def rows(self, *, all: bool = False) -> Iterator[Row]:  # noqa: A002
        """The rows within the limit, or all, with only those columns the chain can use."""
        for row in islice(self.source.rows(), None if all else self.limit):
            if row.problem is not None:
                yield row
                continue
            # What the prompt does not ask for would only make equal questions differ in a cache.
            value = {name: each for name, each in row.value.items() if name in self._wanted}
            yield replace(row, value=value)

    def wants(self, row: int) -> bool:
        """Whether a row is to be asked: it has no result yet, or failed and is to be asked again."""
        return not self.journal.is_done(row) or (self.retry_errors and self.journal.has_failed(row))

    def finished(self, record: dict[str, Any]) -> None:
        """Acknowledge a result."""
        was_done, had_failed = self.journal.is_done(record["row"]), self.journal.has_failed(record["row"])
        self.journal.record(record)
        self.pace.asked += 1
        self.pace.done += not was_done
        self.pace.failed += (record["error"] is not None) - had_failed

    async def _ask_all(self) -> None:
        beside = asyncio.create_task(self._keep())
        try:
            if self.via is not None:
                await self.via.ask_all(self)
            else:
                wanted = (row for row in self.rows() if self.wants(row.number))
                await workers(self.concurrency, wanted, self._ask, lambda: self.is_stopping)
        finally:
            beside.cancel()
            await asyncio.wait([beside])  # not `beside` itself: that would hide that this run is cancelled meanwhile
            if not beside.cancelled():
                beside.result()

    async def _ask(self, row: Row) -> None:
        began = time.monotonic()
        if row.problem is not None:
            self.finished(failed(row, row.problem))
            return
        try:
            while (answer := await self._answer(row)) is None:
                if self.is_stopping:
                    return  # it was never asked: the next run does
        except Exception as error:  # noqa: BLE001 (an error is this row's result; a full disk is raised below)
            self.finished(failed(row, error, time.monotonic() - began))
        else:
            self.finished(answered(row, answer, time.monotonic() - began))

    async def _answer(self, row: Row) -> Any:
        """The chain's answer; None, after a while, where a limit or a breaker did not let it be asked."""
        try:
            answer = await self.chain.ainvoke(dict(row.value), row.config)
        except (CallRefused, AllRoutesFailed) as error:
            wait_s = _again_s(error)
            now = time.monotonic()
            self._refused_since = self._refused_since or now
            is_hopeless = now - self._refused_since > MOST_WAIT_S  # nothing was let through for all that time
            if wait_s is None or wait_s > MOST_WAIT_S or is_hopeless:  # a budget of the day, a refused key
                raise
            until = time.monotonic() + max(wait_s, SHOWN_EVERY_S)
            while not self.is_stopping and (left_s := until - time.monotonic()) > 0:  # noqa: ASYNC110 (told from a thread)
                await asyncio.sleep(min(left_s, SHOWN_EVERY_S))
            return None
        self._refused_since = None
        return answer

    async def _keep(self) -> None:
        """Tell how far it is, and force the journal to the disk, now and then."""
        synced = time.monotonic()
        while True:
            await asyncio.sleep(SHOWN_EVERY_S)
            self._tell()
            if time.monotonic() - synced >= SYNC_EVERY_S:
                await _whole(self.journal.sync)
                synced = time.monotonic()

    # Before and after

    def _beside(self, word: str) -> Path:
        return self.out.with_name(f"{self.out.name}.{word}")

    def _open_journal(self) -> Journal:
        path = self._beside("partial")
        if self.out.exists() and not path.exists() and not self.restart:
            raise OutputTaken(f"{self.out} is there already; take it away, or replace it with --restart (restart=True)")
        same = {
            "input": self.source.digest,
            "chain": self.chain.site.digest,
            "question column": self._question,
            "choice of columns to keep (--keep)": list(self._kept),
            "way of asking (--via)": "chain" if self.via is None else "openai-batch",
        }
        if self.restart:
            self.notes += left_behind(path)
        return Journal(path, same, uuid.uuid4().hex, restart=self.restart)

    def _summary(self, duration_s: float, *, is_stopped: bool = False) -> Summary:
        return summary_of(
            self.journal,
            out=self._out_as_given,
            asked=self.pace.asked,
            duration_s=round(duration_s, 6),
            notes=self.notes,
            is_stopped=is_stopped,
            is_limited=self._is_limited,
        )

    @property
    def _is_limited(self) -> bool:
        return self.limit is not None and (self.source.total is None or self.limit < self.source.total)


async def _whole(work: Callable[[], Any]) -> None:
    """Do it in a thread. Cancelled, it is done to its end all the same: the output stays locked as long as it takes."""
    # No task, such as `to_thread` needs: a loop that ends cancels all of those, whoever waits for them.
    doing = asyncio.get_running_loop().run_in_executor(None, copy_context().run, work)
    is_cancelled = False
    while not doing.done():
        try:
            await asyncio.wait([doing])
        except asyncio.CancelledError:
            is_cancelled = True
    doing.result()
    if is_cancelled:
        raise asyncio.CancelledError


def _names_to_keep(keep: Sequence[str], question: str) -> tuple[str, ...]:
    """Each once.

    Raises:
        InvalidInput: One is called like something else in the answers.
    """
    names = tuple(dict.fromkeys((keep,) if isinstance(keep, str) else keep))
    carried = CARRIED if question == "question" else {"id"}
    if taken := [each for each in names if each in TAKEN - carried]:
        raise InvalidInput("keep", repr(taken[0]), "a column that is not called like one of the answers; rename it")
    return names


def _provider(via: Any, chain: Chain, *, skip_wrappers: bool) -> Any:
    if via is None:
        if skip_wrappers:
            raise InvalidInput("skip_wrappers", "no via", "it together with via: the chain itself needs its wrappers")
        return None
    from chainops.batch.openai_api import OpenAIBatch
    from chainops.batch.provider import ProviderRun

    if via == "openai-batch":
        via = OpenAIBatch()
    if not isinstance(via, OpenAIBatch):
        raise InvalidInput("via", repr(via), "'openai-batch' or an OpenAIBatch")
    return ProviderRun(chain, via, skip_wrappers=skip_wrappers)


def _again_s(error: CallRefused | AllRoutesFailed) -> float | None:
    """In how many seconds a row may be asked again that was not asked at all; None: that is not known, or it was."""
    if isinstance(error, CallRefused):
        return error.retry_after_s
    refused = [each for _, each in error.failures if isinstance(each, CallRefused | AllRoutesFailed)]
    waits = [wait_s for each in refused if (wait_s := _again_s(each)) is not None]
    return min(waits) if waits and len(refused) == len(error.failures) else None
