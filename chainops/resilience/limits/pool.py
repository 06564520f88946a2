"""One limit's permits in this process, and the queue before them."""

from __future__ import annotations

import math
import os
import threading
from collections import Counter
from typing import TYPE_CHECKING

from chainops.core.signal import Signal
from chainops.core.steps import Do, Hear, Plan, Step, Wait
from chainops.resilience.limits.leasing import LeasedAccount, Line
from chainops.resilience.limits.permits import Permit, Queue
from chainops.resilience.limits.policy import Needs, Place, Turns, before, pushed_out, too_large, turned_away
from chainops.resilience.limits.records import Account, Ceiling, LimitWaited, Overloaded, Stats, TooLarge
from chainops.stores import fork

if TYPE_CHECKING:
    from chainops.core.clock import Clock
    from chainops.core.run import Run

_LEAST_PAUSE_S = 0.001
_LEAST_AGAIN_S = 0.1
"""For each who waits: after how long to come again, where nothing is known of how long calls take."""


class _Waiter:
    __slots__ = ("needs", "permit", "place", "refused", "signal", "until")

    def __init__(self, needs: Needs, place: Place, until: float) -> None:
        self.needs, self.place, self.until = needs, place, until
        self.signal = Signal()
        self.permit: Permit | None = None
        self.refused: tuple[str, str] | None = None
        """Reason and problem."""


