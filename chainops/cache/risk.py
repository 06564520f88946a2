"""How likely the nearest answer is wrong: a logistic model that starts from other domains and yields to own labels.

The shipped prior says what the weights were on public domains in which answers repeat, and how sure they are: they
enter as a normal prior, as if so many labels of other domains had been seen. The level (the constant) is hardly known
beforehand, for domains differ most in that. Own labels move all of it from there.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chainops.cache.evidence import NAMES

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

PESSIMISM = 0.25
"""Standard deviations of the log odds that a risk is raised by: what is not known counts as risk."""
_FARTHEST = 4.0
"""Standard deviations from the centre at which a feature stops counting more."""
_STEPS, _NEAR_ENOUGH = 30, 1e-3


@dataclass(frozen=True, slots=True)
class Prior:
    """Weights before any label of one's own. In units of standardised features, as log odds of being wrong."""

    names: tuple[str, ...]
    centre: tuple[float, ...]
    scale: tuple[float, ...]
    mean: tuple[float, ...]
    """Of the constant, then of each feature."""
    precision: tuple[tuple[float, ...], ...]
    """How sure that is: inverse covariance of the weights, row after row up to the diagonal; the constant first."""
    about: dict[str, Any]
    """Where the numbers come from: data, licences, date, how made."""

    @classmethod
    def of(cls, plain: dict[str, Any]) -> Prior:
        """Read a prior from plain data.

        Raises:
            ValueError: it was made for other features than this version's.
        """
        if tuple(plain["names"]) != NAMES:
            raise ValueError("this prior was made for other features: make it anew with benchmarks/cache_prior.py")
        centre, scale, mean = (tuple(float(n) for n in plain[field]) for field in ("centre", "scale", "mean"))
        precision = tuple(tuple(float(n) for n in row) for row in plain["precision"])
        return cls(NAMES, centre, scale, mean, precision, dict(plain["about"]))

    def matrix(self) -> Array:
        """`precision` as a symmetric matrix, shape (1 + features, 1 + features)."""
        import numpy as np

        lower = np.array([(*row, *(0.0,) * (len(self.precision) - len(row))) for row in self.precision])
        return np.asarray(lower + np.tril(lower, -1).T, dtype=np.float64)


@cache
def shipped() -> Prior:
    """The prior that comes with the package: see `prior.json` for its provenance."""
    return Prior.of(json.loads((Path(__file__).parent / "prior.json").read_text("utf-8")))


class Model:
    """Weights and what is still unknown about them. Never changed once made."""

    def __init__(self, prior: Prior, weights: Array, covariance: Array) -> None:
        import numpy as np

        self.prior, self.weights, self.covariance = prior, weights, covariance
        self._centre, self._scale = np.asarray(prior.centre), np.asarray(prior.scale)

    @classmethod
    def before(cls, prior: Prior) -> Model:
        """The model that has seen no label."""
        import numpy as np

        return cls(prior, np.asarray(prior.mean), np.asarray(np.linalg.inv(prior.matrix()), np.float64))

    def design(self, features: Any) -> Array:
        """Rows of the model: a constant and the standardised features. Shape (n, 1 + features)."""
        import numpy as np

        rows = np.atleast_2d(np.asarray(features, dtype=np.float64))
        scaled = np.clip((rows - self._centre) / self._scale, -_FARTHEST, _FARTHEST)
        return np.hstack([np.ones((len(rows), 1)), scaled])

    def risk(self, values: tuple[float, ...]) -> float:
        """Pessimistic probability that the candidate answer is wrong, 0 to 1."""
        import numpy as np

        # One row: numbers one by one take less than array after array, and a plain loop less than `min` and `max`.
        plain = [1.0]
        for value, at, scale in zip(values, self.prior.centre, self.prior.scale, strict=True):
            scaled = (value - at) / scale
            plain.append(scaled if -_FARTHEST <= scaled <= _FARTHEST else math.copysign(_FARTHEST, scaled))
        row = np.array(plain)
        return _sigmoid(float(row @ self.weights) + PESSIMISM * math.sqrt(float(row @ self.covariance @ row)))

    def parts(self, values: tuple[float, ...]) -> dict[str, float]:
        """What each feature adds to the log odds of being wrong, against a typical value of it."""
        row = self.design(values)[0]
        return dict(zip(self.prior.names, (float(part) for part in (row * self.weights)[1:]), strict=True))


def fit(prior: Prior, features: Array, wrong: Array, weight: Array) -> tuple[Model, Array]:
    """Refit on labels.

    Args:
        features: Shape (n, features), as given.
        wrong: Shape (n,), 1.0 where the candidate was wrong.
        weight: Shape (n,), how much each label counts.

    Returns:
        The model, and for each label the pessimistic risk as it would be without that very label (shape (n,)).

    Source:
        Newton's method on the penalised likelihood; covariance by Laplace's approximation; leaving one out by the
        one-step approximation (Pregibon 1981; Rad and Maleki 2020).
    """
    import numpy as np

    start = Model.before(prior)
    rows, centre = start.design(features), start.weights
    precision = prior.matrix()
    weights, value = centre.copy(), -np.inf

    def objective(at: Array) -> float:
        odds, away = rows @ at, at - centre
        return float(weight @ (wrong * odds - np.logaddexp(0.0, odds)) - 0.5 * away @ precision @ away)

    for _ in range(_STEPS):
        predicted = _sigmoids(rows @ weights)
        spread = weight * predicted * (1.0 - predicted)
        curvature = (rows * spread[:, None]).T @ rows + precision
        gradient = rows.T @ (weight * (wrong - predicted)) - precision @ (weights - centre)
        step = np.linalg.solve(curvature, gradient)
        value = max(value, objective(weights))
        while (after := objective(weights + step)) < value and float(np.abs(step).max()) > _NEAR_ENOUGH:
            step = step / 2  # a full step may overshoot where predictions are extreme
        if after >= value:
            weights, value = weights + step, after
        if float(np.abs(step).max()) <= _NEAR_ENOUGH:
            break
    predicted = _sigmoids(rows @ weights)
    spread = weight * predicted * (1.0 - predicted)
    covariance = np.asarray(np.linalg.inv((rows * spread[:, None]).T @ rows + precision), dtype=np.float64)
    width = ((rows @ covariance) * rows).sum(1)
    left = np.maximum(1.0 - spread * width, 0.05)
    odds = rows @ weights - width * weight * (wrong - predicted) / left
    return Model(prior, weights, covariance), _sigmoids(odds + PESSIMISM * np.sqrt(width / left))


def _sigmoid(odds: float) -> float:
    return 1.0 / (1.0 + math.exp(-odds)) if odds > -700 else 0.0


def _sigmoids(odds: Array) -> Array:
    import numpy as np

    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(odds, -500, 500))))
