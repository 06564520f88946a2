"""Learn beside the requests: ask again what was served, compare what was asked."""

from __future__ import annotations

import contextlib
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, ClassVar

from langchain_core.runnables import RunnableConfig

from chainops.cache.judge import Label
from chainops.cache.keeping import WORTH_COMPARING, compare, keep, same
from chainops.cache.lookup import Found
from chainops.cache.messages import as_json, reply_of
from chainops.cache.policy import Key
from chainops.cache.records import CacheAudited, CacheCompared, Entry
from chainops.core.caller import STATE_KEY
from chainops.core.clock import use_clock
from chainops.core.component import Component
from chainops.core.errors import ChainopsError
from chainops.core.events import listen
from chainops.core.run import Errand, Run
from chainops.core.steps import Do, Forward, Plan

if TYPE_CHECKING:
    from chainops.cache.component import SemanticCache
    from chainops.cache.replica import Replica

DEADLINE_S = 120.0


class Audit(Component[Any, Any]):
    """A request of its own, with its own ledger: what the chain says to a question that was served from the cache."""

    kind: ClassVar[str] = "audit"

    cache: Any
    key: Any
    found: Any

    def plan(self, value: Any, run: Run) -> Plan[Any]:
        cache: SemanticCache = self.cache
        key: Key = self.key
        found: Found = self.found
        served = found.entry
        assert served is not None
        started = run.clock.monotonic()
        try:
            fresh = yield Forward(cache.inner, value, kwargs=run.kwargs)
        except Exception as error:
            run.emit(CacheAudited(entry=served.id, same=None, why=repr(error)[:500], cost_usd=run.attempts.cost_usd))
            raise
        took_s = run.clock.monotonic() - started
        kept = yield from keep(cache, key, fresh, found, run, duration_s=took_s)
        if kept is not None:
            verdict = yield from compare(cache, kept, found, source="audit")
        else:
            verdict = yield from _unkept(cache, key, served, fresh, found, run)
        cost = run.attempts.cost_usd
        if verdict is None:
            why = f"the second answer is {run.report.status}, and was not compared"
            run.emit(CacheAudited(entry=served.id, same=None, why=why, cost_usd=cost))
            return fresh
        replica: Replica = yield Do(cache.replica, blocks=not getattr(cache.replica, "is_made", True))
        replica.counts.count("audited", tenant=run.caller.tenant, usd=cost or 0.0, seconds=took_s)
        if not verdict.same:
            replica.counts.count("audited_wrong", tenant=run.caller.tenant)
        run.emit(CacheAudited(entry=served.id, same=verdict.same, why=verdict.why, cost_usd=cost))
        return fresh


def _unkept(cache: Any, key: Any, served: Entry, fresh: Any, found: Any, run: Run) -> Plan[Any]:
    """What an answer that is not stored (it does not know, it refuses) says of the one that was served."""
    message = as_json(fresh)
    if message is None or run.report.status not in ("ok", "refused"):
        return None
    facts = run.report.facts()
    verdict = yield from same(cache, key.question, reply_of(message, facts), reply_of(served.message, served.facts))
    replica: Replica = yield Do(cache.replica)
    label = None if found.evidence is None else Label(found.evidence.values, verdict.same, "audit", run.clock.time())
    yield Do(lambda: replica.learn_of(served, group=None, label=label))
    return verdict


class Comparison(Component[Any, Any]):
    """What a fresh answer teaches, found out when its asker has it already."""

    kind: ClassVar[str] = "comparison"

    cache: Any
    found: Any

    def plan(self, value: Any, run: Run) -> Plan[Any]:
        entry: Entry = value
        try:
            verdict = yield from compare(self.cache, entry, self.found, source="miss")
        except ChainopsError as error:
            run.emit(CacheCompared(entry=entry.id, same=None, why=str(error)))
            return None
        if verdict is not None:
            run.emit(CacheCompared(entry=entry.id, same=verdict.same, why=verdict.why))
        return verdict


def audit(cache: SemanticCache, key: Key, found: Found, value: Any, run: Run) -> None:
    """Queue an audit of what is being served. Never blocks, never raises; too many at once are given up."""
    if not _queue(cache, Audit(cache=cache, key=key, found=found, name="audit"), value, run):
        entry = found.entry.id if found.entry is not None else ""
        run.emit(CacheAudited(entry=entry, same=None, why="too many audits are waiting", cost_usd=None))


def compare_later(cache: SemanticCache, entry: Entry, found: Found, run: Run) -> None:
    """Queue the comparison of a fresh answer with the stored ones near it, if there are any. Never blocks."""
    if not found.neighbours or found.neighbours[0].similarity < WORTH_COMPARING:
        return
    if not _queue(cache, Comparison(cache=cache, found=found, name="comparison"), entry, run):
        run.emit(CacheCompared(entry=entry.id, same=None, why="too many comparisons are waiting"))


def _queue(cache: SemanticCache, component: Component[Any, Any], value: Any, run: Run) -> bool:
    """Work off a request of the cache's own, with the listeners and on behalf of the caller of this one."""
    caller = run.caller.model_copy(
        update={"purpose": "audit", "deadline_s": DEADLINE_S, "session": None, "expose": None, "cache": "bypass"}
    )
    listeners, kwargs, clock = run.request.listeners, dict(run.kwargs), run.clock
    config = RunnableConfig(configurable={STATE_KEY: Errand(caller, run.terms)})

    def work() -> None:
        with ExitStack() as stack:
            for listener in listeners:
                stack.enter_context(listen(listener))
            stack.enter_context(use_clock(clock))
            with contextlib.suppress(Exception):  # told as an event; nobody waits for this answer
                component.invoke(value, config, **kwargs)

    return cache.background.submit(work)
