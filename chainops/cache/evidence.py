"""What the neighbourhood of a question says about serving its nearest answer again: named numbers, no decision.

One similarity cannot tell "same answer" from "reads alike". The neighbours together can: whether the next ones have
the same answer, how far the nearest one with a *different* answer is, and which words stand on one side only.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from types import MappingProxyType
from typing import NamedTuple

from chainops.text.facts import Facts, differences, facts
from chainops.text.tokens import STOP_WORDS, stem, tokens

NEIGHBOURS = 16
"""How many neighbours are looked at."""
NAMES = (
    "similarity",
    "closeness",
    "margin",
    "agreement",
    "agreement_near",
    "vote",
    "support",
    "mean_similarity",
    "neighbours",
    "overlap",
    "overlap_rare",
    "rarest_asked",
    "rarest_kept",
    "unseen",
    "foreign",
    "numbers",
    "negation",
    "times",
    "names",
    "identifiers",
    "opposed",
    "same_words",
    "length",
    "length_ratio",
    "age",
    "age_group",
    "age_oldest",
)
"""The features in order; `Evidence.values` says what each is."""

COUNTS = ("numbers", "negation", "times", "names", "identifiers", "opposed", "same_words")
"""Those that are whole numbers."""
RANGES: Mapping[str, tuple[float, float]] = MappingProxyType(
    dict.fromkeys(NAMES, (0.0, 1.0))
    | dict.fromkeys(("numbers", "times", "names", "identifiers", "opposed"), (0.0, 3.0))
    | dict.fromkeys(("similarity", "mean_similarity"), (-1.0, 1.0))
    | dict.fromkeys(("length", "length_ratio", "age", "age_group", "age_oldest"), (0.0, math.inf))
    | {
        "closeness": (-math.log(2.01), -math.log(0.01)),
        "margin": (-1.0, 2.0),
        "vote": (-4.0, 4.0),
        "support": (0.0, math.log(NEIGHBOURS)),
    }
)
"""The lowest and highest value that each can have."""


class Near(NamedTuple):
    """One neighbour: an entry whose answer could be served."""

    similarity: float
    """Cosine to the question, in -1..1."""
    question: str
    group: str
    """Which answer it has: entries whose answers were judged the same share it."""
    newer: int = 1000
    """How many entries of its scope were stored after it; where nobody knows, many."""
    content: tuple[str, ...] | None = None
    """`content_of` the question, where that is known."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known before serving the nearest entry's answer ("the candidate")."""

    values: tuple[float, ...]
    """In the order of `NAMES`:

    similarity: cosine of the nearest entry.
    closeness: -ln(1.01 - similarity), 0 to 4.6: tells 0.98 from 0.99 as plainly as 0.8 from 0.9.
    margin: similarity minus that of the nearest entry with another answer; where all neighbours agree, minus that of
        the last of 16, or minus 0 when there are fewer.
    agreement, agreement_near: share of the 16 (4) nearest that have the candidate answer.
    vote: the same, nearer ones counting more, in log odds from -4 to 4.
    support: ln(number of neighbours with the candidate answer).
    mean_similarity: of those neighbours.
    neighbours: how many there are, over 16.
    overlap, overlap_rare: words in both questions over words in either (0 to 1); words that few neighbours have
        and that carry content count more in the second.
    rarest_asked, rarest_kept: weight of the heaviest word that only the question (the nearest) has, 0 to 1.
    unseen: share of the question's weighted words that no neighbour with the candidate answer has.
    foreign: the same, of words that a neighbour with another answer does have.
    numbers, negation, times, names, identifiers, opposed: facts on one side only, at most 3 (`text.facts`).
    same_words: 1 where both have the same content words.
    length: ln(1 + content words of the question).
    length_ratio: absolute difference of those logarithms between the two.
    age: ln(1 + entries stored after the nearest): where questions come class by class, right neighbours are new ones.
    age_group: the same for the newest of the neighbours with the candidate answer.
    age_oldest: the same for the oldest neighbour, which tells how full the cache is: the fuller, the likelier does it
        hold the right answer.
    """

    @property
    def names(self) -> tuple[str, ...]:
        return NAMES

    def to_dict(self) -> dict[str, float]:
        return dict(zip(NAMES, self.values, strict=True))


@dataclass(frozen=True, slots=True)
class _Read:
    """A question as it is compared."""

    words: frozenset[str]
    content: frozenset[str]


_LONGEST = 2000
"""Characters of a question that are read: what stands after them is seen by the embedding at most."""


