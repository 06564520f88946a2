"""Permits that belong to this process alone."""

from __future__ import annotations

from collections.abc import Mapping

from chainops.resilience.limits.policy import WINDOW_S, Needs, Window
from chainops.resilience.limits.records import Part


class OwnAccount:
    """The whole limit, counted here. An `Account` (see `records.py`)."""

    def __init__(self, limits: Mapping[str, int], window_s: float = WINDOW_S) -> None:
        self.limits = limits
        self._windows = {name: Window(limit, window_s) for name, limit in limits.items() if name != "seats"}
        self._seats: int | None = limits.get("seats")
        self.sitting = 0

    def take(self, needs: Needs, now: float) -> list[Part] | None:
        for name, amount in needs.items():
            if name == "seats":
                if self._seats is not None and self.sitting + amount > self._seats:
                    return None
            elif name in self._windows and amount > self._windows[name].free(now):
                return None
        parts = []
        for name, amount in needs.items():
            if name == "seats":
                self.sitting += amount
            elif (window := self._windows.get(name)) is not None:
                parts.append(Part(name, window.add(amount, now), amount))
        return parts

    def correct(self, parts: list[Part], used: Needs, now: float) -> None:
        for name, amount in used.items():
            if (window := self._windows.get(name)) is None:
                continue
            surplus = amount - sum(part.amount for part in parts if part.name == name)
            if surplus > 0:
                window.add(surplus, now)  # from now on: so it lapses no sooner than it was used
            for part in parts:
                if part.name == name and surplus < 0:
                    unused = min(part.amount, -surplus)
                    window.give_back(unused, part.slot)
                    surplus += unused

    def stand_up(self, now: float) -> None:  # noqa: ARG002 (as leased ones need it)
        self.sitting = max(0, self.sitting - 1)

    def wait_s(self, needs: Needs, now: float) -> float:
        waits = [self._windows[name].wait_s(amount, now) for name, amount in needs.items() if name in self._windows]
        return max(waits, default=0.0)

    def used(self, now: float) -> dict[str, int]:
        told = {name: window.used(now) for name, window in self._windows.items()}
        return told | ({} if self._seats is None else {"seats": self.sitting})

    def in_child(self) -> None:
        self.sitting = 0
