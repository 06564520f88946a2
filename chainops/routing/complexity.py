"""Choose by how hard a question looks: a few countable things, their weights, and nothing hidden.

The weights are in `complexity.json`, with what they were trained on. A question's score is the sum of its parts: how
much likelier a strong model is to be right than a weak one, beyond the average question of the training sets.
"""

from __future__ import annotations

import bisect
import json
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chainops.routing.records import Asking, Choice

if TYPE_CHECKING:
    import numpy as np

    from chainops.routing.meaning import Embeds

NUMBERS = Path(__file__).with_name("complexity.json")
_MAX_CHARS = 20_000
"""Of a question; what comes after is not looked at."""

_WORD = re.compile(r"[a-z']+")
_COUNTED = {
    "numbers": re.compile(r"\d[\d,.]*"),
    "percentages": re.compile(r"\d\s?%|\bpercent"),
    "fractions": re.compile(r"\d/\d|\b(?:half|thirds?|quarters?|twice|times|doubled?|triple)\b"),
    "conditions and steps": re.compile(
        r"\b(?:if|when|then|after|before|until|while|unless|each|every|per|more|less|fewer|remaining|rest|left|total"
        r"|average|same|instead|except)\b"
    ),
    "formula signs": re.compile(r"[=+*/^<>≤≥∑∫√\\{}_]"),
    "code": re.compile(r"```|\bdef |\bclass |\breturn\b|\bimport |;\n"),
    "tasks": re.compile(
        r"\b(?:why|explain|prove|derive|compare|design|analy[sz]e|calculate|compute|find|determine|evaluate|estimate"
        r"|which|following)\b"
    ),
    "negations": re.compile(r"\b(?:not|except|none|neither|false|incorrect)\b|n't\b"),
    "line breaks": re.compile(r"\n"),
    "commas": re.compile(r","),
    "amounts of money": re.compile(r"[$€£]\d"),
}
_SENTENCE_END = re.compile(r"[.?!](?:\s|$)")


def features(question: str) -> dict[str, float]:
    """What can be counted in a question, by name; counts as log(1 + n)."""
    text = question[:_MAX_CHARS]
    low = text.lower()
    words = _WORD.findall(low)
    count = max(1, len(words))
    found = {
        "length": math.log1p(count),
        "words per sentence": count / max(1, len(_SENTENCE_END.findall(text))) / 20,
        "letters per word": sum(map(len, words)) / count / 5,
        "variety of words": math.log1p(len(set(words))) - math.log1p(count),
    }
    return found | {name: math.log1p(len(pattern.findall(low))) for name, pattern in _COUNTED.items()}


@dataclass(frozen=True, slots=True)
class Weights:
    """One linear scorer."""

    offset: float
    features: dict[str, float]
    """What a feature's score is multiplied by, once its mean is taken off."""
    means: dict[str, float]
    levels: tuple[float, ...]
    """Scores of the training questions at equal steps from the lowest to the highest."""
    topic: tuple[float, ...] = ()
    """The same for each number of the question's vector; empty: the vector is not looked at."""


@dataclass(frozen=True, slots=True)
class Complexity:
    """How hard a question looks."""

    score: float
    """Expected gain in accuracy by the strong model, in -1..1, as trained."""
    level: float
    """Share of the training questions that look easier, 0..1."""
    parts: dict[str, float]
    """What each feature adds to the score; they sum up to it, with the offset."""


@cache
def shipped() -> tuple[Weights, Weights, str]:
    """The weights for a question alone, for a question with its vector, and whose vector: an embedder's digest."""
    told = json.loads(NUMBERS.read_text("utf-8"))
    alone, with_topic = (_weights(told[name]) for name in ("question", "question_and_vector"))
    return alone, with_topic, told["question_and_vector"]["embedder_digest"]


def _weights(told: dict[str, Any]) -> Weights:
    return Weights(told["offset"], told["features"], told["means"], tuple(told["levels"]), tuple(told.get("topic", ())))


def score(question: str, weights: Weights, vector: np.ndarray | None = None) -> Complexity:
    """How hard a question looks.

    Args:
        vector: The question's, from the embedder that the weights were trained with; unit length.
    """
    counted = features(question)
    parts = {name: each * (counted[name] - weights.means[name]) for name, each in weights.features.items()}
    if weights.topic and vector is not None:
        parts["topic"] = math.fsum(a * b for a, b in zip(weights.topic, vector.tolist(), strict=True))
    total = weights.offset + math.fsum(parts.values())
    return Complexity(total, bisect.bisect_left(weights.levels, total) / len(weights.levels), parts)


class ByComplexity:
    """Simple questions go one way, complex ones another.

    Args:
        above: Level from which a question counts as complex: 0.5 is as hard as the middle of the training questions
            (school mathematics and examinations). Everyday questions come to 0.1 and less.
        embedder: The chain's. Where it is the one the weights were trained with, what the question is about counts too.
    """

    by = "complexity"

    def __init__(
        self,
        simple: str,
        complex: str,  # noqa: A002
        *,
        above: float = 0.3,
        embedder: Callable[[], Embeds] | None = None,
    ) -> None:
        self.simple, self.complex, self.above = simple, complex, above
        self._embedder = embedder

    @property
    def names(self) -> Iterable[str]:
        return self.simple, self.complex

    @property
    def is_slow(self) -> bool:
        return self._embedder is not None

    def prepare(self, question: str) -> np.ndarray | None:
        embedder = None if self._embedder is None else self._embedder()
        if embedder is None or embedder.digest != shipped()[2]:
            return None
        row: np.ndarray = embedder.embed([question])[0]
        return row

    def scored(self, question: str, vector: np.ndarray | None) -> Complexity:
        alone, with_topic, _ = shipped()
        return score(question, alone if vector is None else with_topic, vector)

    def choose(self, asking: Asking) -> Choice:
        found = self.scored(asking.question, asking.prepared)
        is_complex = found.level >= self.above
        most = sorted(found.parts.items(), key=lambda each: -each[1] if is_complex else each[1])[:2]
        says = " and ".join(f"{name} ({value:+.3f})" for name, value in most)
        why = f"it looks harder than {found.level:.0%} of the training questions, most of all by its {says}"
        route, other = (self.complex, self.simple) if is_complex else (self.simple, self.complex)
        return Choice(route, why, round(found.level, 3), {other: None}, {"features": self._shown(found)})

    @staticmethod
    def _shown(found: Complexity) -> dict[str, float]:
        return {name: round(value, 4) for name, value in found.parts.items() if abs(value) >= 0.0005}

    def learn(self, route: str, duration_s: float | None) -> None:
        """Nothing: the weights are fixed."""
