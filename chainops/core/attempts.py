"""The one ledger of calls to models: each is reserved before it starts and settled once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Literal

from langchain_core.messages.ai import UsageMetadata, add_usage

from chainops.core.clock import Clock
from chainops.core.errors import PlanError
from chainops.core.events import Attempted

Outcome = Literal["ok", "failed", "cancelled", "lost"]


class Attempt:
    """A reserved call. Settle it exactly once, whatever becomes of it."""

    __slots__ = (
        "_clock",
        "_ledger",
        "cost_usd",
        "duration_s",
        "error",
        "model",
        "outcome",
        "purpose",
        "started",
        "usage",
    )

    def __init__(self, ledger: Attempts, clock: Clock, model: str, purpose: str) -> None:
        self._ledger, self._clock = ledger, clock
        self.model, self.purpose = model, purpose
        self.started = clock.monotonic()
        self.duration_s: float | None = None
        self.outcome: Outcome | None = None
        self.usage: UsageMetadata | None = None
        self.cost_usd: float | None = None
        self.error: str | None = None

    def settle(
        self,
        outcome: Outcome,
        *,
        usage: UsageMetadata | None = None,
        cost_usd: float | None = None,
        error: BaseException | None = None,
    ) -> None:
        """Say what the call came to.

        Args:
            usage: Tokens as the provider counted them, or an estimate; None when nothing was consumed.
            cost_usd: None when the price is not known; it is then missing from the total, and the report says so.

        Raises:
            PlanError: It was settled before.
        """
        self._ledger._settle(self, outcome, usage, cost_usd, error)


class Attempts:
    """All calls to models of one request, first tries, retries, fallbacks and side calls alike."""

    def __init__(self, clock: Clock, emit: Callable[[Attempted], None], *, purpose: str = "answer") -> None:
        self._clock, self._emit, self.purpose = clock, emit, purpose
        self._lock = threading.Lock()
        self.all: list[Attempt] = []

    def reserve(self, model: str, *, purpose: str | None = None) -> Attempt:
        """A call that is about to be made; `purpose` is the request's own where nothing else is said."""
        attempt = Attempt(self, self._clock, model, purpose or self.purpose)
        with self._lock:
            self.all.append(attempt)
        return attempt

    def _settle(
        self,
        attempt: Attempt,
        outcome: Outcome,
        usage: UsageMetadata | None,
        cost_usd: float | None,
        error: BaseException | None,
    ) -> None:
        with self._lock:
            if attempt.outcome is not None:
                raise PlanError(f"a call to {attempt.model} was settled twice: {attempt.outcome}, then {outcome}")
            attempt.outcome = outcome
        attempt.duration_s = self._clock.monotonic() - attempt.started
        attempt.usage, attempt.cost_usd = usage, cost_usd
        attempt.error = None if error is None else f"{type(error).__name__}: {error}"[:500]
        self._emit(
            Attempted(
                model=attempt.model,
                outcome=outcome,
                purpose=attempt.purpose,
                duration_s=attempt.duration_s,
                input_tokens=usage["input_tokens"] if usage else 0,
                output_tokens=usage["output_tokens"] if usage else 0,
                cost_usd=cost_usd,
                error=attempt.error,
            )
        )

    def close(self) -> None:
        """Settle what nobody settled, as lost. The request's root calls this last."""
        for attempt in self.all:
            if attempt.outcome is None:
                with suppress(PlanError):  # settled in another thread in this very moment
                    attempt.settle("lost")

    @property
    def usage(self) -> UsageMetadata | None:
        """Tokens of all attempts together; None when no model was called."""
        total: UsageMetadata | None = None
        for attempt in self.all:
            if attempt.usage is not None:
                total = add_usage(total, attempt.usage)
        return total

    @property
    def cost_usd(self) -> float | None:
        """USD of all attempts together; None when one of them has no known price."""
        if any(attempt.usage is not None and attempt.cost_usd is None for attempt in self.all):
            return None
        return sum(attempt.cost_usd or 0.0 for attempt in self.all)

    def to_list(self) -> list[dict[str, Any]]:
        names = ("model", "purpose", "outcome", "duration_s", "usage", "cost_usd", "error")
        return [{name: getattr(attempt, name) for name in names} for attempt in self.all]