def evidence(question: str, near: Sequence[Near]) -> Evidence:
    """Sum up the neighbourhood of a question.

    Args:
        near: Best first. The first is the candidate; more than 16 are ignored. Empty gives zeros.
    """
    if not near:
        return Evidence((0.0,) * len(NAMES))
    near = near[:NEIGHBOURS]
    first, count = near[0], len(near)
    asked = _read(question[:_LONGEST])
    kept = _read(first.question[:_LONGEST])
    others = (_read(each.question[:_LONGEST]).content if each.content is None else each.content for each in near[1:])
    contents: list[Collection[str]] = [kept.content, *others]
    asked_facts, kept_facts = _facts(question[:_LONGEST]), _facts(first.question[:_LONGEST])
    return Evidence(
        (
            first.similarity,
            -math.log(1.01 - min(first.similarity, 1.0)),
            *_agreement(near),
            count / NEIGHBOURS,
            *_words(asked, kept, contents, [each.group == first.group for each in near]),
            *_differing(asked_facts, kept_facts),
            float(asked.content == kept.content),
            math.log1p(len(asked.content)),
            abs(math.log1p(len(asked.content)) - math.log1p(len(kept.content))),
            math.log1p(first.newer),
            math.log1p(min(each.newer for each in near if each.group == first.group)),
            math.log1p(max(each.newer for each in near)),
        )
    )


@lru_cache(maxsize=8192)
def _read(text: str) -> _Read:
    words = tokens(text)
    content = frozenset(stem(word) for word in words if word not in STOP_WORDS)
    return _Read(frozenset(words), content)


_facts = lru_cache(maxsize=8192)(facts)


def _agreement(near: Sequence[Near]) -> tuple[float, ...]:
    """margin, agreement, agreement_near, vote, support, mean_similarity."""
    best, group = near[0].similarity, near[0].group
    same, same_similarity, same_weight, other_weight, near_same = 0, 0.0, 0.0, 0.0, 0
    other: float | None = None
    for at, each in enumerate(near):
        weight = math.exp(15.0 * (each.similarity - best))
        if each.group == group:
            same += 1
            near_same += at < 4
            same_similarity += each.similarity
            same_weight += weight
        else:
            other_weight += weight
            if other is None:
                other = each.similarity
    count = len(near)
    if other is None:
        other = near[-1].similarity if count == NEIGHBOURS else 0.0
    vote = math.log((same_weight + 0.02) / (other_weight + 0.02))
    return (
        best - other,
        same / count,
        near_same / min(count, 4),
        max(-4.0, min(4.0, vote)),
        math.log(same),
        same_similarity / same,
    )


def content_of(question: str) -> tuple[str, ...]:
    """Its content words, each once. Worked out anew: for those who keep them."""
    return tuple(_read.__wrapped__(question[:_LONGEST]).content)


def _words(
    asked: _Read, kept: _Read, contents: Sequence[Collection[str]], is_same: Sequence[bool]
) -> tuple[float, ...]:
    """overlap, overlap_rare, rarest_asked, rarest_kept, unseen, foreign."""
    either = len(asked.words | kept.words)
    overlap = len(asked.words & kept.words) / either if either else 1.0
    ours: set[str] = set()
    theirs: set[str] = set()
    for content, same in zip(contents, is_same, strict=True):
        (ours if same else theirs).update(content)
    seen, count = Counter(chain.from_iterable(contents)), len(contents)
    # A word that all neighbours have says nothing about which of them is meant.
    weights = {word: 1.0 - 0.8 * seen.get(word, 0) / count for word in asked.content | kept.content}
    weight, new = weights.__getitem__, asked.content - ours
    total = sum(weights.values())
    common = sum(map(weight, asked.content & kept.content))
    of_asked = sum(map(weight, asked.content))
    unseen = sum(map(weight, new))
    foreign = sum(map(weight, new & theirs))
    return (
        overlap,
        common / total if total else overlap,
        max(map(weight, asked.content - kept.content), default=0.0),
        max(map(weight, kept.content - asked.content), default=0.0),
        unseen / of_asked if of_asked else 0.0,
        foreign / of_asked if of_asked else 0.0,
    )


def _differing(asked: Facts, kept: Facts) -> tuple[float, ...]:
    found = differences(asked, kept)
    numbers = found.numbers + found.units
    counts = (numbers, found.negation, found.times, found.names, found.identifiers, found.opposed)
    return tuple(float(min(3, count)) for count in counts)
