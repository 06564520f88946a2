"""What is wrong with a chain file, and where."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from chainops.core.errors import ChainopsError
from chainops.models.keys import smells_of_secret


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is wrong, where, and what would be right."""

    key: str
    """Path of the word, such as `models.small.timeout_s`; empty for the file as a whole."""
    found: str
    expected: str
    line: int | None = None
    """From 1; None when the chain was declared in Python."""
    column: int | None = None
    nearest: str | None = None
    """The valid word most like the one found."""
    is_rule: bool = False
    """Whether `expected` is a whole sentence rather than what should have stood there."""

    def __str__(self) -> str:
        place = f"line {self.line}, column {self.column}: " if self.line is not None else ""
        key = f"{self.key}: " if self.key else ""
        hint = f"; did you mean {self.nearest!r}?" if self.nearest else ""
        wanted = self.expected if self.is_rule else f"expected {self.expected}"
        return f"{place}{key}found {self.found}; {wanted}{hint}"


class ChainFileError(ChainopsError, ValueError):
    """A chain file, or the same words in Python, cannot be understood. All problems at once."""

    def __init__(self, place: str, problems: Sequence[Problem]) -> None:
        self.place, self.problems = place, tuple(problems)
        super().__init__(f"{place}:\n" + "\n".join(f"  {problem}" for problem in problems))


def nearest(word: str, words: Iterable[str]) -> str | None:
    """The valid word most like `word`, if any is."""
    return next(iter(difflib.get_close_matches(word, list(words), n=1, cutoff=0.6)), None)


def listed(words: Iterable[str]) -> str:
    return ", ".join(sorted(words))


_KEY_LIKE = re.compile(
    r"(?:sk|pk|gsk|xai|ghp|hf|AIza)[-_A-Za-z0-9]{8,}|(?=[^\s/]*\d)(?=[^\s/]*[A-Za-z])[-_A-Za-z0-9+]{28,}"
)


_PASSWORD = re.compile(r"://[^/:\s]*:\S+@")
"""Up to the last @ of the word: a password may hold one."""


def shown(value: object) -> str:
    """A value for a message: its repr, shortened. What looks like a key is not shown; of a mapping only its words are,
    and of mappings in a list what `shown_words` shows.
    """
    if isinstance(value, Mapping):
        return "these words: " + (", ".join(map(str, value)) or "none")
    if isinstance(value, list | tuple) and any(isinstance(each, Mapping) for each in value):
        return _masked(_flow(value))
    return _masked(repr(value))


SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL", re.IGNORECASE)
"""In the name of what should not be in a chain file."""


def shown_words(words: Mapping[str, Any]) -> str:
    """What a mapping says, as YAML would have it on one line, shortened; not what stands under names of secrets."""
    return _masked(_flow(words))


def _flow(value: Any, names: str = "") -> str:
    """`names` are those of all that is around the value."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name}: {_flow(each, f'{names}.{name}')}" for name, each in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_flow(each, names) for each in value) + "]"
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if smells_of_secret(names) or (isinstance(value, str) and SECRET.search(names)):  # a number of tokens is none
        return "***"
    text = str(value)
    return text if text.isprintable() else repr(text)


def _masked(text: str) -> str:
    text = _KEY_LIKE.sub("***", _PASSWORD.sub("://***@", text))
    return text if len(text) <= 80 else text[:77] + "..."
