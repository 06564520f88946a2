"""Which sentences of some passages answer a question: pure functions over stems, vectors and numbers.

The weights of evidence were fitted by logistic regression on the dev half of XQuAD (English) and rounded
(`benchmarks/extractive.py` measures them); those of preference were set by reading answers from Python's reference.
"""

from __future__ import annotations

import math
import re
import textwrap
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING

from chainops.text.passages import PromptPassage
from chainops.text.sentences import Span, sentences
from chainops.text.tokens import STOP_WORDS, content_stems, stems

if TYPE_CHECKING:
    import numpy as np

_WEIGHT_COVERAGE = 1.1
_WEIGHT_PHRASES = 0.2
_WEIGHT_OPENING = 0.02
_WEIGHT_RANK = 0.03
_WEIGHT_LEAD = 0.15
_WEIGHT_EXAMPLE = 0.1
_WEIGHT_FRAGMENT = 0.25
_BEST = 1.0 + _WEIGHT_COVERAGE + _WEIGHT_PHRASES
_LAST_RANK = 5

_WORTH_READING = 16
"""Sentences that get a vector: more cost time and, on XQuAD, change nothing."""
_BESIDE_THE_BEST = 0.4
"""Share of the best sentence's score that a further one must reach."""
_SAME_MEANING = 0.92
_SAME_WORDS = 0.8
_LONGEST_CODE = 1200


@dataclass(frozen=True, slots=True)
class Unit:
    """A sentence that could be quoted, with the code it introduces."""

    text: str
    """On one line, footnote marks and list bullets taken off."""
    code: str
    """A literal block that follows "…:", as it stands there; else empty."""
    place: int
    """Number of the sentence in its passage, from 0."""
    is_fragment: bool
    """Does not stand alone: no beginning or end of its own, or it only points elsewhere."""
    lead: tuple[str, ...]
    """Its first stems: what it is about, as a rule."""
    words: frozenset[str]
    """Stems, stop words included; of code also those of the sentence before, which it illustrates."""
    pairs: frozenset[tuple[str, str]]
    """Neighbouring stems, of which one at least is no stop word."""


@dataclass(frozen=True, slots=True)
class Quote:
    """A chosen sentence."""

    passage: PromptPassage
    rank: int
    """Position of its passage in the prompt, from 0."""
    unit: Unit
    score: float
    """`Question.evidence` plus `Question.preference`: about 0 to 1."""


_FOOTNOTE = re.compile(r"(?<!\s)\s*\[\d{1,3}\]")
_BULLET = re.compile(r"^(?:[-*+•]|\(?\d{1,3}[.)])\s+")
_WRAPPED = re.compile(r"(?<=[^\W\d_])-\n\s*(?=[^\W\d_])")
_SPACE = re.compile(r"\s+")
_LEAD = 4
_WHOLE = re.compile(r"""^[^\w]*(?:[^\W_a-z]|[a-z_]\w*[(.]\w).*[.!?…][\"'”’)*_`]*$""", re.DOTALL)
_POINTER = re.compile(
    r"^\W*(?:for (?:full|more|further) (?:details|information)|see (?:also|section|the))\b", re.IGNORECASE
)


@lru_cache(maxsize=2048)
def units(passage: str) -> tuple[Unit, ...]:
    """The quotable sentences of a passage; headings, bare code and marks are none."""
    spans = sentences(passage)
    found: list[Unit] = []
    for at, span in enumerate(spans):
        if span.kind != "prose":
            continue
        text = _WRAPPED.sub("-", _BULLET.sub("", _FOOTNOTE.sub("", passage[span.start : span.end])))
        text = _SPACE.sub(" ", text).strip()
        code = _introduced(passage, spans, at)
        stemmed = stems(text)
        # "Note:", "as follows:": what they announce would not be in the quote.
        if not content_stems(text) or (text.endswith(":") and not code):
            continue
        words = frozenset(stemmed)
        if code:
            words |= frozenset(stems(code)) | (found[-1].words if found else frozenset())
        found.append(
            Unit(
                text=text,
                code=code,
                place=len(found),
                is_fragment=(not code and not _WHOLE.match(text)) or bool(_POINTER.match(text)),
                lead=tuple(stemmed[:_LEAD]),
                words=words,
                pairs=_pairs(stemmed),
            )
        )
    return tuple(found)


def _pairs(stemmed: Sequence[str]) -> frozenset[tuple[str, str]]:
    return frozenset(pair for pair in pairwise(stemmed) if not STOP_WORDS.issuperset(pair))


def _introduced(passage: str, spans: Sequence[Span], at: int) -> str:
    """The code block right after a sentence, if the sentence has no end of its own ("For example, the code")."""
    if at + 1 >= len(spans) or spans[at + 1].kind != "code":
        return ""
    last = passage[spans[at].end - 1]
    if last in ".!?":
        return ""
    start, end = spans[at + 1].start, spans[at + 1].end
    line_start = passage.rfind("\n", 0, start) + 1
    code = textwrap.dedent(passage[line_start:end])
    return code if len(code) <= _LONGEST_CODE else ""


_DEFINITION = re.compile(
    r"\W*(?:what(?:'s|\s+(?:is|are|was|were|does|do|did)\b)|who\s+(?:is|was)\b|define\b|explain\b|describe\b)",
    re.IGNORECASE,
)
_HOW_TO = re.compile(r"\W*how\s+(?:do|can|could|should|would|to)\b", re.IGNORECASE)
_SHORT = 3


