"""Where sentences, code blocks and headings begin and end, as exact offsets.

Written for the text chains really get: prose, Markdown, and the reST that Python's own documentation is
printed as. Rules, not a model: the same text always gives the same spans.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Kind = Literal["prose", "code", "heading"]


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of a text: `text[span.start:span.end]`, without surrounding space."""

    start: int
    """First character, in Python characters from the text's beginning."""
    end: int
    """One past the last character."""
    kind: Kind = "prose"
    """`code` is a whole literal block, table or grammar; `heading` a title with its underline."""


def sentences(text: str) -> list[Span]:
    """Split a text into sentences, literal blocks and headings.

    Returns:
        Spans in order. They never overlap, and every character outside them is white space.
        A literal block (fenced, indented, or a table) stays one span, however long.
    """
    return [span for block in _blocks(text) for span in _spans(text, block)]


# --- blocks: runs of lines that belong together -------------------------------------------------

_FENCE = re.compile(r"\s*(`{3,}|~{3,})")
_ATX = re.compile(r"\s{0,3}#{1,6}\s+\S")
_RULE = re.compile(r"\s*([=\-~^\"'*#+.`:_])\1{2,}\s*$")
_TABLE = re.compile(r"\s*(\||\+[-=]{2,})")
_ITEM = re.compile(r"\s*(?:[-*+•]|\(?\d{1,3}[.)]|\[\d{1,3}\])\s+\S")
_CODE_LINE = re.compile(
    r"^\s*(>>>|\.\.\. |@\w|\$ |%|#!"
    r"|(def|class|import|from|for|while|if|elif|try|with|return|async|assert|raise|print)\b.*[:()\]\w]$)|::=|[\w\])]\s*[-+*/|&]?=\s*\S|\w\(.*\)\s*:?$|[{};]\s*$|^\s*[)\]}]+,?$|->",
)


_LOOKED_AT = 300
"""Characters of a line, and lines of a paragraph, that decide whether it is code: keeps the time linear."""


@dataclass(slots=True)
class _Line:
    start: int
    text: str

    @property
    def is_blank(self) -> bool:
        return not self.text or self.text.isspace()

    @property
    def indent(self) -> int:
        return len(self.text) - len(self.text.lstrip())


@dataclass(slots=True)
class _Block:
    start: int
    end: int
    kind: Kind


def _lines(text: str) -> list[_Line]:
    found: list[_Line] = []
    start = 0
    for line in text.splitlines(keepends=True):
        found.append(_Line(start, line))
        start += len(line)
    return found


def _blocks(text: str) -> Iterator[_Block]:
    lines = _lines(text)
    at = 0
    before: _Line | None = None  # the last line of the paragraph above, for "…:" before a literal block
    body_indent = 0
    while at < len(lines):
        line = lines[at]
        if line.is_blank:
            at += 1
            continue
        if fence := _FENCE.match(line.text):
            stop = _fence_end(lines, at, fence.group(1))
            kind: Kind = "code"
        elif _is_literal(lines, at, before, body_indent):
            stop = _literal_end(lines, at, body_indent)
            kind = "code"
        elif _TABLE.match(line.text):
            stop = _run_end(lines, at, _TABLE)
            kind = "code"
        elif _ATX.match(line.text):
            stop, kind = at + 1, "heading"
        elif at + 1 < len(lines) and _RULE.match(lines[at + 1].text) and _is_title(line, lines[at + 1]):
            stop, kind = at + 2, "heading"
        else:
            stop, kind = _paragraph_end(lines, at), "prose"
        if kind == "prose":
            before, body_indent = lines[stop - 1], lines[at].indent
        elif kind == "heading":
            before, body_indent = None, 0
        yield _Block(line.start, lines[stop - 1].start + len(lines[stop - 1].text), kind)
        at = stop


def _is_title(line: _Line, rule: _Line) -> bool:
    title = line.text.strip()
    return not _RULE.match(line.text) and len(rule.text.strip()) >= min(3, len(title)) and len(title) <= 120


def _fence_end(lines: list[_Line], at: int, fence: str) -> int:
    for stop in range(at + 1, len(lines)):
        text = lines[stop].text.strip()
        if text.startswith(fence) and not text.strip(fence[0]):
            return stop + 1
    return len(lines)  # never closed: the rest is code, as Markdown reads it


