"""Answers as they are stored and given back: what was said, not what it cost or who asked."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk

from chainops.cache.compare import Reply
from chainops.core.answer import KEY
from chainops.core.chunks import as_chunk

_WORDS = re.compile(r"\S+\s*|\s+")
_CHARS_PER_TOKEN = 4
_LONGEST_PACED = 100_000
"""Characters; a longer hit is said in one piece: taking it apart would hold up an event loop."""


def as_json(answer: Any) -> dict[str, Any] | None:
    """A message or string as plain JSON, tool calls, reasoning and provider metadata included; None for others."""
    if isinstance(answer, str):
        return {"text": answer}
    if not isinstance(answer, AIMessage):
        return None
    metadata = {name: each for name, each in answer.response_metadata.items() if name != KEY}
    kept: dict[str, Any] = {"content": answer.content, "response_metadata": metadata}
    kept["additional_kwargs"] = answer.additional_kwargs
    if answer.tool_calls:
        kept["tool_calls"] = answer.tool_calls
    try:
        return AIMessage(**kept).model_dump(mode="json", exclude_defaults=True)
    except (ValueError, TypeError, RecursionError):  # holds what is no JSON: it is not kept
        return None


def restored(message: dict[str, Any]) -> Any:
    """What `as_json` took apart."""
    return message["text"] if "text" in message else AIMessage.model_validate(message)


def reply_of(message: dict[str, Any], facts: dict[str, Any]) -> Reply:
    """What is compared of a stored answer."""
    if "text" in message:
        return Reply(str(message["text"]))
    told = AIMessage.model_validate(message)
    return Reply(str(told.text), facts.get("data"), tuple(told.tool_calls))


def pieces(answer: Any) -> Iterator[Any]:
    """An answer word by word, for a hit that is streamed at the pace of a model; all the rest comes with the last."""
    text = answer if isinstance(answer, str) else answer.content
    if not isinstance(text, str) or not text:
        yield answer
        return
    words = _WORDS.findall(text) if len(text) < _LONGEST_PACED else [text]
    if isinstance(answer, str):
        yield from words
        return
    for word in words[:-1]:
        yield AIMessageChunk(content=word)
    last = as_chunk(answer)
    yield last.model_copy(update={"content": words[-1]})


def tokens_of(piece: Any) -> float:
    """About how many tokens a piece has."""
    text = piece if isinstance(piece, str) else str(piece.text)
    return len(text) / _CHARS_PER_TOKEN


_WHY_ENDED = ("finish_reason", "stop_reason", "done_reason", "stopReason", "status")
_CUT = frozenset(
    {
        "length",
        "max_tokens",
        "model_length",
        "content_filter",
        "safety",
        "refusal",
        "recitation",
        "blocklist",
        "guardrail_intervened",
        "incomplete",
    }
)
"""Finish reasons of OpenAI, Anthropic, Gemini, Mistral, Bedrock and Ollama that mean: this is not the whole answer."""


def is_cut(metadata: Mapping[str, Any]) -> bool:
    """Whether a provider says that it stopped before the end, or withheld something."""
    return not _CUT.isdisjoint({str(metadata.get(name)).lower() for name in _WHY_ENDED})
