"""MLflow traces of finished requests, handed over in microseconds and written by another process."""

from __future__ import annotations

import atexit
import json
import logging
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from chainops.core.errors import InvalidInput, MissingExtra
from chainops.core.settings import home
from chainops.observe.backend import sqlite_file
from chainops.observe.process import WriterProcess
from chainops.observe.writer import Orders

log = logging.getLogger(__name__)

MAX_BYTES = 64_000_000
"""Encoded records the writing process holds at most."""
EXIT_S = 4.0
"""What all writers together may add to the end of the program, in seconds."""
LONGEST_RESTART_PAUSE_S = 300.0
LOOK_AGAIN_S = 5.0


class TraceWriter:
    """Writes one MLflow trace for each record of a finished request, away from the request.

    The process that writes is started at the first record, by a thread of its own. If it dies it is
    started again, at growing intervals. After `os.fork` the new process has an empty writer that
    starts its own. Nothing is waiting without bound: what finds no room is refused and counted.

    Args:
        tracking_uri: `sqlite:///file.db`, `http(s)://...`, or any other address MLflow takes.
        experiment: Made if it does not exist.
        max_waiting: Records accepted and not yet accounted for, at most.
        on_dropped: Told how many records were lost, each time some are, by the thread that notices: it
            must be quick. It also hears of those `write` refused.
        log_file: Where the writing process says what went wrong; None means `traces.log` at home.
        life_s: Time that process has left to deliver the rest after this one ends, in seconds.

    Raises:
        MissingExtra: MLflow is not installed.
    """

    def __init__(
        self,
        tracking_uri: str,
        experiment: str = "chainops",
        *,
        max_waiting: int = 1000,
        on_dropped: Callable[[int], None] | None = None,
        log_file: Path | None = None,
        life_s: float = 60.0,
    ) -> None:
        _require_mlflow()
        if max_waiting < 1:
            raise InvalidInput("max_waiting", str(max_waiting), "at least 1")
        self.tracking_uri, self.experiment, self.max_waiting = _absolute(tracking_uri), experiment, max_waiting
        self._on_dropped = on_dropped
        self._orders = Orders(
            tracking_uri=self.tracking_uri,
            experiment=experiment,
            log_file=str((home() / "traces.log" if log_file is None else log_file).resolve()),
            life_s=life_s,
            max_bytes=MAX_BYTES,
        )
        self._begin()
        _writers.add(self)

    def _begin(self) -> None:
        self._queue: deque[Mapping[str, Any]] = deque()
        # Re-entrant: a forgotten stream is closed by the garbage collector, perhaps in the middle of this.
        self._lock = threading.RLock()
        self._arrived = threading.Condition(self._lock)
        self._settled = threading.Condition(self._lock)
        self._feeder: threading.Thread | None = None
        self._child: WriterProcess | None = None
        self._closing = self._gave_up = False
        self._starts, self._next_start = 0, 0.0
        self._waiting = self._in_hand = 0
        self.written = self.failed = self.dropped = 0
        self.problem: str | None = None
        """What went wrong last, in MLflow's words; None if nothing has."""

    def __repr__(self) -> str:
        password = urlsplit(self.tracking_uri).password
        uri = self.tracking_uri.replace(password, "***") if password else self.tracking_uri
        return (
            f"TraceWriter({uri!r}, {self.experiment!r}, waiting={self.waiting}, written={self.written}, "
            f"failed={self.failed}, dropped={self.dropped})"
        )

    @property
    def waiting(self) -> int:
        """Records accepted and neither written nor counted as lost yet."""
        return self._waiting

    def write(self, record: Mapping[str, Any]) -> bool:
        """Hand a finished request over, without waiting for anything.

        Args:
            record: See `chainops.observe.spans.draft_trace`; belongs to the writer from now on.

        Returns:
            False: there was no room, or the writer is closed; the record is lost, and counted.
        """
        with self._lock:
            if accepted := self._waiting < self.max_waiting and not self._closing:
                self._waiting += 1
                self._queue.append(record)
                self._arrived.notify()
                if self._feeder is None:
                    feeder = threading.Thread(target=self._feed, name="chainops-traces", daemon=True)
                    if self._feeder is None:  # still: making a thread may have collected a stream
                        self._feeder = feeder
                        feeder.start()
            else:
                self.dropped += 1
        if not accepted:
            self._tell_dropped(1)
        return accepted

    def flush(self, timeout_s: float = 30.0) -> bool:
        """Wait until every record accepted so far is written or counted as lost.

        Returns:
            False: `timeout_s` passed first.
        """
        with self._settled:
            return self._settled.wait_for(lambda: self._waiting == 0, timeout_s)

    def close(self, timeout_s: float = 5.0) -> None:
        """Hand over what waits and accept no more. Does not wait for MLflow: `flush` does.

        The writing process delivers what it was handed within `life_s` and ends. What could not be
        handed to it within `timeout_s` is counted as dropped. Closing twice is fine.
        """
        with self._lock:
            self._closing = True
            self._arrived.notify_all()
            feeder = self._feeder
        if feeder is None:
            return
        feeder.join(timeout_s)
        if feeder.is_alive():  # the other side does not take its input
            with self._lock:
                lost = 0 if self._gave_up else len(self._queue) + self._in_hand
                self._queue.clear()
                self._gave_up = True
            self._account(dropped=lost)

    # The thread that feeds the writing process.

    def _feed(self) -> None:
        while True:
            with self._arrived:
                while not self._queue and not self._closing:
                    self._arrived.wait(LOOK_AGAIN_S)  # what the garbage collector hands over right here wakes nobody
                new: deque[Mapping[str, Any]] = deque()
                records, self._queue = self._queue, new
                self._in_hand = len(records)
            if not records:
                break
            lines, unfit = [], 0
            for record in records:
                try:
                    lines.append(json.dumps(record, default=str).encode() + b"\n")
                except Exception as error:  # noqa: BLE001  # `str` of anybody's values; this thread must live on
                    unfit += 1
                    self.problem = f"a record cannot be written as JSON: {error!r}"
            if unfit and self._let_go(unfit):
                self._account(failed=unfit)
            for line in lines:
                self._send(line)
        if self._child is not None:
            self._child.end_input()

    def _send(self, line: bytes) -> None:
        while (child := self._running_child()) is not None:
            with self._lock:
                if self._gave_up:
                    return
                if child.gone:
                    continue  # died since; its successor gets the line
                child.sent += 1
                self._in_hand -= 1
            with suppress(OSError):  # it died meanwhile: the thread that listens to it counts what it had
                child.feed(line)
            return
        if self._let_go(1):
            self._account(dropped=1)

    def _let_go(self, count: int) -> bool:
        """Whether records in hand are still the feeder's to account for: `close` may have given up on them."""
        with self._lock:
            self._in_hand -= count
            return not self._gave_up

    def _running_child(self) -> WriterProcess | None:
        """The writing process, started if need be; None when closing leaves no time to start one again."""
        while self._child is None or self._child.gone:
            with self._arrived:
                pause = self._next_start - time.monotonic()
                if pause > 0:
                    if self._closing:
                        return None
                    self._arrived.wait(pause)
                    continue
            self._next_start = time.monotonic() + min(2.0**self._starts, LONGEST_RESTART_PAUSE_S)
            self._starts += 1
            try:
                child = WriterProcess(self._orders)
            except OSError as error:
                self.problem = f"the trace writer's process cannot be started: {error}"
                log.warning("%s", self.problem)
                continue
            self._child = child
            threading.Thread(target=self._listen, args=(child,), name="chainops-traces-acks", daemon=True).start()
        return self._child

    # The thread that hears what became of the records.

    def _listen(self, child: WriterProcess) -> None:
        for line in child.acknowledgements():
            counts = json.loads(line)
            done = counts["written"] + counts["failed"] + counts["dropped"]
            if counts["problem"]:
                self.problem = counts["problem"]
            with self._lock:
                child.acknowledged += done
            if counts["written"]:
                self._starts = 0  # it works: a later death is a new story
            self._account(written=counts["written"], failed=counts["failed"], dropped=counts["dropped"])
        code = child.wait()
        with self._lock:
            child.gone = True
            lost = child.sent - child.acknowledged
        if lost:
            self.problem = f"the trace writer's process ended with status {code}"
            self._account(dropped=lost)

    def _account(self, *, written: int = 0, failed: int = 0, dropped: int = 0) -> None:
        with self._lock:
            self.written += written
            self.failed += failed
            self.dropped += dropped
        if dropped:
            self._tell_dropped(dropped)
        with self._settled:  # only now: who waited for that has heard of what was lost
            self._waiting -= written + failed + dropped
            self._settled.notify_all()

    def _tell_dropped(self, count: int) -> None:
        if self._on_dropped is not None:
            try:
                self._on_dropped(count)
            except Exception:
                log.exception("on_dropped failed; %d traces were dropped", count)

    def _after_fork(self) -> None:
        if self._child is not None:
            self._child.forget()
        self._begin()


