"""Turn the markers of an answer into sources that can be looked up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from chainops.knowledge.splitting import Passage
from chainops.text.passages import citations
from chainops.text.sentences import sentences
from chainops.text.tokens import stems


def cite(answer: str, passages: Sequence[Passage]) -> list[dict[str, Any]]:
    """The passages that an answer cites, in order of first mention, as plain JSON.

    Returns:
        For each: `n` (the marker), `document`, `title`, `span` (start and end, in characters of the
        document) and `quote`: the passage's sentence that shares most words with the answer.
    """
    words = frozenset(stems(answer))
    cited = []
    for number in citations(answer, len(passages)):
        passage = passages[number - 1]
        start, end = _best_sentence(passage.text, words)
        cited.append(
            {
                "n": number,
                "document": passage.document_id,
                "title": passage.title,
                "span": [passage.start + start, passage.start + end],
                "quote": passage.text[start:end],
            }
        )
    return cited


def _best_sentence(text: str, words: frozenset[str]) -> tuple[int, int]:
    def shared(span: tuple[int, int]) -> float:
        own = set(stems(text[span[0] : span[1]]))
        return len(own & words) - 0.1 * len(own - words)

    spans = [(each.start, each.end) for each in sentences(text)]
    return max(spans, key=shared, default=(0, len(text)))
