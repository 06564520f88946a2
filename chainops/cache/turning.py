"""What would have to be otherwise for a request to be decided the other way: one feature at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from chainops.cache.evidence import COUNTS, NAMES, RANGES

_STEP, _STEPS = 0.1, 40
"""Of a feature's spread, and how many of them are tried to each side."""


def turning_points(
    serves: Callable[[tuple[float, ...]], bool], values: tuple[float, ...], spread: Sequence[float]
) -> Iterable[str]:
    """For each feature: the possible value nearest to its own at which the decision turns, if there is one.

    Args:
        serves: Decides on a full set of features.
        values: Those of the request, in the order of `NAMES`.
        spread: A typical difference of each feature.
    """
    is_served = serves(values)
    for at, name in enumerate(NAMES):
        for value in _others(name, values[at], _STEP * spread[at]):
            if serves((*values[:at], value, *values[at + 1 :])) != is_served:
                yield f"{name} {value:.3g} instead of {values[at]:.3g}"
                break


def _others(name: str, own: float, step: float) -> Iterable[float]:
    """What a feature may be instead, nearest first. Counts are whole numbers."""
    low, high = RANGES[name]
    if name in COUNTS:
        yield from sorted((float(n) for n in range(int(low), int(high) + 1) if n != own), key=lambda n: abs(n - own))
        return
    for away in range(1, _STEPS + 1):
        for value in (own + away * step, own - away * step):
            if low <= value <= high:
                yield value
