"""What went wrong with a model, in four kinds that tell what may help.

One classification for everybody who retries, falls back or reports. It looks at status codes and
class names, so no provider's package is imported to judge its errors.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar, Literal

from langchain_core.messages import BaseMessage

from chainops.core.errors import AllRoutesFailed, CallRefused, ChainopsError
from chainops.models.http_errors import (
    code_of,
    detail_of,
    names_of,
    origin_of,
    retry_after_s_of,
    status_of,
    tells_an_error,
    told_status_of,
    words_of,
)
from chainops.models.known import key_variable
from chainops.models.unreadable import is_unreadable_answer, what_was_wrong

FailureKind = Literal["retryable", "next_route", "caller", "bug"]
"""`retryable` the same call may work later, and another route now; `next_route` this model cannot, another may;
`caller` the request is wrong for every model; `bug` no failure of a model: never recovered from."""


@dataclass(frozen=True, slots=True)
class Failure:
    """One judged exception."""

    kind: FailureKind
    reason: str
    """Two or three words, from a small set: "rate limit", "timeout", "unreachable" ..."""
    retry_after_s: float | None = None
    """How long the server asked to wait, in seconds; None when it said nothing."""
    status: int | None = None
    """HTTP status, where there was an HTTP answer."""
    detail: str = ""
    """What the server or client said, at most 200 characters, without keys and markup."""


class ModelFailed(ChainopsError):
    """A model gave no usable answer.

    Raised from the provider's own exception, for those who debug; its own words are fit to be shown.
    """

    def __init__(self, model: str, failure: Failure, *, next_move: str) -> None:
        self.model = model
        self.kind = failure.kind
        self.reason = failure.reason
        self.status = failure.status
        self.retry_after_s = failure.retry_after_s
        self.detail = failure.detail
        self.next_move = next_move
        status = f" (HTTP {failure.status})" if failure.status else ""
        detail = f": {failure.detail.rstrip('.')}" if failure.detail else ""
        super().__init__(f"{model}: {failure.reason}{status}{detail}; {next_move}")


class ModelUnavailable(ModelFailed):
    """A model gave no usable answer now, and may later: its kind is "retryable"."""

    retryable: ClassVar[bool] = True


class EmptyAnswer(ModelFailed):
    """A model answered, and said nothing: `empty_answer` holds of its message."""

    def __init__(self, model: str) -> None:
        failure = Failure("next_route", "empty answer", detail="no text and no tool call")
        super().__init__(model, failure, next_move="ask in other words, or use another model")


class MissingKey(ChainopsError):
    """The environment holds no key for a model. Keys come from there and from nowhere else."""

    def __init__(self, model: str, variable: str, base_url: str | None = None) -> None:
        self.model, self.variable, self.base_url = model, variable, base_url
        other = f" (any word will do if the server at {base_url} asks for none)" if base_url else ""
        super().__init__(f"{model}: no key in the environment; set {variable}{other}")


class MissingProvider(ChainopsError, ImportError):
    """A model's LangChain package is not installed."""

    def __init__(self, model: str, package: str) -> None:
        self.model, self.package = model, package
        super().__init__(f"{model} needs {package}; pip install {package}")


def classify(error: BaseException) -> Failure:
    """Judge what a call to a model raised.

    A `bug` is everything that no rule here knows: it must reach the author of the code, so
    `classify` never guesses in favour of recovery.
    """
    if isinstance(error, ModelFailed):
        return Failure(error.kind, error.reason, error.retry_after_s, error.status, error.detail)
    if isinstance(error, CallRefused):
        return Failure("next_route", error.reason, error.retry_after_s, detail=error.problem)
    if isinstance(error, AllRoutesFailed):
        return _of_all(error)
    if isinstance(error, MissingKey | MissingProvider):
        return Failure("next_route", "no key" if isinstance(error, MissingKey) else "no package", detail=str(error))
    if isinstance(error, ChainopsError) or not isinstance(error, Exception):
        return Failure("bug", type(error).__name__)  # a deadline, a full store, Ctrl-C: nothing a model did
    names = names_of(error)
    status, code, detail, words = status_of(error), code_of(error), detail_of(error), words_of(error)
    if status is not None and status >= 300:
        wait_s = retry_after_s_of(error)
        kind, reason = _by_status(status, code, words, is_wait_told=wait_s is not None)
        return Failure(kind, reason, wait_s, status, detail)
    if names & _TIMEOUTS or isinstance(error, TimeoutError):
        return Failure("retryable", "timeout", detail=detail)
    if names & _CONNECTIONS or isinstance(error, ConnectionError) or type(error) is OSError or names & _RESOLVING:
        kind, reason = _by_origin(error)
        return Failure(kind, reason, detail=detail)
    is_unreadable = is_unreadable_answer(error)
    if "APIResponseValidationError" in names or (is_unreadable and not tells_an_error(error)):
        return Failure("next_route", "nonsense answer", detail=what_was_wrong(error) or detail)
    for name, verdict in _LANGCHAIN.items():
        if name in names:
            return Failure(*verdict, detail=detail)
    if "APIError" in names or is_unreadable:  # an error object under status 200, or inside a stream: perhaps a code
        told, wait_s = told_status_of(error), retry_after_s_of(error)
        if told is not None:
            kind, reason = _by_status(told, code, words, is_wait_told=wait_s is not None)
        else:
            kind, reason = _by_code(code, words) or ("retryable", "server error")
        return Failure(kind, reason, wait_s, detail=detail)
    return Failure("bug", type(error).__name__)


