"""What the cache keeps, what it tells, and what a store must do for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from chainops.core.events import Event

if TYPE_CHECKING:
    import numpy as np

    from chainops.cache.judge import Label


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheServed(Event):
    """An answer came from the cache."""

    entry: str
    match: str
    """exact, semantic, or joined: another request was being answered, and this one shared its answer."""
    similarity: float
    saved_usd: float | None
    age_s: float
    risk: float | None = None
    """Predicted probability that the chain would have said something else; None for exact repeats and thresholds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheMissed(Event):
    """Nothing stored could be trusted; the chain inside answers."""

    nearest: float | None
    """Cosine similarity of the nearest stored question; None when there was none."""
    reason: str | None = None
    would_serve: str | None = None
    """In shadow mode: the entry that would have been served."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheKept(Event):
    """An answer was stored, or was not, and why."""

    entry: str | None
    reason: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheDropped(Event):
    """Entries were taken out."""

    reason: str
    """evicted, expired, changed documents, wrong, damaged, ... in words."""
    count: int
    entries: tuple[str, ...] = ()
    """Their ids, at most the first 100."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheReported(Event):
    """Somebody said that a served answer was wrong. A review queue listens for this."""

    entry: str
    question: str
    reason: str
    by: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheAudited(Event):
    """A served answer was asked for again in the background, and compared."""

    entry: str
    same: bool | None
    """None: the second answer failed, or could not be compared."""
    why: str
    cost_usd: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheCompared(Event):
    """A fresh answer was compared with the nearest stored one, after its asker had it."""

    entry: str
    same: bool | None
    """None: it could not be compared."""
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheUnavailable(Event):
    """The store failed; the request went on without it."""

    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheNotice(Event):
    """Something was repaired on the way, or could not be done on the side; no answer depends on it."""

    notice: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheRecovered(Event):
    """The store answers again."""

    place: str
    after_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A stored answer, and what it came from."""

    id: str
    owner: str
    """The cache (chain) it belongs to."""
    scope: str
    exact: str
    question: str
    """Made standalone: what the vector is of."""
    message: dict[str, Any]
    """An AIMessage as JSON, or `{"text": ...}` for a plain string."""
    facts: dict[str, Any]
    """Status, sources and data, as the report had them."""
    group: str
    """Entries whose answers were found to be the same share it. An id, usually of the first of them."""
    uses: dict[str, dict[str, str]] = field(default_factory=dict)
    """What it came from, by kind (`document`, `prompt`, `model`): name to digest."""
    knowledge: str | None = None
    """The knowledge's version by which it was last known to be right; None: it used none."""
    tenant: str | None = None
    user: str | None = None
    tags: tuple[str, ...] = ()
    is_unknown: bool = False
    """A don't-know answer: a new document may change it."""
    is_verified: bool = False
    """A person has approved it: only then may it cross tenants under `share: all`."""
    embedder: str | None = None
    """Digest of the model its vector was made with; None: it has no vector."""
    cost_usd: float | None
    duration_s: float = 0.0
    """How long the chain took to answer: what a hit saves."""
    created_at: float
    """Seconds since 1970."""
    seq: int = 0
    """Its number in its scope's change log; given by the store."""


class Outline(NamedTuple):
    """What deciding needs to know of an entry, without its answer. Each lookup makes 16."""

    seq: int
    id: str
    question: str
    group: str
    tenant: str | None
    is_verified: bool
    created_at: float
    knowledge: str | None
    content: tuple[str, ...] | None = None
    """The content words of its question, where they were worked out ahead. No store keeps them."""


@dataclass(frozen=True, slots=True)
class Change:
    """One line of a scope's change log."""

    seq: int
    """Increases by commit order: what is seen later never has a lower number."""
    dropped: int | None
    """The entry this line takes out, if it is known at all (0 is none); None: the line puts the entry `seq` in."""
    vector: bytes | None = None
    """Shape (d,), little-endian float32."""
    embedder: str | None = None
    created_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Where:
    """Which entries to drop: those that fit all that is said. Empty fits none: say `everything`."""

    ids: tuple[str, ...] = ()
    scope: str | None = None
    documents: Mapping[str, str | None] = field(default_factory=dict)
    """Document id to its digest now; None: it is gone. Fits entries that used another digest of one of them."""
    uses: tuple[tuple[str, str, str | None], ...] = ()
    """(kind, name, digest): fits entries that used one of them (with that digest, unless None)."""
    tag: str | None = None
    tenant: str | None = None
    user: str | None = None
    is_unknown: bool | None = None
    before: float | None = None
    """Stored then or earlier, seconds since 1970."""
    everything: bool = False


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a cache may keep. The least valuable go first: saved cost x recency."""

    entries: int
    bytes: int
    entries_per_tenant: int | None = None


@dataclass(frozen=True, slots=True)
class Lease:
    """A question that some process is answering now."""

    scope: str
    exact: str
    holder: str
    question: str
    vector: bytes | None
    expires_at: float
    """At most `LONGEST_LEASE_S` from now."""
    tenant: str | None = None
    user: str | None = None
    """Who asks, so that `forget` finds it."""


@dataclass(frozen=True, slots=True)
class Tombstone:
    """What is remembered of an entry that was taken out."""

    id: str
    question: str
    group: str
    reason: str
    dropped_at: float
    """Seconds since 1970."""


LONGEST_LEASE_S = 600.0
"""What says that it is valid for longer was written by a clock that jumped: it counts as expired."""

WRONG = "wrong:"
"""Begins the group of an entry that was reported as wrong (`policy.rejected`), which is then its last."""

LARGEST_ENTRY_BYTES = 16 * 1024 * 1024
"""Of an entry's text and JSON together, without its vector."""