def _is_literal(lines: list[_Line], at: int, before: _Line | None, body_indent: int) -> bool:
    line = lines[at]
    if line.text.lstrip().startswith(">>> "):
        return True
    if line.indent <= body_indent or _ITEM.match(line.text):
        return False
    paragraph = lines[at : _run_of_text_end(lines, at)]
    looks = sum(bool(_CODE_LINE.search(entry.text[:_LOOKED_AT].rstrip())) for entry in paragraph)
    announced = before is not None and before.text.rstrip().endswith(":")
    if announced and before is not None and before.text.rstrip().endswith("::"):
        return True
    if line.indent - body_indent < 2:  # one column is alignment, not a block
        return False
    return looks * 2 >= len(paragraph) or (announced and looks > 0)


def _literal_end(lines: list[_Line], at: int, body_indent: int) -> int:
    doctest = lines[at].indent <= body_indent
    stop = at
    for index in range(at, len(lines)):
        line = lines[index]
        if line.is_blank:
            if doctest:
                break
            continue
        if not doctest and line.indent <= body_indent:
            break
        if not doctest and index > at and lines[index - 1].is_blank and line.indent < lines[at].indent:
            break
        stop = index
    return stop + 1


def _run_of_text_end(lines: list[_Line], at: int) -> int:
    stop = at
    while stop < min(len(lines), at + _LOOKED_AT) and not lines[stop].is_blank:
        stop += 1
    return stop


def _run_end(lines: list[_Line], at: int, pattern: re.Pattern[str]) -> int:
    stop = at
    while stop < len(lines) and pattern.match(lines[stop].text):
        stop += 1
    return stop


def _paragraph_end(lines: list[_Line], at: int) -> int:
    stop = at + 1
    while stop < len(lines):
        line = lines[stop]
        starts_other = _ITEM.match(line.text) or _FENCE.match(line.text) or _ATX.match(line.text)
        if line.is_blank or starts_other or _TABLE.match(line.text):
            break
        stop += 1
    return stop


# --- sentences within a paragraph ----------------------------------------------------------------

_BOUNDARY = re.compile(
    r"(?P<stop>(?<![.!?…])[.!?…]+|(?<![。！？])[。！？]+)(?P<close>[\"'”’)\]*_`]*(?:\s?\[\d{1,3}\])*)"
    r"(?P<space>\s+)(?!\[\d{1,3}\])(?=(?P<next>[\"'“‘(\[*_`]*(?:[^\W\d_a-z]|\d|[a-z_]\w*(?:\(|\.\w|_)|__|\"|“|`)))"
)
_WIDE = re.compile(r"[。！？]+[”’」』）]*")
_NEVER_LAST = "e.g i.e vs cf dr mr mrs ms prof st fig figs eq gen col lt sgt capt rev hon gov sen rep approx"
_MAY_BE_LAST = (
    "etc al no nos sec ch vol pp dept est inc ltd co corp jr sr u.s u.k u.n ca "
    "jan feb mar apr jun jul aug sep sept oct nov dec"
)
_INNER = frozenset(_NEVER_LAST.split())
_ABBREVIATIONS = _INNER | frozenset(_MAY_BE_LAST.split())
_LAST_WORD = re.compile(r"[\w.]+$")


def _spans(text: str, block: _Block) -> Iterator[Span]:
    if block.kind != "prose":
        if span := _trim(text, block.start, block.end, block.kind):
            yield span
        return
    start = block.start
    for cut in _cuts(text, block.start, block.end):
        if span := _trim(text, start, cut, "prose"):
            yield span
        start = cut
    if span := _trim(text, start, block.end, "prose"):
        yield span


def _cuts(text: str, start: int, end: int) -> list[int]:
    cuts = [
        match.start("space") for match in _BOUNDARY.finditer(text, start, end) if not _is_inside(text, start, match)
    ]
    if any(mark in text[start:end] for mark in "。！？"):
        cuts = sorted({*cuts, *(match.end() for match in _WIDE.finditer(text, start, end))})
    return cuts


def _is_inside(text: str, start: int, match: re.Match[str]) -> bool:
    """Whether this full stop ends an abbreviation, an initial or a list number rather than a sentence."""
    if match.group("stop") != "." or match.group("close"):
        return False
    word = _LAST_WORD.search(text, max(start, match.start() - 24), match.start())
    if word is None:
        return False
    last = word.group().lower()
    follows = text[match.end("space") : match.end("space") + 1]
    if last in _ABBREVIATIONS:
        # "etc. The" ends a sentence, "Dr. Smith" never does, "No. 5" only before a number.
        return last in _INNER or not follows.isupper()
    is_initial = len(last) == 1 and last.isalpha() and word.group().isupper()
    return is_initial or (last.isdigit() and not text[start : min(word.start(), start + 8)].strip())


def _trim(text: str, start: int, end: int, kind: Kind) -> Span | None:
    piece = text[start:end]
    bare = piece.strip()
    if not bare:
        return None
    first = start + len(piece) - len(piece.lstrip())
    return Span(first, first + len(bare), kind)
