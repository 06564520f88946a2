"""Find the passages that a question is answered from."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from chainops.core.component import Component
from chainops.core.events import Event
from chainops.core.run import Run
from chainops.core.steps import Do, Plan
from chainops.knowledge.base import KnowledgeBase
from chainops.knowledge.indexing import IndexReport
from chainops.knowledge.retrieval import Hit, Selection, rerank
from chainops.knowledge.splitting import Passage


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrieved(Event):
    """Passages were looked for."""

    found: int
    kept: int
    best_similarity: float | None
    """Cosine of the question and the nearest passage; None when nothing was found."""


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
    """Digest of each document they are from."""

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
        hits, kept, digests = yield Do(lambda: self._search(value))
        best = max((hit.similarity for hit in hits if hit.dense_rank is not None), default=None)
        run.emit(
            Retrieved(found=len(hits), kept=len(kept.hits), best_similarity=None if best is None else round(best, 4))
        )
        run.stage.facts |= {"found": len(hits), "kept": len(kept.hits)}
        return _passages(kept, digests)

    def found(self, question: str) -> Passages:
        """What a question would be answered from now, outside of any request. Blocks."""
        _, kept, digests = self._search(question)
        return _passages(kept, digests)

    def _search(self, question: str) -> tuple[list[Hit], Selection, dict[str, str]]:
        knowledge = self.knowledge()
        hits = knowledge.search(question, self.retrieve)
        return hits, rerank(hits, keep=self.rerank, token_budget=self.token_budget), knowledge.seen_digests()


def _passages(kept: Selection, digests: Mapping[str, str]) -> Passages:
    passages = tuple(hit.passage for hit in kept.hits)
    own = {each.document_id: digests[each.document_id] for each in passages if each.document_id in digests}
    return Passages(passages, tuple(hit.score for hit in kept.hits), own)
