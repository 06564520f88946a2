"""Limits on what a chain, a user, a tenant or a feature may do; and the same for a model's keys."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self
from weakref import WeakValueDictionary

from pydantic import Field, field_validator, model_validator

from chainops.core.clock import current_clock
from chainops.core.component import AnyRunnable, Component
from chainops.core.settings import Settings
from chainops.core.steps import Do, Forward, Plan
from chainops.models.limits import QueueSettings
from chainops.resilience.limits.accounts import OwnAccount
from chainops.resilience.limits.leasing import LeasedAccount
from chainops.resilience.limits.permits import Permit, Queue
from chainops.resilience.limits.policy import WINDOW_S, Needs
from chainops.resilience.limits.pool import Pool
from chainops.resilience.limits.records import SETTING, Account, Ceiling, Stats

if TYPE_CHECKING:
    from chainops.core.attempts import Attempt
    from chainops.core.caller import Caller
    from chainops.core.run import Run
    from chainops.resilience.limits.keeper import Keeper

_SWEEP_ABOVE = 1_000


class LimitsSettings(Settings):
    """What a chain file may say about limits."""

    requests_per_minute: int | None = Field(default=None, gt=0)
    """Requests that may begin in any 60 seconds; refused ones do not count."""
    tokens_per_minute: int | None = Field(default=None, gt=0)
    """Tokens, of questions and answers together, in any 60 seconds. An estimate is set aside before each call to a
    model, and what it really used counts in its place when it ends."""
    concurrency: int | None = Field(default=None, gt=0)
    """Requests at a time."""
    per: Literal["chain", "user", "tenant", "feature"] = "chain"
    """Each of them has these limits for itself. Callers that do not say which they are share one."""
    queue: QueueSettings = QueueSettings()
    store: str = "chain"
    """Where permits are counted: `chain` (the chain's store: all processes that use it), a URL (`redis://…`,
    `postgresql://…`, `sqlite:///…`), or `process` (this one alone: so many processes, so many times the limit)."""

    @field_validator("store")
    @classmethod
    def _a_place(cls, store: str) -> str:
        if store not in ("process", "chain") and "://" not in store:
            raise ValueError("expected 'process', 'chain', or a URL such as redis://localhost:6379/0")
        return store

    @model_validator(mode="after")
    def _limits_something(self) -> Self:
        if not self.amounts:
            raise ValueError(f"expected at least one of {', '.join(SETTING.values())}")
        return self

    @property
    def amounts(self) -> dict[str, int]:
        return amounts_of(self.requests_per_minute, self.tokens_per_minute, self.concurrency)


def amounts_of(requests: int | None, tokens: int | None, concurrency: int | None) -> dict[str, int]:
    """Those that are declared, by the words of `policy.Needs`."""
    told = {"requests": requests, "tokens": tokens, "seats": concurrency}
    return {name: amount for name, amount in told.items() if amount is not None}


class Pools:
    """The pools of one declaration, one per key, made when first used. Thread-safe.

    Args:
        name: Of the declaration: in a shared store, those of one name are one limit.
        keeper: Talks to the store; None: counted in this process.
        window_s: What rates are counted in, in seconds.
    """

    def __init__(
        self,
        name: str,
        limits: Mapping[str, int],
        queue: Queue,
        keeper: Callable[[], Keeper] | None = None,
        *,
        window_s: float = WINDOW_S,
    ) -> None:
        self.name, self.limits, self.queue, self._keeper, self._window_s = name, limits, queue, keeper, window_s
        self._lock = threading.Lock()
        self._pools: dict[str, Pool] = {}
        self._alive: WeakValueDictionary[str, Pool] = WeakValueDictionary()
        """Also those that were swept and are still in somebody's hands: two pools of one key would be two limits."""
        self._sweep_at = _SWEEP_ABOVE

    @property
    def is_open(self) -> bool:
        """Whether `open` would return at once."""
        return getattr(self._keeper, "is_made", True)

    def open(self) -> None:
        """Open the store. Blocks."""
        if self._keeper is not None:
            self._keeper()

    def of(self, key: str, label: str, ceiling: Ceiling | None = None) -> Pool:
        pool = self._pools.get(key)
        if pool is None:
            with self._lock:
                pool = self._alive.get(key)
                if pool is None:
                    self._sweep()
                    pool = self._alive[key] = Pool(label, self._account(key), self.queue, ceiling)
                self._pools[key] = pool
        return pool

    def _account(self, key: str) -> Account:
        if self._keeper is None or not self.limits:
            return OwnAccount(self.limits, self._window_s)
        # A digest: a shared store need not know who asks.
        digest = hashlib.sha256(f"{self.name}\n{key}".encode()).hexdigest()[:32]
        return LeasedAccount(self._keeper(), digest, self.limits, self._window_s)

    def _sweep(self) -> None:
        """Forget pools nobody has used for a minute, when there are many."""
        if len(self._pools) < self._sweep_at:
            return
        now = current_clock().monotonic()
        self._pools = {key: pool for key, pool in self._pools.items() if not pool.is_idle(now)}
        self._sweep_at = max(_SWEEP_ABOVE, 2 * len(self._pools))

    def stats(self) -> dict[str, Stats]:
        """By key: limits, what is used, who waits, as this process knows it."""
        now = current_clock().monotonic()
        with self._lock:
            pools = dict(self._pools)
        return {key: pool.stats(now) for key, pool in pools.items()}


