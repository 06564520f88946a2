"""To which of several groups of examples a text belongs, or to none of them.

Two views of a text's vector are added up: a linear head (softmax regression: what tells the groups apart) and the
most similar example of each group the head finds likely (what it looks like). A sum below the group's threshold means
none of them. The weight of the second view and the thresholds are fitted by cross-validation on the examples alone.

What is kept are plain numbers, and no code runs when they are read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from chainops.core.errors import InvalidInput

if TYPE_CHECKING:
    import numpy as np

SHORTLIST = 8
"""Groups whose examples are looked at, the likeliest by the linear head: with 150 groups of 100 the others' examples
would take longer to read than everything else."""


@dataclass(frozen=True, slots=True)
class Likeness:
    """How much a text is like one group."""

    group: str
    score: float
    """Logit of the head plus weighted cosine. Comparable within one fit only."""
    threshold: float
    example: int
    """Row of the most similar example."""
    similarity: float
    """Its cosine, in -1..1."""

    @property
    def is_enough(self) -> bool:
        return self.score >= self.threshold


@dataclass(frozen=True, slots=True)
class Decision:
    """What a text belongs to."""

    group: str | None
    """None: to no group."""
    likest: tuple[Likeness, ...]
    """Best first, whether enough or not; at most `SHORTLIST`."""


class Nearest:
    """A fitted classifier. Immutable; any number of threads may share one. Made by `nearest_fit.fit`, or `of_arrays`.

    Args:
        groups: Names; the last one is "" where there were examples of no group.
        examples: Shape (n, d), float32, unit rows, those of one group together and in the order of the groups.
        rows: Shape (n,), the place of each in the list that was fitted.
        starts: Shape (len(groups) + 1,), where each group's examples begin.
        head, bias: Shape (d, len(groups)) and (len(groups),), float32: the linear head.
        thresholds: Shape (len(groups),).
        weight: Of the similarity to the nearest example.
    """

    def __init__(
        self,
        groups: Sequence[str],
        examples: np.ndarray,
        rows: np.ndarray,
        starts: np.ndarray,
        head: np.ndarray,
        bias: np.ndarray,
        thresholds: np.ndarray,
        weight: float,
    ) -> None:
        self.groups, self.weight = tuple(groups), float(weight)
        self.examples, self.rows, self.head, self.bias = examples, rows, head, bias
        self.thresholds = thresholds
        self.starts = starts
        self._bounds = [int(each) for each in starts]

    def decide(self, vector: np.ndarray) -> Decision:
        """To which group a text belongs.

        Args:
            vector: Shape (d,), unit length.

        Raises:
            InvalidInput: Another shape, or a number that is not finite.
        """
        import numpy as np

        row = np.asarray(vector, dtype=np.float32).reshape(-1)
        if row.shape[0] != self.head.shape[0]:
            raise InvalidInput("vector", f"{row.shape[0]} numbers", f"{self.head.shape[0]}, as the examples have")
        if not np.isfinite(row).all():
            raise InvalidInput("vector", "a number that is not finite", "finite numbers")
        logits = row @ self.head + self.bias
        likest = logits.argsort()[: -SHORTLIST - 1 : -1]
        found = []
        for group in likest.tolist():
            start, end = self._bounds[group], self._bounds[group + 1]
            similar = self.examples[start:end] @ row
            at = int(similar.argmax())
            similarity = float(similar[at])
            score = float(logits[group]) + self.weight * similarity
            threshold = float(self.thresholds[group])
            found.append(Likeness(self.groups[group], score, threshold, int(self.rows[start + at]), similarity))
        found.sort(key=lambda each: -each.score)
        best = found[0]
        return Decision(best.group if best.group and best.is_enough else None, tuple(found))

    def arrays(self) -> dict[str, Any]:
        """Everything as arrays of numbers and plain strings, for `numpy.savez`."""
        import numpy as np

        kept = ("examples", "rows", "starts", "head", "bias", "thresholds")
        return {name: getattr(self, name) for name in kept} | {
            "groups": np.array(self.groups),
            "weight": np.array(self.weight),
        }

    @classmethod
    def of_arrays(cls, arrays: Any) -> Nearest:
        """What `arrays` gave. Raises KeyError or ValueError for anything else."""
        given = {name: arrays[name] for name in ("examples", "rows", "starts", "head", "bias", "thresholds")}
        groups = [str(each) for each in arrays["groups"]]
        size = (given["examples"].shape[1], len(groups))
        if given["head"].shape != size or len(given["starts"]) != len(groups) + 1:
            raise ValueError("arrays of different sizes")
        return cls(groups=groups, weight=float(arrays["weight"]), **given)
