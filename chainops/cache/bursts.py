"""What changes where questions come in bursts: many about one thing, then many about the next.

There the right neighbours are the newest entries. But the first question of a new burst is near to entries of the last
one, all in agreement; served wrongly, it stores nothing, and all that follow are served wrongly, too, until an audit.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from chainops.cache.evidence import NAMES

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

NEW = math.log1p(32)
"""Age up to which a neighbour is new. In unsorted traffic few are, once some hundred are stored."""
AUDITS = 0.002
"""Share audited next to new neighbours, times the bound: the smaller that is, the sooner a wrong run has to end."""
MOST_AUDITS = 0.25
CAUTION = 0.6
"""Share of the bound that is held back where all neighbours are new: runs of errors are fewer than the errors."""
_AGE = NAMES.index("age")


def audit_share(rate: float, values: tuple[float, ...], bound: float) -> float:
    """Share of requests like this one that are audited when served.

    Args:
        rate: What others are audited at, 0 to 1.
        values: `Evidence.values`.
        bound: Of the error, 0 to 1.
    """
    return max(rate, min(MOST_AUDITS, AUDITS / max(bound, 1e-6))) if values[_AGE] <= NEW else rate


def allowed(bound: float, features: Array, mass: Array) -> float:
    """What of the bound may be used in this traffic.

    Args:
        features: Shape (n, features), one row for each label.
        mass: Shape (n,), how many requests each stands for.
    """
    bursts = float(mass @ (features[:, _AGE] <= NEW)) / max(float(mass.sum()), 1e-9)
    return bound * (1.0 - CAUTION * bursts)
