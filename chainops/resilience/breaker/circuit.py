"""One route's circuit in this process: a copy of what all processes know, and what was seen here."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from dataclasses import replace

from chainops.core.background import Background
from chainops.core.errors import StoreError
from chainops.core.forking import reset_in_child
from chainops.core.run import Run
from chainops.core.steps import Do, Plan
from chainops.models.failures import Failure
from chainops.resilience.breaker import policy
from chainops.resilience.breaker.policy import CLOSED, BreakerSettings, FailureClass, Opening, Recent, Route
from chainops.resilience.breaker.records import (
    CircuitAlone,
    CircuitClosed,
    CircuitOpen,
    CircuitOpened,
    CircuitProbing,
    Circuits,
)

REFRESH_S = 0.5
"""A copy older than this is refreshed beside the requests."""
STALE_S = 0.9
"""One older than this (nobody asked for a while) is refreshed before a call is let through."""
_Opened = tuple[float, Opening, Callable[[Route], Route]]
"""For how long, with what, and the change that does it."""
BACKGROUND = Background("chainops circuits", waiting_at_most=10_000, finishes=True)


class Circuit:
    """Decides from its copy, in place. Changes are made there at once and follow into the store in the background; only
    the claim of a probe waits for the store, which grants one to all processes together. Thread-safe; no lock is held
    during a call, and while the store is asked only the one that lets one reading after another begin.

    Failures are counted in each process by itself; what they share is which circuits are open, until when, and who
    probes. Clocks of several machines may differ: a circuit opens as much too long or too short.

    Args:
        name: The route's, unique in the store.
        store: Opens what the processes share, when first needed; None: this process alone.
    """

    def __init__(
        self, name: str, settings: BreakerSettings | None = None, store: Callable[[], Circuits] | None = None
    ) -> None:
        settings = settings or BreakerSettings()
        self.name, self.settings, self._store = name, settings, store
        self._route = CLOSED
        self._recent = Recent(settings)
        self._changes = 0  # of the copy: what was read before the last one is out of date
        self._lost = 0  # changes that the store could not be told: what it says now is without them
        self._looked = float("-inf")
        self._problem: str | None = None  # what is wrong with the store, until it answers again
        self._is_told = False
        self.reset()
        reset_in_child(self)

    def reset(self) -> None:
        """For a forked child, which knows what its parent knew; what was on its way to the store is the parent's."""
        # Re-entrant: a forgotten stream is closed by the garbage collector, perhaps in the middle of this.
        self._lock, self._reading = threading.RLock(), threading.Lock()
        self._unsent: list[Callable[[Route], Route]] = []
        """Changes that the store has not been told yet."""

    @property
    def route(self) -> Route:
        """What is known here, now."""
        return self._route

    def admit(self, run: Run) -> Plan[str | None]:
        """Let a call pass; the token of a probe, None for any other call.

        Raises:
            CircuitOpen: The route is known to be broken.
        """
        now, seen = run.clock.time(), run.clock.monotonic()
        if self._store is not None and not 0 <= seen - self._looked < REFRESH_S:
            is_open = policy.state(self._route, now, self.settings) == "open"
            if not 0 <= seen - self._looked < STALE_S and self._problem is None and not is_open:
                yield Do(lambda: self._refresh_once(seen))
            else:
                self._looked = seen
                BACKGROUND.submit(self.refresh)
            self._tell(run)
        state = policy.state(self._route, now, self.settings)
        if state == "closed":
            return None
        if state == "due":
            token = uuid.uuid4().hex
            route = yield from self._claimed(token, now)
            self._tell(run)
            if route.probe == token:
                run.emit(CircuitProbing(route=self.name))
                return token
            if not route.openings:
                return None
        raise self._refusal(now)

    def succeeded(self, run: Run, token: str | None) -> None:
        with self._lock:
            self._recent.succeeded()
        if token is None:
            return
        now = run.clock.time()
        before, after = self._change(lambda route: policy.proven(route, now, self.settings))
        with self._lock:
            self._recent.forget()
        if before.openings and not after.openings:
            since = min(each.since for each in before.openings)
            run.emit(CircuitClosed(route=self.name, open_s=max(0.0, now - since)))

    def failed(self, run: Run, token: str | None, failure: Failure) -> None:
        kind = policy.failure_class(failure)
        if kind is None:
            self.released(token)
            return
        now = run.clock.time()
        with self._lock:  # counted and opened in one step: of many that fail at the same time one opens it
            found = self._opening(kind, failure, token, now)
            if found is not None:
                open_s, new, change = found
                self._recent.forget()
                self._apply(change)
                changes = self._changes
        if found is None:
            self.released(token)
            return
        self._send(change, changes)
        run.emit(CircuitOpened(route=self.name, failure=kind, reason=new.reason, open_s=open_s, times=new.times))

    def _opening(self, kind: FailureClass, failure: Failure, token: str | None, now: float) -> _Opened | None:
        """Count a failure; what it opens, if it does."""
        is_many, route = self._recent.failed(kind, now), self._route
        is_probe = token is not None and route.probe == token
        is_closed = policy.state(route, now, self.settings) == "closed"
        times = max(max((each.times for each in route.openings), default=0) + is_probe, 1)
        open_s = policy.opens_for_s(
            kind,
            retry_after_s=failure.retry_after_s,
            # What was under way when it opened does not make it worse, but may know of a later deadline.
            is_many=is_probe or (is_many and is_closed),
            times=times,
            settings=self.settings,
        )
        if open_s is None:
            return None
        new = Opening(kind, failure.reason, since=now, until=now + open_s, times=times)
        if is_probe and token is not None:
            new = replace(new, since=min((each.since for each in route.openings), default=now))
            return open_s, new, lambda route: policy.failed_again(route, token, new, now)
        if is_closed or new.until > policy.last(route).until:
            return open_s, new, lambda route: policy.opened(route, new)
        return None

    def released(self, token: str | None) -> None:
        """The call said nothing about the route."""
        if token is not None:
            self._change(lambda route: policy.released(route, token))

    def refresh(self) -> None:
        """Take over what the store knows. Never raises."""
        with self._reading:  # one after another: what was read earlier does not come after what was read later
            self._refresh()

    def _refresh_once(self, seen: float) -> None:
        """Of several calls that find the copy too old, one reads, and the others wait for that."""
        with self._reading:
            if abs(seen - self._looked) >= STALE_S:
                self._refresh()
                self._looked = seen

    def _refresh(self) -> None:
        assert self._store is not None
        with self._lock:
            changes, mine, lost = self._changes, self._route, self._lost
            is_behind = bool(self._unsent)
        try:
            if lost and mine.openings:
                found = self._store().change(self.name, lambda route: policy.joined(route, mine))
            else:
                found = self._store().look(self.name)
        except StoreError as error:
            self._problem = str(error)
            return
        with self._lock:
            self._lost -= lost
            if not self._lost:  # else the store failed since
                self._problem, self._is_told = None, False
        if not is_behind:
            self._adopt(found, changes)

    def _claimed(self, token: str, now: float) -> Plan[Route]:
        is_given_up = threading.Event()

        def claim() -> Route:
            route = self._claim(token, now)
            if is_given_up.is_set():
                self.released(token)
            return route

        try:
            route: Route = yield Do(claim, blocks=self._store is not None and not self._problem)
        except BaseException:  # the caller went away before the store had answered
            is_given_up.set()
            self.released(token)
            raise
        return route

    def _claim(self, token: str, now: float) -> Route:
        with self._lock:
            changes, unsent = self._changes, tuple(self._unsent)

        def claim(route: Route) -> Route:
            for change in unsent:  # they will come after the claim, and change nothing more then
                route = change(route)
            return policy.claimed(route, token, now, self.settings)

        if self._store is not None and self._problem is None:
            try:
                found = self._store().change(self.name, claim)
            except StoreError as error:
                self._problem = str(error)
            else:
                self._adopt(found, changes, is_claim=True)
                return found
        with self._lock:  # of what is known here now: another call may have changed it while the store was asked
            self._route = policy.claimed(self._route, token, now, self.settings)
            self._changes += 1
            return self._route

    def _change(self, change: Callable[[Route], Route]) -> tuple[Route, Route]:
        """Here now, in the store soon; before and after."""
        with self._lock:
            before = self._route
            self._apply(change)
            after, changes = self._route, self._changes
        self._send(change, changes)
        return before, after

    def _apply(self, change: Callable[[Route], Route]) -> None:
        """Under the lock; to be sent after that."""
        self._route = change(self._route)
        self._changes += 1
        if self._store is not None:
            self._unsent.append(change)

    def _send(self, change: Callable[[Route], Route], changes: int) -> None:
        if self._store is not None and not BACKGROUND.submit(lambda: self._push(change, changes)):
            self._lose(change, "too many changes wait to be told")

    def _push(self, change: Callable[[Route], Route], changes: int) -> None:
        assert self._store is not None
        try:
            found = self._store().change(self.name, change)
        except StoreError as error:
            self._lose(change, str(error))
        else:
            with self._lock:
                self._unsent.remove(change)
            self._adopt(found, changes)

    def _lose(self, change: Callable[[Route], Route], problem: str) -> None:
        with self._lock:
            self._unsent.remove(change)
            self._lost += 1
            self._problem = problem

    def _adopt(self, found: Route, changes: int, *, is_claim: bool = False) -> None:
        """Know what the store knows, unless something of our own is still on its way there; a claim at once.

        What was read while something of our own was under way is not to come here: the store may have been told since.
        """
        with self._lock:
            if self._changes == changes and (is_claim or not self._unsent):
                self._route = found
                self._changes += is_claim  # what was read before it does not know of it

    def _tell(self, run: Run) -> None:
        with self._lock:
            problem = None if self._is_told else self._problem
            self._is_told = self._is_told or problem is not None
        if problem is not None:
            run.emit(CircuitAlone(route=self.name, problem=problem))

    def _refusal(self, now: float) -> CircuitOpen:
        route = self._route
        opening = policy.last(route) if route.openings else Opening("server", "it was just tried", now, now)
        is_probed = opening.until <= now
        until = route.probe_until if is_probed else opening.until
        wait_s = min(max(until - now, 0.0), self.settings.most_open_s)
        return CircuitOpen(self.name, opening, retry_after_s=round(wait_s, 3), is_probed=is_probed)
