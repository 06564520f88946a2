"""The one ledger of calls to models: each is reserved before it starts and settled once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from langchain_core.messages.ai import UsageMetadata, add_usage

from chainops.core.clock import Clock
from chainops.core.errors import AttemptsExhausted, PlanError
from chainops.core.events import Attempted

if TYPE_CHECKING:
    from chainops.core.run import Run
    from chainops.core.steps import Plan

Outcome = Literal["ok", "failed", "cancelled", "lost", "refused"]
"""`refused`: it did not pass a gate, or nobody waited for it to; nothing was sent or consumed."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What a call will probably consume: what limits and budgets set aside until the truth is known."""

    input_tokens: int
    output_tokens: int
    cost_usd: float | None
    """None when no price is known."""


@runtime_checkable
class Gate(Protocol):
    """What every call to a model inside a wrapper must pass before it is made: a limit, a budget, a breaker."""

    def enter(self, attempt: Attempt, run: Run) -> Plan[None]:
        """Let the call pass, perhaps after a while, or raise `CallRefused`. A plan: stores are `Do` steps."""

    def leave(self, attempt: Attempt) -> None:
        """The attempt that passed is settled: `outcome`, `usage`, `cost_usd`, `failure` are known, and
        `outcome == "refused"` means that a gate further in stopped it. Called once, in any thread. Must not block.
        """


class Attempt:
    """A reserved call. Settle it exactly once, whatever becomes of it."""

    __slots__ = (
        "_clock",
        "_expect",
        "_expected",
        "_gates",
        "_ledger",
        "cost_usd",
        "duration_s",
        "error",
        "failure",
        "key",
        "model",
        "outcome",
        "purpose",
        "started",
        "usage",
    )

    def __init__(
        self, ledger: Attempts, clock: Clock, model: str, purpose: str, expect: Callable[[], Expected] | None = None
    ) -> None:
        self._ledger, self._clock = ledger, clock
        self._expect, self._expected = expect, _NOTHING if expect is None else None
        self._gates: list[Gate] = []
        self.model, self.purpose = model, purpose
        self.key: str | None = None
        """Which of several keys it is made with: a variable's name, never the key."""
        self.failure: BaseException | None = None
        self.started = clock.monotonic()
        self.duration_s: float | None = None
        self.outcome: Outcome | None = None
        self.usage: UsageMetadata | None = None
        self.cost_usd: float | None = None
        self.error: str | None = None

    @property
    def expected(self) -> Expected:
        """What it will probably consume: worked out when somebody first asks."""
        if self._expected is None:
            assert self._expect is not None
            self._expected = self._expect()
        return self._expected

    def passes(self, gates: Iterable[Gate], run: Run) -> Plan[None]:
        """Pass these gates, outermost first.

        Raises:
            CallRefused: One does not let it; the attempt is settled as refused then.
        """
        try:
            for gate in gates:
                yield from gate.enter(self, run)
                self._gates.append(gate)
        except BaseException as error:
            self.settle("refused", error=error)  # also when the caller went away: it was never made
            raise

    def left(self) -> Iterator[Gate]:
        """The gates passed, last first; each is given once."""
        while self._gates:
            yield self._gates.pop()

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

    def __init__(
        self,
        clock: Clock,
        emit: Callable[[Attempted], None],
        *,
        purpose: str = "answer",
        most: int | None = None,
        failed_cleanup: Callable[[str, Exception], None] | None = None,
    ) -> None:
        self._clock, self._emit, self.purpose = clock, emit, purpose
        self._failed_cleanup = failed_cleanup
        # Re-entrant: a forgotten stream is closed by the garbage collector, perhaps in the middle of this.
        self._lock = threading.RLock()
        self._holds = 0
        self._is_closed = False
        self.most = most
        """How many calls the whole request may make; None for no limit."""
        self.repeats_left: int | None = None
        """How many more calls retries may make, all of them together; None before the first retry says so."""
        self.all: list[Attempt] = []

    @property
    def is_used_up(self) -> bool:
        """Whether the request may make no more calls."""
        with self._lock:
            return self._is_used_up()

    def _is_used_up(self) -> bool:
        return self.most is not None and sum(each.outcome != "refused" for each in self.all) >= self.most

    def allow_repeats(self, count: int) -> None:
        """Retries may make this many calls more. The first to say so decides for the whole request: what retries
        of several wrappers do adds up to that, and does not multiply.
        """
        with self._lock:
            if self.repeats_left is None:
                self.repeats_left = count

    def reserve(
        self,
        model: str,
        *,
        purpose: str | None = None,
        expect: Callable[[], Expected] | None = None,
        is_repeat: bool = False,
    ) -> Attempt:
        """A call that is about to be made.

        Args:
            purpose: The request's own where nothing else is said.
            expect: Works out what it will consume, when a gate asks.
            is_repeat: Whether a retry makes it: those have a number of their own.

        Raises:
            AttemptsExhausted: The request, or its retries, may make no more calls.
        """
        attempt = Attempt(self, self._clock, model, purpose or self.purpose, expect)
        with self._lock:
            if self._is_used_up():
                raise AttemptsExhausted(model, f"the request may make {self.most} calls")
            if is_repeat and self.repeats_left is not None:
                if self.repeats_left <= 0:
                    raise AttemptsExhausted(model, "its retries are used up")
                self.repeats_left -= 1
            self.all.append(attempt)
        return attempt

    @contextmanager
    def held_open(self) -> Iterator[None]:
        """Some calls may go on after the answer is given (the loser of a race): they are settled when they end."""
        with self._lock:
            self._holds += 1
        try:
            yield
        finally:
            with self._lock:
                self._holds -= 1
                is_last = self._holds == 0 and self._is_closed
            if is_last:
                self.close()

    def _settle(
        self,
        attempt: Attempt,
        outcome: Outcome,
        usage: UsageMetadata | None,
        cost_usd: float | None,
        error: BaseException | None,
    ) -> None:
        duration_s = self._clock.monotonic() - attempt.started
        told = None if error is None else f"{type(error).__name__}: {error}"[:500]
        with self._lock:
            if attempt.outcome is not None:
                raise PlanError(f"a call to {attempt.model} was settled twice: {attempt.outcome}, then {outcome}")
            attempt.duration_s = duration_s
            attempt.usage, attempt.cost_usd = usage, cost_usd
            attempt.error, attempt.failure = told, error
            attempt.outcome = outcome  # last: who sees that it is settled sees all of it
        for gate in attempt.left():
            try:
                gate.leave(attempt)
            except Exception as failure:  # noqa: BLE001 (one gate must not keep the next closed; it is recorded)
                if self._failed_cleanup is not None:
                    self._failed_cleanup(type(gate).__name__, failure)
        self._emit(
            Attempted(
                model=attempt.model,
                outcome=outcome,
                purpose=attempt.purpose,
                duration_s=duration_s,
                input_tokens=usage["input_tokens"] if usage else 0,
                output_tokens=usage["output_tokens"] if usage else 0,
                cost_usd=cost_usd,
                error=told,
            )
        )

    def close(self) -> None:
        """Settle what nobody settled, as lost: at once, or when the last of those `held_open` is done. The request's
        root calls this last.
        """
        with self._lock:
            self._is_closed = True
            if self._holds:
                return
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
        names = ("model", "key", "purpose", "outcome", "duration_s", "usage", "cost_usd", "error")
        return [{name: getattr(attempt, name) for name in names} for attempt in self.all]


_NOTHING = Expected(0, 0, None)
