"""Whether two answers in sentences say the same: by meaning, and by what an embedding does not see.

A sentence embedding hardly notices a changed number, a "not", an exchanged name or "decrease" for "increase". So a
statement is found in the other answer only when a sentence there is near in meaning, has the same facts, and differs
by no words but such as mean about the same.

Its own error with MiniLM, by `benchmarks/cache_comparer.py`, on 2,146 pairs that were not used to choose the limits
(95% intervals; pairs picked to be hard, so these are no rates of ordinary traffic):

- false same 0.8% (0.4 to 1.4) of 1,279: real answers with one number, date, name, word, negation or condition changed
  (HaluEval, MIT; XQuAD, CC BY-SA 4.0). Of 328 pairs written apart 1.5% (0.7 to 3.5): two models' solutions with unlike
  results (GSM8K answers of RouteLLM, Apache-2.0), claims that one study supports and refutes (SciFact, CC BY 4.0),
  right and wrong answers (LLMBar, MIT), graded question pairs (SemEval-2016, CC BY-SA 3.0).
- false different 12.2% (10.2 to 14.6) of 867: no greeting, form or contraction matters, but of answers with several
  words replaced by synonyms a third counts as different, and of freely reworded texts most (11 of 12 graded pairs).
  Where a chain words its answers anew each time, declare a model to compare them.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from chainops.cache.compare import LONGEST, Embed, Reply, Verdict, same_text
from chainops.cache.statements import (
    FRAME,
    JOINS,
    LONGEST_STATEMENT,
    Statement,
    added,
    changes,
    content,
    left_over,
    polarity,
    results,
    same_digits,
    same_order,
    statements,
    weighed,
)
from chainops.text.facts import Facts, differences, facts
from chainops.text.tokens import stem, tokens

if TYPE_CHECKING:
    import numpy as np

_MOST = 48
"""Statements of each answer that are compared by meaning; embedding so many takes some 0.3 s."""
_HELD = 1024
"""Statements whose vectors are held: 1.5 MB with MiniLM."""


@dataclass(frozen=True, slots=True)
class Limits:
    """From where on two sentences are one statement. Similarities are cosines, -1..1."""

    near: float = 0.75
    """Of two sentences that say the same."""
    altered: float = 0.6
    """From here on a sentence is the other's counterpart: where it does not say the same, it contradicts."""
    exchanged: float = 0.5
    """Of words in one sentence to those that stand in their place in the other."""
    missing: float = 0.2
    """Share of one answer's words, in whole sentences, that the other may lack altogether."""


@dataclass(frozen=True, slots=True)
class Match:
    """A statement of one answer, and what comes nearest to it in the other."""

    one: Statement
    other: Statement
    near: float
    is_quoted: bool
    """Whether it stands word for word in the other answer."""
    is_back: bool
    """Whether `one` is of the second answer."""
    changes: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]
    """Runs of words of `one`, and what stands in their place in `other`; either may be empty."""


Finding = Literal["said", "altered", "missing"]