class Pool:
    """Permits of one key. Calls take them at once, or queue for them.

    Where permits are leased, a call may stand in line only until the bank has been heard. It is not known then whether
    it has to queue, so those whom the bank may let go, and no more, stand there beside the `queue.most` who do. When
    the bank says no, those beyond that are refused: of the flow that has the most in line, who would go last.

    Args:
        label: What people know it by, such as "user" or a key's variable.
        ceiling: What the provider allows, beside the account's limits.
    """

    def __init__(self, label: str, account: Account, queue: Queue, ceiling: Ceiling | None = None) -> None:
        self.label, self.account, self.queue, self.ceiling = label, account, queue, ceiling
        self.open = 0
        """Permits that are out."""
        self._begin()
        if isinstance(account, LeasedAccount):
            account.line, account.changed = self._line, self.pump
        fork.watch(self)

    def _begin(self) -> None:
        self.born = os.getpid()
        # Re-entrant: a forgotten stream is closed by the garbage collector, perhaps in the middle of this.
        self.lock = threading.RLock()
        self._waiting: list[_Waiter] = []
        self._turns = Turns()
        self._head: _Waiter | None = None
        self._is_pumping = self._pumps_again = False
        self._usual_s = 0.0

    def take(self, needs: Needs, now: float) -> Permit | None:
        """At once, if nobody waits and there is enough."""
        with self.lock:
            return None if self._waiting else self._take(needs, now)

    def enter(self, needs: Needs, run: Run, model: str) -> Plan[Permit]:
        """Take a permit, perhaps after a while.

        Raises:
            Overloaded: It would take too long.
            TooLarge: It would take forever.
        """
        for name, amount, limit in too_large(self.account.limits, needs):
            raise TooLarge(model, self.label, name, amount, limit)
        since = run.clock.monotonic()
        permit = self.take(needs, since)
        if permit is None:
            permit, has_paused = yield from self._stand_in_line(needs, run, model)
            waited_s = run.clock.monotonic() - since
            if has_paused:
                facts = run.stage.facts
                facts["queued_s"] = round(facts.get("queued_s", 0.0) + waited_s, 6)
                run.emit(LimitWaited(limit=self.label, waited_s=waited_s, waiting=len(self._waiting)))
        if isinstance(self.account, LeasedAccount):
            for event in self.account.take_news(self.label):
                run.emit(event)
        return permit

    def waiting(self) -> int:
        return len(self._waiting)

    def is_idle(self, now: float) -> bool:
        """Whether nothing would be forgotten with it."""
        with self.lock:
            return not self._waiting and not self.open and not any(self.account.used(now).values())

    def stats(self, now: float) -> Stats:
        with self.lock:
            used = self.account.used(now)
            flows = Counter(each.place.flow for each in self._waiting)
        return {
            "limit": dict(self.account.limits),
            "used": used,
            "waiting": sum(flows.values()),
            "waiting_by": dict(flows),
            "is_shared": isinstance(self.account, LeasedAccount) and not self.account.is_alone,
        }

    def remaining(self, now: float) -> dict[str, int]:
        """What is left of each limit, as far as this process knows."""
        with self.lock:
            used = self.account.used(now)
        return {name: max(0, limit - used.get(name, 0)) for name, limit in self.account.limits.items()}

    def share(self, now: float) -> float:
        """Of the limit that is used most: how much of it is."""
        with self.lock:
            used, limits = self.account.used(now), self.account.limits
        return max((used.get(name, 0) / limit for name, limit in limits.items()), default=0.0)

    def expected_wait_s(self, needs: Needs, now: float) -> float:
        """What a call that came now would have to wait."""
        with self.lock:
            return self._expected_wait_s(needs, now, self._waiting)

    # Under the lock

    def note_duration(self, seconds: float) -> None:
        self._usual_s += ((seconds - self._usual_s) / 8) if self._usual_s else seconds

    def pump(self, now: float) -> None:
        """Let go whoever can, in order, and tell the first of the rest that it is the first."""
        with self.lock:
            self._pumps_again = True
            if self._is_pumping:
                return  # called from within itself: it will look once more
            self._is_pumping = True
            try:
                while self._pumps_again:
                    self._pumps_again = False
                    self._let_go(now)
                    self._turn_away(now)
            finally:
                self._is_pumping = False

    def _let_go(self, now: float) -> None:
        ageing_s = self.queue.ageing_s
        while self._waiting:
            first = min(self._waiting, key=lambda each: before(each.place, now, ageing_s=ageing_s))
            permit = self._take(first.needs, now)
            if permit is None:
                if first is not self._head:
                    self._head = first
                    first.signal.tell()
                return
            first.permit = permit
            if first not in self._waiting:  # the garbage collector closed its plan in the middle of this
                permit.cancel(now)
                continue
            self._waiting.remove(first)
            self._turns.went(first.place.turn)
            first.signal.tell()
        self._head = None

    def _turn_away(self, now: float) -> None:
        """Refuse who is too many, now that the bank was heard."""
        if len(self._waiting) <= self.queue.most:
            return
        excess = self._queued(now) - self.queue.most
        places = [each.place for each in self._waiting]
        gone = set(turned_away(places, excess, now, ageing_s=self.queue.ageing_s))
        refused = [each for at, each in enumerate(self._waiting) if at in gone]
        self._waiting = [each for at, each in enumerate(self._waiting) if at not in gone]
        for each in refused:
            each.refused = "queue full", f"{self.queue.most} calls wait"
            each.signal.tell()
        if self._head in refused:
            self._head = None

    def _queued(self, now: float, *newcomer: _Waiter) -> int:
        """How many of those in line have to wait, as far as is known."""
        line = [*self._waiting, *newcomer]
        left = self._perhaps(line[0], now) if line else {}
        for ahead, each in enumerate(line):
            if not left or any(left.get(name, amount) < amount for name, amount in each.needs.items()):
                return len(line) - ahead
            left = {name: amount - each.needs.get(name, 0) for name, amount in left.items()}
        return 0

    def _perhaps(self, first: _Waiter, now: float) -> dict[str, int]:
        if not isinstance(self.account, LeasedAccount):
            return {}
        if self.ceiling is not None and self.ceiling.wait_s(first.needs, now) > 0:
            return {}  # it is not the bank that they wait for
        return self.account.perhaps(now, has_line=bool(self._waiting))

    def _line(self, now: float) -> Line:
        with self.lock:
            self.pump(now)
            first = self._head
            if first is None:
                return None, (), 0.0
            others = [each.needs for each in self._waiting if each is not first]
            return first.needs, others, max(0.0, now - first.place.since)

    def _take(self, needs: Needs, now: float) -> Permit | None:
        if self.ceiling is not None and self.ceiling.wait_s(needs, now) > 0:
            return None
        parts = self.account.take(needs, now)
        if parts is None:
            return None
        if self.ceiling is not None:
            self.ceiling.took(needs, now)
        self.open += 1
        return Permit(self, parts, needs, now)

    def _expected_wait_s(self, needs: Needs, now: float, ahead: list[_Waiter]) -> float:
        total = Counter(needs)
        for each in ahead:
            total.update(each.needs)
        wait_s = self.account.wait_s(total, now)
        seats = self.account.limits.get("seats")
        if seats is not None and "seats" in needs and self.open >= seats:
            wait_s = max(wait_s, self._usual_s * (len(ahead) + 1) / seats)
        return wait_s if self.ceiling is None else max(wait_s, self.ceiling.wait_s(needs, now))

    # Waiting

    def _stand_in_line(self, needs: Needs, run: Run, model: str) -> Plan[tuple[Permit, bool]]:
        waiter = self._join(needs, run, model)
        has_paused = False
        try:
            while True:
                seen = waiter.signal.seen
                step = self._next(waiter, seen, run.clock, model)
                if step is None:
                    assert waiter.permit is not None
                    return waiter.permit, has_paused
                has_paused = has_paused or not isinstance(step, Do)
                yield step
        except BaseException:
            self._drop(waiter, run.clock.monotonic())
            raise

    def _join(self, needs: Needs, run: Run, model: str) -> _Waiter:
        caller, now = run.caller, run.clock.monotonic()
        flow = caller.tenant or caller.user or ""
        with self.lock:
            flows = Counter(each.place.flow for each in self._waiting)
            left_s = min(self.queue.wait_s, math.inf if run.remaining_s is None else run.remaining_s)
            place = Place(flow, self._turns.next_of(flow), caller.priority, now)
            waiter = _Waiter(needs, place, now + left_s)
            self._refuse_in_vain(waiter, now, model, len(self._waiting))
            if len(self._waiting) >= self.queue.most and self._queued(now, waiter) > self.queue.most:
                loser = pushed_out(flows, flow)
                if loser is None:
                    wait_s = self._expected_wait_s(needs, now, self._waiting)
                    raise self._overloaded(model, "queue full", f"{len(self._waiting)} calls wait", wait_s)
                last = max(
                    (each for each in self._waiting if each.place.flow == loser),
                    key=lambda each: before(each.place, now, ageing_s=self.queue.ageing_s),
                )
                self._waiting.remove(last)
                last.refused = "pushed out", "others took its place in the queue"
                last.signal.tell()
            self._waiting.append(waiter)
        return waiter

    def _next(self, waiter: _Waiter, seen: int, clock: Clock, model: str) -> Step | None:
        """What a waiter does now; None when it has its permit."""
        now = clock.monotonic()
        with self.lock:
            if waiter.permit is None and waiter.refused is None:
                self.pump(now)
            if waiter.permit is not None:
                return None
            if waiter.refused is not None:
                raise self._overloaded(model, *waiter.refused, self._expected_wait_s(waiter.needs, now, self._waiting))
            is_first = waiter is self._head
            leased = self.account if isinstance(self.account, LeasedAccount) else None
            if is_first and leased is not None and leased.wants_more(waiter.needs, now):
                return Do(lambda: leased.fetch(clock.monotonic))
            if is_first:
                self._refuse_in_vain(waiter, now, model, 0)
            left_s = waiter.until - now
            if left_s <= 0:
                wait_s = self._expected_wait_s(waiter.needs, now, self._waiting)
                raise self._overloaded(model, "wait too long", f"it waited {self.queue.wait_s:g} s in vain", wait_s)
            if not is_first:
                return Hear(waiter.signal, seen, left_s)
            return self._pause(waiter, seen, now, left_s, leased)

    def _pause(self, waiter: _Waiter, seen: int, now: float, left_s: float, leased: LeasedAccount | None) -> Step:
        """The first in line waits for time to pass, or for somebody to give back."""
        wait_s = self.account.wait_s(waiter.needs, now)
        if self.ceiling is not None:
            wait_s = max(wait_s, self.ceiling.wait_s(waiter.needs, now))
        if leased is not None:
            wait_s = max(min(wait_s or math.inf, leased.again_s(now)), _LEAST_PAUSE_S)
        elif wait_s > 0 and not self.open and len(self._waiting) == 1 and self.ceiling is None:
            return Wait(min(wait_s, left_s))  # nobody else can do anything about it, only time
        return Hear(waiter.signal, seen, max(_LEAST_PAUSE_S, min(wait_s or left_s, left_s)))

    def _drop(self, waiter: _Waiter, now: float) -> None:
        with self.lock:
            if waiter in self._waiting:
                self._waiting.remove(waiter)
            if waiter.permit is not None:  # it came too late
                waiter.permit.cancel(now)
            if self._head is waiter:
                self._head = None
            self.pump(now)

    def _refuse_in_vain(self, waiter: _Waiter, now: float, model: str, ahead: int) -> None:
        wait_s = self._expected_wait_s(waiter.needs, now, self._waiting[:ahead])
        if now + wait_s <= waiter.until:
            return
        closed = None if self.ceiling is None else self.ceiling.closed(now)
        if closed is not None:
            raise self._overloaded(model, closed[0], closed[1], wait_s)
        is_late = waiter.until < waiter.place.since + self.queue.wait_s
        reason = "deadline too near" if is_late else "wait too long"
        raise self._overloaded(model, reason, f"it would wait {wait_s:.1f} s", wait_s)

    def _overloaded(self, model: str, reason: str, problem: str, wait_s: float) -> Overloaded:
        waiting = len(self._waiting)
        # Where nothing tells how long it takes, those who are turned away still come at different times, not at once.
        again_s = wait_s if wait_s > 0 else _LEAST_AGAIN_S * (1 + waiting)
        return Overloaded(model, self.label, reason, problem, retry_after_s=again_s, waiting=waiting)

    # For `stores.fork`, which calls these around a fork

    def connections_in_use(self) -> int:
        return 0

    def close_idle(self) -> None:
        """Nothing is open here."""

    def reset_after_fork(self, *, usable: bool) -> None:  # noqa: ARG002 (there is nothing to use)
        """Those who wait and those who are being served are the parent's; what was counted stays counted."""
        self.open = 0
        self._begin()
        self.account.in_child()
