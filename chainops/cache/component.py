"""Serve an answer that was given before, when the question is the same or close enough."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any, ClassVar

from langchain_core.messages import AIMessage
from pydantic import Field

from chainops.cache import policy
from chainops.cache.records import CacheKept, CacheMissed, CacheServed, CacheUnavailable, Entry
from chainops.cache.replica import Found, Replica
from chainops.core.answer import KEY
from chainops.core.component import AnyRunnable, Component
from chainops.core.errors import ChainopsError
from chainops.core.run import Run
from chainops.core.settings import Seconds, Settings
from chainops.core.steps import Do, Forward, Plan, Say


class CacheSettings(Settings):
    """What a chain file may say about a cache."""

    threshold: float = Field(default=0.92, gt=0, le=1)
    """Cosine similarity from which a similar question is served the same answer; 1 serves exact repeats only.
    A fixed threshold cannot promise that every answer fits: choose it on your own questions."""
    ttl: Seconds | None = Field(default=86_400.0)
    """How long an answer may be served, counted from when it was stored: `24h`, `30m`, `7d`; null for ever."""
    share: policy.Share = "tenant"
    """Who is served each other's answers: everyone of the same tenant, only the same user, or all."""
    max_entries: int = Field(default=100_000, ge=1)
    """How many answers this chain's cache keeps; the oldest go first."""


class SemanticCache(Component[Any, Any]):
    """Looks a question up before the chain inside is asked, and keeps what that answers.

    Entries are partitioned by who may share them and by the digest of all that answers, before any
    similarity is looked at. Failed, degraded, cut and refused answers are not kept. When the store
    fails the request goes on without it, and the report says so.
    """

    kind: ClassVar[str] = "cache"

    inner: AnyRunnable
    replica: Callable[[], Replica]
    """Opened at the first question."""
    settings: CacheSettings = CacheSettings()
    answered_by: Callable[[], str]
    """Digest of everything inside: models, prompt, knowledge. Asked at each request, because knowledge changes."""

    def plan(self, value: Any, run: Run) -> Plan[Any]:
        mode = run.caller.cache
        key = None if mode == "bypass" else self._key(value, run)
        if key is None:
            run.stage.facts["lookup"] = "bypassed" if mode == "bypass" else "not cacheable"
            return (yield Forward(self.inner, value, kwargs=run.kwargs))
        found = Found()
        if mode == "use":
            found = yield from self._look_up(key, run)
            if found.entry is not None and self._serves(found, run):
                message = self._serve(found.entry, found, run)
                yield Say(message)
                return message
            run.emit(CacheMissed(nearest=found.similarity))
        answer = yield Forward(self.inner, value, kwargs=run.kwargs)
        yield from self._keep(key, answer, found, run)
        return answer

    def _key(self, value: Any, run: Run) -> policy.Key | None:
        return policy.key_of(
            value, answered_by=self.answered_by(), share=self.settings.share, caller=run.caller, kwargs=run.kwargs
        )

    def _near(self, key: policy.Key) -> bool:
        return key.may_be_near and self.settings.threshold < 1

    def _alive_since(self, run: Run) -> float | None:
        return None if self.settings.ttl is None else run.clock.time() - self.settings.ttl

    def _look_up(self, key: policy.Key, run: Run) -> Plan[Found]:
        now_s, alive_since, near = run.clock.monotonic(), self._alive_since(run), self._near(key)
        try:
            replica: Replica = yield Do(self.replica, blocks=not getattr(self.replica, "is_made", True))
            entry = replica.held(key, now_s=now_s)
            if entry is not None and policy.is_alive(entry.created_at, alive_since=alive_since):
                return Found(entry, 1.0, is_exact=True)
            found: Found = yield Do(lambda: replica.look_up(key, now_s=now_s, near=near, alive_since=alive_since))
        except ChainopsError as error:
            run.emit(CacheUnavailable(error=str(error)))
            return Found()
        return found

    def _serves(self, found: Found, run: Run) -> bool:
        if found.similarity is None:
            return False
        run.stage.facts["similarity"] = round(found.similarity, 4)
        return found.is_exact or policy.is_near_enough(found.similarity, threshold=self.settings.threshold)

    def _serve(self, entry: Entry, found: Found, run: Run) -> Any:
        match = "exact" if found.is_exact else "semantic"
        run.stage.facts |= {"lookup": match, "entry": entry.id}
        reasons = run.report.reasons
        run.report.adopt(entry.facts)
        run.report.reasons = reasons  # this request's own stay
        how = "the same question" if found.is_exact else f"a question of similarity {found.similarity:.3f}"
        run.report.mark("cached", f"{how} was answered before")
        run.report.served_by = f"cache ({match})"
        run.emit(
            CacheServed(
                entry=entry.id,
                match=match,
                similarity=round(float(found.similarity or 0.0), 6),
                saved_usd=entry.cost_usd,
                age_s=max(0.0, run.clock.time() - entry.created_at),
            )
        )
        return entry.message["text"] if "text" in entry.message else AIMessage.model_validate(entry.message)

    def _keep(self, key: policy.Key, answer: Any, found: Found, run: Run) -> Plan[None]:
        message = _as_json(answer)
        reason = (
            "not a message"
            if message is None
            else policy.why_not_kept(
                status=run.report.status,
                may_cache=run.report.may_cache,
                text=answer if isinstance(answer, str) else str(answer.text),
                has_tool_calls=bool(getattr(answer, "tool_calls", ())),
            )
        )
        run.stage.facts["lookup"] = "missed"
        if message is None or reason is not None:
            run.emit(CacheKept(entry=None, reason=reason))
            return
        entry = Entry(
            id=uuid.uuid4().hex,
            scope=key.scope,
            exact=key.exact,
            question=key.question,
            message=message,
            # Reasons are this request's own (a document that could not be read just now): not the next one's.
            facts={name: fact for name, fact in run.report.facts().items() if name != "reasons"},
            cost_usd=run.attempts.cost_usd,
            created_at=run.clock.time(),
        )
        near, now_s, alive_since = self._near(key), run.clock.monotonic(), self._alive_since(run)
        limit = self.settings.max_entries

        def keep() -> None:
            self.replica().keep(entry, found.vector, near=near, now_s=now_s, limit=limit, alive_since=alive_since)

        try:
            yield Do(keep)
        except ChainopsError as error:
            run.emit(CacheUnavailable(error=str(error)))
        else:
            run.emit(CacheKept(entry=entry.id, reason=None))


def _as_json(answer: Any) -> dict[str, Any] | None:
    """A message as it is stored: what it says, not what it cost or who asked."""
    if isinstance(answer, str):
        return {"text": answer}
    if not isinstance(answer, AIMessage):
        return None
    metadata = {name: each for name, each in answer.response_metadata.items() if name != KEY}
    kept: dict[str, Any] = {"content": answer.content, "response_metadata": metadata}
    kept["additional_kwargs"] = answer.additional_kwargs
    if answer.tool_calls:
        kept["tool_calls"] = answer.tool_calls
    return AIMessage(**kept).model_dump(mode="json", exclude_defaults=True)
