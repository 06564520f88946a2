"""Whether a neighbour's answer may be served, so that of the answers served at most a stated share is wrong.

How it decides. A logistic model (`cache/risk.py`) says how likely the candidate is wrong. It begins as if it had seen
some hundred labels of public domains in which answers repeat, with the level left open, and labels from this cache
(fresh answers of misses compared with the candidate's, audited hits, people's verdicts) keep correcting it. Most labels
are misses, which are the risky requests, so an audit counts for up to ten of the requests it was drawn from. A request
is served when its risk is at most `limit` (`cache/bound.py`): the largest for which the error of *everything* below it
is within the bound: as predicted, times how far labels say that predictions are off, or, as far as they make it likely
that predictions mean nothing here, as those labels alone have it. Served answers show no error by themselves, so a
share of them, drawn at random, is answered again. This rests on calibration with margins, not on a proof; what the
audits prove is in `Standing`.

The whole state is a function of the labels in the order they are learned: processes that learn the same labels agree.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from chainops.cache.bound import Labels, limit_for
from chainops.cache.bursts import allowed, audit_share
from chainops.cache.evidence import NAMES, Evidence
from chainops.cache.guard import KINDS, across, closed, differing, told
from chainops.cache.risk import Model, Prior, fit, shipped
from chainops.cache.standing import Alarm, Standing, interval
from chainops.cache.turning import turning_points
from chainops.core.errors import InvalidInput

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

Source = Literal["miss", "audit", "report"]

_MOST_WEIGHT = 10.0
"""An audit stands for 1/rate requests; in the fit it counts for that many, up to this."""
_MIX_HALF_LIFE = 500
"""Labels after which one counts half in the mix of requests."""
_HALF_LIFE = 1500
"""Labels after which one counts half in the calibration."""
_LATELY = 30
"""Labels after which one counts half in the surprise."""
_REFIT_EVERY = 25
_FIRST_AUDITS = 0.25
"""Share of the first served requests that are audited, and of those after an alarm."""
_KEPT = {"miss": 3000, "audit": 1000}


@dataclass(frozen=True, slots=True)
class Label:
    """What one request taught."""

    features: tuple[float, ...]
    """`Evidence.values` at the time of the request."""
    correct: bool
    """Whether the nearest entry's answer was the right one."""
    source: Source
    """`miss`: not served, so its fresh answer was compared with the nearest entry's. `audit`: one that was, or would
    have been, served, chosen at random and answered again. `report`: a person's verdict on a served answer."""
    at: float
    """Seconds since 1970."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do with one request."""

    serve: bool
    audit: bool
    """Whether this served one is to be answered again and compared."""
    risk: float | None
    """Calibrated, pessimistic probability that the nearest answer is wrong, 0 to 1; None by a fixed threshold."""
    limit: float | None
    """The highest risk that may be served now; 0 when nothing may; None by a fixed threshold."""
    reason: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a decision fell as it did."""

    decision: Decision
    parts: tuple[tuple[str, float, float], ...]
    """Feature, its value, and what it adds to the log odds of being wrong; the weightiest first."""
    changes: tuple[str, ...]
    """What would change the decision, one feature at a time."""


@dataclass(frozen=True, slots=True)
class _State:
    """All that `decide` needs, replaced as one."""

    model: Model
    limit: float
    """On the model's own scale."""
    factor: float
    """Observed errors over expected ones below the limit."""
    audit_rate: float
    """Higher than asked for while there are few audits: an error in the beginning is to be found soon."""
    why_not: str
    closed: frozenset[str] = frozenset(KINDS)
    """Differences across which nothing is served: see `cache/guard.py`."""


