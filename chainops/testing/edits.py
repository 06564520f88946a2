"""Answers that are wrong inside: nonsense instead of an answer, false usage, text twice. Pure functions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal

from chainops.testing.delivery import Delivery, edited
from chainops.testing.wire import pieces_of

NonsenseKind = Literal["json", "broken_json", "no_choices", "html", "empty", "blank", "sse", "wrong_type", "error_200"]
UsageKind = Literal["absent", "negative", "doubled", "zero"]

_HTML = b"<!DOCTYPE html><html><head><title>Sign in</title></head><body>" + b"<p>Please sign in.</p>" * 40 + b"</body>"


def nonsense(good: Delivery, kind: NonsenseKind) -> Delivery:
    """Status 200 and a body that is no answer (see `faults.Nonsense`)."""

    def instead(body: bytes, content_type: str = "application/json", *, is_stream: bool = False) -> Delivery:
        return Delivery(200, content_type, (body,), is_stream=is_stream)

    def event(data: bytes) -> bytes:
        return b"data: " + data + b"\n\n" if good.is_stream else data

    done = b"data: [DONE]\n\n" if good.is_stream else b""
    match kind:
        case "html":
            return instead(_HTML, "text/html; charset=utf-8")
        case "empty":
            return instead(b"", good.content_type, is_stream=good.is_stream)
        case "wrong_type":
            return replace(good, content_type="text/plain; charset=utf-8")
        case "broken_json" if not good.is_stream:
            return instead(b'{"id": "chatcmpl-1", "object": "chat.completion", "choices": [{"index": 0, "mess')
        case "broken_json" | "sse":
            body = b'data: {"id": "chatcmpl-1", "choices": [{"in\n\n'
            return instead(body, "text/event-stream", is_stream=True)
        case "error_200":  # how OpenRouter says that the provider behind it failed
            body = b'{"error": {"message": "Provider returned error", "code": 502, "metadata": {"provider_name": "x"}}}'
        case "no_choices":
            body = b'{"id": "chatcmpl-1", "object": "chat.completion", "choices": []}'
        case "blank":
            word = b"delta" if good.is_stream else b"message"
            head = (
                b'{"id": "chatcmpl-1", "object": "chat.completion", "choices": [{"index": 0, "finish_reason": "stop", "'
            )
            body = head + word + b'": {"role": "assistant", "content": ""}}]}'
        case _:
            body = b"{}"
    return instead(event(body) + done, good.content_type, is_stream=good.is_stream)


def finished(good: Delivery, reason: str, after_chunks: int | None) -> Delivery:
    """The answer ends after so many chunks of text, properly, and gives this reason."""
    said = 0

    def edit(data: dict[str, Any]) -> Iterator[dict[str, Any]]:
        nonlocal said
        for choice in data.get("choices") or []:
            message = choice.get("message")
            if message and after_chunks is not None:
                message["content"] = "".join(pieces_of(message.get("content") or "")[:after_chunks]) or None
            if choice.get("delta", {}).get("content"):
                said += 1
                if after_chunks is not None and said > after_chunks:
                    return
            if choice.get("finish_reason"):
                choice["finish_reason"] = reason
        yield data

    return edited(good, edit)


def misreported(good: Delivery, kind: UsageKind) -> Delivery:
    """The answer with usage that is not what was used."""
    factor = {"negative": -1, "doubled": 2, "zero": 0}.get(kind, 1)

    def edit(data: dict[str, Any]) -> Iterator[dict[str, Any]]:
        usage = data.get("usage")
        if usage is not None and kind == "absent":
            del data["usage"]
            if not data.get("choices") and good.is_stream:
                return
        elif usage is not None:
            data["usage"] = {name: count * factor for name, count in usage.items()}
        yield data

    return edited(good, edit)


def duplicated(good: Delivery) -> Delivery:
    """Each chunk with text comes twice."""

    def edit(data: dict[str, Any]) -> Iterator[dict[str, Any]]:
        yield data
        if good.is_stream and any(choice["delta"].get("content") for choice in data.get("choices") or []):
            yield data

    return edited(good, edit)
