"""From a record of a finished request to the spans of an MLflow trace: plain values, no MLflow import."""

from __future__ import annotations

import hashlib
import json
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

MAX_TEXT = 100_000
"""Characters of one string that reach a trace; the rest is cut, and the cut is written in the text."""
MAX_PREVIEW = 1_000
"""Characters of a trace's request and response previews: MLflow's own limit for open-source servers."""
MAX_METADATA = 250
"""Characters of a metadata value that every MLflow backend keeps."""

SPAN_TYPES: Mapping[str, str] = {
    "chain": "CHAIN",
    "rag": "CHAIN",
    "chat": "CHAIN",
    "fallback": "CHAIN",
    "model": "CHAT_MODEL",
    "retrieve": "RETRIEVER",
    "rerank": "RERANKER",
    "embed": "EMBEDDING",
    "guard": "GUARDRAIL",
    "memory": "MEMORY",
    "parse": "PARSER",
    "tool": "TOOL",
}
"""MLflow's span type for a stage's kind; every other kind is a `TASK`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceDraft:
    """One trace, ready to be handed to MLflow.

    Times of the trace are in milliseconds, those of spans in nanoseconds since the epoch.
    """

    trace_id: str
    request_id: str
    started_ms: int
    duration_ms: int
    failed: bool
    request_preview: str
    response_preview: str
    metadata: dict[str, str]
    tags: dict[str, str]
    prompts: tuple[tuple[str, int], ...]
    """Registry prompts to link: pairs of name and version."""
    spans: list[dict[str, Any]] = field(repr=False)
    """In the form `mlflow.entities.Span.from_dict` reads."""


def trace_id(request_id: str, started_at: float) -> str:
    """The MLflow trace id of a request.

    It follows from the request, so a record that is written twice after a lost answer is still one
    trace, and feedback can name the trace before it is written.

    Args:
        request_id: The record's own id; may be repeated by clients that choose it.
        started_at: Seconds since the epoch, as in the record.
    """
    return "tr-" + _trace_bytes(request_id, started_at).hex()


def draft_trace(record: Mapping[str, Any]) -> TraceDraft:
    """Lay out one finished request as a trace: a root span for the request, one span for each stage.

    A stage that stands alone at the top and is the chain itself is the root span, not a copy under it.

    Raises:
        KeyError: a field every record has is missing.
        TypeError, ValueError: a field holds what it cannot hold.
    """
    request_id, started_at = str(record["request_id"]), float(record["started_at"])
    duration_s = max(0.0, float(record["duration_s"]))
    trace = _trace_bytes(request_id, started_at)
    failed = record["status"] == "failed"
    return TraceDraft(
        trace_id="tr-" + trace.hex(),
        request_id=request_id,
        started_ms=_ns(started_at) // 1_000_000,
        duration_ms=round(duration_s * 1000),
        failed=failed,
        request_preview=_preview(record.get("input")),
        response_preview=_preview(record.get("output") if record.get("output") is not None else record.get("error")),
        metadata=_metadata(record),
        tags=_tags(record),
        prompts=tuple((str(prompt["name"]), int(prompt["version"])) for prompt in record.get("prompts") or ()),
        spans=_spans(record, trace, started_at, duration_s),
    )


def _spans(record: Mapping[str, Any], trace: bytes, started_at: float, duration_s: float) -> list[dict[str, Any]]:
    name, stages = str(record["chain"]), list(record.get("stages") or ())
    ids = {stage["id"] for stage in stages}
    top = [stage for stage in stages if stage.get("parent") not in ids]
    is_chain = len(top) == 1 and (top[0]["kind"] == "chain" or top[0]["name"] == name)
    itself = top[0] if is_chain else {"kind": "chain"}
    below = [stage for stage in stages if stage is not itself]
    places = {stage["id"]: _span_bytes(trace, stage["id"]) for stage in below}
    root = _span_bytes(trace, None)

    events: dict[int | None, list[dict[str, Any]]] = {}
    for event in record.get("events") or ():
        owner = event.get("stage") if event.get("stage") in places else None
        events.setdefault(owner, []).append(_event(event, started_at))

    def span(place: bytes, parent: bytes | None, start: float, length: float, **rest: Any) -> dict[str, Any]:
        attributes = {"mlflow.traceRequestId": "tr-" + trace.hex(), **rest.pop("attributes")}
        return {
            "trace_id": _b64(trace),
            "span_id": _b64(place),
            "parent_span_id": None if parent is None else _b64(parent),
            "start_time_unix_nano": _ns(start),
            "end_time_unix_nano": _ns(start + max(0.0, length)),
            "attributes": _dumped(attributes),
            **rest,
        }

    whole = {
        **_stage_attributes(itself),
        "mlflow.spanInputs": record.get("input"),
        "mlflow.spanOutputs": record.get("output"),
        "chainops.status": record["status"],
        "chainops.error": record.get("error"),
    }
    failed = record["status"] == "failed"
    status = _status(record.get("error") if failed else None, failed=failed)
    first = span(
        root, None, started_at, duration_s, name=name, status=status, attributes=whole, events=events.get(None, [])
    )
    return [first] + [
        span(
            places[stage["id"]],
            places.get(stage.get("parent"), root),
            started_at + float(stage["start_s"]),
            float(stage["duration_s"]),
            name=str(stage["name"]),
            status=_status(stage.get("error"), failed=stage.get("error") is not None),
            attributes=_stage_attributes(stage),
            events=events.get(stage["id"], []),
        )
        for stage in below
    ]


def _stage_attributes(stage: Mapping[str, Any]) -> dict[str, Any]:
    kind = str(stage["kind"])
    cost = stage.get("cost_usd")
    return {
        "mlflow.spanType": SPAN_TYPES.get(kind, "TASK"),
        "mlflow.spanInputs": _chat(stage.get("input")) if kind == "model" else stage.get("input"),
        "mlflow.spanOutputs": stage.get("output"),
        "mlflow.llm.model": stage.get("model"),
        "mlflow.chat.tokenUsage": _usage(stage.get("usage")),
        # Only the total is known; MLflow prices a model's tokens itself where this is absent.
        "mlflow.llm.cost": None if cost is None else {"total_cost": float(cost)},
        "chainops.kind": kind,
        **_facts(stage),
    }


def _facts(stage: Mapping[str, Any]) -> dict[str, Any]:
    return {f"chainops.{key}": value for key, value in (stage.get("facts") or {}).items()}


def _metadata(record: Mapping[str, Any]) -> dict[str, str]:
    caller = record.get("caller") or {}
    values: dict[str, Any] = {
        "mlflow.trace_schema.version": "3",
        "mlflow.trace.user": caller.get("user"),
        "mlflow.trace.session": caller.get("session"),
        "chainops.tenant": caller.get("tenant"),
        "chainops.feature": caller.get("feature"),
    }
    if usage := _usage(record.get("usage")):
        values["mlflow.trace.tokenUsage"] = json.dumps(usage)
    if (cost := record.get("cost_usd")) is not None:
        values["mlflow.trace.cost"] = json.dumps({"total_cost": float(cost)})
    return {key: str(value)[:MAX_METADATA] for key, value in values.items() if value is not None}


def _tags(record: Mapping[str, Any]) -> dict[str, str]:
    name = str(record["chain"])
    values: dict[str, Any] = {
        "mlflow.traceName": name[:MAX_METADATA],
        "chainops.chain": name,
        "chainops.status": record["status"],
        "chainops.served_by": record.get("served_by"),
    }
    if prompts := record.get("prompts"):
        # MLflow's UI reads the link from this tag; its search reads it from an association written beside it.
        linked = [{"name": str(prompt["name"]), "version": str(prompt["version"])} for prompt in prompts]
        values["mlflow.linkedPrompts"] = json.dumps(linked)
    return {key: str(value) for key, value in values.items() if value is not None}


def _event(event: Mapping[str, Any], started_at: float) -> dict[str, Any]:
    facts = {key: value for key, value in event.items() if key not in {"kind", "stage", "at_s"} and value is not None}
    return {
        "name": str(event["kind"]),
        "time_unix_nano": _ns(started_at + float(event["at_s"])),
        "attributes": {  # OpenTelemetry knows primitives only
            key: _cut(value) if isinstance(value, str | int | float) else json.dumps(_cut(value), ensure_ascii=False)
            for key, value in facts.items()
        },
    }


def _status(error: Any, *, failed: bool) -> dict[str, str]:
    if not failed:
        return {"code": "STATUS_CODE_OK", "message": ""}
    return {"code": "STATUS_CODE_ERROR", "message": "" if error is None else str(error)[:MAX_PREVIEW]}


def _usage(usage: Mapping[str, Any] | None) -> dict[str, int] | None:
    if not usage:
        return None
    return {key: int(usage[key]) for key in ("input_tokens", "output_tokens", "total_tokens") if key in usage}


def _chat(value: Any) -> Any:
    """Messages in the form MLflow's UI draws as a conversation; anything else as it is."""
    if not isinstance(value, list) or not value or not all(isinstance(one, dict) and "role" in one for one in value):
        return value
    roles = {"human": "user", "ai": "assistant"}
    return {
        "messages": [
            {"role": roles.get(one["role"], one["role"]), "content": one.get("content", one.get("text"))}
            for one in value
        ]
    }


