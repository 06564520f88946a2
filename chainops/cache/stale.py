"""What the cache still holds of an answer that is out of date: a route for when nothing else answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from chainops.cache.component import SemanticCache
from chainops.cache.lookup import Found, Lookup
from chainops.cache.messages import restored
from chainops.core.component import Component
from chainops.core.errors import CallRefused, StoreError
from chainops.core.events import Event
from chainops.core.run import Run
from chainops.core.steps import Do, Plan, Say


@dataclass(frozen=True, slots=True, kw_only=True)
class StaleServed(Event):
    """An answer was served although it is out of date, because nothing else answered."""

    entry: str
    match: str
    """exact or semantic."""
    age_s: float


class StaleAnswers(Component[Any, Any]):
    """Serves what `cache` holds for the question, however old: the same scopes, the same error bound, no time limit.

    Reports call it degraded and say how old it is. Entries that were reported wrong, or whose documents are known to
    have changed, are gone and never served.

    Raises:
        CallRefused: Nothing is stored that may be served, or the store cannot be reached; the next route may answer.
    """

    kind: ClassVar[str] = "stale_cache"
    answers_late: ClassVar[bool] = True

    cache: Callable[[], SemanticCache]

    def plan(self, value: Any, run: Run) -> Plan[Any]:
        cache = self.cache()
        # Without asking a model: this may be what answers when the time is over.
        may_look = run.caller.cache != "bypass" and cache.settings.mode == "serve"
        key = (yield from cache.key(value, run, may_ask=False)) if may_look else None
        if key is None:
            raise CallRefused("stale cache", "nothing stored", "this request is not cached")
        now, now_s, tenant = run.clock.time(), run.clock.monotonic(), run.caller.tenant

        def find() -> Found:
            lookup = Lookup(cache.replica(), cache.settings.model_copy(update={"ttl": None}), None)
            return lookup.find(key, tenant=tenant, now=now, now_s=now_s, draw=1.0, changes=False)

        try:
            found: Found = yield Do(find)
        except StoreError as error:
            raise CallRefused("stale cache", "cache unreachable", str(error)) from error
        entry = found.entry
        if entry is None:
            raise CallRefused("stale cache", "nothing stored", f"nothing may be served: {found.why or 'it is empty'}")
        age_s = max(0.0, now - entry.created_at)
        reasons = run.report.reasons
        run.report.adopt(entry.facts)
        run.report.reasons = reasons
        run.report.mark("degraded", f"an answer from {_ago(age_s)}, which may be out of date")
        run.report.served_by, run.report.may_cache = "cache (stale)", False
        run.stage.facts |= {"entry": entry.id, "age_s": round(age_s, 3)}
        run.emit(StaleServed(entry=entry.id, match=found.match or "exact", age_s=round(age_s, 3)))
        message = restored(entry.message)
        yield Say(message)
        return message


def _ago(age_s: float) -> str:
    for unit, length_s in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if age_s >= 2 * length_s:
            return f"{age_s / length_s:.0f} {unit} ago"
    return "just now" if age_s < 2 else f"{age_s:.0f} seconds ago"
