"""The process that writes MLflow traces, so that MLflow's import, CPU time and waits stay out of the caller's.

`chainops.observe.traces.TraceWriter` starts it, feeds it one JSON record a line, and reads back one
JSON line whenever records are accounted for: `{"written": 3, "failed": 0, "dropped": 0, "problem": null}`.
When its input ends it has a bounded time left to deliver what it holds; then it says in the log what
was lost and ends. The first line of its input is its `Orders`: not an argument, because a
tracking address may hold a password and arguments can be read by every user of the machine.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from logging.handlers import RotatingFileHandler
from pathlib import Path
from urllib.parse import urlsplit

from chainops.observe.backend import Backend
from chainops.observe.spans import TraceDraft, draft_trace

log = logging.getLogger("chainops.observe.writer")

BATCH = 32
"""Traces whose spans go to MLflow in one call."""
GATHER_S = 0.05
"""How long to wait for more records before a batch is written, in seconds."""
LONGEST_PAUSE_S = 30.0
"""Between two tries at a server that is away, in seconds; 1 s once the input has ended."""

MLFLOW_SETTINGS: Mapping[str, str] = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_CONFIGURE_LOGGING": "false",
    "MLFLOW_ENABLE_ASYNC_TRACE_LOGGING": "false",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_ASYNC_TRACE_LOGGING_RETRY_TIMEOUT": "5",
}
"""Short waits, because this process retries by itself. What the user has set stays."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    """What the parent asks for; crosses the pipe as the first line."""

    tracking_uri: str = field(repr=False)
    experiment: str
    log_file: str
    life_s: float
    """Time to deliver the rest after the input has ended, in seconds."""
    max_bytes: int
    """Encoded records held here at most; what comes on top is dropped and counted."""

    def encode(self) -> bytes:
        return json.dumps(asdict(self)).encode() + b"\n"


class Inbox:
    """Records read from the parent and not yet written. The reading never waits for the writing."""

    def __init__(self, max_bytes: int) -> None:
        self._lines: deque[bytes] = deque()
        self._size, self._max_bytes = 0, max_bytes
        self._changed = threading.Condition()
        self.ended = threading.Event()

    def put(self, line: bytes) -> bool:
        """False: there is no room, the record is lost."""
        with self._changed:
            if self._size + len(line) > self._max_bytes:
                return False
            self._lines.append(line)
            self._size += len(line)
            self._changed.notify()
            return True

    def end(self) -> None:
        with self._changed:
            self.ended.set()
            self._changed.notify()

    def take(self, most: int) -> list[bytes]:
        """Up to `most` records, waiting for the first; empty only when the input has ended."""
        with self._changed:
            self._changed.wait_for(lambda: self._lines or self.ended.is_set())
            if self._lines and len(self._lines) < most and not self.ended.is_set():
                self._changed.wait(GATHER_S)
            taken = [self._lines.popleft() for _ in range(min(most, len(self._lines)))]
            self._size -= sum(map(len, taken))
            return taken


class Delivery:
    """Takes records from the inbox, delivers them, and accounts for every one of them once."""

    def __init__(self, backend: Backend, inbox: Inbox, acknowledgements: int, secret: str | None) -> None:
        self._backend, self._inbox, self._out, self._secret = backend, inbox, acknowledgements, secret
        self._lock = threading.Lock()
        self.taken, self._accounted = 0, 0
        self._is_over = False
        self._said: str | None = None

    def run(self) -> None:
        while lines := self._inbox.take(BATCH):
            drafts: list[TraceDraft] = []
            for line in lines:
                try:
                    drafts.append(draft_trace(json.loads(line)))
                except (KeyError, TypeError, ValueError, AttributeError) as error:
                    self.account(
                        failed=1, problem=f"a record cannot be laid out as a trace: {error!r} in {line[:60]!r}"
                    )
            if drafts:
                self._deliver(drafts)

    def _deliver(self, drafts: Sequence[TraceDraft]) -> None:
        pause, again = 0.5, len(drafts) == 1
        while True:
            try:
                self._backend.write(drafts)
            except Exception as error:  # noqa: BLE001  # MLflow, SQLAlchemy, requests: any of theirs, judged below
                problem = f"{type(error).__name__}: {error}"
            else:
                self.account(written=len(drafts))
                return
            if self._is_reachable():
                if len(drafts) > 1:  # one of them is at fault: it must not take the others along
                    for draft in drafts:
                        self._deliver([draft])
                    return
                if not again:
                    self.account(failed=1, problem=problem)
                    return
                again = False
            self.account(problem=problem)
            self._inbox.ended.wait(pause) if not self._inbox.ended.is_set() else time.sleep(min(pause, 1.0))
            pause = min(pause * 2, LONGEST_PAUSE_S)

    def _is_reachable(self) -> bool:
        try:
            self._backend.connect()
        except Exception as error:  # noqa: BLE001  # see above; said in the log and to the parent
            self.account(problem=f"{type(error).__name__}: {error}")
            return False
        return True

    def account(self, *, written: int = 0, failed: int = 0, dropped: int = 0, problem: str | None = None) -> None:
        if problem is not None:
            problem = problem if self._secret is None else problem.replace(self._secret, "***")
            problem = problem[:500]
            if problem != self._said:  # a server that is away says the same at every try
                log.warning("%s", problem)
            self._said = problem
        with self._lock:
            if not self._is_over:
                self._tell(written, failed, dropped, problem)

    def give_up(self) -> int:
        """Account for all that is left as lost, and for nothing after that; how many these are."""
        with self._lock:
            lost, self._is_over = self.taken - self._accounted, True
            if lost:
                self._tell(0, 0, lost, None)
            return lost

    def _tell(self, written: int, failed: int, dropped: int, problem: str | None) -> None:
        self._accounted += written + failed + dropped
        counts = {"written": written, "failed": failed, "dropped": dropped, "problem": problem}
        with suppress(OSError):  # the parent is gone; the log has it
            os.write(self._out, json.dumps(counts).encode() + b"\n")

    def remaining(self) -> int:
        with self._lock:
            return self.taken - self._accounted


def _read(inbox: Inbox, delivery: Delivery, life_s: float) -> None:
    for line in sys.stdin.buffer:
        delivery.taken += 1
        if not inbox.put(line):
            delivery.account(dropped=1)
    inbox.end()
    time.sleep(life_s)  # a daemon thread: the end of the delivery ends it
    if lost := delivery.give_up():
        log.error("%d traces lost: could not be delivered within %g s of the end of the program", lost, life_s)
    logging.shutdown()
    os._exit(1)


def _log_to(file: Path) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handler: logging.Handler = RotatingFileHandler(file, maxBytes=1_000_000, backupCount=1, encoding="utf-8")
    except OSError:
        handler = logging.NullHandler()  # nowhere to write: the parent still gets every count and problem
    handler.setFormatter(logging.Formatter("%(asctime)s %(process)d %(levelname)s %(name)s %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)


def main() -> None:
    """Run until the input has ended and all is delivered, or `life_s` later."""
    acknowledgements = os.dup(1)
    os.dup2(2, 1)  # what libraries print must not be taken for an acknowledgement
    with suppress(OSError, AttributeError):
        os.nice(5)  # requests first
    orders = Orders(**json.loads(sys.stdin.buffer.readline()))
    _log_to(Path(orders.log_file))
    inbox = Inbox(orders.max_bytes)
    backend = Backend(orders.tracking_uri, orders.experiment)
    delivery = Delivery(backend, inbox, acknowledgements, urlsplit(orders.tracking_uri).password)
    threading.Thread(target=_read, args=(inbox, delivery, orders.life_s), daemon=True).start()
    for name, value in MLFLOW_SETTINGS.items():
        os.environ.setdefault(name, value)
    # Linking a prompt looks these up whatever the client was made with.
    os.environ["MLFLOW_TRACKING_URI"] = os.environ["MLFLOW_REGISTRY_URI"] = orders.tracking_uri
    try:
        delivery.run()
    except BaseException:
        log.exception("the trace writer ended on an error; %d traces lost", delivery.remaining())
        raise
    finally:
        logging.shutdown()
    os._exit(0)  # the reading thread may sit in a read that Python's own end would wait for


if __name__ == "__main__":
    main()
