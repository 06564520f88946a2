"""Ask the same again when that may help."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar

from pydantic import Field

from chainops.core.component import AnyRunnable, Component
from chainops.core.run import Run
from chainops.core.settings import Seconds, Settings
from chainops.core.steps import Forward, Plan, Wait
from chainops.resilience.policy import delay_s, judge
from chainops.resilience.records import Retried


class RetrySettings(Settings):
    """What a chain file may say about retries."""

    attempts: int = Field(default=3, ge=1, le=20)
    """How often it may be tried in all. Several retries in one request, such as one for each route of a fallback,
    share what the first of them allows: two retries in all here, however many routes there are."""
    base_s: Seconds = 0.5
    """The first wait is up to this long, each further one up to twice as long."""
    max_wait_s: Seconds = 20.0
    """No wait is longer. A server that asks for more is not asked again: another route is."""


class Retry(Component[Any, Any]):
    """Tries again what failed for a reason that passes: a busy server, a rate limit, a cut connection.

    Waits as long as the server asks (`Retry-After` of this failure), else with full jitter; never beyond the
    request's deadline: then the failure stands at once. A stream is tried again only before its first words.
    Retries of one request share one number, so that they add to a fallback's routes and never multiply with them.
    """

    kind: ClassVar[str] = "retry"

    inner: AnyRunnable
    attempts: int = Field(default=3, ge=1)
    base_s: float = Field(default=0.5, ge=0)
    max_wait_s: float = Field(default=20.0, ge=0)
    draw: Callable[[], float] = random.random
    """Random numbers in [0, 1)."""

    def plan(self, value: Any, run: Run) -> Plan[Any]:
        run.attempts.allow_repeats(self.attempts - 1)
        for turn in itertools.count(1):
            call = Forward(self.inner, value, kwargs=run.kwargs)
            try:
                answer = yield call
            except Exception as error:
                wait_s = self._wait_s(error, turn, run)
                if call.received is not None or wait_s is None:
                    raise
                failure = judge(error)
                run.report.start_over()
                run.emit(Retried(turn=turn, failure=failure.kind, reason=failure.reason, wait_s=round(wait_s, 6)))
                run.terms = replace(run.terms, is_repeat=True)
                yield Wait(wait_s)
            else:
                run.stage.facts["tries"] = turn
                return answer
        raise AssertionError("unreachable")

    def _wait_s(self, error: Exception, turn: int, run: Run) -> float | None:
        """How long to wait before the next try; None: there is none."""
        if turn >= self.attempts or run.attempts.repeats_left == 0 or run.attempts.is_used_up:
            return None
        wait_s = delay_s(judge(error), turn=turn, base_s=self.base_s, most_s=self.max_wait_s, draw=self.draw)
        remaining_s = run.remaining_s
        if wait_s is None or (remaining_s is not None and wait_s >= remaining_s):
            return None
        return wait_s
