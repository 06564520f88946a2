"""Words of a text, as they are compared: lower case, identifiers whole, stemmed."""

from __future__ import annotations

import re
import threading
from functools import lru_cache
from typing import Any

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)?(?:_+[^\W_]+)*_*|_+[^\W_]+(?:_+[^\W_]+)*_*|_+")

_STOP = (
    "a about after all also am an and any are as at be because been before being both but by can could did do does "
    "doing done each for from had has have having he her here hers him his how i if in into is it its itself just me "
    "more most my no nor not of off on once only or other our out over own s same she should so some such t than that "
    "the their them then there these they this those through to too under until up us very was we were what when "
    "where which while who whom whose why will with would you your"
)
STOP_WORDS = frozenset(_STOP.split())
"""English words that say little about what a text is about. Negations are among them: they matter to
meaning, but not to whether two texts share a subject."""


def tokens(text: str) -> list[str]:
    """Words and numbers in order, lower-cased.

    Identifiers stay whole (`__init__`, `max_tokens`), dotted names fall apart (`os.path` gives `os`, `path`),
    a possessive `'s` is dropped. White space and other punctuation vanish.
    """
    words: list[str] = _WORD.findall(text.lower())
    has_mark = "'" in text or "’" in text
    return [_bare(word) for word in words] if has_mark else words


def stems(text: str) -> list[str]:
    """`tokens`, each reduced to its English stem (`decorated` → `decor`); identifiers and numbers as they are."""
    return [stem(word) for word in tokens(text)]


def content_stems(text: str) -> list[str]:
    """`stems` without stop words: what the text is about. Empty for "What is it?"."""
    return [stem(word) for word in tokens(text) if word not in STOP_WORDS]


@lru_cache(maxsize=65_536)
def stem(word: str) -> str:
    """English stem of one lower-cased word (Snowball's "Porter2")."""
    return str(_stemmer().stemWord(word)) if word.isalpha() else word


def _bare(word: str) -> str:
    head, mark, tail = word.replace("’", "'").partition("'")
    return head if mark and tail in {"s", ""} else word


_own = threading.local()


def _stemmer() -> Any:
    """One for each thread: it holds the word it works on, and two that share it get wrong stems, or an IndexError."""
    if not hasattr(_own, "stemmer"):
        import snowballstemmer

        # Pure Python on purpose: the cache above hides what its C twin would gain.
        _own.stemmer = snowballstemmer.EnglishStemmer()
    stemmer: Any = _own.stemmer
    return stemmer