def _of_all(error: AllRoutesFailed) -> Failure:
    """What several failures mean together: the same may work later where one of them says so."""
    failures = [classify(each) for _, each in error.failures]
    later = [each.retry_after_s for each in failures if each.kind == "retryable"]
    known = [each for each in later if each is not None]
    wait_s = min(known) if known and len(known) == len(later) else None
    return Failure("retryable" if later else "next_route", "all its routes failed", wait_s, detail=str(error))


def wrap(error: BaseException, model: str, *, key_env: str | None = None) -> BaseException:
    """A `ModelFailed` in place of a provider's exception; what is a bug comes back as it is.

    Args:
        model: As the chain file names it, such as "openai:gpt-4o-mini".
        key_env: The variable the key is read from, where it is not the provider's usual one.
    """
    failure = classify(error)
    if failure.kind == "bug" or isinstance(error, ChainopsError):
        return error
    kind = ModelUnavailable if failure.kind == "retryable" else ModelFailed
    return kind(model, failure, next_move=_next_move(failure, model, origin_of(error), key_env))


def empty_answer(message: BaseMessage) -> bool:
    """Whether a message says nothing at all: no text, no tool call, no other content."""
    content = message.content
    if isinstance(content, str):
        says_something = bool(content.strip())
    else:
        texts = (part if isinstance(part, str) else part.get("text", True) for part in content)
        says_something = any(not isinstance(text, str) or text.strip() for text in texts)
    calls = getattr(message, "tool_calls", None) or getattr(message, "invalid_tool_calls", None)
    return not (says_something or calls)


def cut_short(message: BaseMessage) -> bool:
    """Whether a stream from an OpenAI-compatible server ended without saying why it ended.

    Some proxies end a broken stream as if it were complete; then only the missing finish reason tells.
    """
    facts = message.response_metadata
    return facts.get("model_provider") == "openai" and not (facts.get("finish_reason") or facts.get("status"))


_TIMEOUTS = frozenset(
    {"APITimeoutError", "TimeoutException", "ModelTimeoutError", "ReadTimeoutError", "DeadlineExceeded"}
)
_CONNECTIONS = frozenset(
    {"APIConnectionError", "TransportError", "ModelConnectionError", "EndpointConnectionError", "ConnectionClosedError"}
)
_RESOLVING = frozenset({"gaierror", "SSLError"})
_UNUSABLE_ADDRESS = frozenset({"UnsupportedProtocol", "InvalidURL", "LocalProtocolError", "SSLCertVerificationError"})
_CUT = frozenset({"RemoteProtocolError", "ReadError", "ConnectionResetError", "IncompleteRead"})

_LANGCHAIN: dict[str, tuple[FailureKind, str]] = {
    "ContextOverflowError": ("next_route", "context length"),
    "ModelRateLimitError": ("retryable", "rate limit"),
    "ModelAPIError": ("retryable", "server error"),
    "ModelAuthenticationError": ("next_route", "key refused"),
    "ModelPermissionDeniedError": ("next_route", "not allowed"),
    "ModelNotFoundError": ("next_route", "model not found"),
    "ModelInvalidRequestError": ("caller", "invalid request"),
    "ContentFilterFinishReasonError": ("next_route", "content filter"),
    "OpenAIRefusalError": ("next_route", "content filter"),
    "LengthFinishReasonError": ("next_route", "answer too long"),
}

_TOO_LONG = (
    r"context_length|context window|contextwindow|context length|prompt is too long|too many (input )?tokens"
    r"|input tokens exceed|string_above_max_length"
)

