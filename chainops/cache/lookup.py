"""What may be served for a question: exact, then by meaning, under the error bound. No request, no waiting."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from chainops.cache.evidence import Evidence, Near, evidence
from chainops.cache.freshness import Sources, is_current
from chainops.cache.judge import Decision
from chainops.cache.partitions import Neighbour
from chainops.cache.policy import Key, is_alive
from chainops.cache.records import Entry, Where
from chainops.cache.replica import Replica
from chainops.cache.settings import CacheSettings
from chainops.core.errors import StoreError

if TYPE_CHECKING:
    import numpy as np

_TRIES = 3
"""How many nearest entries may turn out to be gone or out of date before a lookup gives up."""


@dataclass(slots=True)
class Found:
    """What a lookup came to, and why."""

    match: Literal["exact", "semantic"] | None = None
    entry: Entry | None = None
    """What may be served."""
    vector: np.ndarray | None = None
    """The question's own, if it was computed: kept for storing the answer."""
    neighbours: list[Neighbour] = field(default_factory=list)
    evidence: Evidence | None = None
    decision: Decision | None = None
    version: str | None = None
    """Of the knowledge, read before anything else."""
    outdated: list[str] = field(default_factory=list)
    """Entries that would not be answered the same way now, and were dropped."""
    damaged: list[str] = field(default_factory=list)
    """Entries that did not fit their checksum, and were dropped."""
    why: str = ""
    is_down: bool = False
    """Whether the store could not be reached: it is not tried again for this request."""
    may_embed: bool = True
    """Whether the question may be found by meaning later: not where only an exact repeat is the same."""

    @property
    def similarity(self) -> float | None:
        """Cosine to the nearest stored question; 1.0 for an exact repeat; None when nothing is stored."""
        if self.match == "exact":
            return 1.0
        return self.neighbours[0].similarity if self.neighbours else None


class Lookup:
    """Finds what may be served. Blocks: store, embedding, perhaps retrieval."""

    def __init__(self, replica: Replica, settings: CacheSettings, sources: Sources | None) -> None:
        self.replica, self._settings, self._sources = replica, settings, sources

    def version(self) -> str | None:
        """Of the knowledge, as this process last saw it."""
        return None if self._sources is None else self._sources.version()

    def held(self, key: Key, *, tenant: str | None, now: float, now_s: float) -> Found | None:
        """An exact repeat that this process can serve without asking anybody. Never blocks."""
        entry = self.replica.held(key, now_s=now_s)
        if entry is None or not is_alive(entry.created_at, now=now, ttl_s=self._settings.ttl):
            return None
        version = self.version()
        if entry.knowledge != version or not self.is_open_to(entry, tenant):
            return None
        return Found("exact", entry, version=version)

    def find(
        self, key: Key, *, tenant: str | None, now: float, now_s: float, draw: float, changes: bool = True
    ) -> Found:
        """The best there is for a question.

        Args:
            tenant: Whose request it is: under `share: all`, others' entries are served only once verified.
            now: Seconds since 1970.
            now_s: Monotonic.
            draw: 0 to 1, at random: decides whether a served answer is audited.
            changes: Whether what is found to be out of date is dropped.
        """
        found = Found(version=self.version())
        with self.replica.guarded():
            entry = self.replica.exact(key, now_s=now_s)
            if entry is not None and self._may_serve(entry, tenant=tenant, now=now, found=found):
                found.match, found.entry = "exact", entry
            elif self.looks_near(key):
                self._find_near(key, tenant, now, draw, found)
            else:
                found.why, found.may_embed = "only an exact repeat would do", False
            if found.outdated and changes:
                self.replica.drop(Where(ids=tuple(found.outdated)), reason="its documents changed", now=now)
            found.damaged = self.replica.store.damaged()
            with contextlib.suppress(StoreError):  # counts wait; the answer does not
                self.replica.counts.flush(now=now)
        return found

    def is_open_to(self, entry: Entry, tenant: str | None) -> bool:
        """Between tenants only what a person has verified."""
        return self._settings.share != "all" or entry.tenant == tenant or entry.is_verified

    def looks_near(self, key: Key) -> bool:
        """Whether a similar question would do."""
        return key.may_be_near and self._settings.looks_near

    def _find_near(self, key: Key, tenant: str | None, now: float, draw: float, found: Found) -> None:
        self.replica.partitions.catch_up(key.scope)  # before the embedding: after it all else is out of the caches
        found.vector = self.replica.embed(key.question)
        if found.vector is None:
            found.why = "the embedding model gave no usable vector"
            return
        self.replica.catch_up_learning()
        near = self.replica.neighbours(key.scope, found.vector)
        near = [each for each in near if is_alive(each.outline.created_at, now=now, ttl_s=self._settings.ttl)]
        for _ in range(_TRIES):
            found.neighbours = near
            self._judge(key.question, draw, found)
            if found.decision is None or not found.decision.serve:
                return
            outline = near[0].outline
            entry = self.replica.entry(outline, key.scope)
            if entry is not None and self._may_serve(entry, tenant=tenant, now=now, found=found):
                found.match, found.entry = "semantic", entry
                return
            near = near[1:]
        found.decision = None

    def _judge(self, question: str, draw: float, found: Found) -> None:
        if not found.neighbours:
            found.evidence = found.decision = None
            found.why = found.why or "nothing is stored"
            return
        found.evidence = weigh(question, found.neighbours)
        found.decision = self.decide(found.evidence, found.neighbours[0].similarity, draw=draw)
        found.why = found.decision.reason

    def decide(self, told: Evidence, similarity: float, *, draw: float) -> Decision:
        """Serve or not, by the bound or by the declared threshold."""
        threshold = self._settings.threshold
        if threshold is None:
            return self.replica.judge.decide(told, draw=draw)
        serves = similarity >= threshold
        reason = f"similarity {similarity:.3f} is {'at least' if serves else 'below'} the threshold {threshold:g}"
        return Decision(
            serve=serves, audit=serves and draw < self._settings.audit_rate, risk=None, limit=None, reason=reason
        )

    def _may_serve(self, entry: Entry, *, tenant: str | None, now: float, found: Found) -> bool:
        """Old, foreign or outdated entries are not served; `found` says why."""
        if not is_alive(entry.created_at, now=now, ttl_s=self._settings.ttl):
            found.why = "what is stored is too old"
            return False
        if not self.is_open_to(entry, tenant):
            found.why = "another tenant's answer, which nobody has verified"
            return False
        if self._sources is None or found.version is None or entry.knowledge == found.version:
            return True
        if entry.id in found.outdated or not is_current(entry, self._sources, found.version):
            found.outdated = list({*found.outdated, entry.id})
            found.why = "what is stored came from documents that have changed"
            return False
        self.replica.store.update(entry.id, knowledge=found.version)
        return True


def weigh(question: str, neighbours: Sequence[Neighbour]) -> Evidence:
    """The evidence of stored questions near the one asked."""
    near = [
        Near(each.similarity, each.outline.question, each.outline.group, each.newer, each.outline.content)
        for each in neighbours
    ]
    return evidence(question, near)
