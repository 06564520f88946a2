"""Ask a second route when the first is slow, and use whoever speaks first."""

from __future__ import annotations

import threading
from collections import deque
from typing import Any, ClassVar, Literal

from pydantic import Field

from chainops.core.component import AnyRunnable, Component
from chainops.core.run import Run
from chainops.core.settings import Seconds, Settings
from chainops.core.steps import Forward, Plan, Race
from chainops.resilience.policy import can_mend, judge
from chainops.resilience.records import Hedged

_KEPT = 200
"""First words remembered of the first route."""
_ENOUGH = 20
"""First words from which a 95th percentile is told."""


class HedgeSettings(Settings):
    """What a chain file may say about a hedge."""

    model: str
    """The model that is asked second."""
    after: Literal["p95"] | Seconds = "p95"
    """How long nothing may be heard of the first: a time, or `p95` of what it usually takes to its first words."""
    at_first_s: Seconds = 2.0
    """With `p95`: how long while too few answers are known."""


class Patience:
    """How long the first route usually takes to its first words: the latest answers, bounded. Thread-safe."""

    def __init__(self, at_first_s: float) -> None:
        self.at_first_s = at_first_s
        # Re-entrant: a forgotten stream is closed by the garbage collector, perhaps in the middle of this.
        self._lock = threading.RLock()
        self._seen: deque[float] = deque(maxlen=_KEPT)

    def took(self, seconds: float) -> None:
        with self._lock:
            self._seen.append(seconds)

    @property
    def p95_s(self) -> float:
        """The 95th percentile of the latest 200; `at_first_s` before there are 20."""
        with self._lock:
            known = sorted(self._seen)
        return known[(len(known) * 95 - 1) // 100] if len(known) >= _ENOUGH else self.at_first_s


class Hedge(Component[Any, Any]):
    """Asks `other` too when nothing is heard of `inner` in time, or when it fails first; who speaks first answers.

    The loser is cancelled and what it consumed is counted, as an attempt for the purpose `hedge`. In a sync call a
    loser cannot be broken off: it ends at its next chunk or its own time-out, and is settled then.

    Args:
        after_s: Seconds without a word; None: the 95th percentile of what `inner` took lately.
    """

    kind: ClassVar[str] = "hedge"

    inner: AnyRunnable
    other: AnyRunnable
    names: tuple[str, str] = ("first", "second")
    after_s: float | None = Field(default=None, ge=0)
    patience: Patience = Field(default_factory=lambda: Patience(2.0))

    def plan(self, value: Any, run: Run) -> Plan[Any]:
        after_s = self.patience.p95_s if self.after_s is None else self.after_s
        calls = [Forward(each, value, kwargs=run.kwargs) for each in (self.inner, self.other)]
        race = Race(calls, after_s=after_s, can_mend=lambda error: can_mend(judge(error)))
        run.stage.facts["after_s"] = round(after_s, 6)
        try:
            answer = yield race
        finally:
            if race.winner is not None:
                run.stage.facts["route"] = self.names[race.winner]
                if 0 not in race.errors:  # where the other one won, it would have taken longer still
                    self.patience.took(race.spoke_after_s or 0.0)
        if race.winner == 1:
            run.emit(Hedged(after_s=round(after_s, 6), winner=self.names[1], loser=self.names[0]))
            if not race.errors:
                told = f"{self.names[1]} answered: nothing was heard of {self.names[0]} for {after_s:.3g} s"
                run.report.reasons.append(told)
            if (error := race.errors.get(0)) is not None:
                run.report.mark(
                    "degraded", f"answered by {self.names[1]} because {self.names[0]}: {judge(error).reason}"
                )
        return answer
