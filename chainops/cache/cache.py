"""One cache, for people: what it did, why it decides as it does, and how to correct it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from langchain_core.messages import BaseMessage
from langchain_core.runnables import RunnableConfig

from chainops.cache import policy
from chainops.cache.judge import Label
from chainops.cache.lookup import Found, Lookup
from chainops.cache.messages import reply_of
from chainops.cache.policy import rejected
from chainops.cache.records import CacheDropped, CacheReported, Entry, Kind, Tally, Where
from chainops.cache.replica import Replica
from chainops.cache.standing import Standing
from chainops.core.answer import Answer
from chainops.core.caller import STATE_KEY, Caller
from chainops.core.errors import ChainopsError, InvalidInput
from chainops.core.events import Event, Listener, current_listeners

if TYPE_CHECKING:
    from chainops.cache.component import SemanticCache
    from chainops.cache.replay import Replay


Shown = Callable[[str], AbstractContextManager[Callable[[Any], None]]]
"""Given a title, draws how far long work is."""


class EntryNotFound(ChainopsError, KeyError):
    """There is no such entry, or no longer."""

    def __init__(self, entry: str) -> None:
        self.entry = entry
        super().__init__(f"cache entry {entry!r}: not found; it may have been dropped; `entries()` lists what is there")

    __str__ = Exception.__str__


@dataclass(frozen=True)
class Stats:
    """What a cache did, and how far its answers can be trusted."""

    requests: int
    hits: Mapping[str, int]
    """exact, semantic, joined."""
    missed: int
    would_serve: int
    """Of the missed, those that shadow mode would have served."""
    hit_rate: float
    """Of all requests that looked, 0 to 1."""
    saved_usd: float
    saved_seconds: float
    audits: int
    audit_usd: float
    entries: int
    bytes: int
    rule: str
    """What decides: `max_error_rate 0.01`, `threshold 0.95`, or shadow mode."""
    standing: Standing
    """The bound, the measured error with its interval, and whether it is certified yet."""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        from dataclasses import asdict

        return asdict(self)

    def _repr_html_(self) -> str:
        from chainops.cache.show import stats_html

        return stats_html(self)

    def __str__(self) -> str:
        from chainops.cache.show import stats_text

        return stats_text(self)

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:  # noqa: ARG002
        printer.text(str(self))


@dataclass(frozen=True)
class NeighbourShown:
    """A stored question near the one asked."""

    entry: str
    question: str
    similarity: float
    same_answer: bool
    """Whether its answer is that of the nearest."""


@dataclass(frozen=True)
class Explanation:
    """Why a question would be served, or not, right now. Looking changes nothing."""

    question: str
    standalone: str
    match: str | None
    """exact, semantic, or None: it would be asked."""
    reason: str
    answer: str | None
    risk: float | None
    limit: float | None
    neighbours: tuple[NeighbourShown, ...] = ()
    features: Mapping[str, float] = field(default_factory=dict)
    contributions: Mapping[str, float] = field(default_factory=dict)
    """What each feature adds to the log odds of a wrong answer."""
    would_change: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        from dataclasses import asdict

        return asdict(self)

    def _repr_html_(self) -> str:
        from chainops.cache.show import explanation_html

        return explanation_html(self)

    def __str__(self) -> str:
        from chainops.cache.show import explanation_text

        return explanation_text(self)

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:  # noqa: ARG002
        printer.text(str(self))


class Cache:
    """Looks into one `SemanticCache` and corrects it. `chain.cache` gives a chain's."""

    def __init__(self, component: SemanticCache, *, progress: Shown | None = None) -> None:
        self._component, self._progress = component, progress

    @property
    def _replica(self) -> Replica:
        return self._component.replica()

    # Looking

    def stats(self, *, tenant: str | None = None) -> Stats:
        """Hits by kind, savings, size, and the error bound's standing. All tenants', unless one is named."""
        replica, settings = self._replica, self._component.settings
        totals = replica.counts.totals(now=time.time(), tenant=tenant)
        kinds: tuple[Kind, ...] = ("exact", "semantic", "joined")
        tallies = {kind: totals.get(kind, Tally()) for kind in kinds}
        missed = totals.get("missed", Tally()).count
        hits = sum(tally.count for tally in tallies.values())
        entries, size = replica.store.size(replica.owner, tenant)
        replica.learn()
        rule = (
            f"max_error_rate {settings.bound:g}" if settings.threshold is None else f"threshold {settings.threshold:g}"
        )
        audits = totals.get("audited", Tally())
        return Stats(
            requests=hits + missed,
            hits={kind: tally.count for kind, tally in tallies.items()},
            missed=missed,
            would_serve=totals.get("shadow", Tally()).count,
            hit_rate=hits / (hits + missed) if hits + missed else 0.0,
            saved_usd=sum(tally.usd for tally in tallies.values()),
            saved_seconds=sum(tally.seconds for tally in tallies.values()),
            audits=audits.count,
            audit_usd=audits.usd,
            entries=entries,
            bytes=size,
            rule=rule if settings.mode == "serve" else f"{rule}, shadow: nothing is served",
            standing=replica.judge.standing(),
        )

    def explain(self, value: Any, config: RunnableConfig | None = None) -> Explanation:
        """Neighbours, features, decision, and what would change it, for a question asked now by `config`'s caller.

        Raises:
            InvalidInput: It is nothing that the cache looks up.
        """
        component = self._component
        asked = policy.asked(value)
        if asked is None:
            raise InvalidInput("question", type(value).__name__, "a string, a request with `question`, or messages")
        caller = _caller(config)
        alone = policy.by_rules(asked)
        key = policy.key_of(
            asked,
            answered_by=component.answered_by(),
            share=component.settings.share,
            caller=caller,
            kwargs=policy.settings_of({}, config or {}, caller),
            alone=alone,
        )
        if key is None or (alone is None and component.settings.follow_ups != "exact"):
            reason = "it depends on the conversation" if key is not None else "nobody is named to share it with"
            return Explanation(asked.question, asked.question, None, f"not cacheable: {reason}", None, None, None)
        lookup = Lookup(self._replica, component.settings, component.sources)
        now = time.time()
        found = lookup.find(key, tenant=caller.tenant, now=now, now_s=time.perf_counter(), draw=1.0, changes=False)
        return self._explained(asked.question, key.question, found)

    def _explained(self, question: str, alone: str, found: Found) -> Explanation:
        decision, told = found.decision, found.evidence
        first = found.neighbours[0].outline.group if found.neighbours else None
        because = None if told is None or self._component.settings.threshold else self._replica.judge.explain(told)
        parts = {} if because is None else {name: round(part, 3) for name, _, part in because.parts}
        answer = None
        if found.entry is not None:
            answer = reply_of(found.entry.message, found.entry.facts).text
        return Explanation(
            question,
            alone,
            found.match,
            "the same question is stored" if found.match == "exact" else found.why,
            answer,
            None if decision is None else decision.risk,
            None if decision is None else decision.limit,
            tuple(
                NeighbourShown(each.id, each.question, round(similarity, 4), each.group == first)
                for each, similarity, _ in found.neighbours
            ),
            {} if told is None else told.to_dict(),
            parts,
            () if because is None else because.changes,
        )

    def entries(self, *, containing: str = "", offset: int = 0, limit: int = 50) -> list[tuple[Entry, int, float]]:
        """Newest first: the entry, how often it was served, and when last, or when stored (seconds since 1970)."""
        replica = self._replica
        return replica.store.entries(replica.owner, containing=containing, offset=offset, limit=limit)

    def entry(self, entry_id: str) -> Entry:
        """One entry of this cache.

        Raises:
            EntryNotFound: It is not there, or no longer.
        """
        entry = self._replica.store.get(entry_id)
        if entry is None or entry.owner != self._replica.owner:
            raise EntryNotFound(entry_id)
        return entry

    # Correcting

    def wrong(self, answer_or_id: BaseMessage | str, reason: str, *, by: str | None = None) -> tuple[str, ...]:
        """Take an entry out because what it says, or that it was served for a question, is wrong; nearby entries that
        say the same go with it.

        The policy learns from it where the answer was served for a similar question, and a `CacheReported` event
        tells who listens (a review queue).

        Args:
            answer_or_id: The answer that was served, or the id of an entry.

        Returns:
            The ids that were dropped, the entry's own first. The same answer to the same question is not kept again:
            mend what it comes from.

        Raises:
            InvalidInput: The answer did not come from this cache.
            EntryNotFound: It is gone already.
        """
        replica = self._replica
        entry_id, features = _served(answer_or_id)
        entry = self.entry(entry_id)
        now = time.time()
        alike = self._alike(entry)  # what says the same to a similar question would be served next
        replica.store.update(entry_id, group=rejected(entry.question, reply_of(entry.message, entry.facts).text))
        replica.drop(Where(ids=(entry_id, *alike)), reason=f"wrong: {reason}"[:500], now=now)
        if features is not None:
            replica.store.add_label(replica.owner, Label(features=features, correct=False, source="report", at=now))
            replica.learn()
        self._tell(CacheReported(entry=entry_id, question=entry.question, reason=reason, by=by))
        return (entry_id, *alike)

    def _alike(self, entry: Entry) -> list[str]:
        """Ids of nearby entries with the same answer."""
        vector = None if entry.embedder is None else self._replica.embed(entry.question)
        near = [] if vector is None else self._replica.neighbours(entry.scope, vector)
        return [outline.id for outline, _, _ in near if outline.group == entry.group and outline.id != entry.id]

    def right(self, answer: BaseMessage) -> None:
        """The opposite verdict on an answer that was served for a similar question: the policy learns from it."""
        _, features = _served(answer)
        if features is not None:
            replica = self._replica
            label = Label(features=features, correct=True, source="report", at=time.time())
            replica.store.add_label(replica.owner, label)
            replica.learn()

    def verify(self, entry_id: str) -> None:
        """Approve an entry: under `share: all` it may then be served to other tenants.

        Raises:
            EntryNotFound: It is not there.
        """
        if not self._replica.store.update(self.entry(entry_id).id, is_verified=True):
            raise EntryNotFound(entry_id)

    def drop(
        self,
        *,
        id: str | None = None,  # noqa: A002
        document: str | None = None,
        prompt: str | None = None,
        model: str | None = None,
        tag: str | None = None,
        tenant: str | None = None,
        user: str | None = None,
        older_than_s: float | None = None,
        everything: bool = False,
        reason: str = "dropped by hand",
    ) -> int:
        """Take out the entries that fit everything that is said; how many.

        Args:
            document: Id of a document that the answers came from.
            prompt: Name of a prompt.
            model: As `provider:name`.
            older_than_s: Stored longer ago than this.

        Raises:
            InvalidInput: Nothing was said; `everything=True` empties the cache.
        """
        if older_than_s is not None and not (isinstance(older_than_s, int | float) and older_than_s > 0):
            raise InvalidInput("older_than_s", repr(older_than_s), "a number of seconds above 0")
        named = (("document", document), ("prompt", prompt), ("model", model))
        uses = tuple((kind, name, None) for kind, name in named if name is not None)
        now = time.time()
        where = Where(
            ids=() if id is None else (id,),
            uses=uses,
            tag=tag,
            tenant=tenant,
            user=user,
            before=None if older_than_s is None else now - older_than_s,
            everything=everything,
        )
        if where == Where():
            raise InvalidInput("drop", "no condition", "at least one, or everything=True (--everything)")
        return self._drop(where, reason, now)

    def documents_changed(self, digests: Mapping[str, str | None]) -> int:
        """Drop the entries that used another state of these documents: id to digest now, None for a removed one.

        Entries that a new document would now be retrieved for are found when they are next asked for.
        """
        return self._drop(Where(documents=digests), "its documents changed", time.time()) if digests else 0

    def _drop(self, where: Where, reason: str, now: float) -> int:
        gone = self._replica.drop(where, reason=reason, now=now)
        if gone:
            self._tell(CacheDropped(reason=reason, count=len(gone), entries=tuple(gone[:100])))
        return len(gone)

    def forget(self, user: str, *, tenant: str | None = None) -> int:
        """Delete what a user's requests left in the store: entries of all its caches, labels, tombstones, leases.

        Args:
            tenant: Only that tenant's user of this name; None: every tenant's.

        Returns:
            How many things were deleted.
        """
        return self._replica.forget(user=user, tenant=tenant, now=time.time())

    def clear(self) -> int:
        """Drop all entries; how many there were."""
        return self._replica.clear()

    def drain(self, timeout_s: float = 10.0) -> bool:
        """Wait for audits in the background; False when some are still waiting."""
        return self._component.background.drain(timeout_s)

    # Trying

    def replay(self, rows: Iterable[Mapping[str, Any]], **options: Any) -> Replay:
        """Score policies on logged traffic, in the order it came. See `chainops.cache.replay.replay`."""
        from chainops.cache.replay import BOUNDS, THRESHOLDS, replay

        settings = self._component.settings
        if settings.threshold is None:
            options.setdefault("bounds", sorted({*BOUNDS, settings.bound} - {0.0}))
        else:
            options.setdefault("thresholds", sorted({*THRESHOLDS, settings.threshold}))
        shown = nullcontext() if self._progress is None else self._progress("replaying")
        with shown as progress:
            same = self._component.comparer().same
            return replay(rows, **{"embed": self._replica.embed_all, "same": same, "progress": progress, **options})

    def _tell(self, event: Event) -> None:
        listeners: tuple[Listener, ...] = current_listeners()
        for listener in listeners:
            listener(event)


def _caller(config: RunnableConfig | None) -> Caller:
    said = (config or {}).get("configurable", {}).get(STATE_KEY)
    return said if isinstance(said, Caller) else Caller()


def _served(answer_or_id: BaseMessage | str) -> tuple[str, tuple[float, ...] | None]:
    """The entry that an answer came from, and the evidence it was served on."""
    if isinstance(answer_or_id, str):
        return answer_or_id, None
    told = Answer.of(answer_or_id).facts.get("report") or {}
    for stage in told.get("stages", ()):
        facts = stage.get("facts", {})
        if stage.get("kind") == "cache" and "entry" in facts and facts.get("lookup") in ("exact", "semantic"):
            features = facts.get("evidence")
            return str(facts["entry"]), None if features is None else tuple(features.values())
    raise InvalidInput("answer", "no entry of this cache in its report", "an answer that was served from the cache")
