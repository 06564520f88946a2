"""What changes where questions come in bursts: many about one thing, then many about the next.

There the right neighbours are the newest entries. But the first question of a new burst is near to entries of the last
one, all in agreement; served wrongly, it stores nothing, and all that follow are served wrongly, too, until an audit.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from chainops.cache.evidence import NAMES, NEIGHBOURS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

NEW = math.log1p(32)
"""Age up to which a neighbour is new. In unsorted traffic few are, once some hundred are stored."""
AUDITS = 0.003
"""Share audited next to new neighbours, times the bound: the smaller that is, the sooner a wrong run has to end."""
MOST_AUDITS = 0.25
CAUTION = 0.8
"""Share of the bound that is held back where all neighbours are new, beyond what chance makes new: runs of errors are
fewer than the errors."""
_AGE, _OLDEST = NAMES.index("age"), NAMES.index("age_oldest")


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
    import numpy as np

    share = mass / max(float(mass.sum()), 1e-9)
    # The oldest of 16 neighbours tells how many entries there are: of few, many are new in any order.
    entries = np.expm1(features[:, _OLDEST]) * (NEIGHBOURS + 1) / NEIGHBOURS + 1.0
    by_chance = float(share @ np.minimum(1.0, (math.expm1(NEW) + 1.0) / entries))
    new = float(share @ (features[:, _AGE] <= NEW))
    return bound * (1.0 - CAUTION * max(0.0, new - by_chance) / max(1.0 - by_chance, 1e-3))
