"""What can go wrong between a client and a model server, as values.

`plan_delivery` turns a good reply and a fault into what is really sent. It opens no socket and
waits for nothing, so what a fault means can be read, and tested, without a server.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import Literal


@dataclass(frozen=True, slots=True)
class Refuse:
    """Nobody listens: connections are refused until the server heals, then the port is the same."""


@dataclass(frozen=True, slots=True)
class Status:
    """An HTTP error in OpenAI's JSON shape.

    Args:
        code: HTTP status, 400..599.
        retry_after_s: Sent as `Retry-After`, in seconds.
        message: None means what OpenAI says with this status.
        code_name: OpenAI's own code, such as "context_length_exceeded"; None means the usual one.
    """

    code: int
    retry_after_s: float | None = None
    message: str | None = None
    code_name: str | None = None

    def __post_init__(self) -> None:
        if not 400 <= self.code <= 599:
            raise ValueError(f"Status({self.code}): an HTTP error is 400..599")


@dataclass(frozen=True, slots=True)
class Hang:
    """Accept, then say nothing: for `seconds` (and then answer), or None: until someone hangs up."""

    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Drip:
    """Send the answer `step_bytes` at a time, `interval_s` seconds apart: each read succeeds, the whole never ends."""

    interval_s: float
    step_bytes: int = 1


NonsenseKind = Literal["json", "broken_json", "no_choices", "html", "empty", "blank", "sse"]


@dataclass(frozen=True, slots=True)
class Nonsense:
    """Status 200 and a body that is no answer.

    Args:
        kind: "json" `{}`, "broken_json" a body that stops early, "no_choices" an empty list of choices,
            "html" a proxy's page, "empty" no byte at all, "blank" a well-formed answer without text,
            "sse" a stream whose data is not JSON.
    """

    kind: NonsenseKind = "json"


@dataclass(frozen=True, slots=True)
class Cut:
    """Break off: a stream after `after_chunks` of its chunks, anything else after half the body.

    Args:
        after_chunks: Chunks with text that still arrive whole.
        how: "reset" (TCP reset); "end": the stream ends as if it were complete, without finish reason
            and `[DONE]`, as some proxies do; "error": the stream ends with an error event. Anything but a
            stream is always reset.
    """

    after_chunks: int = 2
    how: Literal["reset", "end", "error"] = "reset"


Fault = Refuse | Status | Hang | Drip | Nonsense | Cut


@dataclass(frozen=True, slots=True)
class Delivery:
    """What is sent: the bytes in order, and how they are sent.

    `pieces` are written one by one, `pause_s` apart. `silence_s` passes before the first byte (inf: for
    ever). `end`: "proper", "early" (on the wire like a proper one, but something is missing), or
    "reset" by TCP.
    """

    status: int
    content_type: str
    pieces: tuple[bytes, ...]
    headers: dict[str, str] = field(default_factory=dict)
    is_stream: bool = False
    silence_s: float = 0.0
    pause_s: float = 0.0
    end: Literal["proper", "early", "reset"] = "proper"


def plan_delivery(good: Delivery, fault: Fault | None) -> Delivery:
    """What is sent in place of `good` under `fault`. `Refuse` never gets here: nobody connects."""
    match fault:
        case None | Refuse():
            return good
        case Status():
            return _error_delivery(fault)
        case Hang(seconds):
            return replace(good, silence_s=float("inf") if seconds is None else seconds)
        case Drip(interval_s, step):
            whole = b"".join(good.pieces)
            pieces = tuple(whole[at : at + step] for at in range(0, len(whole), step))
            return replace(good, pieces=pieces, pause_s=interval_s)
        case Nonsense(kind):
            return _nonsense(good, kind)
        case Cut(after_chunks, how):
            if not good.is_stream:
                whole = b"".join(good.pieces)
                return replace(good, pieces=(whole[: len(whole) // 2],), end="reset")
            # One more than asked for, since the first piece only announces the role; never the last, `[DONE]`.
            kept = good.pieces[: min(after_chunks + 1, len(good.pieces) - 1)]
            if how == "error":
                kept += (b"data: " + error_body(USUAL_ERRORS[500][2], kind="server_error", code=None) + b"\n\n",)
            return replace(good, pieces=kept, end="reset" if how == "reset" else "early")


USUAL_ERRORS: dict[int, tuple[str, str | None, str]] = {
    400: ("invalid_request_error", None, "The request is invalid."),
    401: ("invalid_request_error", "invalid_api_key", "Incorrect API key provided."),
    403: ("invalid_request_error", "unsupported_country_region_territory", "You are not allowed to do that."),
    404: ("invalid_request_error", "model_not_found", "The model does not exist or you do not have access to it."),
    429: ("requests", "rate_limit_exceeded", "Rate limit reached for requests."),
    500: ("server_error", None, "The server had an error while processing your request."),
    503: ("service_unavailable_error", None, "The engine is currently overloaded, please try again later."),
}
"""Status to OpenAI's error type, code and message, as recorded from its API."""


def _error_delivery(fault: Status) -> Delivery:
    default = USUAL_ERRORS[500] if fault.code >= 500 else USUAL_ERRORS[400]
    kind, code, message = USUAL_ERRORS.get(fault.code, default)
    headers = {} if fault.retry_after_s is None else {"Retry-After": f"{fault.retry_after_s:g}"}
    body = error_body(fault.message or message, kind=kind, code=fault.code_name or code)
    return Delivery(fault.code, "application/json", (body,), headers)


def error_body(message: str, *, kind: str, code: str | None, param: str | None = None) -> bytes:
    """An error as OpenAI's API writes it."""
    return json.dumps({"error": {"message": message, "type": kind, "param": param, "code": code}}).encode()


_HTML = b"<!DOCTYPE html><html><head><title>Sign in</title></head><body>" + b"<p>Please sign in.</p>" * 40 + b"</body>"


def _nonsense(good: Delivery, kind: NonsenseKind) -> Delivery:
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
        case "broken_json" if not good.is_stream:
            return instead(b'{"id": "chatcmpl-1", "object": "chat.completion", "choices": [{"index": 0, "mess')
        case "broken_json" | "sse":
            body = b'data: {"id": "chatcmpl-1", "choices": [{"in\n\n'
            return instead(body, "text/event-stream", is_stream=True)
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
