"""How much an answer can be relied on, from 0 to 1: by its sources, its tokens, or by asking again."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from langchain_core.messages import BaseMessage

from chainops.routing import arithmetic
from chainops.text.facts import facts
from chainops.text.sentences import sentences
from chainops.text.tokens import content_stems


def text_of(answer: Any) -> str:
    return str(answer.text) if isinstance(answer, BaseMessage) else str(answer)


def grounding(text: str, quotes: Iterable[str]) -> float:
    """How far the cited passages support what is said: the mean over its sentences of the share of their words that
    stand in a passage; a sentence with a number that stands in none has no support. 0 without passages.
    """
    given = " ".join(quotes)
    words, numbers = set(content_stems(given)), facts(given).numbers
    if not words:
        return 0.0
    shares = []
    for span in sentences(text):
        said = text[span.start : span.end]
        mine = set(content_stems(_without_marks(said)))
        if mine:
            is_made_up = bool(facts(_without_marks(said)).numbers - numbers)
            shares.append(0.0 if is_made_up else len(mine & words) / len(mine))
    return math.fsum(shares) / len(shares) if shares else 0.0


def agreement(text: str, others: Sequence[str]) -> float:
    """How far other answers of the same model say the same: the same final number where there is arithmetic, else the
    words in common (Dice's coefficient of their stems). The mean over the others; 0 without any.

    Source:
        Self-consistency: Wang et al. 2023, "Self-Consistency Improves Chain of Thought Reasoning".
    """
    return math.fsum(_same(text, other) for other in others) / len(others) if others else 0.0


def confidence(answer: Any) -> float | None:
    """The geometric mean of the tokens' probabilities, as the provider gave them; None where it gave none.

    Read from `response_metadata["logprobs"]["content"][...]["logprob"]`, as OpenAI-compatible servers give it.
    """
    metadata = answer.response_metadata if isinstance(answer, BaseMessage) else {}
    told = metadata.get("logprobs")
    content = told.get("content") if isinstance(told, Mapping) else None
    logprobs = [each.get("logprob") for each in content or () if isinstance(each, Mapping)]
    known = [float(each) for each in logprobs if isinstance(each, int | float) and not math.isnan(each)]
    return math.exp(min(0.0, math.fsum(known) / len(known))) if known else None


def _same(a: str, b: str) -> float:
    if arithmetic.is_arithmetic(a) or arithmetic.is_arithmetic(b):
        one, other = arithmetic.final_number(a), arithmetic.final_number(b)
        return float(one is not None and other is not None and abs(one - other) < 1e-6)
    mine, theirs = set(content_stems(a)), set(content_stems(b))
    return 2 * len(mine & theirs) / (len(mine) + len(theirs)) if mine or theirs else float(a.strip() == b.strip())


def _without_marks(sentence: str) -> str:
    """Without the citation marks: their numbers are no claims."""
    from chainops.text.passages import citations

    for number in citations(sentence):
        sentence = sentence.replace(f"[{number}]", " ")
    return sentence
