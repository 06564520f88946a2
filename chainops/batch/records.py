"""What a run says of each row, and why it cannot go on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chainops.core.errors import ChainopsError, InvalidInput

if TYPE_CHECKING:
    from chainops.batch.rows import Row
    from chainops.batch.summary import Summary

FAILED = "failed"
STATUSES = ("ok", "cached", "degraded", "truncated", "pending_review", "refused")
"""What the status of an answered row may be; that of any other is `failed`."""
_MESSAGE_CHARS = 2000


def answered(row: Row, answer: Any, duration_s: float) -> dict[str, Any]:
    """The record of a row that was answered."""
    facts = answer.facts
    report = facts.get("report") or {}
    return {
        "row": row.number,
        "id": row.id,
        "question": row.question,
        **row.kept,
        "answer": str(answer.text),
        "status": facts.get("status", "ok"),
        "reasons": facts.get("reasons", []),
        "sources": facts.get("sources", []),
        "data": facts.get("data"),
        "served_by": facts.get("served_by"),
        **_spent(report),
        "duration_s": round(duration_s, 6),
        "error": None,
    }


def failed(row: Row, error: Exception, duration_s: float = 0.0, *, kind: str | None = None) -> dict[str, Any]:
    """The record of a row that was not. What failed calls cost is in it, as far as it is known."""
    return {
        "row": row.number,
        "id": row.id,
        "question": row.question,
        **row.kept,
        "answer": None,
        "status": FAILED,
        "reasons": [],
        "sources": [],
        "data": None,
        "served_by": None,
        **_spent(error.__dict__.get("report") or {}),
        "duration_s": round(duration_s, 6),
        "error": {
            "type": type(error).__name__,
            "message": str(error)[:_MESSAGE_CHARS],
            "kind": kind or _kind_of(error),
        },
    }


def _spent(report: Mapping[str, Any]) -> dict[str, Any]:
    usage = report.get("usage") or {}
    tokens = {"input": usage.get("input_tokens", 0), "output": usage.get("output_tokens", 0)}
    return {"cost_usd": report.get("cost_usd", 0.0), "tokens": tokens}


def _kind_of(error: Exception) -> str:
    """Whose move it is: `retryable` and `next_route` may be asked again, `caller` only after the row was changed,
    `bug` belongs to the author of the code.
    """
    if isinstance(error, InvalidInput):
        return "caller"
    from chainops.resilience.policy import judge

    kind = judge(error).kind
    return "retryable" if kind == "bug" and getattr(error, "retryable", False) else kind


class OutputTaken(ChainopsError):
    """The output is there already, or is being written by another run."""


class OtherRun(ChainopsError):
    """What was begun beside the output is another run than this one."""

    def __init__(self, path: Path, differs: str) -> None:
        self.path, self.differs = path, differs
        super().__init__(
            f"{path}: a run was begun with another {differs}; finish that one, or drop what it did with --restart "
            "(restart=True)"
        )


class Stopped(KeyboardInterrupt):
    """The run was interrupted; what was answered until then is kept."""

    def __init__(self, summary: Summary) -> None:
        self.summary = summary
        super().__init__(str(summary))