_CODES: tuple[tuple[str, FailureKind, str], ...] = (
    (r"insufficient_quota|billing|credit balance|exceeded your current quota", "next_route", "quota"),
    (_TOO_LONG, "next_route", "context length"),
    (
        r"content_filter|content_policy|content management policy|responsibleai|safety system|flagged",
        "next_route",
        "content filter",
    ),
    (r"model_not_found|model_not_available|unknown_model|model_decommissioned", "next_route", "model not found"),
    (
        r"unsupported_(value|parameter|model)|not_supported|does not support|is not supported|tool_use_failed",
        "next_route",
        "unsupported",
    ),
    (r"rate_limit|too many requests|throttl", "retryable", "rate limit"),
    (r"overloaded|server_error|internal error|unavailable", "retryable", "server error"),
)
"""What providers say, by the code or type of the error body, or in its words."""

_STATUSES: dict[int, tuple[FailureKind, str]] = {
    401: ("next_route", "key refused"),
    402: ("next_route", "quota"),
    403: ("next_route", "not allowed"),
    404: ("next_route", "model not found"),
    405: ("next_route", "unsupported"),
    408: ("retryable", "timeout"),
    409: ("retryable", "conflict"),
    410: ("next_route", "model not found"),
    413: ("next_route", "too large"),
    425: ("retryable", "conflict"),
    429: ("retryable", "rate limit"),
    501: ("next_route", "unsupported"),
    503: ("retryable", "overloaded"),
    504: ("retryable", "timeout"),
    529: ("retryable", "overloaded"),
}


def _by_status(status: int, code: str, words: str, *, is_wait_told: bool) -> tuple[FailureKind, str]:
    told = _by_code(code, words)
    if status == 429:
        # Google says "quota" of a minute's limit too, and then how long to wait; only a code is beyond doubt.
        is_quota = told == ("next_route", "quota") and (not is_wait_told or _by_code(code, "") == told)
        return told if told and is_quota else _STATUSES[429]
    if status in {400, 413, 422} and told and told[0] == "next_route":
        return told
    if status == 400 and (coded := _by_code(code, "")):  # Amazon throttles with status 400
        return coded
    if status in _STATUSES:
        return _STATUSES[status]
    if status >= 500:
        return "retryable", "server error"
    return ("next_route", "nonsense answer") if status < 400 else ("caller", "invalid request")


def _by_code(code: str, words: str) -> tuple[FailureKind, str] | None:
    """By the code if it says anything, else by the words."""
    for text in (code.lower(), words.lower()):
        for pattern, kind, reason in _CODES:
            if text and re.search(pattern, text):
                return kind, reason
    return None


def _by_origin(error: BaseException) -> tuple[FailureKind, str]:
    """Why there was no connection: clients wrap the real reason, so look down the chain of causes."""
    seen: set[str] = set()
    visited: set[int] = set()  # `raise error from error` makes a circle
    cause: BaseException | None = error
    while cause is not None and id(cause) not in visited:
        visited.add(id(cause))
        seen |= names_of(cause)
        cause = cause.__cause__ or cause.__context__
    if seen & _UNUSABLE_ADDRESS:
        return "next_route", "unusable address"
    return "retryable", "connection cut" if seen & _CUT else "unreachable"


def _next_move(failure: Failure, model: str, origin: str | None, key_env: str | None) -> str:
    server = origin or "the model server"
    variable = key_env or key_variable(model) or "the provider's credentials"
    wait = f"try again in {failure.retry_after_s:g} s" if failure.retry_after_s else "try again later"
    moves = {
        "unreachable": f"is {server} running and reachable?",
        "unusable address": "correct base_url",
        "connection cut": f"{wait}, or look at the log of {server}",
        "timeout": f"is {server} overloaded? Try again, or raise timeout_s",
        "rate limit": f"{wait}, or name another model as a fallback",
        "overloaded": f"{wait}, or name another model as a fallback",
        "server error": f"{wait}, or name another model as a fallback",
        "conflict": wait,
        "quota": "add credit to the account, or name another model as a fallback",
        "key refused": f"set {variable} to a valid key for {server}",
        "not allowed": f"give the key in {variable} access to this model, or use another",
        "model not found": "correct the model's name, or base_url if another server has it",
        "context length": "send less text, or a model with a longer context",
        "too large": "send less text, or a model with a longer context",
        "content filter": "rephrase the request, or use another model",
        "unsupported": "drop the parameter this model does not support, or use another model",
        "nonsense answer": f"is base_url right? {server} does not answer like a model server",
        "answer too long": "raise max_tokens",
        "invalid request": "correct the request: no model will accept it as it is",
    }
    return moves.get(failure.reason, "use another model")
