"""The largest risk that may be served so that the error of everything served keeps a bound."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

MARGIN = 0.95
"""Share of the bound that the limit is set for."""
UNSEEN = 0.0005
"""Share of errors that may be there although no label has shown them: keeps small bounds from resting on luck."""
OVERDRAFT = 1.5
"""What past serving left of the bound may be used later, up to this many times the bound at once."""
SURE = 0.5
"""How sure the upper bound of the error is, as a quantile of the normal distribution: 0.5 is 69%."""
TRUST = 8.0
"""What the model's calibration is worth before own labels: as if so many errors had been predicted and seen."""
STRANGE = 3.0
"""A domain may be unlike any the prior knows: as likely as not, before own labels. There an answer is wrong at a rate
that predictions say nothing about, once in so many before own labels."""
SEEN = 1.0
"""Standard deviations by which the errors seen in such a domain count as more than they are."""
_DOUBT = 0.5
"""Standard deviations by which a surprise in the latest labels is taken to be chance."""
AROUND = 4.0
"""The calibration at a limit is read from labels of up to this many times its risk: below it there are hardly any
errors to count, and the luckiest of many noisy limits would be chosen."""
_KNOWN_AFTER = 20
"""Audits after which what was served so far is counted."""


@dataclass(frozen=True, slots=True)
class Labels:
    """Columns, one row for each label kept."""

    risk: Array
    """Predicted without the label itself."""
    wrong: Array
    """Its weight where it was wrong, else 0."""
    counts: Array
    """Its weight as a trial; 0 for a report, which is no random draw."""
    stands_for: Array
    """How many requests it stands for, 0 for a report."""
    mass: Array
    """The same, recent ones counting more: the mix of requests shifts as the cache fills."""
    is_audit: Array
    lately: Array
    """Near 1 for the latest labels, soon less."""

    def only(self, chosen: NDArray[np.bool_]) -> Labels:
        """Some of the rows. `chosen`: shape (n,)."""
        return Labels(*(getattr(self, field.name)[chosen] for field in fields(self)))


@dataclass(frozen=True, slots=True)
class Limit:
    """What may be served."""

    risk: float
    """The highest predicted risk; 0 when nothing may be served."""
    factor: float
    """Observed errors over predicted ones about it."""
    upper: float
    """That factor, bounded from above."""


NOTHING = Limit(0.0, 1.0, 1.0)


def limit_for(labels: Labels, bound: float) -> Limit:
    """The limit that keeps `bound` (0 to 1), with what earlier serving left of it."""
    import numpy as np

    bound *= MARGIN / surprise(labels)
    first = _largest(labels, bound)
    served = labels.stands_for * labels.is_audit
    if first.risk <= 0.0 or np.count_nonzero(served) < _KNOWN_AFTER:
        return first
    spent = float(first.upper * (served * labels.risk).sum() / served.sum())
    known = first.factor / first.upper  # near 1 where many errors were seen, so that the past is known well
    most = bound * (1.0 + (OVERDRAFT - 1.0) * known**2)
    return _largest(labels, min(most, bound + max(0.0, bound - spent)))


def surprise(labels: Labels) -> float:
    """How many times more errors than predicted the latest labels hold, bounded from below; at least 1.

    Misses tell first when requests of a new kind arrive: served ones among them are wrong, too, but seldom audited.
    """
    import numpy as np

    near = labels.lately * (labels.risk < 0.5)
    seen, expected = float((near * (labels.wrong > 0)).sum()), float((near * labels.risk).sum())
    return max(1.0, (1.0 + seen - _DOUBT * float(np.sqrt(seen))) / (1.0 + expected))


def _largest(labels: Labels, bound: float) -> Limit:
    """The largest risk whose region below keeps the bound, and observed over expected errors there: mean and upper.

    The error below a candidate limit is read in two ways, each weighed by how likely it makes the labels below:

    - Predictions hold, but for a factor: the mean predicted risk of the requests below it (by `mass`), times how far
      the labels about it (up to `AROUND` times its risk) say that predictions are off. That factor has a Gamma
      distribution, as for errors that come at a rate proportional to the prediction; its upper limit is a normal
      approximation.
    - The domain is strange, and only the labels below the limit count, as trials.
    """
    import numpy as np

    order = np.argsort(labels.risk, kind="stable")
    risk, counts, mass = labels.risk[order], labels.counts[order], labels.mass[order]
    wrong, expected, tried = np.cumsum(labels.wrong[order]), np.cumsum(counts * risk), np.cumsum(counts)
    limits = slice(0, int(np.searchsorted(risk, 0.5)))
    about = np.searchsorted(risk, AROUND * risk[limits], side="right") - 1
    shape, rate = TRUST + wrong[about], TRUST + expected[about]
    upper = (shape + SURE * np.sqrt(shape)) / rate
    mean = (np.cumsum(mass * risk) / np.maximum(np.cumsum(mass), 1e-9))[limits]
    wrong, expected, tried = wrong[limits], expected[limits], tried[limits]
    blind = np.minimum(1.0, (wrong + 1.0 + SEEN * np.sqrt(wrong)) / (tried + STRANGE))
    strange = _strange(wrong, expected, tried)
    error = (1.0 - strange) * mean * upper + strange * np.maximum(blind, mean * upper)
    fits = np.flatnonzero(error + UNSEEN <= bound)
    if bound <= 0.0 or len(fits) == 0:
        return NOTHING
    last = int(fits[-1])
    return Limit(float(risk[last]), float(shape[last] / rate[last]), float(upper[last]))


def _strange(wrong: Array, expected: Array, tried: Array) -> Array:
    """How likely the domain is strange, 0 to 1, by the labels below each of some limits. All of shape (limits,).

    Errors are Poisson: at a Gamma(TRUST, TRUST) times the predicted number where the domain is like others, else at an
    exponential rate of mean 1/STRANGE for each trial. Both rates are integrated out; even odds beforehand.
    """
    import numpy as np

    predicted, trials = np.maximum(expected, 1e-12), np.maximum(tried, 1e-12)
    ways = np.array([math.lgamma(TRUST + each) - math.lgamma(1.0 + each) for each in wrong.tolist()])
    like = TRUST * math.log(TRUST) - math.lgamma(TRUST) + ways
    like = like + wrong * np.log(predicted) - (TRUST + wrong) * np.log(TRUST + predicted)
    unlike = math.log(STRANGE) + wrong * np.log(trials) - (wrong + 1.0) * np.log(STRANGE + trials)
    return np.asarray(1.0 / (1.0 + np.exp(np.clip(like - unlike, -500.0, 500.0))))
