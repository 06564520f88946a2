"""How passages travel inside a prompt: one named, delimited block that people and models can read.

    <passages>
    <passage id="1" title="yield">…</passage>
    </passages>

The prompt's author says where the block stands; a large model reads it as text, the extractive model parses it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

NO_ANSWER = "I don't know: the passages do not answer this."
"""What a model says, word for word, when the passages do not answer the question."""


@dataclass(frozen=True, slots=True)
class PromptPassage:
    """One passage as a model sees it."""

    id: int
    """Citation number, from 1: the `1` of the marker `[1]`."""
    title: str
    text: str


# Text is left as it is, code included, except where it could be taken for our own tags: a backslash goes in
# after the `<`, and one more in front of any already there, so reading it back is exact.
_OURS = re.compile(r"<(\\*)(/?passages?\b)", re.IGNORECASE)
_ESCAPED = re.compile(r"<\\(\\*/?passages?\b)", re.IGNORECASE)
_OPEN, _CLOSE = "<passages>\n", "</passages>"
_HEAD, _TAIL = re.compile(r'<passage id="(\d{1,9})" title="([^"]*)">'), "</passage>\n"
_TITLE_MARKS = (("&", "&amp;"), ('"', "&quot;"), ("<", "&lt;"), (">", "&gt;"), ("\n", "&#10;"), ("\r", "&#13;"))


def render_passages(passages: Sequence[PromptPassage]) -> str:
    """Write the block. `parse_passages` reads exactly these passages back, whatever their text holds."""
    rows = [
        f'<passage id="{passage.id}" title="{_quote(passage.title)}">{_escape(passage.text)}</passage>\n'
        for passage in passages
    ]
    return f"<passages>\n{''.join(rows)}</passages>"


def parse_passages(message: str) -> list[PromptPassage]:
    """The passages of every block in a message, in order; empty if there is no block."""
    found: list[PromptPassage] = []
    for start, end in _blocks(message):
        at = start + len(_OPEN)
        while head := _HEAD.search(message, at, end):
            stop = message.find(_TAIL, head.end(), end)
            if stop < 0:
                break
            text = _unescape(message[head.end() : stop])
            found.append(PromptPassage(int(head.group(1)), _unquote(head.group(2)), text))
            at = stop + len(_TAIL)
    return found


def has_passages(message: str) -> bool:
    """Whether the message holds a block, even an empty one ("nothing was found" is not "nothing was asked for")."""
    return next(_blocks(message), None) is not None


def without_passages(message: str) -> str:
    """The message with its blocks cut out: what was said around them."""
    kept, at = [], 0
    for start, end in _blocks(message):
        kept.append(message[at:start])
        at = end + len(_CLOSE)
    return "".join(kept) + message[at:]


def _blocks(message: str) -> Iterator[tuple[int, int]]:
    """Where each block begins, and where its closing tag does. Searched, not matched: a pattern would take
    quadratic time on a message of nothing but opening tags.
    """
    at = 0
    while (start := message.find(_OPEN, at)) >= 0 and (end := message.find(_CLOSE, start)) >= 0:
        yield start, end
        at = end + len(_CLOSE)


def _escape(text: str) -> str:
    return _OURS.sub(r"<\\\1\2", text)


def _unescape(text: str) -> str:
    return _ESCAPED.sub(r"<\1", text)


def _quote(title: str) -> str:
    for plain, marked in _TITLE_MARKS:
        title = title.replace(plain, marked)
    return title


def _unquote(title: str) -> str:
    for plain, marked in reversed(_TITLE_MARKS):
        title = title.replace(marked, plain)
    return title


_CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`", re.DOTALL)
# A marker stands after a space, a stop, a bracket or at the beginning; `a[0]`, `f()[1]`, `x[1][2]` are subscripts.
_MARKS = r"((?:\[\d{1,4}(?:\s*,\s*\d{1,4})*\])+)"
_MARKER = re.compile(rf"(?<![\w)\]\"']){_MARKS}(?![\w(\[]|\s*=)|(?<=[.!?…,;:]){_MARKS}")
_NUMBER = re.compile(r"\d+")


def citations(text: str, n: int | None = None) -> list[int]:
    """Passage numbers that an answer cites, each once, in order of first mention.

    Reads `[1]`, `[2, 3]` and `[1][4]`. Subscripts in code (`a[0]`) and anything between backquotes are no citations.

    Args:
        text: An answer.
        n: How many passages there were; numbers above it are left out. None accepts any number from 1.
    """
    prose = _CODE.sub(lambda code: " " * len(code.group()), text)
    found: dict[int, None] = {}
    for match in _MARKER.finditer(prose):
        for number in _NUMBER.findall(match.group()):
            value = int(number)
            if value >= 1 and (n is None or value <= n):
                found.setdefault(value)
    return list(found)
