"""What happens to a call at a limit, and what the parts of this room expect of each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from chainops.core.errors import CallRefused
from chainops.core.events import Event
from chainops.resilience.limits.exchange import Ask, Given
from chainops.resilience.limits.policy import Needs

SETTING = {"requests": "requests_per_minute", "tokens": "tokens_per_minute", "seats": "concurrency"}
"""What a chain file calls them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitWaited(Event):
    """A call stood in the queue of a limit, and went on."""

    limit: str
    waited_s: float
    waiting: int
    """Others that still stand there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsDegraded(Event):
    """The store that a limit is shared through cannot be reached: this process keeps to its share of it, alone."""

    limit: str
    processes: int
    """How many were last seen; each keeps to the limit divided by that."""
    problem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsShared(Event):
    """The store is back: the limit is one again, for all processes."""

    limit: str


class Overloaded(CallRefused):
    """A limit cannot let the call pass in time.

    Attributes:
        limit: Which one, such as "user" or the name of a key's variable.
        reason: "queue full", "wait too long", "deadline too near", "pushed out", or why a key is closed.
        waiting: How many stand in its queue.
    """

    retryable: ClassVar[bool] = True

    def __init__(
        self, model: str, limit: str, reason: str, problem: str, *, retry_after_s: float | None, waiting: int
    ) -> None:
        self.limit, self.waiting = limit, waiting
        super().__init__(model, reason, f"{problem} at its limit per {limit}", retry_after_s=retry_after_s)


class TooLarge(CallRefused):
    """One call is expected to need more than the whole limit: no waiting would help."""

    def __init__(self, model: str, limit: str, name: str, needed: int, allowed: int) -> None:
        self.limit, self.needed, self.allowed = limit, needed, allowed
        super().__init__(
            model,
            "too large for its limit",
            f"it is expected to need {needed:,} {name} and {SETTING.get(name, name)} per {limit} allows {allowed:,}; "
            "send less text, lower max_tokens, or raise the limit",
        )


class Ceiling(Protocol):
    """What a provider lets a key do now, beside the declared limits."""

    counts_tokens: bool
    """Whether it says anything of tokens."""

    def wait_s(self, needs: Needs, now: float) -> float:
        """Seconds until a call with these needs may be made; 0: now."""

    def closed(self, now: float) -> tuple[str, str, float] | None:
        """Reason, problem and seconds, while the key is closed altogether."""

    def took(self, needs: Needs, now: float) -> None:
        """A call is being made."""


@dataclass(slots=True)
class Part:
    """Some of what was taken: where it is counted, for giving it back."""

    name: str
    slot: int
    amount: int
    lapses: float | None = None
    """Until when a leased permit may be used; None: it is not leased."""
    own: int = 0
    """Where this process counts it."""


class Account(Protocol):
    """Where a process takes permits from for one key. Called under the pool's lock; never blocks."""

    limits: Mapping[str, int]

    def take(self, needs: Needs, now: float) -> list[Part] | None:
        """All of it, or nothing."""

    def correct(self, parts: list[Part], used: Needs, now: float) -> None:
        """So much was used of what is named there, in place of what was taken."""

    def stand_up(self, now: float) -> None:
        """A seat is free."""

    def wait_s(self, needs: Needs, now: float) -> float:
        """Seconds until it may be taken, as far as rates go and is known; 0 when only a seat is missing."""

    def used(self, now: float) -> dict[str, int]:
        """In the last minute, and seats now."""

    def in_child(self) -> None:
        """In a forked process: calls in flight are the parent's."""


class Bank(Protocol):
    """Permits that several processes share. Blocks."""

    @property
    def place(self) -> str:
        """The store, for messages."""

    def exchange(self, asks: Sequence[tuple[str, Ask]]) -> list[Given]:
        """One step (`exchange.exchange`) for each key, all of them or none.

        Raises:
            StoreError: It cannot be reached, or did not answer in time; then it may have happened all the same.
        """


Stats = dict[str, Any]