def shared_writer(tracking_uri: str, experiment: str = "chainops", *, log_file: Path | None = None) -> TraceWriter:
    """The program's one writer for a place, so that ten chains do not start ten processes.

    Args:
        log_file: As for `TraceWriter`; the first who asks decides.
    """
    key = (_absolute(tracking_uri), experiment)
    with _sharing:
        writer = _shared.get(key)
        if writer is None or writer._closing:
            writer = _shared[key] = TraceWriter(*key, log_file=log_file)
        return writer


def _require_mlflow() -> None:
    # Not find_spec("mlflow"): a folder of that name answers to it where MLflow is not installed.
    for name in ("mlflow", "mlflow-skinny"):
        with suppress(metadata.PackageNotFoundError):
            metadata.version(name)
            return
    raise MissingExtra("mlflow", "mlflow")


def _absolute(uri: str) -> str:
    file = sqlite_file(uri)
    if file is None or file.is_absolute():
        return uri
    return uri.replace(f"sqlite:///{file.as_posix()}", f"sqlite:///{file.resolve().as_posix()}", 1)


_writers: weakref.WeakSet[TraceWriter] = weakref.WeakSet()
_shared: dict[tuple[str, str], TraceWriter] = {}
_sharing = threading.Lock()


def _at_exit() -> None:
    deadline = time.monotonic() + EXIT_S
    for writer in [one for one in _writers if not one._closing]:
        writer.close(max(0.0, deadline - time.monotonic()))
        if writer.dropped:
            log.warning("%d traces were dropped; last problem: %s", writer.dropped, writer.problem or "no room")


def _after_fork() -> None:
    global _sharing
    _sharing = threading.Lock()
    for writer in list(_writers):
        writer._after_fork()


atexit.register(_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
