"""Serve an answer that was given before, when the chain would say the same again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, ClassVar

from pydantic import Field

from chainops.cache import compare, policy
from chainops.cache.auditing import audit, compare_later
from chainops.cache.background import AUDITS
from chainops.cache.freshness import Sources
from chainops.cache.keeping import keep
from chainops.cache.lookup import Found, Lookup, weigh
from chainops.cache.messages import pieces, restored, tokens_of
from chainops.cache.partitions import Neighbour
from chainops.cache.policy import Asked, Key
from chainops.cache.records import (
    CacheDropped,
    CacheMissed,
    CacheNotice,
    CacheRecovered,
    CacheServed,
    CacheUnavailable,
    Entry,
    Lease,
    Outline,
)
from chainops.cache.replica import Replica
from chainops.cache.settings import CacheSettings
from chainops.cache.sharing.flight import FLIGHTS, Flight, Flights, Landed, Seat
from chainops.cache.sharing.following import FIRST_S, Cut, Lost, follow, goes_alone, lead
from chainops.cache.sharing.leases import Leases, similarity
from chainops.cache.standalone import Standalone, as_standalone, condensing
from chainops.core.background import Background
from chainops.core.component import AnyRunnable, Component
from chainops.core.errors import ChainopsError, DeadlineExceeded
from chainops.core.run import Run
from chainops.core.steps import Ask, Do, Forward, Plan, Say, Wait
from chainops.text.personal import personal

_LOOK_AGAIN_S = 0.05
"""How often a request looks whether another process has finished the call it waits for."""
_HURRY_S = 0.05
"""So long before the deadline a paced hit makes no more pauses."""


class SemanticCache(Component[Any, Any]):
    """Looks a question up before the chain inside is asked, and keeps what that answers.

    Entries are partitioned by who may share them and by the digest of all that answers, before any similarity is
    looked at. A similar question is served only while the error bound allows it. Requests for the same, or for what
    would be served from it, wait for one call. Failed, degraded, cut and refused answers are not kept. When the
    store fails the request goes on without it, and the report says so.
    """

    kind: ClassVar[str] = "cache"

    inner: AnyRunnable
    replica: Callable[[], Replica]
    """Opened at the first question."""
    settings: CacheSettings = CacheSettings()
    answered_by: Callable[[], str]
    """Digest of everything inside but the documents: models, prompt, wrappers. Asked at each request."""
    comparer: Callable[[], compare.Comparer]
    """Says whether two answers are the same."""
    judge_model: AnyRunnable | None = None
    """Asked instead, where `compare` names a model."""
    condenser: AnyRunnable | None = None
    """Makes a follow-up stand alone, where `follow_ups` names a model."""
    sources: Sources | None = None
    """The documents that answers come from."""
    flights: Flights = Field(default_factory=lambda: FLIGHTS)
    background: Background = Field(default_factory=lambda: AUDITS)
    """Where audits and comparisons are worked off."""

    def plan(self, value: Any, run: Run) -> Plan[Any]:
        if run.terms.continues is not None:  # half of the answer is said: what is stored is a whole one
            return (yield Forward(self.inner, value, kwargs=run.kwargs))
        mode = run.caller.cache
        key = None if mode == "bypass" else (yield from self.key(value, run))
        if key is None:
            run.stage.facts["lookup"] = "bypassed" if mode == "bypass" else "not cacheable"
            if mode == "bypass" and getattr(self.replica, "is_made", True):
                self._count("bypassed", run)
            return (yield Forward(self.inner, value, kwargs=run.kwargs))
        if mode == "refresh":
            found = Found(version=self._version())
            answer = yield Forward(self.inner, value, kwargs=run.kwargs)
            yield from keep(self, key, answer, found, run)
            return answer
        found = yield from self._look_up(key, run)
        if found.entry is not None and self.settings.mode == "serve":
            return (yield from self._serve(key, found, value, run))
        self._tell_missed(found, run)
        return (yield from self._ask(key, found, value, run))

    # What is asked

    def key(self, value: Any, run: Run, *, may_ask: bool = True) -> Plan[Key | None]:
        """What a request is kept under; None where it cannot be.

        Args:
            may_ask: Whether there is time to let a model make a follow-up stand alone, if this request has not yet.
        """
        asked = policy.asked(value)
        if asked is None:
            return None
        alone: Standalone | None = Standalone(asked.question)
        if asked.history:
            alone = yield from self._alone(asked, run, may_ask=may_ask)
            if alone is None and self.settings.follow_ups != "exact":
                return None
        return policy.key_of(
            asked,
            answered_by=self.answered_by(),
            share=self.settings.share,
            caller=run.caller,
            kwargs=policy.settings_of(run.kwargs, run.config, run.caller),
            alone=alone,
        )

    def _alone(self, asked: Asked, run: Run, *, may_ask: bool) -> Plan[Standalone | None]:
        if self.settings.follow_ups == "exact":
            return None
        if self.condenser is None or not policy.are_turns(asked.history):
            return policy.by_rules(asked)
        place = ("standalone", asked.question, str(asked.history))
        if place not in run.request.memo:
            if not may_ask:
                return policy.by_rules(asked)
            said = yield Ask(self.condenser, condensing(asked.question, asked.history))
            run.request.memo[place] = as_standalone(said)
        alone: Standalone | None = run.request.memo[place]
        return alone

    def _version(self) -> str | None:
        return None if self.sources is None else self.sources.version()

    # Looking

    def _lookup(self) -> Lookup:
        return Lookup(self.replica(), self.settings, self.sources)

    def _look_up(self, key: Key, run: Run) -> Plan[Found]:
        now, now_s, tenant = run.clock.time(), run.clock.monotonic(), run.caller.tenant
        try:
            is_made = getattr(self.replica, "is_made", True)
            lookup: Lookup = self._lookup() if is_made else (yield Do(self._lookup))
            held = lookup.held(key, tenant=tenant, now=now, now_s=now_s)
            if held is not None:
                return held
            draw, trouble = int(run.request.id[:8], 16) / 2**32, lookup.replica.trouble
            found: Found = yield Do(lambda: lookup.find(key, tenant=tenant, now=now, now_s=now_s, draw=draw))
        except ChainopsError as error:
            run.emit(CacheUnavailable(error=str(error)))
            with suppress(ChainopsError):  # what was verified lately still serves while the store is down
                held = self._lookup().held(key, tenant=tenant, now=now, now_s=now_s)
                if held is not None:
                    return held
            run.report.reasons.append("the cache could not be reached, and was done without")
            return Found(why="the store cannot be reached", is_down=True)
        self._tell_recovered(lookup.replica, trouble, run)
        for notice in lookup.replica.take_notices():
            run.emit(CacheNotice(notice=notice))
        for reason, gone in (("its documents changed", found.outdated), ("damaged", found.damaged)):
            if gone:
                run.emit(CacheDropped(reason=reason, count=len(gone), entries=tuple(gone[:100])))
        return found

    def _tell_recovered(self, replica: Replica, trouble: object, run: Run) -> None:
        after_s = replica.recovered(trouble)
        if after_s is not None:
            run.emit(CacheRecovered(place=replica.store.place, after_s=round(after_s, 3)))

    def _tell_missed(self, found: Found, run: Run) -> None:
        nearest = found.similarity
        run.stage.facts["lookup"] = "missed"
        if nearest is not None:
            run.stage.facts["similarity"] = round(nearest, 4)
        would_serve = None if found.entry is None else found.entry.id
        if would_serve is not None:
            run.stage.facts["would_serve"] = would_serve
            self._count("shadow", run)
        if found.decision is not None:
            run.stage.facts["risk"] = _rounded(found.decision.risk)
        run.emit(CacheMissed(nearest=nearest, reason=found.why or None, would_serve=would_serve))

    # Serving

    def _serve(self, key: Key, found: Found, value: Any, run: Run) -> Plan[Any]:
        entry = found.entry
        assert entry is not None
        match = "exact" if found.match == "exact" else "semantic"
        facts: dict[str, Any] = {"lookup": match, "entry": entry.id}
        risk = None
        if found.decision is not None and found.evidence is not None:
            risk = _rounded(found.decision.risk)
            facts |= {"risk": risk, "evidence": found.evidence.to_dict()}
        if found.similarity is not None:
            facts["similarity"] = round(found.similarity, 4)
        run.stage.facts |= facts
        how = "the same question" if match == "exact" else f"a question of similarity {found.similarity:.3f}"
        self._adopt(entry.facts, f"{how} was answered before", f"cache ({match})", run)
        run.report.uses = entry.uses
        self._count("exact" if match == "exact" else "semantic", run, entry=entry)
        run.emit(
            CacheServed(
                entry=entry.id,
                match=match,
                similarity=round(float(found.similarity or 0.0), 6),
                saved_usd=entry.cost_usd,
                age_s=max(0.0, run.clock.time() - entry.created_at),
                risk=risk,
            )
        )
        if found.decision is not None and found.decision.audit and match == "semantic":
            audit(self, key, found, value, run)
        message = restored(entry.message)
        yield from self._say(message, run)
        return message

    def _say(self, message: Any, run: Run) -> Plan[None]:
        pace = self.settings.pace_tokens_per_s
        if pace is None:
            yield Say(message)
            return
        left = iter(pieces(message))
        if not (yield from _paced(left, pace, run)):
            with run.without_deadline():  # an answer that is there is never late, here and further out
                for piece in left:
                    yield Say(piece)

    def _adopt(self, facts: dict[str, Any], reason: str, served_by: str, run: Run) -> None:
        """Take over what is said of a stored answer; this request's own reasons stay."""
        reasons = run.report.reasons
        run.report.adopt(facts)
        run.report.reasons = reasons
        run.report.mark("cached", reason)
        run.report.served_by = served_by

    def _count(self, kind: Any, run: Run, *, entry: Entry | None = None, usd: float = 0.0) -> None:
        replica = self.replica()
        if entry is not None:
            replica.counts.count_hit(entry.id)
            replica.counts.count(kind, tenant=run.caller.tenant, usd=entry.cost_usd or 0.0, seconds=entry.duration_s)
        else:
            replica.counts.count(kind, tenant=run.caller.tenant, usd=usd)

    # Asking

    def _ask(self, key: Key, found: Found, value: Any, run: Run) -> Plan[Any]:
        """One call for all who ask the same now, or what would be served from it."""
        said: list[Any] = []
        came: Any = None
        while not isinstance(came, Landed | Cut):
            seat = self._board(key, found, run, lost=came)
            run.on_close(seat.leave)
            if seat.is_leader:
                try:
                    return (yield from self._lead(seat, key, found, value, run, said))
                finally:
                    seat.leave()
            came = yield from follow(seat, run, said)
        if isinstance(came, Landed):
            reason = "the same was being asked at this moment, and answered once"
            self._adopt(came.facts, reason, "cache (joined)", run)
            run.stage.facts["lookup"] = "joined"
            with suppress(ChainopsError):  # a cache that could not be opened counts nothing
                self._count("joined", run, usd=came.cost_usd or 0.0)
        return came.answer

    def _board(self, key: Key, found: Found, run: Run, *, lost: Lost | None) -> Seat:
        told: dict[str, Any] = {"request": run.request.id, "question": key.question, "vector": found.vector}
        # Whoever asks after a document has changed, or (share: all) from elsewhere, is on another flight.
        scope = f"{key.scope}:{found.version}:{run.caller.tenant}"
        is_own = not self.settings.keep_personal and personal(key.question)
        if is_own or goes_alone(lost) or self.settings.mode == "shadow":
            return self.flights.alone(scope, key.exact, **told)
        near = None
        if found.vector is not None:

            def near(flights: Sequence[Flight]) -> Flight | None:
                return self._nearest_flight(key, found, flights)

        return self.flights.join(scope, key.exact, **told, near=near, after=None if lost is None else lost.flight)

    def _nearest_flight(self, key: Key, found: Found, flights: Sequence[Flight]) -> Flight | None:
        """The flight whose answer would be served for this question if it were stored already."""
        under_way = [each for each in flights if each.vector is not None]
        if not under_way:
            return None
        close = sorted(((float(each.vector @ found.vector), each) for each in under_way), key=lambda pair: -pair[0])
        nearest, flight = close[0]
        return flight if self._would_serve(key, found, nearest, flight.question) else None

    def _would_serve(self, key: Key, found: Found, nearness: float, question: str) -> bool:
        """Whether a question that is being answered now would be served from, as the nearest of all."""
        if self.settings.mode == "shadow" or (found.neighbours and found.neighbours[0].similarity > nearness):
            return False
        # Its answer is not known yet, so it agrees with nobody: the cautious reading.
        outline = Outline(0, "", question, "under way", None, False, 0.0, None)
        told = weigh(key.question, [Neighbour(outline, nearness, 0), *found.neighbours[:15]])
        return Lookup(self.replica(), self.settings, self.sources).decide(told, nearness, draw=1.0).serve

    def _lead(self, seat: Seat, key: Key, found: Found, value: Any, run: Run, said: list[Any]) -> Plan[Any]:
        """Ask for all who wait in this process, under the lease that keeps other processes waiting."""
        leases, entry = (None, None) if said else (yield from self._leased(key, found, run))
        try:
            if entry is not None:  # another process has answered it meanwhile
                seat.land(restored(entry.message), facts=entry.facts, cost_usd=entry.cost_usd)
                return (yield from self._serve(key, Found("exact", entry, version=found.version), value, run))
            if not found.is_down:
                self._count("missed", run)
            started = run.clock.monotonic()
            answer = yield from lead(
                seat, self.inner, value, run, said, may_share=lambda whole: _may_share(self, whole, run)
            )
            whole = answer if seat.flight.landed is None else seat.flight.landed.answer
            kept = yield from keep(self, key, whole, found, run, duration_s=run.clock.monotonic() - started)
            if kept is not None:
                compare_later(self, kept, found, run)
            if leases is not None:
                yield from self._give_back(leases, key, run)
                leases = None  # from here on it may be another request's of this process
            return answer
        finally:
            if leases is not None:
                leases.let_go(key.scope, key.exact)

    def _give_back(self, leases: Leases, key: Key, run: Run) -> Plan[None]:
        try:
            yield Do(lambda: leases.release(key.scope, key.exact))
        except ChainopsError as error:  # it ends by itself
            run.emit(CacheUnavailable(error=str(error)))

    def _leased(self, key: Key, found: Found, run: Run) -> Plan[tuple[Leases | None, Entry | None]]:
        """Take the lease, or wait while another process answers this: gives the lease, or its answer."""
        try:
            if found.is_down or self.settings.mode == "shadow":
                return None, None
            replica, since = self.replica(), run.clock.monotonic()
            while run.clock.monotonic() - since < FIRST_S:
                claimed: Lease | Entry | None = yield Do(lambda: self._claim(replica, key, found, run))
                if claimed is None:
                    return replica.leases, None
                if isinstance(claimed, Entry):
                    return None, claimed
                run.stage.facts["waited_for"] = "another process"
                yield Wait(_LOOK_AGAIN_S)
            return None, None  # whoever holds it hangs: ask without
        except DeadlineExceeded:
            raise
        except ChainopsError as error:
            run.emit(CacheUnavailable(error=str(error)))
            found.is_down = True
            return None, None

    def _claim(self, replica: Replica, key: Key, found: Found, run: Run) -> Lease | Entry | None:
        """The lease (None), who else has one for this or what would be served from it, or what came of that. Blocks."""
        now, has_waited = run.clock.time(), "waited_for" in run.stage.facts
        with replica.guarded():
            if has_waited or found.vector is None:
                entry = self._meanwhile(replica, key, found, run, now)
                if entry is not None:
                    return entry
            for other in replica.leases.others(key.scope, now=now) if found.vector is not None else ():
                near = None if found.vector is None else similarity(other, found.vector)
                if (
                    near is not None
                    and other.exact != key.exact
                    and self._would_serve(key, found, near, other.question)
                ):
                    return other
            taken_by = replica.leases.take(key.scope, key.exact, question=key.question, vector=found.vector, now=now)
            if taken_by is not None:
                return taken_by
            try:
                entry = self._meanwhile(replica, key, found, run, now)  # somebody may have finished before the lease
            except ChainopsError:
                replica.leases.let_go(key.scope, key.exact)  # else it is renewed as long as this process lives
                raise
            if entry is not None:
                replica.leases.release(key.scope, key.exact)
            return entry

    def _meanwhile(self, replica: Replica, key: Key, found: Found, run: Run, now: float) -> Entry | None:
        """What another process has stored since the lookup, if it may be served."""
        if self.settings.mode == "shadow":
            return None
        if "waited_for" in run.stage.facts and found.vector is not None:
            replica.partitions.look_again(key.scope)  # however short ago that was: who held the lease may be done
            again = self._lookup().find(key, tenant=run.caller.tenant, now=now, now_s=run.clock.monotonic(), draw=1.0)
            return again.entry
        entry = replica.store.exact(key.scope, key.exact)
        if entry is None or entry.knowledge != found.version or not self._lookup().is_open_to(entry, run.caller.tenant):
            return None
        return entry if policy.is_alive(entry.created_at, now=now, ttl_s=self.settings.ttl) else None


def _paced(left: Iterator[Any], pace: float, run: Run) -> Plan[bool]:
    """Say pieces with pauses between them until the deadline is near; whether that was all."""
    for piece in left:
        yield Say(piece)
        pause_s = tokens_of(piece) / pace
        if _is_near(run, 2 * pause_s):
            return False
        try:
            yield Wait(pause_s)
        except DeadlineExceeded:  # the machine was so busy that the pause took longer than it should
            return False
        if _is_near(run, 0.0):
            return False
    return True


def _is_near(run: Run, within_s: float) -> bool:
    """Whether the deadline comes too soon to go on slowly."""
    return run.remaining_s is not None and run.remaining_s <= within_s + _HURRY_S


def _rounded(risk: float | None) -> float | None:
    return None if risk is None else round(risk, 6)


def _may_share(cache: SemanticCache, answer: Any, run: Run) -> bool:
    """Whether those who asked the same at the same moment may have this answer: not what is the asker's alone."""
    if run.report.status not in ("ok", "degraded") or not run.report.may_cache:
        return False
    return cache.settings.keep_personal or not personal(str(getattr(answer, "text", answer)))