class Judge:
    """Decides, and learns from labels.

    Args:
        max_error_rate: Of the served answers at most this share may be wrong, 0 to 1. At 0 nothing is served.
        audit_rate: Share of the served requests that are answered again, 0 to 1.
        prior: What is believed before own labels.

    `decide` may run in any thread while another learns.
    """

    def __init__(self, max_error_rate: float, *, audit_rate: float = 0.03, prior: Prior | None = None) -> None:
        for what, rate in (("max_error_rate", max_error_rate), ("audit_rate", audit_rate)):
            if not 0.0 <= rate <= 1.0:
                raise InvalidInput(what, repr(rate), "a number from 0 to 1")
        self.max_error_rate, self.audit_rate = max_error_rate, audit_rate
        self.prior = prior or shipped()
        self.reset()

    def reset(self) -> None:
        """Forget all labels."""
        self._learning = threading.Lock()
        self._kept: dict[str, deque[_Kept]] = {name: deque(maxlen=most) for name, most in _KEPT.items()}
        self._count, self._next_fit = 0, 20
        self._audits = self._wrong = 0
        self._rate = _FIRST_AUDITS if self.audit_rate else 0.0
        self._alarm = Alarm(self.max_error_rate)
        self._state = _State(Model.before(self.prior), 0.0, 1.0, 1.0, "no labels yet")

    def decide(self, evidence: Evidence, *, draw: float) -> Decision:
        """Decide on one request.

        Args:
            draw: A random number in [0, 1), which decides whether a served request is audited.
        """
        state = self._state
        limit = min(1.0, state.limit * state.factor)
        if not _is_sound(evidence.values):
            return Decision(False, False, 1.0, limit, "the evidence is not a full set of finite numbers")
        if evidence.values[_NEIGHBOURS] <= 0:
            return Decision(False, False, 1.0, limit, "there is no neighbour")
        own = state.model.risk(evidence.values)
        risk = min(1.0, own * state.factor)
        if state.limit <= 0.0:
            return Decision(False, False, risk, 0.0, state.why_not)
        if own > state.limit:
            return Decision(False, False, risk, limit, f"a risk of {risk:.2%} is above the {limit:.2%} allowed now")
        if guarded := state.closed.intersection(differing(evidence.values)):
            return Decision(False, False, risk, limit, told(guarded))
        reason = f"a risk of {risk:.2%} is within the {limit:.2%} allowed now"
        return Decision(True, draw < self._share(state.audit_rate, evidence.values), risk, limit, reason)

    def learn(self, label: Label) -> None:
        """Take one label in. Refits now and then, and at once when a served answer was wrong.

        Raises:
            InvalidInput: its features are not those of this version, or not finite.
        """
        self.learn_all((label,))

    def learn_all(self, labels: Iterable[Label]) -> None:
        """Take labels in, in order: the same state as `learn` for each, with one refit at most."""
        with self._learning:
            due: _Seen | None = None
            try:
                for label in labels:
                    if not _is_sound(label.features):
                        raise InvalidInput("label", f"{len(label.features)} features", f"{len(NAMES)} finite numbers")
                    if self._take(label):
                        due = self._seen()
            finally:
                if due is not None:  # only the last refit matters: that makes learning a whole log at the start quick
                    self._state = self._refit(due)

    def standing(self) -> Standing:
        """How well the bound is kept, by the audits alone."""
        with self._learning:
            lower, upper = interval(self._wrong, self._audits, expected=self.max_error_rate)
            return Standing(
                bound=self.max_error_rate,
                audits=self._audits,
                wrong=self._wrong,
                lower=lower,
                upper=upper,
                labels=self._count,
                limit=self._state.limit * self._state.factor,
                alarms=self._alarm.count,
                why_not=self._state.why_not,
            )

    def explain(self, evidence: Evidence) -> Explanation:
        """Why this would be served or not, and what would change it."""
        decision, state = self.decide(evidence, draw=1.0), self._state
        if not _is_sound(evidence.values):
            return Explanation(decision, (), ())
        parts = state.model.parts(evidence.values)
        rows = [(name, value, parts[name]) for name, value in evidence.to_dict().items()]
        rows.sort(key=lambda row: -abs(row[2]))

        def serves(values: tuple[float, ...]) -> bool:
            return state.model.risk(values) <= state.limit and not state.closed.intersection(differing(values))

        changes = turning_points(serves, evidence.values, self.prior.scale) if state.limit > 0.0 else ()
        return Explanation(decision, tuple(rows), tuple(changes))

    def _share(self, rate: float, values: tuple[float, ...]) -> float:
        return audit_share(rate, values, self.max_error_rate) if self.audit_rate else rate

    def _take(self, label: Label) -> bool:
        """Keep a label; whether it is time to refit."""
        import numpy as np

        self._count += 1
        at_once = False
        if label.source == "audit":
            self._audits += 1
            self._wrong += not label.correct
            at_once = self._alarm.hears(wrong=not label.correct) or not label.correct
        elif label.source == "report":
            at_once = not label.correct
        where = "miss" if label.source == "miss" else "audit"
        rate = max(self._share(self._rate, label.features), 0.01) if label.source == "audit" else 1.0
        self._kept[where].append(_Kept(label, np.array(label.features), self._count, self._alarm.count, rate))
        if at_once or self._count >= self._next_fit:
            self._next_fit = self._count + _REFIT_EVERY
            return True
        return False

    def _refit(self, seen: _Seen) -> _State:
        """The state after these labels: a function of them alone, whatever was fitted before."""
        import numpy as np

        kept = seen.kept
        wrong = np.array([not each.label.correct for each in kept], dtype=np.float64)
        # What was learned before an alarm tells of another time: it counts a fifth for each alarm since.
        stale = np.array([0.2 ** (seen.alarms - each.alarms) for each in kept])
        age = np.array([seen.count - each.number for each in kept], dtype=np.float64)
        features = np.stack([each.row for each in kept])
        rates = np.array([each.rate for each in kept])
        model, risk = fit(self.prior, features, wrong, stale * np.minimum(1.0 / rates, _MOST_WEIGHT))
        is_report = np.array([each.label.source == "report" for each in kept])
        stands_for = np.where(is_report, 0.0, stale / rates)
        counts = stale * 0.5 ** (age / _HALF_LIFE)
        labels = Labels(
            risk=risk,
            wrong=wrong * counts,
            counts=np.where(is_report, 0.0, counts),
            stands_for=stands_for,
            mass=stands_for * 0.5 ** (age / _MIX_HALF_LIFE),
            is_audit=np.array([each.label.source == "audit" for each in kept], dtype=np.float64),
            lately=stale * 0.5 ** (age / _LATELY),
        )
        bound = allowed(self.max_error_rate, features, labels.mass)
        limit = limit_for(labels, bound)
        shut = closed(features, labels.wrong, labels.counts, risk <= limit.risk, limit.risk * limit.factor)
        if limit.risk > 0:  # what is not served for its difference leaves the bound to the rest
            limit = limit_for(labels.only(~across(features, shut)), bound)
        why_not = f"the labels so far do not support an error of at most {self.max_error_rate:.2%}"
        return _State(model, limit.risk, limit.factor, seen.audit_rate, "" if limit.risk > 0 else why_not, shut)

    def _seen(self) -> _Seen:
        kept = (*self._kept["miss"], *self._kept["audit"])
        now = [each.label for each in self._kept["audit"] if each.alarms == self._alarm.count]
        shown = sum(each.source == "audit" for each in now)
        self._rate = max(self.audit_rate, _FIRST_AUDITS / (1.0 + shown / 4.0)) if self.audit_rate else 0.0
        return _Seen(kept, self._count, self._alarm.count, self._rate)


@dataclass(frozen=True, slots=True)
class _Kept:
    label: Label
    row: Array
    number: int
    alarms: int
    rate: float
    """Share of requests like it that become labels."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """What is known when it is time to refit."""

    kept: tuple[_Kept, ...]
    count: int
    alarms: int
    audit_rate: float


_NEIGHBOURS = NAMES.index("neighbours")


def _is_sound(values: tuple[float, ...]) -> bool:
    return len(values) == len(NAMES) and all(map(math.isfinite, values))
