"""Find the passages that a question is answered from."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from chainops.core.clock import Clock, current_clock
from chainops.core.component import Component
from chainops.core.events import Event
from chainops.core.run import Run
from chainops.core.steps import Do, Plan
from chainops.knowledge.base import KnowledgeBase
from chainops.knowledge.indexing import IndexReport
from chainops.knowledge.retrieval import Hit, Selection, rerank, unranked
from chainops.knowledge.splitting import Passage


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrieved(Event):
    """Passages were looked for."""

    found: int
    kept: int
    best_similarity: float | None
    """Cosine of the question and the nearest passage; None when nothing was found."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shortened(Event):
    """A stage was left out or ended early, because time was up."""

    what: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Indexed(Event):
    """Documents were read in, because nobody had before this question."""

    documents: int
    passages: int
    seconds: float
    skipped: list[str]
    """What could not be read, and why; at most ten."""

    @classmethod
    def of(cls, report: IndexReport) -> Indexed:
        return cls(
            documents=len(report.added) + len(report.changed) + report.unchanged,
            passages=report.passages,
            seconds=round(report.seconds, 3),
            skipped=[str(each) for each in report.skipped[:10]],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class KnowledgeNotice(Event):
    """Something was repaired on the way, such as an index file that had to be made again."""

    notice: str


@dataclass(frozen=True, slots=True)
class Passages:
    """What retrieval gives the prompt, best first; empty when nothing was found."""

    passages: tuple[Passage, ...]
    scores: tuple[float, ...]
    digests: Mapping[str, str] = field(default_factory=dict)
    """Digest of each document they are from, as it was when they were found."""

    def uses(self, numbers: Collection[int] = ()) -> dict[str, dict[str, str]]:
        """What an answer made from these came from, as `report.uses` says it: `document` (id to digest) and `passage`
        (id to document) that it rests on, best first, and the passages that its model had `seen`.

        A passage's id is the digest of its place and text, so these are never of another state than the text is.

        Args:
            numbers: Those it cites, from 1; none: it may rest on any.
        """
        rests_on = [self.passages[number - 1] for number in numbers] or self.passages
        return {
            "document": {each.document_id: self.digests.get(each.document_id, "") for each in rests_on},
            "passage": {each.id: each.document_id for each in rests_on},
            "seen": {each.id: each.document_id for each in self.passages},
        }

    def to_trace(self) -> list[dict[str, Any]]:
        """For traces: which passages, not their text."""
        return [
            {
                "document": each.document_id,
                "title": each.title,
                "span": [each.start, each.end],
                "score": round(score, 4),
            }
            for each, score in zip(self.passages, self.scores, strict=True)
        ]


class Retrieve(Component[str, Passages]):
    """Searches by meaning and by words, and keeps what fits the prompt."""

    kind: ClassVar[str] = "retrieve"

    knowledge: Callable[[], KnowledgeBase]
    retrieve: int = 20
    rerank: int = 5
    token_budget: int = 2000

    def plan(self, value: str, run: Run) -> Plan[Passages]:
        hits, kept, late = yield Do(lambda: self._search(value, _Time(run.clock, run.terms.shares)))
        if late is not None:
            run.emit(late)
            run.report.mark("degraded", f"{late.what}: {late.reason}")
        best = max((hit.similarity for hit in hits if hit.dense_rank is not None), default=None)
        run.emit(
            Retrieved(found=len(hits), kept=len(kept.hits), best_similarity=None if best is None else round(best, 4))
        )
        run.stage.facts |= {"found": len(hits), "kept": len(kept.hits)}
        return _passages(kept)

    def found(self, question: str) -> Passages:
        """What a question would be answered from now, outside of any request. Blocks."""
        _, kept, _ = self._search(question, _Time(current_clock(), {}))
        return _passages(kept)

    def _search(self, question: str, time: _Time) -> tuple[list[Hit], Selection, Shortened | None]:
        hits = self.knowledge().search(question, self.retrieve)
        if (why := time.is_up("retrieve")) is not None:
            kept = unranked(hits, keep=self.rerank, token_budget=self.token_budget)
            return hits, kept, Shortened(what="the passages were not reranked", reason=why)
        time.begin()
        kept = rerank(
            hits, keep=self.rerank, token_budget=self.token_budget, is_late=lambda: time.is_up("rerank") is not None
        )
        late = sum(each.reason == "late" for each in kept.dropped)
        if not late:
            return hits, kept, None
        found = Shortened(what=f"{late} passages were not looked at", reason=time.is_up("rerank") or "time was up")
        return hits, kept, found


class _Time:
    """Watches a stage's share of the request's time."""

    def __init__(self, clock: Clock, shares: Mapping[str, float]) -> None:
        self._clock, self._shares = clock, shares
        self.begin()

    def begin(self) -> None:
        self._since = self._clock.monotonic()

    def is_up(self, stage: str) -> str | None:
        """Why a stage has to end; None while it may go on."""
        share_s = self._shares.get(stage)
        if share_s is None:
            return None
        took_s = self._clock.monotonic() - self._since
        return f"{stage} took {took_s:.3g} s of its {share_s:.3g} s" if took_s > share_s else None


def _passages(kept: Selection) -> Passages:
    digests = {hit.passage.document_id: hit.document_digest for hit in kept.hits}
    return Passages(tuple(hit.passage for hit in kept.hits), tuple(hit.score for hit in kept.hits), digests)
