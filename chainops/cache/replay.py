"""Score cache policies on logged traffic, before any of them serves anybody."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from chainops.cache.compare import Reply, Verdict
from chainops.cache.evidence import NEIGHBOURS, Near, evidence
from chainops.cache.judge import Judge, Label
from chainops.cache.policy import plain
from chainops.cache.standing import interval
from chainops.core.errors import InvalidInput
from chainops.stores.faiss_index import FaissIndex

if TYPE_CHECKING:
    import numpy as np

BOUNDS = (0.01, 0.02, 0.05, 0.1)
THRESHOLDS = (0.8, 0.85, 0.9, 0.95, 0.98)
HEADS = ("policy", "hits", "exact", "similar", "wrong", "error", "at most (95%)", "audited")
_BATCH = 64


@dataclass(frozen=True)
class Score:
    """What one policy would have done."""

    policy: str
    requests: int
    exact: int
    """Served because the very question was stored."""
    served: int
    """Served for a similar question."""
    wrong: int
    """Of those: the logged answer was another."""
    audited: int
    """Counted as asked."""
    hit_rate: float
    """Exact and similar, of all requests: 0 to 1."""
    error_rate: float
    """Wrong among those served for a similar question."""
    upper: float
    """Of the error rate, at 95%."""


@dataclass(frozen=True)
class Replay:
    """One score per policy."""

    scores: tuple[Score, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {"scores": [asdict(each) for each in self.scores]}

    def __str__(self) -> str:
        rows = [HEADS, *(cells(each) for each in self.scores)]
        widths = [max(len(row[column]) for row in rows) for column in range(len(HEADS))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        return "\n".join(lines)

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:  # noqa: ARG002
        printer.text(str(self))

    def _repr_html_(self) -> str:
        from chainops.cache.show import replay_html

        return replay_html(self)


def cells(score: Score) -> tuple[str, ...]:
    """A score as `HEADS` names it, for people."""
    return (
        score.policy,
        f"{score.hit_rate:.1%}",
        f"{score.exact:,}",
        f"{score.served:,}",
        f"{score.wrong:,}",
        f"{score.error_rate:.2%}" if score.served else "–",
        f"{score.upper:.2%}" if score.served else "–",
        f"{score.audited:,}",
    )


@dataclass(frozen=True, slots=True)
class Step:
    """How far a replay is."""

    done: int
    total: int
    what: str = ""


def replay(
    rows: Iterable[Mapping[str, Any]],
    *,
    embed: Callable[[list[str]], np.ndarray],
    same: Callable[[str, Reply, Reply], Verdict],
    bounds: Sequence[float] = BOUNDS,
    thresholds: Sequence[float] = THRESHOLDS,
    audit_rate: float = 0.03,
    seed: int = 0,
    progress: Callable[[Step], None] | None = None,
) -> Replay:
    """Play logged requests through policies, in their order, as if each had been in place.

    A served request teaches a policy nothing, unless it is drawn for an audit; one that is asked is compared and
    stored. Each policy keeps what it would have kept.

    Args:
        rows: Each with `question` and `answer` (or `label`, which is compared exactly), and perhaps `tenant`: tenants
            never share.
        embed: Texts to unit rows.
        same: The comparer.
        progress: Called now and then.

    Raises:
        InvalidInput: A row has no question or answer; it says which.
    """
    logged = [_logged(row, number) for number, row in enumerate(rows, start=1)]
    if not logged:
        raise InvalidInput("rows", "none", "at least one request")
    players = [_Player(f"threshold {each:g}", None, each, audit_rate, seed) for each in thresholds]
    players += [
        _Player(f"max_error_rate {each:g}", Judge(each, audit_rate=audit_rate), None, audit_rate, seed)
        for each in bounds
    ]
    compared = _Compared(same)
    for start in range(0, len(logged), _BATCH):
        batch = logged[start : start + _BATCH]
        for request, vector in zip(batch, embed([each.question for each in batch]), strict=True):
            for player in players:
                player.play(request, vector, compared)
        if progress is not None:
            progress(Step(start + len(batch), len(logged)))
    return Replay(tuple(each.score() for each in players))


@dataclass(frozen=True, slots=True)
class _Logged:
    number: int
    question: str
    reply: Reply
    is_label: bool
    tenant: str | None


def _logged(row: Mapping[str, Any], number: int) -> _Logged:
    question, answer = row.get("question"), row.get("answer", row.get("label"))
    if not isinstance(question, str) or not question.strip():
        raise InvalidInput(f"row {number}", "no question", '{"question": "...", "answer": "..."}')
    if not isinstance(answer, str):
        raise InvalidInput(f"row {number}", "no answer", '{"question": "...", "answer": "..."}, or a label')
    tenant = row.get("tenant")
    return _Logged(number, question, Reply(answer), "answer" not in row, None if tenant is None else str(tenant))


class _Compared:
    """Verdicts, each asked for once: policies meet the same pairs."""

    def __init__(self, same: Callable[[str, Reply, Reply], Verdict]) -> None:
        self._same = same
        self._known: dict[tuple[int, int], bool] = {}

    def __call__(self, a: _Logged, b: _Logged) -> bool:
        pair = (a.number, b.number)
        if pair not in self._known:
            is_equal = a.reply.text == b.reply.text
            by_label = a.is_label or b.is_label
            self._known[pair] = is_equal or (not by_label and self._same(a.question, a.reply, b.reply).same)
        return self._known[pair]


class _Player:
    """One policy and what it has stored."""

    def __init__(self, name: str, judge: Judge | None, threshold: float | None, audit_rate: float, seed: int) -> None:
        self.name, self._judge, self._threshold, self._audit_rate = name, judge, threshold, audit_rate
        self._random = random.Random(seed)  # noqa: S311 (a sample, not a secret)
        self._stored: dict[str | None, tuple[FaissIndex, dict[str, tuple[_Logged, str, int]]]] = {}
        self._exact: dict[tuple[str | None, str], _Logged] = {}
        self._requests = self._exact_hits = self._served = self._wrong = self._audited = 0

    def play(self, request: _Logged, vector: np.ndarray, same: _Compared) -> None:
        self._requests += 1
        draw = self._random.random()
        if (request.tenant, plain(request.question)) in self._exact:
            self._exact_hits += 1
            return
        index, entries = self._stored.setdefault(request.tenant, (FaissIndex(len(vector)), {}))
        near = [(entries[each.key], each.similarity) for each in index.search(vector, NEIGHBOURS)]
        count = len(entries)
        serves = audits = correct = False
        group = str(request.number)
        if near:
            correct = same(request, near[0][0][0])
            told = evidence(
                request.question,
                [
                    Near(similarity, stored.question, where, count - 1 - place)
                    for (stored, where, place), similarity in near
                ],
            )
            if self._judge is not None:
                decision = self._judge.decide(told, draw=draw)
                serves, audits = decision.serve, decision.audit
            else:
                serves = near[0][1] >= (self._threshold or 0.0)
                audits = serves and draw < self._audit_rate
            if serves and not audits:
                self._served += 1
                self._wrong += not correct
                return
            self._audited += audits
            if self._judge is not None:
                self._judge.learn(Label(told.values, correct, "audit" if audits else "miss", float(request.number)))
            group = self._group(request, near, same) or group
        index.add([str(request.number)], vector[None])
        entries[str(request.number)] = (request, group, count)
        self._exact[request.tenant, plain(request.question)] = request

    @staticmethod
    def _group(request: _Logged, near: Sequence[tuple[tuple[_Logged, str, int], float]], same: _Compared) -> str | None:
        seen: set[str] = set()
        for (stored, group, _), _ in near:
            if group not in seen and len(seen) < 4:
                seen.add(group)
                if same(request, stored):
                    return group
        return None

    def score(self) -> Score:
        expected = self._judge.max_error_rate if self._judge is not None else 0.05
        _, upper = interval(self._wrong, self._served, expected=expected)
        return Score(
            policy=self.name,
            requests=self._requests,
            exact=self._exact_hits,
            served=self._served,
            wrong=self._wrong,
            audited=self._audited,
            hit_rate=(self._exact_hits + self._served) / self._requests,
            error_rate=self._wrong / self._served if self._served else 0.0,
            upper=upper,
        )
