"""Read the facts out of any HTTP client's exception: status, code, words, wait, address.

By attribute, not by class: openai, anthropic, httpx, botocore and google name the same facts
differently, and none of them is imported here.
"""

from __future__ import annotations

import email.utils
import re
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from chainops.models.keys import redact

DETAIL_CHARS = 200
WORDS_CHARS = 2000


def names_of(error: BaseException) -> frozenset[str]:
    """The names of an exception's class and of all its bases."""
    return frozenset(kind.__name__ for kind in type(error).__mro__)


def status_of(error: BaseException) -> int | None:
    """The HTTP status, 100..599, or None."""
    response = getattr(error, "response", None)
    amazon = response.get("ResponseMetadata", {}) if isinstance(response, Mapping) else {}
    candidates = (
        getattr(error, "status_code", None),
        getattr(response, "status_code", None),
        amazon.get("HTTPStatusCode"),
        getattr(error, "code", None),
    )
    for value in candidates:
        if isinstance(value, int) and not isinstance(value, bool) and 100 <= value <= 599:
            return value
    return None


def code_of(error: BaseException) -> str:
    """The provider's own word for the failure: its error code and type, or ""."""
    body = _error_body(error)
    words = (getattr(error, "code", None), body.get("code"), body.get("Code"), body.get("type"), body.get("status"))
    return " ".join(dict.fromkeys(word for word in words if isinstance(word, str)))


def told_status_of(error: BaseException) -> int | None:
    """The status, 400..599, that an error object gives as its code: servers that send it under status 200 do so."""
    code = str(_error_body(error).get("code"))
    return int(code) if re.fullmatch(r"[45]\d\d", code) else None


def tells_an_error(error: BaseException) -> bool:
    """Whether it was raised because the server sent an error object in place of an answer."""
    return bool(_error_body(error))


def words_of(error: BaseException) -> str:
    """All that was said, for judging and not for showing: one line, at most `WORDS_CHARS` characters."""
    body = _error_body(error)
    plain = getattr(error, "body", None)
    candidates = (body.get("message"), body.get("detail"), plain, getattr(error, "message", None))
    text = next((said for said in candidates if isinstance(said, str) and said.strip()), str(error))
    if re.search(r"<(!doctype|html|head|body)\b", text, re.IGNORECASE):
        text = "the server sent an HTML page"
    return " ".join(text.split())[:WORDS_CHARS]


def detail_of(error: BaseException) -> str:
    """What was said, fit to be shown: one line, no markup, no key, at most `DETAIL_CHARS` characters."""
    text = redact(words_of(error))
    return text if len(text) <= DETAIL_CHARS else text[: DETAIL_CHARS - 1] + "…"


def retry_after_s_of(error: BaseException) -> float | None:
    """The wait the server asked for, in seconds: from `retry-after-ms`, `retry-after` (also a date), or its words."""
    headers = getattr(getattr(error, "response", None), "headers", None)
    told = None if headers is None else _told_in_headers(headers)
    return _told_in_words(words_of(error)) if told is None else told


def _told_in_words(words: str) -> float | None:
    """As in "Please try again in 6m0.5s" and "retry after 9 seconds"."""
    found = re.search(
        r"(?:try again|retry) (?:in|after) (?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+(?:\.\d+)?) ?(ms|s)(?:ec\w*)?\b)?",
        words,
        re.IGNORECASE,
    )
    if found is None or not any(found.groups()):
        return None
    hours, minutes, rest, unit = found.groups()
    seconds = float(rest or 0) / (1000 if unit and unit.lower() == "ms" else 1)
    return int(hours or 0) * 3600 + int(minutes or 0) * 60 + seconds


def _told_in_headers(headers: Any) -> float | None:
    try:
        if (milliseconds := headers.get("retry-after-ms")) is not None:
            return max(0.0, float(milliseconds) / 1000)
    except ValueError:
        pass  # not a number: the other header may be
    value = headers.get("retry-after")
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        return _seconds_until(value, headers.get("date"))


def _seconds_until(date: str, now: str | None) -> float | None:
    try:
        then = email.utils.parsedate_to_datetime(date).timestamp()
        # By the server's own clock where it tells it: ours may differ.
        start = email.utils.parsedate_to_datetime(now).timestamp() if now else time.time()
    except ValueError:
        return None
    return max(0.0, then - start)


def origin_of(error: BaseException) -> str | None:
    """Scheme, host and port of the server that was called, or None. Never user and password."""
    response = getattr(error, "response", None)
    for owner in (error, response):
        try:
            url = str(owner.request.url)  # type: ignore[union-attr]
        except (AttributeError, RuntimeError):  # httpx raises RuntimeError where no request is attached
            continue
        parts = urlsplit(url)
        if parts.hostname:
            return f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}"
    return None


def _error_body(error: BaseException) -> Mapping[str, Any]:
    """The error object of the body, as OpenAI, Anthropic, Google and botocore nest it."""
    first = error.args[0] if isinstance(error, ValueError) and error.args else None  # LangChain's own way to tell it
    for given in (getattr(error, "body", None), getattr(error, "response", None), first):
        body = given[0] if isinstance(given, list) and given else given  # a list: Google's OpenAI-compatible address
        if isinstance(body, Mapping):
            inner = body.get("error", body.get("Error", body))
            return inner if isinstance(inner, Mapping) else body
    return {}