def _dumped(attributes: Mapping[str, Any]) -> dict[str, str]:
    """MLflow keeps each attribute as JSON text; one that is None is left out."""
    return {
        key: json.dumps(_cut(value), ensure_ascii=False, default=str)
        for key, value in attributes.items()
        if value is not None
    }


def _cut(value: Any) -> Any:
    if isinstance(value, str):
        if not value.isascii():
            value = value.encode("utf-8", "replace").decode("utf-8")  # half a surrogate pair fits in no database
        return value if len(value) <= MAX_TEXT else f"{value[:MAX_TEXT]} [cut here: {len(value):,} characters in all]"
    if isinstance(value, dict):
        return {key: _cut(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_cut(inner) for inner in value]
    return value


def _preview(value: Any) -> str:
    if value is None:
        return ""
    value = _cut(value)
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= MAX_PREVIEW else text[: MAX_PREVIEW - 1] + "…"


def _ns(seconds: float) -> int:
    return round(seconds * 1_000_000) * 1000  # a float holds microseconds of today's epoch, not nanoseconds


def _trace_bytes(request_id: str, started_at: float) -> bytes:
    return hashlib.sha256(f"{request_id}\n{started_at!r}".encode()).digest()[:16]


def _span_bytes(trace: bytes, stage: int | None) -> bytes:
    return hashlib.sha256(trace + repr(stage).encode()).digest()[:8]


def _b64(data: bytes) -> str:
    return b64encode(data).decode("ascii")
