"""How much may be done now, and who waits before whom: pure decisions. Time is a parameter, in seconds that go on.

Rates are counted in a *sliding window* of one minute, cut into slots. What was taken in a slot counts until the whole
slot is a minute old. So in any 60 s, wherever they begin, no more than the limit is granted. The worst burst is the
limit itself, all at one moment, with nothing for a minute after it. The price of slots is a little of the rate: a
client that always wants more gets at least `60 / (60 + slot_s)` of its limit.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

WINDOW_S = 60.0
SLOT_S = 0.25
TOP_PRIORITY = 10
"""As in `Caller`: -10..10."""

Needs = Mapping[str, int]
"""What a call takes: `requests`, `tokens`, and `seats` (calls at a time)."""


class Window:
    """What was taken in the last minute, or other window, of one thing.

    Args:
        limit: At most so much in any window.
        window_s: Its length, in seconds.
    """

    __slots__ = ("_seen", "_slots", "_total", "limit", "window_s")

    def __init__(self, limit: int, window_s: float = WINDOW_S) -> None:
        self.limit, self.window_s = limit, window_s
        self._slots: dict[int, int] = {}
        """By time: slots are only ever added at the end."""
        self._total = 0
        self._seen = -math.inf

    def used(self, now: float) -> int:
        self._go_to(now)
        return self._total

    def free(self, now: float) -> int:
        return max(0, self.limit - self.used(now))

    def add(self, amount: int, now: float) -> int:
        """Count it, whatever the limit says. Gives the slot, for `give_back`."""
        slot = math.floor(self._go_to(now) / SLOT_S)
        self._slots[slot] = self._slots.get(slot, 0) + amount
        self._total += amount
        return slot

    def give_back(self, amount: int, slot: int) -> None:
        """What was counted in that slot was not used after all. Nothing to do when it has lapsed."""
        there = self._slots.get(slot, 0)
        amount = min(there, amount)
        self._total -= amount
        if there > amount:
            self._slots[slot] = there - amount
        elif there:
            del self._slots[slot]

    def wait_s(self, amount: float, now: float) -> float:
        """Seconds until so much more may be taken, when nobody gives anything back.

        More than the limit takes several windows; it is not refused here.
        """
        now = self._go_to(now)
        windows, rest = divmod(max(0.0, amount - 1), self.limit)
        missing = self._total + rest + 1 - self.limit
        wait_s = 0.0
        for slot in self._slots:
            if missing <= 0:
                break
            missing -= self._slots[slot]
            wait_s = (slot + 1) * SLOT_S + self.window_s - now
        return windows * self.window_s + max(0.0, wait_s)

    def _go_to(self, now: float) -> float:
        """Forget what has lapsed. A clock set back by a little stands still; by more, all counts as taken now."""
        if now < self._seen - self.window_s:
            self._slots = {math.floor(now / SLOT_S): self._total} if self._total else {}
            self._seen = now
        elif now > self._seen:
            self._seen = now
            oldest = math.floor((now - self.window_s) / SLOT_S)  # those before this one are old enough as a whole
            while self._slots and (first := next(iter(self._slots))) < oldest:
                self._total -= self._slots.pop(first)
        return self._seen


@dataclass(frozen=True, slots=True)
class Place:
    """Where somebody stands in a queue."""

    flow: str
    """Whose they are: flows take turns, so one that has a thousand waiting does not hold up another."""
    turn: int
    """Which turn of its flow it is: those of all flows go first, then the second ones."""
    priority: int
    since: float


def before(place: Place, now: float, *, ageing_s: float) -> tuple[float, int, float]:
    """Sort key: who goes first. By level, then turn, then time.

    The level is the caller's priority, and rises by one with every `ageing_s` waited, up to the highest. So after
    `(10 - priority) * ageing_s` nobody is preferred any more, and from then on only lower turns go first: of those
    who come later, at most as many of each other flow as stand before it in its own.
    """
    level = min(TOP_PRIORITY, place.priority + math.floor(max(0.0, now - place.since) / ageing_s))
    return -level, place.turn, place.since


class Turns:
    """Numbers the turns of flows, so that a flow that was idle has none saved up."""

    __slots__ = ("_last", "_now")

    def __init__(self) -> None:
        self._now = 0
        self._last: dict[str, int] = {}

    def next_of(self, flow: str) -> int:
        turn = max(self._now, self._last.get(flow, 0)) + 1
        self._last[flow] = turn
        return turn

    def went(self, turn: int) -> None:
        """Somebody with this turn goes now."""
        self._now = max(self._now, turn)
        if len(self._last) > 1000:
            self._last = {flow: last for flow, last in self._last.items() if last > self._now}


def pushed_out(flows: Mapping[str, int], newcomer: str) -> str | None:
    """When a queue is full: the flow that gives up a place to a newcomer of another. None: the newcomer is refused.

    Args:
        flows: How many of each are waiting.
    """
    largest = max(flows, key=lambda flow: flows[flow], default=None)
    if largest is None or flows[largest] <= flows.get(newcomer, 0) + 1:
        return None
    return largest


def turned_away(places: Sequence[Place], excess: int, now: float, *, ageing_s: float) -> list[int]:
    """When a queue is too long by `excess`: who is refused, by position. Each time it is the flow with the most in it
    that gives up a place, and there who would go last; among equal flows, who would go last of all.
    """
    keys = [before(each, now, ageing_s=ageing_s) for each in places]
    flows: dict[str, list[int]] = {}
    for position in sorted(range(len(places)), key=keys.__getitem__):
        flows.setdefault(places[position].flow, []).append(position)

    def rank(flow: str) -> tuple[float, ...]:
        return -len(flows[flow]), *(-part for part in keys[flows[flow][-1]])

    largest = [(rank(flow), flow) for flow in flows]
    heapq.heapify(largest)
    refused: list[int] = []
    while largest and len(refused) < excess:
        _, flow = heapq.heappop(largest)
        refused.append(flows[flow].pop())
        if flows[flow]:
            heapq.heappush(largest, (rank(flow), flow))
    return refused


def too_large(limits: Needs, needs: Needs) -> Iterator[tuple[str, int, int]]:
    """What can never be granted: its name, what is needed and the limit."""
    for name, amount in needs.items():
        if (limit := limits.get(name)) is not None and amount > limit:
            yield name, amount, limit
