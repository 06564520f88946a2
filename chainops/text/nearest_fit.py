"""Learning to which group of examples a text belongs: the fit behind `nearest.py`, judged on the examples alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from chainops.core.errors import InvalidInput
from chainops.text.nearest import SHORTLIST, Nearest

if TYPE_CHECKING:
    import numpy as np

WEIGHTS = (0.0, 5.0, 10.0, 20.0, 40.0)
"""Of a cosine similarity beside a logit: what cross-validation chooses from."""
_SCALE, _NOISE, _DECAY, _RATE, _BATCH = 20.0, 0.5, 0.01, 5e-3, 256
"""Of the head's fit, chosen by cross-validation on BANKING77's training rows: unit vectors are scaled, blurred by
normal noise anew at each step (that regularises more than weight decay does), and seen in batches."""
_STRENGTH = 20
"""Examples a group needs for its own threshold to count as much as everybody's."""


@dataclass(frozen=True, slots=True)
class Validation:
    """How well a fit does on examples it was not fitted on."""

    folds: int
    accuracy: float
    """Share of examples whose own group came first, thresholds aside."""
    false_rejects: float
    """Share of examples that the thresholds would have turned away."""
    by_group: dict[str, tuple[int, float, float]]
    """Examples, accuracy and false rejects of each group."""
    confusions: tuple[tuple[str, str, int], ...]
    """What was taken for what, and how often; the most frequent first."""
    none_recall: float | None
    """Share of the examples of no group that were turned away; None without such examples."""


def fit(
    vectors: np.ndarray, groups: Sequence[str | None], *, false_rejects: float = 0.025, seed: int = 0
) -> tuple[Nearest, Validation]:
    """Learn from examples; the same examples always give the same fit.

    Works from one example per group; from about five each on the thresholds mean something. 15,000 examples of 150
    groups take some seconds per fold on one core.

    Args:
        vectors: Shape (n, d), rows of unit length.
        groups: The group of each row; None: an example of what belongs to none of them.
        false_rejects: The share of texts that do belong to a group and may be turned away all the same.

    Raises:
        InvalidInput: Fewer than two groups, shapes that do not fit, numbers that are not finite.
    """
    import numpy as np

    rows = np.asarray(vectors, dtype=np.float32)
    if rows.ndim != 2 or len(rows) != len(groups):
        raise InvalidInput("vectors", f"shape {rows.shape}", f"one row for each of {len(groups)} examples")
    if not np.isfinite(rows).all():
        raise InvalidInput("vectors", "a number that is not finite", "finite numbers")
    names = sorted({each for each in groups if each is not None})
    if "" in names:
        raise InvalidInput("groups", "one without a name", "names, or None for examples of no group")
    if None in groups:
        names.append("")
    if len(names) < 2:
        raise InvalidInput("examples", f"{len(names)} group", "examples of two groups at least")
    index = {name: at for at, name in enumerate(names)}
    y = np.array([index[each or ""] for each in groups])
    order = np.argsort(y, kind="stable")
    starts = np.searchsorted(y[order], np.arange(len(names) + 1))
    folds, logits, similar = _left_out(rows, y, len(names), seed)
    is_judged = folds >= 0
    weight, scores = _weighed(logits[is_judged], similar[is_judged], y[is_judged])
    thresholds = _thresholds(scores, y[is_judged], names, false_rejects)
    head, bias = _head(rows, y, len(names), seed)
    fitted = Nearest(names, rows[order], order, starts, head, bias, thresholds, weight)
    return fitted, _validation(scores, y[is_judged], names, thresholds, int(folds.max()) + 1)


