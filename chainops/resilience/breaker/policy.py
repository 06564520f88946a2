"""When a circuit opens, lets a probe through, and closes: pure decisions. Times are seconds since 1970."""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass, replace
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from chainops.core.settings import Seconds, Settings
from chainops.models.failures import Failure

FailureClass = Literal["timeout", "server", "rate limit", "setup"]
"""What is wrong with a route. Each is counted by itself: a slow server and a broken one are two findings.
`setup`: key refused, quota used up, no such model: nothing that waiting a moment mends."""
State = Literal["closed", "open", "due", "probing"]
"""`due`: the time is over, and nobody tries yet; `probing`: one call does."""

_CLASSES: dict[str, FailureClass] = {
    "timeout": "timeout",
    "server error": "server",
    "overloaded": "server",
    "conflict": "server",
    "connection cut": "server",
    "unreachable": "server",
    "nonsense answer": "server",
    "rate limit": "rate limit",
    "key refused": "setup",
    "quota": "setup",
    "not allowed": "setup",
    "model not found": "setup",
    "no key": "setup",
    "no package": "setup",
    "unusable address": "setup",
}
"""Reasons of `models.failures`. What is not here says nothing about the route: a question that is too long, a
content filter, a limit or a budget of our own, the caller's mistake, a bug."""


def _store_url(url: str) -> str:
    if re.match(r"[a-z+0-9]+://[^/@]*:[^/@]+@", url):
        raise ValueError("expected a URL without a password: REDIS_PASSWORD or PGPASSWORD is read instead")
    if "://" in url and url.partition("://")[0] not in _SCHEMES:
        raise ValueError(f"expected {', '.join(f'{each}://' for each in _SCHEMES)}, or a path")
    return url


_SCHEMES = ("redis", "rediss", "unix", "sqlite", "postgresql")
StoreUrl = Annotated[str, AfterValidator(_store_url)]
"""`redis://...`, `sqlite:///...`, `postgresql://...`, or a path. Passwords come from the environment."""


class BreakerSettings(Settings):
    """What a chain file may say about a breaker."""

    failures: int = Field(default=5, ge=1, le=1000)
    """How many failures of one kind open it, if no more calls than that succeeded meanwhile."""
    within_s: Seconds = 30.0
    """The time in which they must happen, in seconds."""
    open_s: Seconds = 30.0
    """How long it stays open at first. Each failed probe doubles it."""
    most_open_s: Seconds = 300.0
    """The longest it stays open before a probe. A key that is refused opens it for this long at once."""
    slow_s: Seconds = 10.0
    """A call that the request's deadline cut off counts as a timeout if it had been given at least this long."""
    probe_s: Seconds = 60.0
    """After this time a probe that has not ended no longer keeps others from trying."""
    store: StoreUrl | None = None
    """Where processes tell each other; null: where the chain keeps its state."""

    @model_validator(mode="after")
    def _most_is_most(self) -> BreakerSettings:
        if self.most_open_s < self.open_s:
            raise ValueError(f"most_open_s ({self.most_open_s:g}) must be at least open_s ({self.open_s:g})")
        return self


@dataclass(frozen=True, slots=True)
class Opening:
    """Why and until when a route is not asked."""

    failure: FailureClass
    reason: str
    """In the words of `models.failures`: "overloaded"."""
    since: float
    until: float
    times: int = 1
    """How often in a row: 1 at first, one more with each probe that failed."""


@dataclass(frozen=True, slots=True)
class Route:
    """What all processes know of a route."""

    openings: tuple[Opening, ...] = ()
    probe: str | None = None
    """Token of the call that tries it now."""
    probe_until: float = 0.0


CLOSED = Route()
SLACK_S = 60.0
"""How far clocks may differ: those of machines, and of calls that read the same one a moment apart."""


def failure_class(failure: Failure) -> FailureClass | None:
    """What a failure says about its route; None: nothing.

    A failure to be repeated after 0 seconds was one of several keys: the route has another.
    """
    if failure.kind in ("caller", "bug") or failure.retry_after_s == 0:
        return None
    return _CLASSES.get(failure.reason)


