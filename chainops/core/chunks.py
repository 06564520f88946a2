"""Chunks and whole values: put together, taken apart, compared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, BaseMessageChunk, message_chunk_to_message
from langchain_core.messages.ai import add_ai_message_chunks

from chainops.core.answer import RestartChunk


def merge(chunks: Sequence[Any]) -> Any:
    """The whole value that these chunks make; None for no chunks, or where all of them were taken back.

    Messages come back as messages, never as chunks. Values that cannot be added: the last one,
    as LangChain does.
    """
    chunks = chunks[_begin(chunks) :]
    if not chunks:
        return None
    first = chunks[0]
    if isinstance(first, AIMessageChunk) and all(isinstance(each, AIMessageChunk) for each in chunks):
        return message_chunk_to_message(first if len(chunks) == 1 else add_ai_message_chunks(first, *chunks[1:]))
    if isinstance(first, str) and all(isinstance(each, str) for each in chunks):
        return "".join(chunks)
    total = first
    for chunk in chunks[1:]:
        try:
            total = total + chunk
        except TypeError:
            total = chunk
    return as_whole(total)


def _begin(chunks: Sequence[Any]) -> int:
    """Where the answer begins: after the last chunk that took all before it back."""
    voids = [position for position, each in enumerate(chunks) if isinstance(each, RestartChunk)]
    return voids[-1] + 1 if voids else 0


def as_chunk(value: Any) -> Any:
    """A whole value as the one chunk a stream of it would have."""
    if isinstance(value, AIMessage) and not isinstance(value, AIMessageChunk):
        kept = {name: getattr(value, name) for name in value.model_fields_set if name != "type"}
        return AIMessageChunk(**kept)
    return value


def spoken(value: Any) -> Any:
    """A value as one chunk, without the facts about it: those of two providers do not add up."""
    chunk = as_chunk(value)
    if isinstance(chunk, AIMessageChunk):
        return AIMessageChunk(content=chunk.content, tool_call_chunks=chunk.tool_call_chunks)
    return chunk


def as_whole(value: Any) -> Any:
    """A message for a chunk that came as a whole answer; some runnables return their merged chunks as they are."""
    return message_chunk_to_message(value) if isinstance(value, BaseMessageChunk) else value


def has_substance(chunk: Any) -> bool:
    """Whether a reader would notice this chunk. A provider's opening chunk with a role and no text has none."""
    if isinstance(chunk, BaseMessageChunk):
        if _says(chunk.content) or chunk.additional_kwargs:
            return True
        return isinstance(chunk, AIMessageChunk) and bool(chunk.tool_call_chunks)
    return chunk is not None and chunk != ""


def words_of(value: Any) -> Any:
    """What a value says, for comparing: a message's content and tool calls; anything else is itself."""
    if isinstance(value, BaseMessage):
        return value.content, [(each["name"], each["args"]) for each in getattr(value, "tool_calls", ())]
    return value


def _says(content: str | list[str | dict[str, Any]]) -> bool:
    """Whether there is more than white space in a message's content."""
    parts = [content] if isinstance(content, str) else content
    texts = (part if isinstance(part, str) else part.get("text", part) for part in parts)
    return any(text.strip() if isinstance(text, str) else bool(text) for text in texts)