class TokenGate:
    """Sets tokens aside before each call to a model, and settles what it used. A `Gate` (see `core/attempts.py`).

    Exactly once: an attempt is settled once. A call that was never made, or failed without having read anything, uses
    none; one that nobody settled counts as it was estimated.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._held: dict[Attempt, Permit] = {}

    def enter(self, attempt: Attempt, run: Run) -> Plan[None]:
        permit = yield from self._pool.enter(self._needs(attempt), run, attempt.model)
        self._held[attempt] = permit
        tell(run, self._pool)

    def leave(self, attempt: Attempt) -> None:
        permit = self._held.pop(attempt)
        now = attempt.started + (attempt.duration_s or 0.0)
        if attempt.outcome == "refused":
            permit.cancel(now)
        else:
            permit.close(now, used=self._used(attempt))

    def _needs(self, attempt: Attempt) -> Needs:
        expected = attempt.expected
        return {"tokens": expected.input_tokens + expected.output_tokens}

    @staticmethod
    def _used(attempt: Attempt) -> Needs:
        if attempt.usage is not None:
            return {"tokens": max(0, attempt.usage["input_tokens"] + attempt.usage["output_tokens"])}
        return {} if attempt.outcome in ("ok", "lost") else {"tokens": 0}


class KeyGate(TokenGate):
    """A model key's own limits: what is declared, and what the provider says in its answers."""

    def __init__(self, pool: Pool) -> None:
        super().__init__(pool)
        self.pool = pool

    def _needs(self, attempt: Attempt) -> Needs:
        limits, ceiling = self.pool.account.limits, self.pool.ceiling
        needs = {"requests": 1}
        if "seats" in limits:
            needs["seats"] = 1
        if "tokens" in limits or (ceiling is not None and ceiling.counts_tokens):
            needs.update(super()._needs(attempt))
        return needs

    def load(self, now: float) -> tuple[float, int, float]:
        """For choosing among keys, least first: what a call would wait in seconds, calls that wait, share in use."""
        return self.pool.expected_wait_s({"requests": 1}, now), self.pool.waiting(), self.pool.share(now)


def tell(run: Run, pool: Pool) -> None:
    """What the report says of a limit that was passed; nothing where none is declared."""
    if not pool.account.limits:
        return
    facts = run.stage.facts
    facts["limit"] = pool.label
    facts["remaining"] = {SETTING[name]: n for name, n in pool.remaining(run.clock.monotonic()).items()}


class Limits(Component[Any, Any]):
    """Lets in so many requests per minute and at a time; lets calls inside it use so many tokens per minute.

    A request counts once, however many attempts it takes, and has its place among those at work until it ends, is
    cancelled or its stream is closed. Tokens are counted for each attempt.

    Raises:
        Overloaded: It would have to wait too long; `retry_after_s` says for how long.
        TooLarge: A call is expected to need more tokens than a minute has.
    """

    kind: ClassVar[str] = "limits"

    inner: AnyRunnable
    entry: Pools
    """Requests per minute and at a time."""
    tokens: Pools
    per: Literal["chain", "user", "tenant", "feature"] = "chain"

    def plan(self, value: Any, run: Run) -> Plan[Any]:
        if not self.entry.is_open:
            yield Do(self.entry.open)
        key = self._key(run.caller)
        if self.entry.limits:
            pool = self.entry.of(key, self.per)
            permit = yield from pool.enter(self._entry_needs, run, run.stage.name)
            run.on_close(lambda: permit.close(run.clock.monotonic()))
            tell(run, pool)
        if self.tokens.limits:
            gate = TokenGate(self.tokens.of(key, self.per))
            run.terms = replace(run.terms, gates=(*run.terms.gates, gate))
        return (yield Forward(self.inner, value, kwargs=run.kwargs))

    @property
    def _entry_needs(self) -> Needs:
        return dict.fromkeys(self.entry.limits, 1)

    def _key(self, caller: Caller) -> str:
        return "" if self.per == "chain" else getattr(caller, self.per) or ""

    def stats(self) -> dict[str, Stats]:
        """For people: by user, tenant ... ("" for those who do not say): limits, what is used, who waits. As this
        process knows it: other processes' use is not in it.
        """
        told: dict[str, Stats] = {}
        for pools in (self.entry, self.tokens):
            for key, stats in pools.stats().items():
                mine = told.setdefault(key, {"limit": {}, "used": {}, "waiting": 0})
                mine["limit"] |= {SETTING[name]: n for name, n in stats["limit"].items()}
                mine["used"] |= {SETTING[name]: n for name, n in stats["used"].items()}
                mine["waiting"] += stats["waiting"]
        return told


def limits(
    inner: Any, settings: LimitsSettings, *, name: str = "limits", keeper: Callable[[], Keeper] | None = None
) -> Limits:
    """The component that the settings describe.

    Args:
        name: In a shared store, limits of one name are one limit.
        keeper: Talks to the store that `settings.store` names; None counts in this process.
    """
    amounts = settings.amounts
    queue = Queue(settings.queue.most, settings.queue.wait_s)
    entry = {each: n for each, n in amounts.items() if each != "tokens"}
    tokens = {each: n for each, n in amounts.items() if each == "tokens"}
    return Limits(
        inner=inner,
        entry=Pools(f"{name}/entry", entry, queue, keeper),
        tokens=Pools(f"{name}/tokens", tokens, queue, keeper),
        per=settings.per,
        name="limits",
    )
