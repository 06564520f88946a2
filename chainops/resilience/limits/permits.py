"""What a call takes from a limit, and how long calls may wait for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from chainops.resilience.limits.policy import Needs
from chainops.resilience.limits.records import Part

if TYPE_CHECKING:
    from chainops.resilience.limits.pool import Pool

_LEVELS = 20
"""From the lowest priority to the highest."""


@dataclass(frozen=True, slots=True)
class Queue:
    """How long, and how many, may wait."""

    most: int = 100
    wait_s: float = 10.0

    @property
    def ageing_s(self) -> float:
        """With every so many seconds a waiter counts as one level more urgent: even the least urgent is among the
        most urgent ones after half the longest wait.
        """
        return self.wait_s / 2 / _LEVELS


class Permit:
    """What one call has taken. Close it once; again is harmless."""

    __slots__ = ("_born", "_is_open", "_parts", "_pool", "_since", "needs")

    def __init__(self, pool: Pool, parts: list[Part], needs: Needs, now: float) -> None:
        self._pool, self._parts, self.needs, self._since = pool, parts, needs, now
        self._is_open, self._born = True, pool.born

    def cancel(self, now: float) -> None:
        """The call was not made: nothing of it counts."""
        self.close(now, used=dict.fromkeys(self.needs, 0))

    def close(self, now: float, *, used: Needs | None = None) -> None:
        """The call is over.

        Args:
            used: What it really used. What is not named there counts as it was taken.
        """
        pool = self._pool
        with pool.lock:
            if not self._is_open or self._born != pool.born:
                return
            self._is_open = False
            pool.open -= 1
            if used:
                pool.account.correct(self._parts, used, now)
            if "seats" in self.needs:
                pool.account.stand_up(now)
                pool.note_duration(now - self._since)
            pool.pump(now)
