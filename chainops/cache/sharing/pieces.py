"""What passes the pieces of a shared answer on: to the followers, and past what was said before."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from langchain_core.messages import AIMessageChunk, BaseMessage

from chainops.cache.sharing.flight import Seat
from chainops.core.answer import RestartChunk
from chainops.core.chunks import has_substance
from chainops.core.steps import Filter

_BEFORE = 256
"""Characters before a piece that are looked at with it: what must not be told may begin there."""


class Tap:
    """A filter that lets all pass, and lets the followers hear it too.

    Chunks before the first with substance are told with it: until then the leader's caller has not heard
    them either, and another route may still be taken.

    Args:
        may_tell: Asked with each piece's words, and those just before it. From the first False on nobody else hears.
    """

    def __init__(self, seat: Seat, may_tell: Callable[[str], bool] | None = None) -> None:
        self._seat, self._may_tell, self._before = seat, may_tell, ""
        self._held: list[Any] | None = []

    def feed(self, chunk: Any) -> Iterable[Any]:
        if isinstance(chunk, RestartChunk):  # followers may not be able to take back what they said
            self._seat.keep_private()
            self._held = None
        elif self._held is None:
            self._tell(own(chunk))
        else:
            self._held.append(own(chunk))
            if has_substance(chunk):
                self._release()
        return (chunk,)

    def finish(self) -> Iterable[Any]:
        self._release()
        return ()

    def _release(self) -> None:
        held, self._held = self._held or (), None
        for chunk in held:
            self._tell(chunk)

    def _tell(self, chunk: Any) -> None:
        if self._may_tell is not None:
            words = self._before + _text_of(chunk)
            self._before = words[-_BEFORE:]
            if not self._may_tell(words):
                self._seat.keep_private()  # ends it once; the followers ask for themselves
        self._seat.say(chunk)


class Through:
    """One filter after the other."""

    def __init__(self, first: Filter, second: Filter) -> None:
        self._first, self._second = first, second

    def feed(self, chunk: Any) -> Iterable[Any]:
        return [out for each in self._first.feed(chunk) for out in self._second.feed(each)]

    def finish(self) -> Iterable[Any]:
        rest = [out for each in self._first.finish() for out in self._second.feed(each)]
        return [*rest, *self._second.finish()]


class Resume:
    """A filter that swallows what was said before, when the new answer begins with the same words.

    When it does not, `has_diverged` is True from then on and nothing more comes out; the call itself goes on,
    because its answer serves those who have heard nothing yet. Look at it after `finish`, which also finds an
    answer that ended too early.

    Args:
        said: Plain text, or messages of it.
    """

    def __init__(self, said: Sequence[Any]) -> None:
        self._left = "".join(map(_text_of, said))
        self._swallowed: Any = "" if said and isinstance(said[0], str) else AIMessageChunk(content="")
        self._has_said = False
        self.has_diverged = False

    def feed(self, chunk: Any) -> Iterable[Any]:
        if self.has_diverged:
            return ()
        if self._left:
            text = _text_of(chunk)
            if not is_text(chunk) or not (self._left.startswith(text) or text.startswith(self._left)):
                self.has_diverged = True
                return ()
            rest = text[len(self._left) :]
            self._left = self._left[len(text) :]
            if text and not rest:
                self._swallowed = _with_text(chunk, "")
                return ()
            chunk = _with_text(chunk, rest)
        self._has_said = True
        return (chunk,)

    def finish(self) -> Iterable[Any]:
        """An empty piece when nothing else came out: a call that answers gives something."""
        self.has_diverged = self.has_diverged or bool(self._left)
        return () if self._has_said else (self._swallowed,)


def own(value: Any) -> Any:
    """A copy for another request: no shared parts, and without the id and usage of the call that made it."""
    if isinstance(value, str):
        return value
    if not isinstance(value, BaseMessage):
        return copy.deepcopy(value)
    kept = {name: getattr(value, name) for name in value.model_fields_set if name not in _CALLERS_OWN}
    content = kept.get("content")
    plain = isinstance(content, str) and not any(each for name, each in kept.items() if name != "content")
    return type(value)(content=content) if plain else type(value)(**copy.deepcopy(kept))


_CALLERS_OWN = frozenset({"type", "id", "usage_metadata"})


def is_text(value: Any) -> bool:
    """Whether plain text is all it says: what cannot be compared word for word cannot be resumed."""
    if isinstance(value, BaseMessage):
        calls = getattr(value, "tool_call_chunks", None) or getattr(value, "tool_calls", None)
        return isinstance(value.content, str) and not value.additional_kwargs and not calls
    return isinstance(value, str)


def _text_of(value: Any) -> str:
    return value if isinstance(value, str) else str(value.text) if isinstance(value, BaseMessage) else ""


def _with_text(chunk: Any, text: str) -> Any:
    return text if isinstance(chunk, str) else chunk.model_copy(update={"content": text})
