"""Go on from where another route broke off, without saying anything twice."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.messages.ai import add_ai_message_chunks, add_usage
from langchain_core.messages.base import merge_content

_LOOK_CHARS = 200
"""How much of a continuation is looked at before any of it is said."""
_LEAST_CHARS = 12
"""A shorter overlap may be chance."""


class Joint:
    """A filter for the continuation of `said`: drops what it repeats, and keeps two words apart.

    A model that is asked to go on sometimes repeats the last words first, or begins all over again. The first
    `_LOOK_CHARS` characters are held back to see that.
    """

    def __init__(self, said: str) -> None:
        self._said = said
        self._held: list[AIMessageChunk] = []
        self._repeating: str | None = None
        """What it is still expected to repeat word for word."""
        self._is_open = False

    def feed(self, chunk: Any) -> Iterator[Any]:
        chunk = _plain(chunk)
        if self._is_open:
            yield from self._shortened(chunk)
            return
        self._held.append(chunk)
        if sum(len(str(each.content)) for each in self._held) >= _LOOK_CHARS or not isinstance(chunk.content, str):
            yield from self._opened()

    def finish(self) -> Iterator[Any]:
        if not self._is_open:
            yield from self._opened()

    def _opened(self) -> Iterator[Any]:
        self._is_open = True
        held, self._held = self._held, []
        if any(not isinstance(each.content, str) for each in held):
            yield from held  # parts of other kinds than text: nothing to compare them with
        elif held:
            whole = held[0] if len(held) == 1 else add_ai_message_chunks(held[0], *held[1:])
            yield from self._shortened(whole.model_copy(update={"content": self._joined(str(whole.content))}))

    def _joined(self, text: str) -> str:
        said, begun = self._said, text.lstrip()
        common = _common(said, begun)
        if common >= min(2 * _LEAST_CHARS, len(said)) and common:  # from the beginning again
            self._repeating = said[common:] if common == len(begun) else None
            return begun[common:]
        for size in range(min(len(said), len(begun)), _LEAST_CHARS - 1, -1):
            if said.endswith(begun[:size]):
                return begun[size:]
        is_glued = said[-1:].isalnum() and text[:1].isalnum()
        return f" {text}" if is_glued else text

    def _shortened(self, chunk: AIMessageChunk) -> Iterator[Any]:
        """The chunk without what it still repeats."""
        if self._repeating and isinstance(chunk.content, str):
            common = _common(self._repeating, chunk.content)
            self._repeating = self._repeating[common:] if common == len(chunk.content) else None
            chunk = chunk.model_copy(update={"content": chunk.content[common:]})
        yield chunk


def _common(one: str, other: str) -> int:
    """How many characters two texts begin with in common."""
    return next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _plain(chunk: Any) -> AIMessageChunk:
    """Without the provider's facts about itself: those of two providers do not add up."""
    kept = {
        name: getattr(chunk, name) for name in chunk.model_fields_set if name not in ("response_metadata", "id", "type")
    }
    return AIMessageChunk(**kept)


def can_be_continued(said: Any) -> bool:
    """Whether what was said is text alone: half a tool call cannot be gone on from."""
    return isinstance(said, AIMessage) and isinstance(said.content, str) and not _calls(said)


def _calls(said: AIMessage) -> bool:
    return bool(said.tool_calls or said.invalid_tool_calls or getattr(said, "tool_call_chunks", None))


def joined(said: AIMessage, more: AIMessage) -> AIMessage:
    """Two parts as one message: the last one's facts, and what both consumed."""
    usage = add_usage(said.usage_metadata, more.usage_metadata) if said.usage_metadata else more.usage_metadata
    return AIMessage(
        content=merge_content(said.content, more.content),
        tool_calls=more.tool_calls,
        response_metadata=more.response_metadata,
        usage_metadata=usage,
    )
