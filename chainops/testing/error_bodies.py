"""What HTTP errors of model servers say: statuses, bodies and waits, in the shapes that servers really send.

OpenAI's, Groq's, Google's and Anthropic's shapes are those of recorded calls; the others follow their documentation.
"""

from __future__ import annotations

import email.utils
import json
import math
from typing import Any, Literal

Dialect = Literal[
    "openai", "azure", "openrouter", "groq", "google", "anthropic", "vllm", "detail", "html", "text", "nothing"
]
"""Whose error shape: a provider's, or "detail" (a bare web framework), "html" (a proxy's page), "text", "nothing"."""

RetryAfterAs = Literal["seconds", "date", "ms", "both"]
"""`Retry-After` in seconds or as an HTTP date, `retry-after-ms`, or seconds and ms as OpenAI sends them."""

USUAL_DIALECTS: dict[int, Dialect] = {413: "html", 502: "html", 504: "html", 529: "anthropic"}
"""Who usually answers with this status: proxies stand before the model server. All others: "openai"."""

USUAL_ERRORS: dict[int, tuple[str, str | None, str]] = {
    400: ("invalid_request_error", None, "The request is invalid."),
    401: ("invalid_request_error", "invalid_api_key", "Incorrect API key provided."),
    402: ("insufficient_quota", None, "Insufficient credits."),
    403: ("invalid_request_error", "unsupported_country_region_territory", "You are not allowed to do that."),
    404: ("invalid_request_error", "model_not_found", "The model does not exist or you do not have access to it."),
    408: ("timeout", None, "Request timed out."),
    409: ("invalid_request_error", None, "The resource was changed by another request; please try again."),
    413: ("invalid_request_error", None, "Request too large."),
    429: ("requests", "rate_limit_exceeded", "Rate limit reached for requests."),
    500: ("server_error", None, "The server had an error while processing your request."),
    502: ("server_error", None, "Bad gateway."),
    503: ("service_unavailable_error", None, "The engine is currently overloaded, please try again later."),
    529: ("overloaded_error", None, "Overloaded"),
}
"""Status to OpenAI's error type, code and message, as recorded from its API."""

USUAL_CODES: dict[str, tuple[str, str | None, str]] = {
    "context_length_exceeded": (
        "invalid_request_error",
        "messages",
        "This model's maximum context length is 8192 tokens. However, your messages resulted in 9412 tokens.",
    ),
    "content_filter": (
        "invalid_request_error",
        "prompt",
        "The response was filtered due to the prompt triggering the content management policy. Please modify it.",
    ),
    "content_policy_violation": (
        "invalid_request_error",
        None,
        "Your request was rejected as a result of our safety system.",
    ),
    "insufficient_quota": (
        "insufficient_quota",
        None,
        "You exceeded your current quota, please check your plan and billing details.",
    ),
    "unsupported_value": (
        "invalid_request_error",
        "messages[0].role",
        "Unsupported value: 'messages[0].role' does not support 'developer' with this model.",
    ),
}
"""OpenAI's code to its error type, parameter and message."""


def error_body(message: str, *, kind: str, code: str | None, param: str | None = None) -> bytes:
    """An error as OpenAI's API writes it."""
    return json.dumps({"error": {"message": message, "type": kind, "param": param, "code": code}}).encode()


def http_error(status: int, dialect: Dialect, code: str | None, message: str | None) -> tuple[str, bytes]:
    """Content type and body of an error. None means what is usual with this status."""
    usual = USUAL_ERRORS.get(status, USUAL_ERRORS[500 if status >= 500 else 400])
    kind, usual_code, said = usual
    param: str | None = None
    if code in USUAL_CODES:
        kind, param, said = USUAL_CODES[code]
    said, code = message or said, code or usual_code
    if dialect == "html":
        title = f"{status} {_TITLES.get(status, 'Error')}"
        page = f"<html>\r\n<head><title>{title}</title></head>\r\n<body>\r\n<center><h1>{title}</h1></center>\r\n"
        return "text/html", f"{page}<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n".encode()
    if dialect == "text":
        return "text/plain; charset=utf-8", said.encode()
    if dialect == "nothing":
        return "text/plain", b""
    if dialect == "openai":
        return "application/json", error_body(said, kind=kind, code=code, param=param)
    return "application/json", json.dumps(_in_words_of(dialect, status, kind, code, said)).encode()


def _in_words_of(dialect: Dialect, status: int, kind: str, code: str | None, said: str) -> Any:
    match dialect:
        case "azure":  # its code is the status as text, or a word of its own
            error: dict[str, Any] = {"code": code if code in USUAL_CODES else str(status), "message": said}
            if code == "content_filter":
                error |= {"type": None, "param": "prompt", "status": status}
                error["innererror"] = {"code": "ResponsibleAIPolicyViolation", "content_filter_result": {}}
            return {"error": error}
        case "openrouter":  # its code is the status as a number
            return {"error": {"message": said, "code": status, "metadata": {"provider_name": "test"}}, "user_id": "u"}
        case "google":  # a list, on its OpenAI-compatible address
            return [{"error": {"code": status, "message": said, "status": _GOOGLE.get(status, "UNKNOWN")}}]
        case "anthropic":
            return {"type": "error", "error": {"type": _ANTHROPIC.get(status, "api_error"), "message": said}}
        case "vllm":
            return {"object": "error", "message": said, "type": "BadRequestError", "param": None, "code": status}
        case "detail":
            return {"detail": said}
        case _:  # groq
            return {"error": {"message": said, "type": kind, "code": code}}


_TITLES = {
    413: "Request Entity Too Large",
    500: "Internal Server Error",
    502: "Bad Gateway",
    503: "Service Temporarily Unavailable",
    504: "Gateway Time-out",
}
_GOOGLE = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
}
_ANTHROPIC = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    529: "overloaded_error",
}


def retry_after(seconds: float, told_as: RetryAfterAs, *, at: float) -> dict[str, str]:
    """The headers that ask for a wait. `at` is the Unix time now; a date is rounded up to whole seconds."""
    match told_as:
        case "seconds":
            return {"Retry-After": f"{seconds:g}"}
        case "ms":
            return {"retry-after-ms": f"{seconds * 1000:g}"}
        case "both":
            return {"Retry-After": str(math.ceil(seconds)), "retry-after-ms": f"{seconds * 1000:g}"}
        case _:
            return {"Retry-After": email.utils.formatdate(math.ceil(at + seconds), usegmt=True)}
