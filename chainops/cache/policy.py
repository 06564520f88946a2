"""Where an answer belongs, and what may be kept: pure decisions over plain values."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from langchain_core.messages import BaseMessage

from chainops.cache.records import WRONG
from chainops.cache.standalone import Standalone, speaks_back, standalone
from chainops.core.caller import STATE_KEY, Caller
from chainops.core.report import Report
from chainops.text.personal import personal

Share = Literal["tenant", "user", "all"]
MAX_AHEAD_S = 300.0
"""An entry that claims to be from further in the future than this was stored under a clock that jumped."""


@dataclass(frozen=True, slots=True)
class Key:
    """Where an answer belongs. Only entries of the same `scope` are ever compared."""

    scope: str
    """Digest of who may share it, what answers, and everything about the request but its question."""
    exact: str
    """Digest of the question."""
    question: str
    """Made standalone by what was said before."""
    may_be_near: bool
    """Whether a similar question may be served."""
    in_conversation: bool = False
    """Whether there was a conversation that the key leaves out."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request taken apart: its question, what was said before, and everything else."""

    question: str
    history: list[Any]
    rest: dict[str, Any]
    fixed: list[Any]
    """System messages: no conversation, but part of what answers."""


def asked(value: Any) -> Asked | None:
    """The parts of a request: a string, a mapping with `question`, or messages. None for anything else."""
    if isinstance(value, str):
        return Asked(value, [], {}, [])
    if isinstance(value, Mapping) and isinstance(value.get("question"), str):
        rest = {name: each for name, each in value.items() if name not in ("question", "history")}
        history = value.get("history") or ()
        if not isinstance(history, list | tuple):
            return None
        turns = [_turn(each) for each in history]
        return Asked(value["question"], turns, rest, [])
    messages = value.to_messages() if hasattr(value, "to_messages") else value
    if isinstance(messages, list) and messages and all(isinstance(each, BaseMessage) for each in messages):
        last = messages[-1]
        if last.type == "human" and isinstance(last.content, str):
            fixed = [_whole(each) for each in messages[:-1] if each.type == "system"]
            turns = [_turn(each) for each in messages[:-1] if each.type != "system"]
            told = {name: each for name, each in _whole(last).items() if each and name not in ("content", "type")}
            return Asked(last.content, turns, told, fixed)
    return None


def key_of(
    request: Asked,
    *,
    answered_by: str,
    share: Share,
    caller: Caller,
    kwargs: Mapping[str, Any],
    alone: Standalone | None = None,
) -> Key | None:
    """The key of a request, or None when it cannot be cached.

    Args:
        answered_by: Digest of everything inside the wrapper.
        share: `user` needs a user: without one nothing is shared.
        kwargs: What the model is called with besides (tools, stop words).
        alone: The question made standalone; None where its history must be the same, word for word.
    """
    if share == "user" and caller.user is None:  # nobody in particular shares with nobody
        return None
    who = {"all": (), "tenant": (caller.tenant,), "user": (caller.tenant, caller.user)}[share]
    context: list[Any] = request.history if alone is None else list(alone.context)
    question = request.question if alone is None else alone.question
    try:
        if context or request.fixed or request.rest or kwargs != _NO_SETTINGS:
            scope = digest([share, who, answered_by, context, request.fixed, request.rest, dict(kwargs)])
        else:
            scope = _bare_scope(share, who, answered_by)
    except (
        TypeError,
        ValueError,
        RecursionError,
    ):  # something in the request has no plain form: it cannot be compared, so it is not cached
        return None
    return Key(
        scope,
        digest(plain(question)),
        question,
        may_be_near=alone is not None,
        in_conversation=bool(request.history) and alone is not None,
    )


_NO_SETTINGS: dict[str, Any] = {"configurable": {}, "flags": {}}
"""`settings_of` a request that sets nothing."""


