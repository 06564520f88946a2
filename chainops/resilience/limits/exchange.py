"""What processes that share a limit tell each other, as one pure step over plain JSON.

A process takes permits in blocks and uses them without asking again. A block of a rate lapses after `LEASE_MS`, and the
store counts a block for that much longer than a minute; so what all processes *use* in any 60 s is within the limit,
with no tolerance, whoever is killed when. Unused permits are given back to the slot they were counted in. Seats (calls
at a time) belong to their holder until it gives them back, or has not been heard of for `TTL_MS`.

The store's clock rules: with Redis and PostgreSQL the server's, with SQLite the machine's. The processes' own clocks
need only run equally fast. A store clock set back by up to a minute stands still; by more, all counts as taken now. One
set forward frees what was counted, once.

`redis_bank.py` holds the same step in Lua, and a test plays both against each other.
"""

from __future__ import annotations

from typing import Any, TypedDict

WINDOW_MS = 60_000
SLOT_MS = 500
LEASE_MS = 1_000
"""How long a block of permits may be used. A busy client gets at least 60/61.5 of its limit."""
TTL_MS = 5_000
"""How long a silent process keeps its seats."""
WANT_MS = 2_000
"""How long a silent process keeps its place before those who came later."""


class Ask(TypedDict):
    """What one process says of one key, and asks for."""

    holder: str
    limits: dict[str, int]
    window: int
    """Milliseconds in which the rates hold, `WINDOW_MS`; the same for all who share a key."""
    seats: int
    """How many it holds, used or not: this is what the store then knows."""
    back: list[list[Any]]
    """Unused: name, slot, amount."""
    over: dict[str, int]
    """Used beyond what was taken."""
    must: dict[str, int]
    """What its first waiter needs, all or nothing; empty: nobody waits."""
    may: dict[str, int]
    """What it would like to have in hand, beside that."""
    waited: int
    """How long its first waiter has waited, in milliseconds."""
    gone: bool
    """It ends: forget it."""


class Given(TypedDict):
    """What it gets."""

    given: dict[str, int]
    slot: int
    """Where it is counted."""
    wait: int
    """Milliseconds until the windows alone let `must` pass; 0 when they do now."""
    holders: int
    """Processes at work, this one included."""
    share: int
    """How many seats it may keep while others want some; -1: as many as it has."""
    left: dict[str, int]


State = dict[str, Any]
"""`seen`: ms; `used`: name -> slot -> amount; `holders`: holder -> [seats, until, wants until, since, must]."""


def exchange(state: State, ask: Ask, now: int) -> Given:
    """Take note of what is said and grant what may be. Changes `state`; {} is a new one."""
    window = ask["window"]
    now = _go_to(state, now, window)
    slot = now // SLOT_MS
    used: dict[str, dict[str, int]] = state["used"]
    for name, where, amount in ask["back"]:
        _count(used, name, str(where), -amount)
    for name, amount in ask["over"].items():
        _count(used, name, str(slot), amount)
    holders: dict[str, list[Any]] = state["holders"]
    holders.pop(ask["holder"], None)
    free = _free(ask, used, holders)
    if ask["gone"]:
        return Given(given={}, slot=slot, wait=0, holders=len(holders) + 1, share=-1, left=free)
    since = now - ask["waited"]
    elders, others = _wanted(holders, now, since)
    given = _grant(ask, free, elders, others, len(holders) + 1)
    is_refused = any(given.get(name, 0) < amount for name, amount in ask["must"].items())
    wait = 0
    for name, amount in given.items():
        if name != "seats":
            _count(used, name, str(slot), amount)
    if is_refused:
        for name, amount in ask["must"].items():
            if name != "seats":
                missing = amount + elders.get(name, 0) - free.get(name, amount)
                wait = max(wait, _wait(used.get(name, {}), missing, now, window))
    seats = ask["seats"] + given.get("seats", 0)
    wants = [now + WANT_MS, since, ask["must"]] if is_refused else [0, 0, {}]
    share = _share(ask, holders, now)
    holders[ask["holder"]] = [seats, now + TTL_MS, *wants]
    left = {name: free[name] - given.get(name, 0) for name in free}
    return Given(given=given, slot=slot, wait=wait, holders=len(holders), share=share, left=left)