@dataclass(frozen=True, slots=True)
class Question:
    """A question against the sentences it is asked of."""

    text: str
    stems: tuple[str, ...]
    """Content stems, or all stems of a question made of stop words only."""
    weights: dict[str, float]
    """Inverse document frequency of each stem among the sentences at hand: a word that none of them has counts most."""
    pairs: frozenset[tuple[str, str]]
    is_definition: bool
    """"What is X?", "What does X do?": an answer begins with X."""
    is_how_to: bool

    @classmethod
    def asked(cls, text: str, candidates: Sequence[Unit]) -> Question:
        content = content_stems(text)
        asked = tuple(dict.fromkeys(content or stems(text)))
        seen = Counter(stem for unit in candidates for stem in unit.words)
        n = len(candidates)
        weights = {stem: math.log(1 + (n - seen[stem] + 0.5) / (seen[stem] + 0.5)) for stem in asked}
        return cls(
            text,
            asked,
            weights,
            _pairs(stems(text)),
            is_definition=bool(_DEFINITION.match(text)) and len(asked) <= _SHORT,
            is_how_to=bool(_HOW_TO.match(text)),
        )

    def coverage(self, unit: Unit) -> float:
        """Share of the question's words, by weight, that the sentence has: 0 to 1."""
        total = sum(self.weights.values())
        return sum(weight for stem, weight in self.weights.items() if stem in unit.words) / total if total else 0.0

    def evidence(self, unit: Unit, similarity: float) -> float:
        """How sure it is that the sentence speaks of what is asked: 0 to 1.

        Args:
            unit: The sentence.
            similarity: Cosine of question and sentence, -1 to 1.
        """
        phrases = len(self.pairs & unit.pairs) / len(self.pairs) if self.pairs else 0.0
        total = similarity + _WEIGHT_COVERAGE * self.coverage(unit) + _WEIGHT_PHRASES * phrases
        return max(0.0, total / _BEST)

    def preference(self, unit: Unit, rank: int) -> float:
        """What makes one sentence the better answer of two that both speak of it; to be added to the evidence.

        Args:
            unit: The sentence.
            rank: Position of its passage in the prompt, from 0 = the most relevant.
        """
        heaviest = max(self.stems, key=lambda stem: self.weights[stem])
        total = (
            _WEIGHT_OPENING * (unit.place == 0)
            + _WEIGHT_LEAD * (self.is_definition and heaviest in unit.lead)
            + _WEIGHT_EXAMPLE * (self.is_how_to and bool(unit.code))
            - _WEIGHT_FRAGMENT * unit.is_fragment
            - _WEIGHT_RANK * min(rank, _LAST_RANK)
        )
        return total / _BEST


def choose(
    question: str,
    passages: Sequence[PromptPassage],
    embed: Callable[[list[str]], np.ndarray],
    *,
    max_sentences: int,
    threshold: float,
) -> list[Quote]:
    """The sentences that answer, in the passages' order; empty if none reaches the threshold.

    Args:
        question: What is asked.
        passages: In order of relevance.
        embed: Unit rows of texts.
        max_sentences: At most this many.
        threshold: Evidence, 0 to 1, that the best sentence must reach.
    """
    here = [(rank, passage, unit) for rank, passage in enumerate(passages) for unit in units(passage.text)]
    asked = Question.asked(question, [unit for _, _, unit in here])
    if not here or not asked.stems:
        return []
    here.sort(key=lambda entry: (-asked.coverage(entry[2]), entry[0], entry[2].place))
    here = here[:_WORTH_READING]
    rows = embed([question, *(unit.text for _, _, unit in here)])
    similar = rows[1:] @ rows[0]
    quotes: list[tuple[Quote, int]] = []
    surest = 0.0
    for at, (rank, passage, unit) in enumerate(here):
        evidence = asked.evidence(unit, float(similar[at]))
        surest = max(surest, evidence)
        quotes.append((Quote(passage, rank, unit, evidence + asked.preference(unit, rank)), at))
    if surest < threshold:
        return []
    quotes.sort(key=lambda entry: (-entry[0].score, entry[0].rank, entry[0].unit.place))
    best = quotes[0][0].score
    kept: list[tuple[Quote, int]] = []
    for quote, at in quotes:
        if len(kept) == max_sentences or quote.score < _BESIDE_THE_BEST * best:
            break
        if not any(_same(quote.unit, other.unit, float(rows[at + 1] @ rows[o + 1])) for other, o in kept):
            kept.append((quote, at))
    return sorted((quote for quote, _ in kept), key=lambda quote: (quote.rank, quote.unit.place))


def _same(one: Unit, other: Unit, similarity: float) -> bool:
    """Whether quoting both would say one thing twice."""
    shared = len(one.words & other.words) / max(1, min(len(one.words), len(other.words)))
    return one.text == other.text or (similarity >= _SAME_MEANING and shared >= _SAME_WORDS)


def write_answer(quotes: Sequence[Quote]) -> str:
    """The answer: each sentence followed by its passage's marker, code in a fence."""
    pieces: list[str] = []
    for quote in quotes:
        marker = f"[{quote.passage.id}]"
        if not quote.unit.code:
            pieces.append(f"{quote.unit.text} {marker} ")
            continue
        code = quote.unit.code
        if not code.lstrip().startswith("```"):
            fence = "````" if "```" in code else "```"
            code = f"{fence}\n{code}\n{fence}"
        pieces.append(f"{quote.unit.text} {marker}\n\n{code}\n\n")
    return "".join(pieces).strip()
