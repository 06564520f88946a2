"""Differences that usually decide an answer: another number, date, name, code, direction, or a "not" on one side.

Embeddings hardly see them, and the shipped prior cannot know whether they matter here: they do where products have
numbers, and not where people only mention what they paid. So nothing is served across such a difference until labels
of this very cache show that its kind does not matter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from chainops.cache.evidence import NAMES

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

KINDS = ("numbers", "negation", "times", "names", "identifiers", "opposed")
"""Features that count what stands on one side only."""
ENOUGH = 20
"""Labels with a difference, of a risk that would be served, from which its kind is judged."""
_COLUMNS = tuple(NAMES.index(kind) for kind in KINDS)


def differing(values: tuple[float, ...]) -> tuple[str, ...]:
    """The kinds of fact that only one of the two questions has."""
    return tuple(kind for kind, column in zip(KINDS, _COLUMNS, strict=True) if values[column] > 0)


def closed(features: Array, wrong: Array, counts: Array, may_serve: NDArray[np.bool_], most: float) -> frozenset[str]:
    """The kinds of difference across which nothing may be served.

    Args:
        features: Shape (n, features), one row for each label.
        wrong: Shape (n,), a label's weight where it was wrong, else 0.
        counts: Shape (n,), its weight.
        may_serve: Shape (n,), whether its risk would let it be served.
        most: The highest risk that may be served: with more wrong answers than that, a difference matters.
    """
    found = set()
    for kind, column in zip(KINDS, _COLUMNS, strict=True):
        here = may_serve & (features[:, column] > 0)
        if here.sum() < ENOUGH or wrong[here].sum() > most * counts[here].sum():
            found.add(kind)
    return frozenset(found)


def across(columns: Array, kinds: frozenset[str]) -> NDArray[np.bool_]:
    """Which rows differ in one of these kinds. `columns`: shape (n, features); gives shape (n,)."""
    import numpy as np

    chosen = [column for kind, column in zip(KINDS, _COLUMNS, strict=True) if kind in kinds]
    return np.asarray((columns[:, chosen] > 0).any(axis=1))


def told(kinds: frozenset[str]) -> str:
    """The reason for not serving, in plain words."""
    named = ", ".join(kind for kind in KINDS if kind in kinds)
    return f"the questions differ in {named}, and too few labels show that this does not matter here"
