"""OpenAI's formats: chat and embeddings as JSON bodies and as event streams, files as forms. Pure functions."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from chainops.testing.delivery import Delivery

Message = dict[str, Any]
"""A chat message as it goes over the wire: "role", "content", perhaps "tool_calls"."""


def text_of(message: Mapping[str, Any]) -> str:
    """The text of a message whose content is a string, a list of parts, or nothing."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "".join(part.get("text", "") for part in parts if isinstance(part, dict))


def count_tokens(text: str) -> int:
    """Words and punctuation marks: deterministic, and close enough to a tokenizer for a double."""
    return len(re.findall(r"\w+|[^\w\s]", text))


def pieces_of(text: str) -> list[str]:
    """The chunks a stream says: words with the blanks after them. Joined they are `text`."""
    return re.findall(r"\s*\S+\s*", text) or ([text] if text else [])


def usage_of(messages: Sequence[Mapping[str, Any]], reply: Message) -> dict[str, int]:
    """Usage in OpenAI's words. Tool calls count as the text of their arguments."""
    calls = " ".join(json.dumps(call.get("function", call)) for call in reply.get("tool_calls") or [])
    prompt = sum(count_tokens(text_of(message)) for message in messages)
    completion = count_tokens(text_of(reply)) + count_tokens(calls)
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def chat_delivery(body: Mapping[str, Any], reply: Message, *, number: int, at: float, chunk_delay_s: float) -> Delivery:
    """A chat completion, plain or streamed as the request asks.

    Args:
        body: The request.
        reply: The assistant's message.
        number: Which request this is, for the id.
        at: Unix time in seconds.
        chunk_delay_s: Pause between the chunks of a stream, in seconds.
    """
    usage = usage_of(body["messages"], reply)
    head = {"id": f"chatcmpl-{number}", "created": int(at), "model": body["model"], "system_fingerprint": None}
    if not body.get("stream"):
        choice = {
            "index": 0,
            "message": {"content": None, "refusal": None, **reply, "role": "assistant"},
            "logprobs": None,
            "finish_reason": _finish_reason(reply),
        }
        whole = {**head, "object": "chat.completion", "choices": [choice], "usage": usage}
        return Delivery(200, "application/json", (json.dumps(whole).encode(),))
    head["object"] = "chat.completion.chunk"
    wants_usage = bool((body.get("stream_options") or {}).get("include_usage"))
    events = (_event(chunk) for chunk in _chunks(head, reply, usage if wants_usage else None))
    pieces = (*events, b"data: [DONE]\n\n")
    return Delivery(200, "text/event-stream", pieces, is_stream=True, pause_s=chunk_delay_s)


def _finish_reason(reply: Message) -> str:
    return "tool_calls" if reply.get("tool_calls") else "stop"


def _event(data: Mapping[str, Any]) -> bytes:
    return b"data: " + json.dumps(data).encode() + b"\n\n"


def _chunks(head: Mapping[str, Any], reply: Message, usage: Mapping[str, int] | None) -> Iterator[dict[str, Any]]:
    def chunk(delta: Mapping[str, Any], finish: str | None = None) -> dict[str, Any]:
        return {**head, "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]}

    yield chunk({"role": "assistant", "content": ""})
    for piece in pieces_of(text_of(reply)):
        yield chunk({"content": piece})
    for index, call in enumerate(reply.get("tool_calls") or []):
        yield chunk({"tool_calls": [{"index": index, **call}]})
    yield chunk({}, _finish_reason(reply))
    if usage is not None:
        yield {**head, "choices": [], "usage": usage}


def embeddings_delivery(body: Mapping[str, Any], vectors: Sequence[Sequence[float]], tokens: int) -> Delivery:
    """Vectors as lists of numbers, or as base64 of little-endian float32 where the request asks for it."""
    in_base64 = body.get("encoding_format") == "base64"
    data = [
        {"object": "embedding", "index": index, "embedding": _packed(vector) if in_base64 else list(vector)}
        for index, vector in enumerate(vectors)
    ]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    whole = {"object": "list", "data": data, "model": body["model"], "usage": usage}
    return Delivery(200, "application/json", (json.dumps(whole).encode(),))


def _packed(vector: Sequence[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def hashed_vector(text: str, *, dimensions: int = 64) -> list[float]:
    """A unit vector that is the same for the same text everywhere: words hashed into buckets with a sign.

    Texts that share words are near each other; meaning is not in it.
    """
    vector = [0.0] * dimensions
    for word in re.findall(r"\w+", text.lower()) or [""]:
        digest = hashlib.blake2b(word.encode(), digest_size=8).digest()
        vector[int.from_bytes(digest[:4], "little") % dimensions] += 1.0 if digest[4] & 1 else -1.0
    length = math.sqrt(sum(value * value for value in vector))
    return [value / length for value in vector] if length else [1.0] + [0.0] * (dimensions - 1)


@dataclass(frozen=True, slots=True)
class Upload:
    """A file as a form brought it."""

    filename: str
    purpose: str
    content: bytes


def uploaded(content_type: str, raw: bytes) -> Upload | None:
    """Read a `multipart/form-data` body; None when it holds no file."""
    boundary = re.search(r'boundary="?([^";]+)', content_type)
    if boundary is None:
        return None
    fields: dict[str, bytes] = {}
    filename = ""
    for part in (b"\r\n" + raw).split(b"\r\n--" + boundary[1].encode())[1:-1]:
        head, _, body = part.partition(b"\r\n\r\n")
        if name := re.search(rb'\bname="([^"]*)"', head):
            fields[name[1].decode()] = body
        if named := re.search(rb'filename="([^"]*)"', head):
            filename = named[1].decode()
    if "file" not in fields:
        return None
    return Upload(filename or "upload", fields.get("purpose", b"").decode(), fields["file"])
