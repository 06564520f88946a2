"""How far a run is: a bar where somebody looks, plain lines where a log does."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from chainops.batch.journal import Journal
from chainops.core.show import dollars
from chainops.spec.progress import _in_notebook, shown_progress

LINE_EVERY_S = 10.0
"""How often a line is printed where there is no terminal, in seconds."""


@dataclass(frozen=True, slots=True)
class Step:
    """What the bar shows."""

    done: int
    total: int | None
    what: str


class Pace:
    """Rate and time left, from the rows that were asked since it began."""

    def __init__(self, journal: Journal, total: int | None) -> None:
        self._journal, self._total = journal, total
        self._began = time.monotonic()
        self.done, self.asked, self.failed = journal.count(), 0, journal.count("failed")
        self.doing = ""
        """What else is to be told, such as how far the provider is."""

    def step(self) -> Step:
        elapsed_s = time.monotonic() - self._began
        rate = self.asked / elapsed_s if elapsed_s else 0.0
        told = [f"{self.failed:,} failed", f"{rate:,.1f}/s", dollars(self._journal.known_cost_usd)]
        if self._total is not None and rate and self._total > self.done:
            told.append(f"{clock((self._total - self.done) / rate)} left")
        return Step(self.done, self._total, self.doing or ", ".join(told))

    def line(self) -> str:
        step = self.step()
        of = f" of {step.total:,}" if step.total is not None else ""
        return f"{step.done:,}{of} rows, {step.what}"


def clock(duration_s: float) -> str:
    whole = int(duration_s)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


@contextmanager
def shown(title: str, pace: Pace, *, silent: bool = False) -> Iterator[Callable[[], None]]:
    """Gives what to call whenever something changed."""
    if silent or sys.stderr is None:
        yield lambda: None
    elif _in_notebook() or sys.stderr.isatty():
        with shown_progress(title) as show:
            yield lambda: show(pace.step())
            show(pace.step())
    else:
        printed = [time.monotonic()]

        def line() -> None:
            if time.monotonic() - printed[0] >= LINE_EVERY_S:
                printed[0] = time.monotonic()
                print(f"{title}: {pace.line()}", file=sys.stderr, flush=True)  # noqa: T201 (that is the point)

        yield line
        print(f"{title}: {pace.line()}", file=sys.stderr, flush=True)  # noqa: T201