Kind = Literal["exact", "semantic", "joined", "stale", "missed", "bypassed", "shadow", "audited", "audited_wrong"]


@dataclass(frozen=True, slots=True)
class Tally:
    """What happened so often, and what it saved (or, for audits, cost)."""

    count: int = 0
    usd: float = 0.0
    seconds: float = 0.0

    def __add__(self, other: Tally) -> Tally:
        return Tally(self.count + other.count, self.usd + other.usd, self.seconds + other.seconds)


class CacheStore(Protocol):
    """Where entries are kept: the truth. Every process's replica is made from it.

    All methods block and raise `StoreUnavailable` when the place cannot be reached, within a fraction of a second.
    Times are the caller's, in seconds since 1970. What `put` has returned from survives `kill -9`.
    An entry whose checksum does not fit its content is never given out: it is dropped, and `damaged` tells.
    """

    place: str
    """For messages: no password."""

    def exact(self, scope: str, exact: str) -> Entry | None: ...

    def get(self, entry: str) -> Entry | None: ...

    def at(self, scope: str, seqs: Sequence[int]) -> dict[int, Outline]:
        """Those that are still there. One round trip."""

    def entry_at(self, scope: str, seq: int) -> Entry | None: ...

    def put(
        self, entry: Entry, vector: np.ndarray | None, *, label: Label | None = None, over: int | None = None
    ) -> int:
        """Store an entry in place of the one with the same scope and question, which is logged as dropped.

        One transaction, with the label if there is one. Returns its number in the scope's change log.

        Args:
            over: Only in place of the entry with this number, or of none (0); returns 0, and nothing was stored, when
                that has changed.

        Raises:
            InvalidInput: It is larger than `LARGEST_ENTRY_BYTES`, or cannot be written as JSON.
        """

    def update(
        self,
        entry: str,
        *,
        knowledge: str | None = None,
        is_verified: bool | None = None,
        group: str | None = None,
    ) -> bool:
        """Change what may change of an entry; False: it is not there."""

    def position(self, scope: str) -> int:
        """Number of the last line of a scope's change log; 0: there is no log.

        Numbers begin anew, and higher than ever before, when a store was emptied by force.
        """

    def changes(self, scope: str, after: int, *, limit: int = 10_000, began: int = 0) -> list[Change] | None:
        """Lines after `after`, in order; empty: there are none; None: they are lost, begin again from 0.

        From 0, entries that are gone are left out. Drops are kept for a while only, so reading from 0 in several
        pages needs to say which of them it cannot have missed.

        Args:
            began: While reading from 0: the log's `position` just before the first page.
        """

    def drop(self, owner: str, where: Where, *, reason: str, now: float) -> list[str]:
        """Take entries out; their ids. `reason` is kept with a `Tombstone` for a while.

        Many go in several transactions, so that nobody else waits long.
        """

    def tombstones(self, owner: str, *, limit: int = 50) -> list[Tombstone]:
        """What was dropped, newest first. Evictions leave none."""

    def enforce(self, owner: str, limits: Limits, *, now: float) -> list[str]:
        """Evict what is over the limits, least valuable first; the ids that went.

        A bounded number per call, so that nobody else waits long: call again until it gives none.
        """

    def served(self, owner: str, hits: Mapping[str, int], *, now: float) -> None:
        """Note how often entries were served since last time, for eviction and for `entries`."""

    def tally(self, owner: str, tenant: str | None, counts: Mapping[Kind, Tally]) -> None:
        """Add to the totals."""

    def totals(self, owner: str, tenant: str | None = None) -> dict[Kind, Tally]:
        """All tenants', unless one is named."""

    def labels(self, owner: str, after: int, *, limit: int = 5_000) -> list[tuple[int, Label]]:
        """What the policy has learned from, numbered, in order; the latest `limit` of those after `after`."""

    def add_label(self, owner: str, label: Label, *, tenant: str | None = None, user: str | None = None) -> int:
        """Its number. Tenant and user are those whose request it was, so that `forget` finds it."""

    def lease(self, owner: str, lease: Lease, *, now: float) -> Lease | None:
        """Take the lease (None), or give the one that somebody else holds.

        Raises:
            InvalidInput: It would be valid for longer than `LONGEST_LEASE_S`.
        """

    def renew(self, holder: str, leases: Sequence[tuple[str, str]], *, until: float) -> set[tuple[str, str]]:
        """Prolong (scope, exact) pairs; those that were lost meanwhile."""

    def release(self, holder: str, scope: str, exact: str) -> None: ...

    def leases(self, scope: str, *, now: float) -> list[Lease]:
        """Those valid now."""

    def size(self, owner: str, tenant: str | None = None) -> tuple[int, int]:
        """Entries and bytes."""

    def entries(
        self, owner: str, *, containing: str = "", offset: int = 0, limit: int = 50
    ) -> list[tuple[Entry, int, float]]:
        """For people: newest first, with how often and when last served. `containing` is looked for in questions."""

    def damaged(self) -> list[str]:
        """Ids of entries dropped because they did not fit their checksum, since last asked."""

    def forget(self, *, user: str, tenant: str | None, now: float) -> int:
        """Delete what one user's requests left: entries of all caches, labels, tombstones, leases. How many."""

    def clear(self, owner: str) -> int:
        """Delete a cache's entries and tombstones, and keep what it has learned and counted; how many entries."""
