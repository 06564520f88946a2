"""What an answer says about itself: where it came from, how long each stage took, what it cost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from langchain_core.messages.ai import UsageMetadata

    from chainops.core.run import Request

Status = Literal["ok", "cached", "degraded", "truncated", "pending_review", "refused"]
_SEVERITY: dict[str, int] = {"ok": 0, "cached": 1, "degraded": 2, "truncated": 3, "pending_review": 4, "refused": 5}


class Stage:
    """One component at work in one request."""

    __slots__ = (
        "cost_usd",
        "duration_s",
        "error",
        "facts",
        "id",
        "input",
        "kind",
        "model",
        "name",
        "output",
        "parent",
        "start_s",
        "usage",
    )

    def __init__(self, id: int, parent: int | None, name: str, kind: str, start_s: float) -> None:  # noqa: A002
        self.id, self.parent, self.name, self.kind = id, parent, name, kind
        self.start_s = start_s
        self.duration_s: float | None = None
        self.error: str | None = None
        self.model: str | None = None
        self.usage: UsageMetadata | None = None
        self.cost_usd: float | None = None
        self.facts: dict[str, Any] = {}
        """What was decided here and by which versions: plain JSON values."""
        self.input: Any = None
        self.output: Any = None

    def to_dict(self) -> dict[str, Any]:
        """JSON, without input and output: those belong to traces."""
        told: dict[str, Any] = {
            "id": self.id,
            "parent": self.parent,
            "name": self.name,
            "kind": self.kind,
            "start_s": round(self.start_s, 6),
            "duration_s": None if self.duration_s is None else round(self.duration_s, 6),
        }
        for name in ("error", "model", "usage", "cost_usd"):
            if (value := getattr(self, name)) or (name == "cost_usd" and value is not None):
                told[name] = value
        if self.facts:
            told["facts"] = dict(self.facts)  # the loser of a race may go on writing to it
        return told


class Report:
    """The facts of one answer in the making. Components write to it through `run.report`.

    A side call (`Ask`) gets a report of its own: what a judge or a classifier says of itself does
    not become a fact of the answer. Stages, events and attempts are the whole request's.
    """

    __slots__ = (
        "_request",
        "data",
        "is_unknown",
        "may_cache",
        "may_remember",
        "reasons",
        "served_by",
        "sources",
        "status",
        "uses",
    )

    def __init__(self, request: Request) -> None:
        self._request = request
        self.status: Status = "ok"
        self.reasons: list[str] = []
        self.sources: list[dict[str, Any]] = []
        self.data: Any = None
        self.served_by: str | None = None
        """The model, cache or sentence that gave the text."""
        self.may_cache = True
        """Whether a cache further out may keep this answer. Set False for what should be asked anew each time."""
        self.is_unknown = False
        """Whether the answer is that it is not known: nothing was found, or nothing supports what is said."""
        self.uses: dict[str, dict[str, str]] = {}
        """What the answer came from, by kind (`document`, `prompt`, `model`): name to digest or version."""
        self.may_remember = True
        """Whether memory may keep this answer as a turn of the conversation. False for a stand-in."""

    def mark(self, status: Status, reason: str) -> None:
        """Say that the answer is less than `ok`, and why. The gravest status stays."""
        if _SEVERITY[status] > _SEVERITY[self.status]:
            self.status = status
        self.reasons.append(reason)

    def start_over(self) -> None:
        """Forget what a route that failed said of its answer; why it failed stays."""
        self.sources, self.data, self.served_by, self.uses = [], None, None, {}
        self.may_cache, self.may_remember, self.is_unknown = True, True, False

    def take(self, other: Report) -> None:
        """Take over what one of several routes at work at the same time said of its answer: the one that is used."""
        if _SEVERITY[other.status] > _SEVERITY[self.status]:
            self.status = other.status
        self.reasons += other.reasons
        for name in _OF_THE_ANSWER:
            setattr(self, name, getattr(other, name))

    def used(self, kind: str, name: str, digest: str) -> None:
        """Note that the answer came from this: when it changes, what was kept of the answer is out of date."""
        self.uses.setdefault(kind, {})[name] = digest

    def facts(self) -> dict[str, Any]:
        """Status, sources and data as plain JSON, without the request's report."""
        told: dict[str, Any] = {"status": self.status, "sources": self.sources}
        if self.served_by is not None:
            told["served_by"] = self.served_by
        if self.reasons:
            told["reasons"] = self.reasons
        if self.data is not None:
            told["data"] = self.data
        return told

    def adopt(self, facts: dict[str, Any]) -> None:
        """Take over the facts of an answer made elsewhere: a cached one, a reviewed one."""
        self.status = facts.get("status", "ok")
        self.sources = list(facts.get("sources", ()))
        self.reasons = list(facts.get("reasons", ()))
        self.data = facts.get("data")
        self.served_by = facts.get("served_by")

    def to_dict(self) -> dict[str, Any]:
        """The request's report as plain JSON: times in seconds from its start, money in USD."""
        request = self._request
        return {
            "request_id": request.id,
            "chain": request.chain,
            "versions": request.versions,
            "started_at": request.started_at,
            "duration_s": round(request.duration_s, 6),
            "usage": request.attempts.usage,
            "cost_usd": request.attempts.cost_usd,
            "stages": [stage.to_dict() for stage in request.stages],
            "attempts": request.attempts.to_list(),
            "events": request.events_as_dicts(),
        }


_OF_THE_ANSWER = ("data", "is_unknown", "may_cache", "may_remember", "served_by", "sources", "uses")
