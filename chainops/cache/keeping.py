"""Keep an answer, and learn from it: whether the nearest stored one would have done."""

from __future__ import annotations

import uuid
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from chainops.cache import policy
from chainops.cache.compare import Reply, Verdict, by_model, verdict_of
from chainops.cache.judge import Label
from chainops.cache.lookup import Found
from chainops.cache.messages import as_json, is_cut, reply_of
from chainops.cache.policy import Key
from chainops.cache.records import CacheDropped, CacheKept, CacheUnavailable, Entry, Limits, Where
from chainops.core.errors import ChainopsError, InvalidInput
from chainops.core.run import Run
from chainops.core.steps import Ask, Do, Plan

if TYPE_CHECKING:
    from chainops.cache.component import SemanticCache
    from chainops.cache.replica import Replica

_COMPARED = 4
"""With how many stored answers at most a fresh one is compared, one of each group."""
_LONG = 5_000
"""Characters from which looking for personal data takes longer than a thread hop."""
WORTH_COMPARING = 0.4
"""Cosine below which a question is no neighbour."""


def keep(
    cache: SemanticCache, key: Key, answer: Any, found: Found, run: Run, *, duration_s: float = 0.0
) -> Plan[Entry | None]:
    """Store a fresh answer, if it may be.

    Args:
        found: What the lookup before it came to.
        duration_s: How long the chain took.

    Returns:
        What was stored; None where nothing was, which an event tells.
    """
    message = as_json(answer)
    if message is None:
        run.emit(CacheKept(entry=None, reason="not a message"))
        return None
    facts = run.report.facts()
    reply = reply_of(message, facts)
    why_not = partial(
        policy.why_not_kept,
        run.report,
        key,
        text=reply.text,
        has_tool_calls=bool(reply.tool_calls),
        is_cut=is_cut(message.get("response_metadata", {})),
        keep_unknown=cache.settings.keep_unknown,
        keep_personal=cache.settings.keep_personal,
    )
    reason: str | None = yield Do(why_not, blocks=len(reply.text) + len(key.question) > _LONG)
    if reason is not None:
        run.emit(CacheKept(entry=None, reason=reason))
        return None
    entry = _entry(key, message, facts, found, run, duration_s)
    if found.is_down:
        _hold(cache, entry, run)
        return None
    try:
        replica: Replica = yield Do(cache.replica, blocks=not getattr(cache.replica, "is_made", True))
        entry = replace(entry, owner=replica.owner)
        now_s, limits = run.clock.monotonic(), cache.settings.limits
        work = partial(
            _store, cache, replica, entry, found, now_s=now_s, limits=limits, asked_at=run.request.started_at
        )
        stored: tuple[Entry, list[str]] | None = yield Do(work)
    except InvalidInput as error:  # too large, or nothing that JSON can hold
        run.emit(CacheKept(entry=None, reason=str(error)))
        return None
    except ChainopsError as error:
        run.emit(CacheUnavailable(error=str(error)))
        _hold(cache, entry, run)
        return None
    if stored is None:
        run.emit(CacheKept(entry=None, reason="the same answer to this question was reported as wrong"))
        return None
    kept, evicted = stored
    run.emit(CacheKept(entry=kept.id, reason=None))
    if evicted:
        run.emit(CacheDropped(reason="evicted", count=len(evicted), entries=tuple(evicted[:100])))
    return kept


def _entry(
    key: Key, message: dict[str, Any], facts: dict[str, Any], found: Found, run: Run, duration_s: float
) -> Entry:
    caller, own = run.caller, uuid.uuid4().hex
    return Entry(
        id=own,
        owner="",
        scope=key.scope,
        exact=key.exact,
        question=key.question,
        message=message,
        # Reasons are this request's own (a document that could not be read just now): not the next one's.
        facts={name: fact for name, fact in facts.items() if name != "reasons"},
        group=own,
        uses=run.report.uses,
        knowledge=found.version,
        tenant=caller.tenant,
        user=caller.user,
        tags=tuple(sorted(caller.tags)),
        is_unknown=run.report.is_unknown,
        cost_usd=run.attempts.cost_usd,
        duration_s=duration_s,
        created_at=run.clock.time(),
    )