class Prose:
    """Compares answers in sentences, both ways.

    Args:
        embed: A sentence-embedding model. The default limits were chosen for MiniLM (all-MiniLM-L6-v2).
        limits: Higher ones find more answers different.
    """

    def __init__(self, embed: Embed, *, limits: Limits | None = None) -> None:
        self._embed = embed
        self._limits = limits or Limits()
        self._held: OrderedDict[str, np.ndarray] = OrderedDict()
        self._lock = threading.Lock()

    def _rows(self, texts: list[str]) -> np.ndarray:
        """As `embed`, which is asked only for what it was not asked for lately: a fresh answer is compared with
        several stored ones, and popular ones again and again.
        """
        import numpy as np

        with self._lock:
            rows = {text: self._held[text] for text in texts if text in self._held}
        if unseen := list(dict.fromkeys(text for text in texts if text not in rows)):
            rows |= dict(zip(unseen, self._embed(unseen), strict=True))
        with self._lock:
            for text in texts:
                self._held[text] = rows[text]
                self._held.move_to_end(text)
            while len(self._held) > _HELD:
                self._held.popitem(last=False)
        return np.stack([rows[text] for text in texts])

    def same(self, question: str, a: Reply, b: Reply) -> Verdict:
        if same_text(a.text, b.text):
            return Verdict(same=True, score=1.0, why="the text is the same")
        if a.text[LONGEST:] != b.text[LONGEST:]:
            return _different(f"they differ after {LONGEST:,} characters, which is as far as meaning is compared")
        left, right = statements(a.text[:LONGEST]), statements(b.text[:LONGEST])
        if not left or not right:
            return _different("one of them says nothing")
        one, other = results(a.text, b.text, left[-1], right[-1])
        if one and other:
            return Verdict(one == other, float(one == other), f"the results they state: {one} and {other}")
        if [each.text for each in left[_MOST:]] != [each.text for each in right[_MOST:]]:
            return _different(f"they differ after {_MOST} statements, which is as far as meaning is compared")
        return self._compared(left[:_MOST], right[:_MOST], question)

    def _compared(self, left: list[Statement], right: list[Statement], question: str) -> Verdict:
        opened = {polarity(side[0].text) for side in (left, right)}
        if opened == {"yes", "no"}:
            return _different("one says yes, the other no")
        rows = self._rows([each.text for each in (*left, *right)])
        near = rows[: len(left)] @ rows[len(left) :].T
        matches = [*_matches(left, right, near, is_back=False), *_matches(right, left, near.T, is_back=True)]
        asked = _Question({stem(word) for word in tokens(question)} | FRAME, facts(question))
        score, lacking = 1.0, [0, 0]
        for match, exchanged in zip(matches, self._exchanged(matches), strict=True):
            finding, why = self._judged(match, exchanged, asked)
            if finding == "altered":
                told = f"{why}: {match.one.text[:100]!r} and {match.other.text[:100]!r}"
                return Verdict(same=False, score=round(max(0.0, min(match.near, exchanged)), 3), why=told)
            if finding == "missing":
                lacking[match.is_back] += len(match.one.words) + 1
            else:
                score = min(score, 1.0 if match.is_quoted else match.near)
        sizes = [sum(len(each.words) + 1 for each in side) for side in (left, right)]
        shares = [lack / size for lack, size in zip(lacking, sizes, strict=True)]
        if max(shares) > self._limits.missing or min(shares) > 0:
            return _different(f"{max(shares):.0%} of one is not said by the other", score=round(1 - max(shares), 3))
        return Verdict(same=True, score=round(score, 3), why="each says what the other says")

    def _exchanged(self, matches: list[Match]) -> list[float]:
        """Per match, the least similarity of words to what stands in their place; 1 where nothing is exchanged."""
        texts = [
            [
                (" ".join(mine), " ".join(theirs))
                for mine, theirs in match.changes
                if mine and theirs and content(mine + theirs)
            ]
            for match in matches
        ]
        unique = list(dict.fromkeys(text for pairs in texts for pair in pairs for text in pair))
        rows = dict(zip(unique, self._rows(unique), strict=True)) if unique else {}
        return [min((float(rows[one] @ rows[other]) for one, other in pairs), default=1.0) for pairs in texts]

    def _judged(self, match: Match, exchanged: float, asked: _Question) -> tuple[Finding, str]:
        limits, one, other = self._limits, match.one, match.other
        if match.is_quoted:
            return "said", ""
        if one.is_code or other.is_code or max(len(one.tokens), len(other.tokens)) > LONGEST_STATEMENT:
            return "altered", "code or a long list differs"
        has_facts = not differences(one.facts, other.facts).total and same_digits(one, other)
        turned = next(filter(None, (weighed(mine, theirs) for mine, theirs in match.changes)), None)
        lost, gained = left_over(one.words, other.words), left_over(other.words, one.words)
        if has_facts and not turned and not lost and not gained:
            return ("said", "") if same_order(one, other) else ("altered", "the words stand in another order")
        if not turned and not (lost and gained) and asked.holds(lost or gained, one, other):
            return "said", ""
        if match.near < limits.altered:
            return "missing", ""
        if not has_facts:
            return "altered", "facts differ"
        if turned:
            return "altered", turned
        if match.near < limits.near:
            return "altered", "not near enough in meaning"
        if exchanged < limits.exchanged:
            return "altered", "other words stand in place of some"
        extra = added(match.changes)
        if extra and not asked.holds(extra, one, other):
            return "altered", "one says more"
        return "said", ""


@dataclass(frozen=True, slots=True)
class _Question:
    """What an answer may repeat without saying more: "The Holocene", "The latest epoch is called the Holocene."."""

    words: set[str]
    facts: Facts

    def holds(self, extra: tuple[str, ...], one: Statement, other: Statement) -> bool:
        """Whether `one` and `other` differ by words and facts of the question alone."""
        if not self.words.issuperset(extra) or JOINS.search(one.text) or JOINS.search(other.text):
            return False
        a, b, mine = one.facts, other.facts, self.facts
        differ = differences(a, b)
        return not (differ.negation or differ.opposed) and (
            same_digits(one, other)
            and a.numbers ^ b.numbers <= mine.numbers
            and a.times ^ b.times <= mine.times
            and a.units ^ b.units <= mine.units
            and a.identifiers ^ b.identifiers <= mine.identifiers
            and (a.names - b.words) | (b.names - a.words) <= mine.words
        )


def _different(why: str, *, score: float = 0.0) -> Verdict:
    return Verdict(same=False, score=score, why=why)


def _matches(left: list[Statement], right: list[Statement], near: np.ndarray, *, is_back: bool) -> Iterator[Match]:
    whole = f" {' '.join(each.text for each in right)} ".casefold()
    for each, row in zip(left, near, strict=True):
        at = int(row.argmax())
        is_quoted = _stands_in(each.text.casefold(), whole)
        changed = () if is_quoted else tuple(changes(each.tokens, right[at].tokens))
        yield Match(each, right[at], float(row[at]), is_quoted, is_back, changed)


def _stands_in(part: str, whole: str) -> bool:
    at = whole.find(part)
    return at >= 0 and not whole[at - 1].isalnum() and not whole[at + len(part)].isalnum()
