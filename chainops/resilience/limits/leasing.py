"""Permits that several processes share: this process's part of them, leased in blocks."""

from __future__ import annotations

import threading
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from chainops.resilience.limits.exchange import LEASE_MS, Ask, Given
from chainops.resilience.limits.policy import WINDOW_S, Needs, Window
from chainops.resilience.limits.records import LimitsDegraded, LimitsShared, Part

if TYPE_CHECKING:
    from chainops.core.events import Event
    from chainops.resilience.limits.keeper import Keeper

_LEASE_S = LEASE_MS / 1000
_SOONEST_S, _LATEST_S = 0.02, 0.25
"""How soon after a refusal the bank is asked again: the first time, and at most."""
_AHEAD = 2
"""Blocks hold so many times what was used between two beats of the keeper."""

Line = tuple[Needs | None, Iterable[Needs], float]
"""What the first in line needs, what the others need, and how long the first has waited in seconds."""


class LeasedAccount:
    """An `Account` (see `records.py`) that uses permits leased from a bank, without asking for each.

    The bank is asked when the blocks in hand do not do, and by the keeper's thread. When it cannot be reached, the
    process goes on alone, with the limit divided by the number of processes last seen. What it had used before counts
    in that share, and what it uses meanwhile is told to the bank when it is back. Just after the bank is lost, all
    processes together may use up to twice the limit in one window: what the others had used is not known then.
    """

    def __init__(self, keeper: Keeper, key: str, limits: Mapping[str, int], window_s: float = WINDOW_S) -> None:
        self._keeper, self.key, self.limits, self._window_s = keeper, key, limits, window_s
        self.line: Callable[[float], Line] = lambda _: (None, (), 0.0)
        """Who waits: the pool tells."""
        self.changed: Callable[[float], None] = lambda _: None
        """Called when there may be more to take."""
        self.holders = 1
        self._news: list[tuple[bool, str]] = []
        self._windows = {name: Window(limit, window_s) for name, limit in limits.items() if name != "seats"}
        self._start()

    def _start(self) -> None:
        self.holder = uuid.uuid4().hex
        """Names this account to the bank, among those of all processes."""
        self.lock = threading.RLock()
        self._blocks: dict[str, deque[Part]] = {name: deque() for name in self._windows}
        self._seats = self.sitting = self._most_sitting = 0
        self._share = -1
        self._allowed = 0
        """How many may sit while others want seats."""
        self._back: list[list[object]] = []
        self._over: Counter[str] = Counter()
        self._recent: Counter[str] = Counter()
        self._usual: Counter[str] = Counter()
        self._ask_at, self._pause_s, self._free_at = float("-inf"), _SOONEST_S, float("-inf")
        self._is_refused = False
        self.is_alone = False
        self._alone_used: Counter[str] = Counter()
        self._alone_told: Counter[str] = Counter()

    # As `Account` says

    def take(self, needs: Needs, now: float) -> list[Part] | None:
        with self.lock:
            if not self._has(needs, now):
                return None
            parts: list[Part] = []
            for name, amount in needs.items():
                self._recent[name] += amount
                if name == "seats":
                    self.sitting += amount
                    self._most_sitting = max(self._most_sitting, self.sitting)
                elif name in self._windows:
                    own = self._windows[name].add(amount, now)
                    parts += self._alone_part(name, amount, own) if self.is_alone else self._cut(name, amount, own)
            self._keeper.watch(self)
            return parts

    def correct(self, parts: list[Part], used: Needs, now: float) -> None:
        with self.lock:
            for name, amount in used.items():
                surplus = amount - sum(part.amount for part in parts if part.name == name)
                if surplus > 0 and name in self._windows:
                    self._windows[name].add(surplus, now)
                    (self._alone_used if self.is_alone else self._over)[name] += surplus
                for part in reversed(parts):
                    if part.name == name and surplus < 0:
                        unused = min(part.amount, -surplus)
                        surplus += unused
                        self._give_back(part, unused, now)

    def stand_up(self, now: float) -> None:  # noqa: ARG002 (other accounts need it)
        with self.lock:
            self.sitting = max(0, self.sitting - 1)
            if self._share >= 0:  # others wait for a seat: this one is theirs, if it is beyond our share
                self._allowed = max(self._share, self.sitting)
                if self._seats > self._allowed:
                    self._keeper.hurry()

    def wait_s(self, needs: Needs, now: float) -> float:
        with self.lock:
            if not self.is_alone:
                return max(0.0, self._free_at - now)
            others = {name: limit - self._share_of(name) for name, limit in self.limits.items()}
            waits = [
                window.wait_s(needs[name] + others[name], now)
                for name, window in self._windows.items()
                if name in needs
            ]
            return max(waits, default=0.0)

    def used(self, now: float) -> dict[str, int]:
        with self.lock:
            told = {name: window.used(now) for name, window in self._windows.items()}
            return told | ({"seats": self.sitting} if "seats" in self.limits else {})

    def in_child(self) -> None:
        self._start()

    # What is in hand

    def _has(self, needs: Needs, now: float) -> bool:
        for name, amount in needs.items():
            if name == "seats" and "seats" in self.limits:
                if self.sitting + amount > self._places():
                    return False
            elif name in self._windows:
                in_hand = (
                    self._share_of(name) - self._windows[name].used(now) if self.is_alone else self._in_hand(name, now)
                )
                if in_hand < amount:
                    return False
        return True

    def _places(self) -> int:
        if self.is_alone:
            return self._share_of("seats")
        return self._seats if self._share < 0 else min(self._seats, self._allowed)

    def _share_of(self, name: str) -> int:
        """What this process may use of a limit while it is alone."""
        return max(1, self.limits[name] // self.holders)

    def _in_hand(self, name: str, now: float) -> int:
        """In blocks that may still be used; the others go back."""
        blocks = self._blocks[name]
        while blocks and (blocks[0].lapses or 0.0) <= now:
            lapsed = blocks.popleft()
            self._back.append([name, lapsed.slot, lapsed.amount])
        return sum(block.amount for block in blocks)

    def _cut(self, name: str, amount: int, own: int) -> list[Part]:
        parts = []
        blocks = self._blocks[name]
        while amount > 0:
            block = blocks[0]
            size = min(amount, block.amount)
            parts.append(Part(name, block.slot, size, block.lapses, own))
            amount -= size
            block.amount -= size
            if not block.amount:
                blocks.popleft()
        return parts

    def _alone_part(self, name: str, amount: int, own: int) -> list[Part]:
        self._alone_used[name] += amount
        return [Part(name, own, amount, None, own)]

    def _give_back(self, part: Part, unused: int, now: float) -> None:
        self._windows[part.name].give_back(unused, part.own)
        if part.lapses is None:
            self._alone_used[part.name] -= unused
        elif part.lapses > now and not self.is_alone:
            self._blocks[part.name].appendleft(Part(part.name, part.slot, unused, part.lapses))
        else:
            self._back.append([part.name, part.slot, unused])

    # What the bank is told and asked

    def wants_more(self, needs: Needs, now: float) -> bool:
        """Whether it is time to ask the bank for these."""
        with self.lock:
            return not self.is_alone and now >= self._ask_at and not self._has(needs, now)

    def perhaps(self, now: float, *, has_line: bool) -> dict[str, int]:
        """What may be had as far as is known: until the bank says no, all that this process does not use itself.

        Empty when it said no, to those in line or just now: then there is nothing but what is in hand.
        """
        with self.lock:
            if self.is_alone or (self._is_refused and (has_line or now < self._ask_at)):
                return {}
            used = self.used(now)
            return {name: limit - used.get(name, 0) for name, limit in self.limits.items()}

    def again_s(self, now: float) -> float:
        """Until the bank may be asked again; inf while it cannot be reached."""
        with self.lock:
            return float("inf") if self.is_alone else max(0.0, self._ask_at - now)

    def fetch(self, now: Callable[[], float]) -> None:
        """Ask the bank. Blocks."""
        self._keeper.exchange([self], now)

    @property
    def is_busy(self) -> bool:
        """Whether there is anything to tell, to hold or to ask."""
        with self.lock:
            told = any((*self._blocks.values(), self._back, self._over, self._recent, self._usual))
            return bool(self.is_alone or self._seats or self.sitting or told)

    def beat(self, *, is_regular: bool) -> bool:
        """Between two regular ones, use is counted. Gives `is_busy`, as it was."""
        with self.lock:
            is_busy = self.is_busy
            if is_regular:
                self._usual, self._recent = self._recent, Counter()
            return is_busy

    def ask(self, now: float) -> Ask:
        """All there is to say. The caller sees to it that nobody else asks before `hear` or `lost`."""
        line = self.line(now)  # under the pool's lock, so before ours is taken: always in this order
        with self.lock:
            return self._ask(now, *line)

    def _ask(self, now: float, must: Needs | None, more: Iterable[Needs], waited_s: float) -> Ask:
        wanted: Counter[str] = Counter({name: _AHEAD * n for name, n in (self._recent | self._usual).items()})
        for each in more:
            wanted.update(each)
        if self.is_alone:
            self._seats = self.sitting
            self._alone_told = Counter(self._alone_used)
            over = {name: min(n, self._windows[name].used(now)) for name, n in self._alone_told.items()}
        else:
            self._seats -= self._spare_seats(has_line=must is not None)
            over, self._over = dict(self._over), Counter()
        in_hand = {name: self._in_hand(name, now) for name in self._blocks} | {"seats": self._seats - self.sitting}
        wanted["seats"] = 0 if self._share >= 0 else max(0, self._most_sitting - self.sitting)
        self._most_sitting = self.sitting
        needed = {name: n - in_hand[name] for name, n in (must or {}).items() if name in self.limits}
        may = {name: wanted[name] - max(0, in_hand[name]) for name in self.limits}
        back, self._back = self._back, []
        return Ask(
            holder=self.holder,
            limits=dict(self.limits),
            window=int(self._window_s * 1000),
            seats=self._seats,
            back=back,
            over={name: n for name, n in over.items() if n > 0},
            must={name: n for name, n in needed.items() if n > 0},
            may={name: n for name, n in may.items() if n > 0},
            waited=int(waited_s * 1000),
            gone=False,
        )

    def _spare_seats(self, *, has_line: bool) -> int:
        """Seats nobody sits on that are not lately needed either; while others wait, all beyond our share."""
        idle = max(0, self._seats - self.sitting)
        if self._share >= 0:
            return min(idle, max(0, self._seats - self._allowed))
        return 0 if has_line else min(idle, max(0, self._seats - self._most_sitting))

    def hear(self, ask: Ask, given: Given, asked_at: float, now: float) -> None:
        """The bank's answer. A permit's time runs from when it was asked for: so it never outlives the bank's count."""
        with self.lock:
            if self.is_alone:
                self._over.update(self._alone_used - self._alone_told)
                self.is_alone, self._alone_used = False, Counter()
                self._news.append((False, ""))
            for name, amount in given["given"].items():
                if name == "seats":
                    self._seats += amount
                else:
                    self._blocks[name].append(Part(name, given["slot"], amount, asked_at + _LEASE_S))
            self.holders, self._share = given["holders"], given["share"]
            self._allowed = max(self._share, self.sitting + given["given"].get("seats", 0))
            self._is_refused = any(given["given"].get(name, 0) < amount for name, amount in ask["must"].items())
            if self._is_refused:
                self._free_at = now + given["wait"] / 1000
                self._ask_at = now + self._pause_s
                self._pause_s = min(_LATEST_S, self._pause_s * 2)
            else:
                self._free_at = self._ask_at = float("-inf")
                self._pause_s = _SOONEST_S

    def lost(self, ask: Ask, problem: str) -> None:
        """The bank did not answer, and may have done it all the same: what was to go back is left to lapse."""
        with self.lock:
            if not self.is_alone:
                self.is_alone = True
                self._alone_used = Counter(ask["over"])
                self._blocks = {name: deque() for name in self._blocks}
                self._share = -1
                self._news.append((True, problem))
        self._keeper.watch(self)

    def take_news(self, label: str) -> list[Event]:
        """What there is to tell people, once."""
        if not self._news:
            return []
        with self.lock:
            told, self._news = self._news, []
        return [
            LimitsDegraded(limit=label, processes=self.holders, problem=problem)
            if is_worse
            else LimitsShared(limit=label)
            for is_worse, problem in told
        ]

    def farewell(self, now: float) -> Ask:
        """All goes back: the process ends."""
        with self.lock:
            for name, blocks in self._blocks.items():
                self._back += [[name, block.slot, block.amount] for block in blocks]
                blocks.clear()
            ask = self._ask(now, None, (), 0.0)
            self._seats = 0
        return {**ask, "must": {}, "may": {}, "seats": 0, "gone": True}