def is_empty(state: State) -> bool:
    """Whether nothing would be forgotten with it."""
    return not state["holders"] and not any(state["used"].values())


def _go_to(state: State, now: int, window: int) -> int:
    if not state:
        state.update(seen=now, used={}, holders={})
    seen: int = state["seen"]
    if now < seen - window:
        for name, slots in state["used"].items():
            state["used"][name] = {str(now // SLOT_MS): sum(slots.values())}
        for holder in state["holders"].values():
            holder[1], holder[2] = now + TTL_MS, 0
        state["seen"] = now
    else:
        now = state["seen"] = max(seen, now)
    for slots in state["used"].values():
        for slot in [slot for slot in slots if _lapses(slot, window) <= now]:
            del slots[slot]
    for holder in [name for name, told in state["holders"].items() if told[1] <= now]:
        del state["holders"][holder]
    return now


def _lapses(slot: str, window: int) -> int:
    return (int(slot) + 1) * SLOT_MS + window + LEASE_MS


def _count(used: dict[str, dict[str, int]], name: str, slot: str, amount: int) -> None:
    slots = used.setdefault(name, {})
    if amount < 0 and slot not in slots:
        return  # lapsed meanwhile
    slots[slot] = slots.get(slot, 0) + amount
    if slots[slot] <= 0:
        del slots[slot]


def _free(ask: Ask, used: dict[str, dict[str, int]], holders: dict[str, list[Any]]) -> dict[str, int]:
    free = {}
    for name, limit in ask["limits"].items():
        if name == "seats":
            taken = ask["seats"] + sum(told[0] for told in holders.values())
        else:
            taken = sum(used.get(name, {}).values())
        free[name] = max(0, limit - taken)
    return free


def _wanted(holders: dict[str, list[Any]], now: int, since: int) -> tuple[dict[str, int], dict[str, int]]:
    """What those want who wait: those who have waited longer than since, and all."""
    elders: dict[str, int] = {}
    others: dict[str, int] = {}
    for _seats, _until, wants_until, their_since, must in holders.values():
        if wants_until > now:
            for name, amount in must.items():
                others[name] = others.get(name, 0) + amount
                if their_since < since:
                    elders[name] = elders.get(name, 0) + amount
    return elders, others


def _grant(ask: Ask, free: dict[str, int], elders: dict[str, int], others: dict[str, int], n: int) -> dict[str, int]:
    given: dict[str, int] = {}
    for name, amount in ask["must"].items():
        if free.get(name, amount) - elders.get(name, 0) < amount:
            return {}
    given.update(ask["must"])
    for name, amount in ask["may"].items():
        spare = free.get(name, 0) - given.get(name, 0) - others.get(name, 0)
        if (extra := min(amount, max(0, spare) // (2 * n))) > 0:
            given[name] = given.get(name, 0) + extra
    return given


def _share(ask: Ask, holders: dict[str, list[Any]], now: int) -> int:
    limit = ask["limits"].get("seats")
    wanting = sum(1 for told in holders.values() if told[2] > now and "seats" in told[4])
    if limit is None or not wanting:
        return -1
    sitting = sum(1 for told in holders.values() if told[0] > 0 and not (told[2] > now and "seats" in told[4]))
    return limit // (wanting + sitting + 1)


def _wait(slots: dict[str, int], missing: int, now: int, window: int) -> int:
    for slot in sorted(slots, key=int):
        if missing <= 0:
            break
        missing -= slots[slot]
        wait = _lapses(slot, window) - now
        if missing <= 0:
            return wait
    return window if missing > 0 else 0
