"""What may be served and what may be kept: pure decisions over plain values."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from langchain_core.messages import BaseMessage

from chainops.core.caller import Caller
from chainops.core.report import Status

Share = Literal["tenant", "user", "all"]


@dataclass(frozen=True, slots=True)
class Key:
    """Where an answer belongs. Only entries of the same `scope` are ever compared."""

    scope: str
    """Digest of who may share it, what answers, and everything about the request but its question."""
    exact: str
    """Digest of the question."""
    question: str
    may_be_near: bool
    """Whether a similar question may be served. Not within a conversation: there, what a question
    means depends on what was said before."""


def key_of(value: Any, *, answered_by: str, share: Share, caller: Caller, kwargs: Mapping[str, Any]) -> Key | None:
    """The key of a request, or None when it cannot be cached.

    Args:
        value: A string, a mapping with `question` and perhaps `history` and more, or messages.
        answered_by: Digest of everything inside the wrapper.
        share: `user` needs a user: without one nothing is shared.
        kwargs: What the model is called with besides (tools, stop words).
    """
    parts = _parts(value)
    if parts is None or (share == "user" and caller.user is None):  # nobody in particular shares with nobody
        return None
    question, history, rest = parts
    who = {"all": [], "tenant": [caller.tenant], "user": [caller.tenant, caller.user]}[share]
    try:
        scope = digest([share, who, answered_by, history, rest, dict(kwargs)])
    except TypeError:  # something in the request has no plain form: it cannot be compared, so it is not cached
        return None
    return Key(scope, digest(plain(question)), question, may_be_near=not history)


def _parts(value: Any) -> tuple[str, list[Any], dict[str, Any]] | None:
    """Question, history and everything else of a request."""
    if isinstance(value, str):
        return value, [], {}
    if isinstance(value, Mapping) and isinstance(value.get("question"), str):
        rest = {name: each for name, each in value.items() if name not in ("question", "history")}
        history = [_whole(each) if isinstance(each, BaseMessage) else each for each in value.get("history") or ()]
        return value["question"], history, rest
    messages = value.to_messages() if hasattr(value, "to_messages") else value
    if isinstance(messages, list) and messages and all(isinstance(each, BaseMessage) for each in messages):
        last = messages[-1]
        if last.type == "human" and isinstance(last.content, str):
            return last.content, [_whole(each) for each in messages[:-1]], {}
    return None


def _whole(message: BaseMessage) -> dict[str, Any]:
    """Everything a message says, tool calls and images included; not its id, nor what it cost."""
    return message.model_dump(mode="json", exclude={"id", "response_metadata", "usage_metadata"})


def plain(question: str) -> str:
    """The question as exact lookup compares it: Unicode-normalised, white space folded."""
    return " ".join(unicodedata.normalize("NFC", question).split())


def digest(value: Any) -> str:
    """sha256 over canonical JSON. Raises TypeError for what is not plain JSON."""
    return hashlib.sha256(
        json.dumps(value, sort_keys=True, ensure_ascii=False).encode("utf-8", "surrogatepass")
    ).hexdigest()


def is_near_enough(similarity: float, *, threshold: float) -> bool:
    """Whether the nearest stored question may answer. Cosine similarity, -1..1."""
    return similarity >= threshold


def is_alive(created_at: float, *, alive_since: float | None) -> bool:
    """Whether an entry may still be served. Age counts from when it was stored, however often it is asked for.

    Args:
        alive_since: What was stored then or before is too old; None: nothing is. Seconds since 1970, both.
    """
    return alive_since is None or created_at > alive_since


def why_not_kept(*, status: Status, may_cache: bool, text: str, has_tool_calls: bool) -> str | None:
    """Why an answer is not stored; None when it is."""
    if status != "ok":
        return f"status {status}"
    if not may_cache:
        return "the chain inside asked not to"
    if not text.strip() and not has_tool_calls:
        return "empty answer"
    return None
