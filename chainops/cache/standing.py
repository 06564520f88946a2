"""What audits prove about the answers served: an interval valid at any time, and an alarm when the bound is broken."""

from __future__ import annotations

import math
from dataclasses import dataclass

CONFIDENCE = 0.95
_ALARM = 100.0
"""Wealth at which the alarm sounds. The wealth is kept from falling below 1, so false alarms are rare, not bounded."""


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a judge stands. Rates are shares of the served answers, 0 to 1."""

    bound: float
    audits: int
    wrong: int
    """Of the audits."""
    lower: float
    upper: float
    """Of the error rate, at 95%, valid however often it is looked at."""
    labels: int
    limit: float
    """The highest risk that may be served now; 0 when nothing may."""
    alarms: int
    """How often audits showed that something had changed."""
    why_not: str
    """Why nothing is served; empty when something may be."""

    @property
    def error_rate(self) -> float | None:
        """Wrong among audits; None before the first audit."""
        return self.wrong / self.audits if self.audits else None

    @property
    def certified(self) -> bool:
        """Whether audits alone prove the bound."""
        return self.upper <= self.bound

    def __str__(self) -> str:
        word = "certified" if self.certified else "not yet certified"
        if not self.audits:
            found = f"no audits yet, {self.labels} labels"
        else:
            found = f"{self.wrong} of {self.audits} audited answers wrong ({self.lower:.2%} to {self.upper:.2%} at 95%)"
        return f"bound {self.bound:.2%}, {word}: {found}" + (
            f"; serves nothing: {self.why_not}" if self.why_not else ""
        )


def interval(wrong: int, audits: int, *, expected: float) -> tuple[float, float]:
    """Confidence sequence for an error rate: holds at all times together with 95%.

    Args:
        expected: The rate near which the interval should be narrowest, 0 to 1.

    Source:
        Mixture likelihood ratio (Robbins 1970): rates whose likelihood is not 20 times smaller than that of a Beta
        mixture. The mixture's centre is half the expected rate, so that proof comes soonest where the bound is kept.
    """
    if audits == 0:
        return 0.0, 1.0
    right = audits - wrong
    a = 0.5
    b = min(max(a / max(expected / 2, 1e-4), 0.5), 5000.0)
    mixture = _log_beta(a + wrong, b + right) - _log_beta(a, b)
    threshold = mixture - math.log(1.0 / (1.0 - CONFIDENCE))

    def inside(rate: float) -> bool:
        errors = wrong * math.log(rate) if wrong else 0.0
        return errors + (right * math.log1p(-rate) if right else 0.0) >= threshold

    peak = wrong / audits
    lower = _edge(inside, peak, 0.0) if wrong else 0.0
    upper = _edge(inside, peak, 1.0) if right else 1.0
    return lower, upper


def _edge(inside: object, start: float, end: float) -> float:
    assert callable(inside)
    near, far = start, end
    for _ in range(60):
        middle = (near + far) / 2
        if 0.0 < middle < 1.0 and inside(middle):
            near = middle
        else:
            far = middle
    return far


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


class Alarm:
    """Listens to audits and tells when errors come faster than the bound allows.

    A betting process (each audit stakes part of the wealth on "wrong"), never below 1, so that a good past cannot hide
    a bad present.
    """

    def __init__(self, bound: float) -> None:
        self.count = 0
        self._wealth = 1.0
        self._bound = bound
        self._stake = 0.0 if bound >= 1 else min(0.5 / max(bound, 1e-6), 10.0)

    def hears(self, *, wrong: bool) -> bool:
        """Take in one audit; whether the alarm sounds. After it, listening begins anew."""
        self._wealth = max(1.0, self._wealth) * (1.0 + self._stake * (float(wrong) - self._bound))
        if self._wealth < _ALARM:
            return False
        self.count += 1
        self._wealth = 1.0
        return True
