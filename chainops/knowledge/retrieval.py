"""What the two indexes found becomes one ranking, and the ranking becomes the passages a prompt has room for.

Decided on the dev rows of SciFact (nDCG@10) and XQuAD (recall@1); `benchmarks/knowledge.py` prints them again:

| way of combining | SciFact | XQuAD |
|---|---|---|
| BM25 alone | 0.703 | 0.955 |
| dense alone | 0.661 | 0.902 |
| reciprocal ranks, best constant and weight | 0.731 | 0.958 |
| mean of cosine and BM25's share (used here) | 0.743 | 0.970 |

Reciprocal ranks forget by how much a passage won. A share of matched question terms added to the ranking
changed nothing: BM25's share says it already.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from chainops.core.errors import InvalidInput
from chainops.knowledge.splitting import Passage

LEXICAL_WEIGHT = 0.5
"""Share of BM25 in the score, the rest is cosine. From 0.4 to 0.6 SciFact stays within 0.004."""

MAX_OVERLAP = 0.5
"""Of two passages of one document that share more of the shorter one than this, the better stays."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """A passage that was found, and why."""

    passage: Passage
    score: float
    """Mean of `similarity` and `lexical`, weighted; at most 1. Comparable between questions."""
    similarity: float
    """Cosine of question and passage; an upper bound of it when `dense_rank` is None."""
    lexical: float
    """BM25 as a share of the most there is for this question, 0 to 1."""
    dense_rank: int | None
    """Place among the passages found by meaning, from 1; None when it was not among them."""
    lexical_rank: int | None
    """Place among the passages found by words, from 1; None when it was not among them."""
    document_digest: str = ""
    """Of the document as it was when it had this passage."""


@dataclass(frozen=True, slots=True)
class Fused:
    """One key's place in the ranking; fields as in `Hit`."""

    key: str
    score: float
    similarity: float
    lexical: float
    dense_rank: int | None
    lexical_rank: int | None


DropReason = Literal["overlap", "duplicate", "budget", "rank", "late"]


@dataclass(frozen=True, slots=True)
class Dropped:
    """A hit that the prompt does not get."""

    hit: Hit
    reason: DropReason
    """`overlap`, `duplicate`: a better hit says it; `budget`: it does not fit; `rank`: enough were better."""


@dataclass(frozen=True, slots=True)
class Selection:
    """What the prompt gets. Empty `hits` mean that nothing was found, or that nothing fits (see `dropped`)."""

    hits: tuple[Hit, ...] = ()
    """Best first."""
    dropped: tuple[Dropped, ...] = ()
    tokens: int = 0
    """Of the passages together, by `splitting.count_tokens`."""
    found: int = field(default=0)
    """How many hits there were to choose from."""

    def __bool__(self) -> bool:
        return bool(self.hits)


def fuse(
    dense: Sequence[tuple[str, float]],
    lexical: Sequence[tuple[str, float]],
    lexical_scores: Mapping[str, float],
    *,
    lexical_weight: float = LEXICAL_WEIGHT,
) -> list[Fused]:
    """Everything found by either index, best first; ties go to the lower key.

    Args:
        dense: Keys and cosines, best first.
        lexical: Keys and shares, best first.
        lexical_scores: Shares of the keys that only `dense` found; 0 for a key that is not in it.
    """
    dense_at = {key: (rank, similarity) for rank, (key, similarity) in enumerate(dense, start=1)}
    lexical_at = {key: (rank, share) for rank, (key, share) in enumerate(lexical, start=1)}
    # What the dense search did not return is no closer than the last it did return.
    unseen = max(0.0, dense[-1][1]) if dense else 0.0
    fused = []
    for key in dense_at.keys() | lexical_at.keys():
        dense_rank, similarity = dense_at.get(key, (None, unseen))
        lexical_rank, share = lexical_at.get(key, (None, lexical_scores.get(key, 0.0)))
        score = (1 - lexical_weight) * similarity + lexical_weight * share
        fused.append(Fused(key, score, similarity, share, dense_rank, lexical_rank))
    return sorted(fused, key=lambda one: (-one.score, one.key))


def rerank(
    hits: Sequence[Hit],
    *,
    keep: int = 5,
    token_budget: int | None = None,
    is_late: Callable[[], bool] = lambda: False,
) -> Selection:
    """The passages that go into the prompt: the best that say different things and fit.

    A passage that does not fit is left out and a shorter one further down may take its place.

    Args:
        hits: As `KnowledgeBase.search` gives them.
        keep: The most passages to take.
        token_budget: The most tokens of all passages together, by `splitting.count_tokens`; None means no limit.
        is_late: Whether there is no time left to choose: what was kept by then is what there is, one at least.

    Raises:
        InvalidInput: `keep` < 1, or `token_budget` < 1.
    """
    if keep < 1:
        raise InvalidInput("rerank", str(keep), "1 or more passages")
    if token_budget is not None and token_budget < 1:
        raise InvalidInput("token_budget", str(token_budget), "1 or more tokens, or None")
    kept: list[Hit] = []
    dropped: list[Dropped] = []
    tokens = 0
    for hit in sorted(hits, key=lambda hit: (-hit.score, hit.passage.id)):
        size = hit.passage.tokens
        if kept and len(kept) < keep and is_late():
            dropped.append(Dropped(hit, "late"))
            continue
        reason: DropReason | None = next((why for one in kept if (why := _repeats(hit.passage, one.passage))), None)
        if reason is None and len(kept) == keep:
            reason = "rank"
        if reason is None and token_budget is not None and tokens + size > token_budget:
            reason = "budget"
        if reason is not None:
            dropped.append(Dropped(hit, reason))
            continue
        kept.append(hit)
        tokens += size
    return Selection(tuple(kept), tuple(dropped), tokens, len(hits))


def unranked(hits: Sequence[Hit], *, keep: int, token_budget: int | None) -> Selection:
    """The nearest passages that fit, without looking whether they repeat each other: for when time is short."""
    kept: list[Hit] = []
    tokens = 0
    for hit in hits[:keep]:
        if token_budget is None or tokens + hit.passage.tokens <= token_budget:
            kept.append(hit)
            tokens += hit.passage.tokens
    return Selection(tuple(kept), (), tokens, len(hits))


def _repeats(passage: Passage, better: Passage) -> Literal["overlap", "duplicate"] | None:
    if passage.document_id == better.document_id:
        shared = min(passage.end, better.end) - max(passage.start, better.start)
        shorter = min(passage.end - passage.start, better.end - better.start)
        return "overlap" if shared > MAX_OVERLAP * shorter else None
    return "duplicate" if passage.text.split() == better.text.split() else None
