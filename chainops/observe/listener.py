"""Turns finished requests into MLflow traces."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langchain_core.messages import BaseMessage

from chainops.core.events import Event, RequestEnded
from chainops.core.report import Stage
from chainops.core.run import Request
from chainops.observe.traces import shared_writer

MAX_CHARS = 20_000
"""Longer texts are cut in traces; the report of the answer is not."""
_ROLES = {"ai": "assistant", "AIMessageChunk": "assistant", "human": "user"}
_MAX_DEPTH = 4
_MAX_ITEMS = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceDropped(Event):
    """The writer had no room: this request's trace is lost."""

    dropped: int
    """How many this program has lost so far."""
    problem: str | None
    """What went wrong last, in MLflow's words."""


class TraceListener:
    """A listener that hands every finished request to the trace writer."""

    keeps_values = True
    """Asks requests to keep the inputs and outputs of their stages."""

    def __init__(self, tracking_uri: str, *, experiment: str = "chainops", log_file: Path | None = None) -> None:
        self.writer = shared_writer(tracking_uri, experiment, log_file=log_file)

    def __call__(self, event: Event) -> None:
        if isinstance(event, RequestEnded) and not self.writer.write(record_of(event)):
            event.request.tell(TraceDropped(dropped=self.writer.dropped, problem=self.writer.problem), None)


def record_of(event: RequestEnded) -> dict[str, Any]:
    """A finished request as plain JSON, as `observe.spans.draft_trace` reads it."""
    request = event.request
    report, caller = request.report, request.caller
    root = request.stages[0]
    prompt = request.versions.get("prompt", {})
    return {
        "request_id": request.id,
        "chain": request.chain or root.name,
        "started_at": request.started_at,
        "duration_s": request.duration_s,
        "status": "failed" if event.error is not None else report.status,
        "served_by": report.served_by,
        "input": plain(root.input),
        "output": None if event.error is not None else _said(event.output),
        "error": root.error,
        "caller": {name: getattr(caller, name) for name in ("user", "tenant", "session", "feature")},
        "prompts": [{"name": prompt["name"], "version": prompt["version"]}] if prompt.get("version") else [],
        "cost_usd": request.attempts.cost_usd,
        "usage": _usage(request.attempts.usage),
        "stages": [_stage(each, request) for each in request.stages],
        "events": request.events_as_dicts(),
    }


def _stage(stage: Stage, request: Request) -> dict[str, Any]:
    return {
        "id": stage.id,
        "parent": stage.parent,
        "name": stage.name,
        "kind": stage.kind,
        "start_s": stage.start_s,
        "duration_s": request.duration_s - stage.start_s if stage.duration_s is None else stage.duration_s,
        "error": stage.error,
        "input": plain(stage.input),
        "output": plain(stage.output),
        "model": stage.model,
        "usage": _usage(stage.usage),
        "cost_usd": stage.cost_usd,
        "facts": dict(stage.facts),  # what is still at work may add some
    }


def _usage(usage: Any) -> dict[str, int] | None:
    return None if usage is None else {name: usage[name] for name in ("input_tokens", "output_tokens", "total_tokens")}


def _said(output: Any) -> Any:
    """What the whole request came to: an answer's text, as people read it in a list of traces."""
    return plain(str(output.text)) if isinstance(output, BaseMessage) else plain(output)


def plain(value: Any, depth: int = 0) -> Any:
    """Any value as JSON for a trace: messages as role and text, long texts cut, the rest by its repr."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return value if len(value) <= MAX_CHARS else f"{value[:MAX_CHARS]}… ({len(value):,} characters)"
    if isinstance(value, BaseMessage):
        return {"role": _ROLES.get(value.type, value.type), "content": plain(str(value.text))}
    if depth < _MAX_DEPTH:
        if isinstance(value, dict):
            return {str(name): plain(each, depth + 1) for name, each in list(value.items())[:_MAX_ITEMS]}
        if isinstance(value, list | tuple):
            return [plain(each, depth + 1) for each in value[:_MAX_ITEMS]]
        if hasattr(value, "to_trace"):
            return plain(value.to_trace(), depth + 1)
    return repr(value)[:200]