@lru_cache(maxsize=1024)
def _bare_scope(share: Share, who: tuple[str | None, ...], answered_by: str) -> str:
    """The scope of a request that is a question and nothing else."""
    return digest([share, who, answered_by, [], [], {}, _NO_SETTINGS])


def settings_of(kwargs: Mapping[str, Any], config: Mapping[str, Any], caller: Caller) -> dict[str, Any]:
    """What a request sets beside its question: call parameters, LangChain's configurable fields, flags."""
    configurable = {name: each for name, each in config.get("configurable", {}).items() if name != STATE_KEY}
    return {**kwargs, "configurable": configurable, "flags": caller.flags}


def by_rules(request: Asked) -> Standalone | None:
    """The question made standalone without a model; None when it cannot be."""
    return standalone(request.question, request.history) if are_turns(request.history) else None


def are_turns(history: list[Any]) -> bool:
    """Whether a conversation is text alone. With tool calls or images only the same one is the same."""
    return all(
        isinstance(each, Mapping)
        and set(each) == {"role", "text"}
        and each["role"] in ("user", "assistant")
        and isinstance(each["text"], str)
        for each in history
    )


def _turn(turn: Any) -> Any:
    """A past turn as role and text; whole, where that would lose something."""
    if isinstance(turn, BaseMessage):
        is_plain = isinstance(turn.content, str) and not getattr(turn, "tool_calls", ()) and not turn.additional_kwargs
        role = {"human": "user", "ai": "assistant"}.get(turn.type)
        return {"role": role, "text": turn.content} if is_plain and role else _whole(turn)
    return turn


def _whole(message: BaseMessage) -> dict[str, Any]:
    """Everything a message says, tool calls and images included; not its id, nor what it cost."""
    return message.model_dump(mode="json", exclude={"id", "response_metadata", "usage_metadata"})


def plain(question: str) -> str:
    """The question as exact lookup compares it: Unicode-normalised, white space folded."""
    lines = unicodedata.normalize("NFC", question).strip().splitlines()
    if len(lines) > 1:  # code, tables: what a line begins with, and which lines there are, may matter
        return "\n".join(line.rstrip() for line in lines)
    return " ".join("".join(lines).split())


def digest(value: Any) -> str:
    """sha256 over canonical JSON. Raises TypeError for what is not plain JSON."""
    return hashlib.sha256(_canonical(value).encode("utf-8", "surrogatepass")).hexdigest()


_canonical = json.JSONEncoder(sort_keys=True, ensure_ascii=False).encode


def rejected(question: str, text: str) -> str:
    """The mark of an answer that was reported as wrong, by which it is known when the chain says it again."""
    return f"{WRONG}{digest([plain(question), plain(text)])[:40]}"


def is_alive(created_at: float, *, now: float, ttl_s: float | None) -> bool:
    """Whether an entry may still be served. Age counts from when it was stored, however often it is asked for.

    Args:
        now: Seconds since 1970, as `created_at`.
        ttl_s: The oldest an answer may be; None: any age.
    """
    age_s = now - created_at
    return age_s > -MAX_AHEAD_S and (ttl_s is None or age_s < ttl_s)


def why_not_kept(
    report: Report,
    key: Key,
    *,
    text: str,
    has_tool_calls: bool,
    is_cut: bool = False,
    keep_unknown: bool,
    keep_personal: bool,
) -> str | None:
    """Why an answer is not stored; None when it is."""
    if report.status != "ok":
        return f"status {report.status}"
    if not report.may_cache:
        return "the chain inside asked not to"
    if report.is_unknown and not keep_unknown:
        return "it does not know: declare `keep_unknown: true` to keep such answers"
    if not text.strip() and not has_tool_calls:
        return "empty answer"
    if is_cut:
        return "the model stopped before the end"
    if not keep_personal and (found := personal(key.question) or personal(text)):
        return f"personal data: {found[0].kind}"
    if key.in_conversation and speaks_back(text):
        return "it refers to the conversation"
    return None