def _left_out(rows: np.ndarray, y: np.ndarray, count: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What each example would have got, had it not been one: fold (-1: the only one of its group), logits, and the
    similarity to the nearest other example of each group.
    """
    import numpy as np

    sizes = np.bincount(y, minlength=count)
    parts = 10 if len(rows) < 500 else 5 if len(rows) < 5_000 else 3
    parts = int(min(parts, max(2, sizes.max())))
    random = np.random.default_rng(seed)
    folds = np.empty(len(y), dtype=np.int64)
    for group in range(count):
        mine = random.permutation(np.flatnonzero(y == group))
        folds[mine] = np.arange(len(mine)) % parts if len(mine) > 1 else -1
    logits = np.zeros((len(rows), count), dtype=np.float32)
    similar = np.full((len(rows), count), -1.0, dtype=np.float32)
    for part in range(parts):
        out = np.flatnonzero(folds == part)
        if not len(out):
            continue
        kept = np.flatnonzero(folds != part)
        head, bias = _head(rows[kept], y[kept], count, seed)
        logits[out] = rows[out] @ head + bias
        kept = kept[np.argsort(y[kept], kind="stable")]
        starts = np.searchsorted(y[kept], np.arange(count))
        for at in range(0, len(out), 1024):
            some = out[at : at + 1024]
            similar[some] = np.maximum.reduceat(rows[some] @ rows[kept].T, starts, axis=1)
    return folds, logits, similar


def _weighed(logits: np.ndarray, similar: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray]:
    """The weight of similarity that puts most examples into their own group, and the scores it gives."""
    import numpy as np

    if not len(y):
        return WEIGHTS[2], np.zeros((0, logits.shape[1]), dtype=np.float32)
    least = np.partition(logits, -min(SHORTLIST, logits.shape[1]), axis=1)[:, -min(SHORTLIST, logits.shape[1])]
    outside = logits < least[:, None]
    best, right, chosen = WEIGHTS[0], -1, logits
    for weight in WEIGHTS:
        scores = np.where(outside, -np.inf, logits + weight * similar)
        if (now := int((scores.argmax(axis=1) == y).sum())) > right:
            best, right, chosen = weight, now, scores
    return best, chosen


def _thresholds(scores: np.ndarray, y: np.ndarray, names: Sequence[str], false_rejects: float) -> np.ndarray:
    """For each group the score from which a text belongs to it.

    Each group's own quantile of its examples' best scores, drawn towards the common one the fewer examples it has;
    then all are moved together until the share asked for is turned away.
    """
    import numpy as np

    thresholds = np.full(len(names), -np.inf, dtype=np.float64)
    ours = np.array([bool(name) for name in names])
    inside = ours[y] if len(y) else np.zeros(0, dtype=bool)
    if not inside.any():
        return thresholds
    best, taken = scores.max(axis=1)[inside], scores.argmax(axis=1)[inside]
    common = float(np.quantile(best, false_rejects, method="lower"))
    for group in range(len(names)):
        mine = best[taken == group]
        own = float(np.quantile(mine, false_rejects, method="lower")) if len(mine) else common
        share = len(mine) / (len(mine) + _STRENGTH)
        thresholds[group] = share * own + (1 - share) * common
    above = best - thresholds[taken]
    return thresholds + min(0.0, float(np.quantile(above, false_rejects, method="lower")))


def _validation(
    scores: np.ndarray, y: np.ndarray, names: Sequence[str], thresholds: np.ndarray, folds: int
) -> Validation:
    import numpy as np

    if not len(y):
        return Validation(0, float("nan"), float("nan"), {}, (), None)
    taken = scores.argmax(axis=1)
    is_none = (np.array([not name for name in names])[taken]) | (scores.max(axis=1) < thresholds[taken])
    inside = np.array([bool(name) for name in names])[y]
    is_any = bool(inside.any())  # not where each group has one example
    by_group: dict[str, tuple[int, float, float]] = {}
    for group, name in enumerate(names):
        mine = y == group
        if name and mine.any():
            by_group[name] = (int(mine.sum()), float((taken[mine] == group).mean()), float(is_none[mine].mean()))
    pairs: dict[tuple[str, str], int] = {}
    for was, now in zip(y[inside & (taken != y)].tolist(), taken[inside & (taken != y)].tolist(), strict=True):
        pair = (names[was], names[now])
        pairs[pair] = pairs.get(pair, 0) + 1
    confusions = tuple((a, b, n) for (a, b), n in sorted(pairs.items(), key=lambda each: -each[1]))
    return Validation(
        folds,
        float((taken == y)[inside].mean()) if is_any else float("nan"),
        float(is_none[inside].mean()) if is_any else float("nan"),
        by_group,
        confusions,
        float(is_none[~inside].mean()) if (~inside).any() else None,
    )


def _head(rows: np.ndarray, y: np.ndarray, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Softmax regression by Adam with decoupled weight decay, on inputs blurred anew at each step.

    Source:
        Adam: Kingma & Ba 2015; weight decay: Loshchilov & Hutter 2019; noise as Tikhonov regularisation: Bishop 1995.
    """
    import numpy as np

    random = np.random.default_rng(seed)
    size, batch = len(rows), min(_BATCH, len(rows))
    steps = max(300, 20 * size // batch)
    weights = np.zeros((rows.shape[1] + 1, count), dtype=np.float32)
    m, v = np.zeros_like(weights), np.zeros_like(weights)
    order, at = random.permutation(size), 0
    for step in range(1, steps + 1):
        if at + batch > size:
            order, at = random.permutation(size), 0
        some = order[at : at + batch]
        at += batch
        noise = random.standard_normal((len(some), rows.shape[1]), dtype=np.float32)
        seen = rows[some] * np.float32(_SCALE) + noise * np.float32(_NOISE)
        wrong = seen @ weights[:-1] + weights[-1]
        wrong -= wrong.max(axis=1, keepdims=True)
        np.exp(wrong, out=wrong)
        wrong /= wrong.sum(axis=1, keepdims=True)
        wrong[np.arange(len(some)), y[some]] -= 1
        wrong /= np.float32(len(some))
        gradient = np.concatenate([seen.T @ wrong, wrong.sum(axis=0, keepdims=True)])
        m += np.float32(0.1) * (gradient - m)
        v += np.float32(0.001) * (gradient * gradient - v)
        rate = _RATE * min(1.0, 10 * step / steps, (steps - step + 1) / (0.9 * steps))
        weights *= np.float32(1 - rate * _DECAY)
        weights -= (
            np.float32(rate / (1 - 0.9**step)) * m / (np.sqrt(v / np.float32(1 - 0.999**step)) + np.float32(1e-8))
        )
    return weights[:-1] * np.float32(_SCALE), weights[-1]