def _hold(cache: SemanticCache, entry: Entry, run: Run) -> None:
    """Keep an answer in this process alone while the store is down: exact repeats are still served."""
    with suppress(ChainopsError):  # a cache that could not even be opened holds nothing
        cache.replica().hold(entry, run.clock.monotonic())
    run.emit(CacheKept(entry=None, reason="the store cannot be reached: held in this process alone, for now"))


def _store(
    cache: SemanticCache,
    replica: Replica,
    entry: Entry,
    found: Found,
    *,
    now_s: float,
    limits: Limits,
    asked_at: float,
) -> tuple[Entry, list[str]] | None:
    vector = found.vector
    with replica.guarded():
        mark = policy.rejected(entry.question, reply_of(entry.message, entry.facts).text)
        if replica.rejects(mark):
            return None
        if vector is None and cache.settings.looks_near and found.may_embed:
            vector = replica.embed(entry.question)
        kept = entry if vector is None else replace(entry, embedder=replica.embedder_digest)
        stored = None
        while stored is None:  # once more if another one was stored between the look and the storing
            there = replica.store.exact(entry.scope, entry.exact)
            if there is not None and (there.created_at > asked_at or _is_anothers(there, entry)):
                raise InvalidInput("answer", "older than what was stored meanwhile", "the newer one stays")
            over = 0 if there is None else there.seq
            stored = replica.keep(kept, vector, now_s=now_s, limits=limits, over=over)
        if replica.rejects(mark):  # reported while it was being stored
            replica.drop(Where(ids=(kept.id,)), reason="the same was reported as wrong", now=kept.created_at)
            return None
        return stored


def _is_anothers(there: Entry, fresh: Entry) -> bool:
    """Whether a person has verified what is there for another tenant."""
    return there.is_verified and there.tenant != fresh.tenant


def compare(
    cache: SemanticCache, entry: Entry, found: Found, *, source: Literal["miss", "audit"]
) -> Plan[Verdict | None]:
    """Learn from a fresh answer: put its entry into the group of those that say the same, and tell the policy whether
    the nearest one would have done. Takes as long as a comparison: some 10 to 100 ms for prose.

    Args:
        found: What the lookup before it came to: its neighbours are compared with.
        source: Whether the question was not served, or served and asked again.

    Returns:
        Whether the nearest stored answer says the same; None where there was none.
    """
    replica: Replica = yield Do(cache.replica, blocks=not getattr(cache.replica, "is_made", True))
    group, verdict = yield from _placed(cache, entry, found, replica)
    label = None
    if verdict is not None and found.evidence is not None:
        label = Label(found.evidence.values, verdict.same, source, entry.created_at)
    yield Do(lambda: replica.learn_of(entry, group=group, label=label))
    return verdict


def _placed(
    cache: SemanticCache, fresh: Entry, found: Found, replica: Replica
) -> Plan[tuple[str | None, Verdict | None]]:
    """The group of stored answers that say the same, and how the nearest one compares."""
    reply = reply_of(fresh.message, fresh.facts)
    nearest: Verdict | None = None
    seen: set[str] = set()
    for position, (outline, similarity, _) in enumerate(found.neighbours):
        if similarity < WORTH_COMPARING or len(seen) >= _COMPARED:
            break
        if outline.group in seen:
            continue
        seen.add(outline.group)
        entry: Entry | None = yield Do(partial(replica.entry, outline, fresh.scope))
        if entry is None:
            continue
        verdict = yield from same(cache, fresh.question, reply, reply_of(entry.message, entry.facts))
        if position == 0:
            nearest = verdict
        if verdict.same:
            return outline.group, nearest
        if cache.judge_model is not None:
            break  # a model is asked about the nearest only
    return None, nearest


def same(cache: SemanticCache, question: str, a: Reply, b: Reply) -> Plan[Verdict]:
    """Whether two answers say the same, by the declared comparer or model."""
    if cache.judge_model is None:
        verdict: Verdict = yield Do(lambda: cache.comparer().same(question, a, b))
        return verdict
    asked = by_model(question, a, b)
    if isinstance(asked, Verdict):
        return asked
    return verdict_of((yield Ask(cache.judge_model, list(asked))))
