"""What a breaker tells, and where circuits are kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Protocol, get_args

from chainops.core.errors import CallRefused
from chainops.core.events import Event
from chainops.resilience.breaker.policy import CLOSED, FailureClass, Opening, Route


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitOpened(Event):
    """A route is not asked for a while."""

    route: str
    failure: str
    """timeout, server, rate limit or setup."""
    reason: str
    open_s: float
    times: int
    """How often in a row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitProbing(Event):
    """One call tries a route that was not asked for a while."""

    route: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitClosed(Event):
    """A probe succeeded: the route is asked again."""

    route: str
    open_s: float
    """How long it was not asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitAlone(Event):
    """The store cannot be reached: this process goes on by what it sees itself."""

    route: str
    problem: str


class CircuitOpen(CallRefused):
    """A route was not asked because it is known to be broken.

    Attributes:
        route: Its name.
        failure: timeout, server, rate limit or setup.
        because: What had gone wrong, in the words of `models.failures`.
        since: When the circuit opened, in seconds since 1970.
    """

    def __init__(self, route: str, opening: Opening, *, retry_after_s: float, is_probed: bool = False) -> None:
        self.route, self.failure, self.because = route, opening.failure, opening.reason
        self.since = opening.since
        how = "another call is trying it now" if is_probed else f"it is tried again in {retry_after_s:.3g} s"
        super().__init__(route, "circuit open", f"it failed ({opening.reason}) and {how}", retry_after_s=retry_after_s)


class Circuits(Protocol):
    """Where the processes of one chain tell each other which routes are broken."""

    place: str

    def look(self, route: str) -> Route:
        """What is known of a route. Raises `StoreError`."""

    def change(self, route: str, change: Callable[[Route], Route]) -> Route:
        """Replace what is known by what `change` makes of it, with nobody in between; gives what holds then.

        `change` may be called several times. Raises `StoreError`.
        """


def to_text(route: Route) -> str:
    """As stores keep it."""
    return json.dumps(asdict(route))


def of_text(text: str | bytes | None) -> Route:
    """What a store has kept; what cannot be read is a closed circuit: it opens again soon enough if it must."""
    try:
        told = json.loads(text or "{}")
        openings = [Opening(**each) for each in told.get("openings", ())]
        known = tuple(each for each in openings if each.failure in get_args(FailureClass))
        return Route(known, told.get("probe"), float(told.get("probe_until", 0.0)))
    except (ValueError, TypeError, AttributeError):
        return CLOSED
