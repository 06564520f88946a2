"""What knowledge is made of: a document, and what is said when one cannot be had."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from chainops.core.errors import ChainopsError

MAX_ID_CHARS = 1000
"""Longer ids do not fit the index rows of PostgreSQL."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One text with a name. Every offset of chainops counts characters of `text`.

    Raises:
        UnusableDocument: the id is empty or longer than 1,000 characters, the text holds no
            word, a part is no storable text, or metadata is not JSON.
    """

    id: str
    """The path below the chain file, or what the caller named it; unique within a knowledge base."""
    title: str
    text: str
    media_type: str = "text/plain"
    """How `text` is marked up: `text/html` and notebooks have been turned into Markdown by then."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """Plain JSON. `pages`, for a PDF, lists the offset in `text` at which each page starts."""
    digest: str = field(init=False)
    """sha256 of everything above but the id: it changes exactly when the document does."""

    def __post_init__(self) -> None:
        where = self.id[:80] or "(no id)"
        if not self.id.strip() or len(self.id) > MAX_ID_CHARS:
            raise UnusableDocument(where, f"its id has {len(self.id)} characters; give it 1 to {MAX_ID_CHARS}")
        for name, value in (("id", self.id), ("title", self.title), ("text", self.text)):
            _check_storable(where, name, value)
        if not self.text.strip():
            raise UnusableDocument(where, "is empty: it holds no text")
        object.__setattr__(self, "metadata", plain_metadata(where, self.metadata))
        parts = [self.title, self.text, self.media_type, self.metadata]
        written = json.dumps(parts, sort_keys=True, ensure_ascii=False).encode()
        object.__setattr__(self, "digest", hashlib.sha256(written).hexdigest())

    def page_of(self, offset: int) -> int | None:
        """The page, from 1, on which the character at `offset` stands; None if there are no pages."""
        starts = self.metadata.get("pages")
        if not isinstance(starts, list) or not starts:
            return None
        return max(1, sum(1 for start in starts if start <= offset))


@dataclass(frozen=True, slots=True)
class LoadProblem:
    """Something that was asked for and is not in the corpus, and why."""

    path: str
    """The document's id, or the pattern that matched nothing."""
    problem: str

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}"


class UnusableDocument(ChainopsError, ValueError):
    """One document cannot be used; the others can."""

    def __init__(self, path: str, problem: str) -> None:
        self.path, self.problem = path, problem
        super().__init__(f"{path}: {problem}")


class EmptyCorpus(ChainopsError):
    """Nothing was left to index. What an earlier run indexed is untouched."""

    def __init__(self, patterns: Sequence[str], base: str, problems: Sequence[LoadProblem] = ()) -> None:
        self.patterns, self.base, self.problems = tuple(patterns), base, tuple(problems)
        asked = ", ".join(patterns) or "no patterns"
        why = "".join(f"; {problem}" for problem in self.problems[:3])
        more = f"; and {len(self.problems) - 3} more" if len(self.problems) > 3 else ""
        super().__init__(f"no documents: {asked} in {base}{why}{more}; check `documents` and the folder it starts from")


def plain_metadata(where: str, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """`metadata` as plain JSON; dates and paths become text, anything else is refused by name."""

    def plain(value: object) -> str:
        if isinstance(value, dt.date | dt.time | PurePath):
            return str(value)
        raise TypeError(type(value).__name__)

    try:
        written = json.dumps(dict(metadata), default=plain, allow_nan=False)
        _check_storable(where, "metadata", json.dumps(dict(metadata), default=plain, ensure_ascii=False))
        loaded: dict[str, Any] = json.loads(written)
    except (TypeError, ValueError, RecursionError) as error:
        if isinstance(error, UnusableDocument):
            raise
        raise UnusableDocument(where, f"its metadata is not plain JSON ({error}); keep text, numbers, lists") from error
    return loaded


def _check_storable(where: str, name: str, value: str) -> None:
    if "\x00" in value:
        raise UnusableDocument(where, f"its {name} holds a NUL character; it is binary, or was decoded wrongly")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        problem = f"its {name} holds half a surrogate pair at character {error.start}; decode it again"
        raise UnusableDocument(where, problem) from error
