"""Divide users between routes in fixed shares: an A/B test."""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from chainops.core.errors import InvalidInput
from chainops.routing.records import Asking, Choice

_WHOLE = 2**64


class Weight:
    """The same user always gets the same route, in every process, until the weights change.

    The place of a user between 0 and 1 is a hash of the experiment's name and the user; routes take their shares in
    the order given. When a share grows at the border of two routes, only the users at that border move. Without a user
    (or session) each request is divided by chance.

    Args:
        weights: By route; any positive numbers, of which the shares are taken.
        experiment: Other names divide the same users independently.
        per: What stays together.

    Raises:
        InvalidInput: No weight, or one that is negative or not finite.
    """

    by = "weight"
    is_slow = False

    def __init__(
        self, weights: Mapping[str, float], *, experiment: str, per: Literal["user", "session"] = "user"
    ) -> None:
        if not weights or not all(math.isfinite(each) and each >= 0 for each in weights.values()):
            raise InvalidInput("weights", repr(dict(weights)), "a number from 0 for each route")
        total = math.fsum(weights.values())
        if total <= 0:
            raise InvalidInput("weights", "nothing but zeros", "at least one above 0")
        self.shares = {route: each / total for route, each in weights.items()}
        self.experiment, self.per = experiment, per

    @property
    def names(self) -> Iterable[str]:
        return self.shares

    def choose(self, asking: Asking) -> Choice:
        who = asking.caller.user if self.per == "user" else asking.caller.session
        by_chance = random.random  # no secret: a share of the traffic
        place = by_chance() if who is None else place_of(self.experiment, who, asking.caller.tenant)
        route = self._at(place)
        how = f"by chance: the request names no {self.per}" if who is None else f"the {self.per}'s fixed place"
        why = f"{self.shares[route]:.0%} of {self.experiment} go here; {how}"
        return Choice(route, why, facts={"experiment": self.experiment, "is_sticky": who is not None})

    def _at(self, place: float) -> str:
        upto = 0.0
        for route, share in self.shares.items():
            upto += share
            if place < upto:
                return route
        return next(route for route in reversed(self.shares) if self.shares[route] > 0)  # rounding, at the very end

    def prepare(self, question: str) -> Any:
        """Nothing: the question does not matter."""

    def learn(self, route: str, duration_s: float | None) -> None:
        """Nothing: the shares are fixed."""


def place_of(experiment: str, who: str, tenant: str | None = None) -> float:
    """Where somebody stands in an experiment, from 0 to below 1; evenly spread over many."""
    told = "\0".join((experiment, tenant or "", who)).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.sha256(told).digest()[:8]) / _WHOLE * (1 - 2**-53)
