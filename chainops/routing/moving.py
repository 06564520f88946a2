"""What routes cost and how long they take, as of late; and choosing by it."""

from __future__ import annotations

import math
import random
import threading
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from chainops.core.errors import InvalidInput
from chainops.routing.records import Asking, Choice


class Moving:
    """Durations of the last calls of one route. A failure counts as one that never ends. Thread-safe.

    Args:
        window: How many calls are remembered.
    """

    def __init__(self, window: int = 100) -> None:
        self._durations: deque[float] = deque(maxlen=window)
        self._lock = threading.Lock()

    def add(self, duration_s: float | None) -> None:
        """Another call; None: it failed. Raises InvalidInput for a duration that is negative or not a number."""
        took = math.inf if duration_s is None else duration_s
        if math.isnan(took) or took < 0:
            raise InvalidInput("duration", repr(duration_s), "seconds from 0")
        with self._lock:
            self._durations.append(took)

    def __len__(self) -> int:
        return len(self._durations)

    def quantile_s(self, q: float) -> float | None:
        """The duration that a share `q` of the calls did not exceed; infinite where too many failed, None for none."""
        with self._lock:
            durations = sorted(self._durations)
        return durations[max(0, math.ceil(q * len(durations)) - 1)] if durations else None


class ByRecord:
    """The cheapest route that is quick enough, or the quickest: by the moving median and p95 of what they took.

    A route nobody knows yet is tried first; later a share of the requests goes to whichever route was tried longest
    ago, so that one that was slow or failing can show that it is better now.

    Args:
        among: The routes.
        by: `cost`: the cheapest of those whose p95 is within `max_s`, else the quickest. `latency`: the least median
            of those whose p95 is within `max_s`, else of all.
        usd: Of a typical call of each route; None or missing: not known, taken to be the dearest.
        max_s: Seconds; None: any.
        explore: The share of requests that try another route, 0..1.
        window: Calls of each route that count.
        seed: For tests.
    """

    is_slow = False

    def __init__(
        self,
        among: Iterable[str],
        *,
        by: Literal["cost", "latency"],
        usd: Mapping[str, float | None] | None = None,
        max_s: float | None = None,
        explore: float = 0.05,
        window: int = 100,
        seed: int | None = None,
    ) -> None:
        self.records = {name: Moving(window) for name in among}
        if not self.records:
            raise InvalidInput("among", "no route", "one at least")
        self.by: str = by
        self.max_s, self.explore = max_s, explore
        self.usd = {name: (usd or {}).get(name) for name in self.records}
        self._random = random.Random(seed)  # noqa: S311 (no secret: a share of the traffic)
        self._turn, self._tried = 0, dict.fromkeys(self.records, 0)
        self._lock = threading.Lock()

    @property
    def names(self) -> Iterable[str]:
        return self.records

    def choose(self, asking: Asking) -> Choice:  # noqa: ARG002
        with self._lock:
            self._turn += 1
            choice = self._unknown() or self._explored() or self._best()
            assert choice.route is not None
            self._tried[choice.route] = self._turn
        return choice

    def _unknown(self) -> Choice | None:
        for name in sorted(self.records, key=self._price):
            if not len(self.records[name]) and not self._tried[name]:
                return Choice(name, "nobody has tried it yet")
        return None

    def _explored(self) -> Choice | None:
        if len(self.records) < 2 or self._random.random() >= self.explore:
            return None
        oldest = min(self._tried, key=self._tried.__getitem__)
        return Choice(oldest, f"{self.explore:.0%} of the requests try the route that was tried longest ago")

    def _best(self) -> Choice:
        quick = [name for name in self.records if self._is_within(name)]
        if self.by == "cost" and quick:
            name = min(quick, key=lambda each: (self._price(each), self._median_s(each)))
            price = self.usd[name]
            cost = "of unknown price" if price is None else f"{price:.6f} USD a call"
            limit = "" if self.max_s is None else f", with a p95 of {self._p95(name)} within {self.max_s:g} s"
            why = f"the cheapest ({cost}){limit}"
        else:
            name = min(quick or self.records, key=self._median_s)
            limit = "no route is" if self.max_s is None else f"no route's p95 is within {self.max_s:g} s: none is"
            rest = "" if quick else f"; {limit} quick enough"
            why = f"the quickest: median {_shown(self._median_s(name))}{rest}"
        others = {each: _finite(self._median_s(each)) for each in self.records if each != name}
        return Choice(name, why, _finite(self._median_s(name)), others)

    def _is_within(self, name: str) -> bool:
        p95_s = self.records[name].quantile_s(0.95)
        if p95_s is None:
            return True
        # One failure in a short record is no reason never to come back; half of them is.
        return self._median_s(name) < math.inf and (self.max_s is None or p95_s <= self.max_s)

    def _median_s(self, name: str) -> float:
        median_s = self.records[name].quantile_s(0.5)
        return 0.0 if median_s is None else median_s

    def _price(self, name: str) -> float:
        usd = self.usd[name]
        return math.inf if usd is None else usd

    def _p95(self, name: str) -> str:
        p95_s = self.records[name].quantile_s(0.95)
        return "no call yet" if p95_s is None else _shown(p95_s)

    def prepare(self, question: str) -> Any:
        """Nothing: the question does not matter."""

    def learn(self, route: str, duration_s: float | None) -> None:
        if route in self.records:  # a default may be another one
            self.records[route].add(duration_s)


def _finite(seconds: float) -> float | None:
    """For JSON, which knows no infinity."""
    return round(seconds, 4) if math.isfinite(seconds) else None


def _shown(seconds: float) -> str:
    return f"{seconds:.2f} s" if math.isfinite(seconds) else "failing"