class Recent:
    """The failures of late, counted in this process. Not thread-safe.

    A class of failures opens the circuit when the last `failures` of them happened within `within_s` seconds and
    no more calls than these succeeded in the meantime: a route that mostly works stays open to all.
    """

    def __init__(self, settings: BreakerSettings) -> None:
        self._settings = settings
        self._succeeded = 0
        self._failed: dict[FailureClass, deque[tuple[float, int]]] = {}

    def succeeded(self) -> None:
        self._succeeded += 1

    def failed(self, failure: FailureClass, now: float) -> bool:
        """Whether that was one too many."""
        wanted = self._settings.failures
        last = self._failed.setdefault(failure, deque(maxlen=wanted))
        last.append((now, self._succeeded))
        began, succeeded = last[0]
        is_recent = abs(now - began) <= self._settings.within_s
        return len(last) == wanted and is_recent and self._succeeded - succeeded <= wanted

    def forget(self) -> None:
        self._failed.clear()


def opens_for_s(
    failure: FailureClass, *, retry_after_s: float | None, is_many: bool, times: int, settings: BreakerSettings
) -> float | None:
    """For how long a failure opens the circuit; None: not yet.

    Args:
        retry_after_s: What the server asked for; kept within `most_open_s`.
        is_many: Whether `Recent` has seen enough of them, or a probe failed.
        times: How often in a row it is opened with this.
    """
    if failure == "setup":
        return settings.most_open_s
    asked_s = min(retry_after_s or 0.0, settings.most_open_s) if failure == "rate limit" or is_many else 0.0
    if not is_many:
        return asked_s or None
    longer_s = settings.open_s * 2.0 ** min(times - 1, 30)
    return max(asked_s, min(longer_s, settings.most_open_s))


def state(route: Route, now: float, settings: BreakerSettings) -> State:
    """Where a route stands. A deadline further away than any could be was written by a clock
    that has been set back since: it has passed.
    """
    if not route.openings:
        return "closed"
    until = last(route).until
    if now < until <= now + settings.most_open_s + SLACK_S:
        return "open"
    is_probed = route.probe is not None and now < route.probe_until <= now + settings.probe_s + SLACK_S
    return "probing" if is_probed else "due"


def last(route: Route) -> Opening:
    """The opening that ends last: the one that counts."""
    return max(route.openings, key=lambda each: each.until)


def opened(route: Route, new: Opening) -> Route:
    """With one more opening. Of two deadlines for one thing the later one counts, whoever wrote first."""
    same = next((each for each in route.openings if each.failure == new.failure), None)
    if same is not None:
        later = new if new.until >= same.until else same
        new = replace(later, since=min(same.since, new.since), times=max(same.times, new.times))
    return replace(route, openings=(*(each for each in route.openings if each is not same), new))


def claimed(route: Route, token: str, now: float, settings: BreakerSettings) -> Route:
    """With `token` as the one probe, where one is due; unchanged otherwise."""
    if state(route, now, settings) != "due":
        return route
    return replace(route, probe=token, probe_until=now + settings.probe_s)


def released(route: Route, token: str) -> Route:
    """The probe said nothing: the next call may be one."""
    return replace(route, probe=None, probe_until=0.0) if route.probe == token else route


def proven(route: Route, now: float, settings: BreakerSettings) -> Route:
    """A probe succeeded: what was due is over. What was opened meanwhile, and runs still, stays."""
    left = tuple(each for each in route.openings if now < each.until <= now + settings.most_open_s + SLACK_S)
    return Route(openings=left)


def failed_again(route: Route, token: str, new: Opening, now: float) -> Route:
    """A probe failed: what was due gives way to what is wrong now."""
    left = replace(route, openings=tuple(each for each in route.openings if each.until > now))
    return released(opened(left, new), token)


def joined(route: Route, mine: Route) -> Route:
    """What the store knows, and what was seen while it could not be reached."""
    for opening in mine.openings:
        route = opened(route, opening)
    return route
