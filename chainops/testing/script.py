"""Which request fails, and how: functions from a request to a fault.

Everything that injects faults is a `Rule`; `ModelServer.fail`, `rule` and `script` differ only in the rule they make.
A rule is asked once for each request, by one thread at a time.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from chainops.core.clock import Clock
from chainops.testing.connection import Received
from chainops.testing.faults import Fault, Refuse

Rule = Callable[[Received], Fault | None]
"""From a request to its fault; None: this rule has nothing against it."""

When = Callable[[Received], bool]
"""Looks at a request: its model, `is_stream`, `key` (the last four characters), `number`, path and body."""

Segment = tuple[float, "Fault | Rule | None"]
"""So many requests, or seconds, and what happens in them."""


def always(fault: Fault | Rule | None, *, times: int | None = None) -> Rule:
    """Every request, or the next `times`."""
    playable(fault)
    left = times

    def rule(received: Received) -> Fault | None:
        nonlocal left
        if left is not None:
            if left <= 0:
                return None
            left -= 1
        return play(fault, received)

    return rule


def sometimes(share: float, fault: Fault | Rule, *, seed: int = 0) -> Rule:
    """This share of the requests, 0..1. Chance depends on `seed` and the request's number alone."""
    if not 0 <= share <= 1:
        raise ValueError(f"sometimes(share={share}): a share is 0..1")
    playable(fault)

    def rule(received: Received) -> Fault | None:
        is_hit = random.Random(f"{seed} {received.number}").random() < share
        return play(fault, received) if is_hit else None

    return rule


def where(when: When, fault: Fault | Rule) -> Rule:
    """The requests that `when` says yes to."""
    playable(fault)
    return lambda received: play(fault, received) if when(received) else None


def in_turn(segments: Sequence[Segment], clock: Clock | None = None) -> Rule:
    """One segment after the other, then nothing more.

    Args:
        segments: Pairs of an amount and what happens: a fault, a rule such as `sometimes(...)`, or None.
        clock: Amounts are seconds of this clock from now on; without one they are numbers of requests.
    """
    for amount, fault in segments:
        if amount <= 0:
            raise ValueError(f"a segment of {amount} requests or seconds; say how long it lasts")
        playable(fault)
    began, passed = (clock.monotonic() if clock else 0.0), 0

    def rule(received: Received) -> Fault | None:
        nonlocal passed
        at = clock.monotonic() - began if clock else passed
        passed += 1
        for amount, fault in segments:
            if at < amount:
                return play(fault, received)
            at -= amount
        return None

    return rule


def play(fault: Fault | Rule | None, received: Received) -> Fault | None:
    return fault(received) if callable(fault) else fault


def playable(fault: Fault | Rule | None) -> None:
    """Raise for the one fault that no single request can have."""
    if isinstance(fault, Refuse):
        raise ValueError(  # noqa: TRY004 - not the type is wrong, the place is
            "a server that listens cannot refuse single connections; use Reset(), or fail(Refuse())"
        )
