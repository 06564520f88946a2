"""What happens to a request that fails somewhere."""

from __future__ import annotations

from dataclasses import dataclass

from chainops.core.events import Event


@dataclass(frozen=True, slots=True, kw_only=True)
class FellBack(Event):
    """A route failed and the next one was taken."""

    route: str
    """The one that failed."""
    to: str
    failure: str
    """retryable or next_route (see `models.failures.classify`)."""
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Continued(Event):
    """A stream broke off, and the next route goes on from what was said."""

    route: str
    """The one that broke off."""
    to: str
    said_chars: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Restarted(Event):
    """A stream broke off; what was said is void and the next route begins anew."""

    route: str
    """The one that broke off."""
    to: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Retried(Event):
    """The same is tried again."""

    turn: int
    """How often it had been tried, from 1."""
    failure: str
    reason: str
    wait_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Hedged(Event):
    """A second route was asked because the first was slow or failed."""

    after_s: float
    """How long nothing was heard."""
    winner: str
    """Who spoke first."""
    loser: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Truncated(Event):
    """A stream broke off after its first words; what was said stands, and is marked."""

    route: str
    reason: str
