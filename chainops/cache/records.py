"""Cache entries in the SQL store, and what the cache tells."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from chainops.core.events import Event
from chainops.stores.sql import Schema, SqlStore

if TYPE_CHECKING:
    import numpy as np
    from sqlalchemy import Row, Table


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheServed(Event):
    """An answer came from the cache."""

    entry: str
    match: str
    """exact or semantic."""
    similarity: float
    saved_usd: float | None
    age_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheMissed(Event):
    """Nothing stored was close enough; the chain inside answers."""

    nearest: float | None
    """Cosine similarity of the nearest stored question; None when there was none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheKept(Event):
    """An answer was stored, or was not, and why."""

    entry: str | None
    reason: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheUnavailable(Event):
    """The store failed; the request went on without it."""

    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A stored answer."""

    id: str
    scope: str
    exact: str
    question: str
    message: dict[str, Any]
    """An AIMessage as JSON, or `{"text": …}` for a plain string."""
    facts: dict[str, Any]
    """Status, sources and data, as the report had them."""
    cost_usd: float | None
    created_at: float
    """Seconds since 1970."""


@functools.cache
def _entries() -> Table:
    import sqlalchemy as sa

    return sa.Table(
        "cache_entries",
        sa.MetaData(),
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
        sa.Column("id", sa.String(32), nullable=False, unique=True),
        sa.Column("owner", sa.String(200), nullable=False),
        sa.Column("scope", sa.String(64), nullable=False),
        sa.Column("exact", sa.String(64), nullable=False),
        sa.Column("question", sa.Text, nullable=False),
        sa.Column("vector", sa.LargeBinary),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("facts", sa.Text, nullable=False),
        sa.Column("cost_usd", sa.Float),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.UniqueConstraint("scope", "exact"),
        sa.Index("cache_entries_by_scope", "scope", "seq"),
        sa.Index("cache_entries_by_owner", "owner", "seq"),
        sqlite_autoincrement=True,
    )


class CacheRecords:
    """Entries of all scopes. Nothing here decides; see `policy.py`."""

    def __init__(self, store: SqlStore) -> None:
        self._store = store
        self._is_ready = False

    def _ready(self) -> SqlStore:
        if not self._is_ready:
            self._store.migrate(Schema("cache", _entries().metadata))
            self._is_ready = True
        return self._store

    def exact(self, scope: str, exact: str) -> Entry | None:
        table = _entries()
        return self._one((table.c.scope == scope) & (table.c.exact == exact))

    def get(self, entry: str) -> Entry | None:
        return self._one(_entries().c.id == entry)

    def _one(self, condition: Any) -> Entry | None:
        import sqlalchemy as sa

        with self._ready().read() as connection:
            row = connection.execute(sa.select(_entries()).where(condition)).first()
        return None if row is None else _entry(row)

    def put(
        self, entry: Entry, vector: np.ndarray | None, *, owner: str, keep: int | None, alive_since: float | None
    ) -> None:
        """Store an entry in place of the one with the same scope and question.

        When two processes answer the same question at the same moment, the first to store it wins.

        Args:
            vector: Shape (d,), float32, unit length; None: found by exact repeats only.
            owner: The cache it belongs to: limits count per owner.
            keep: How many entries the owner may have, the oldest go first; None: not looked at this time.
            alive_since: Entries of the scope stored then or before, in seconds since 1970, go; None: none do.
        """
        import sqlalchemy as sa

        table = _entries()
        row = {
            "id": entry.id,
            "owner": owner,
            "scope": entry.scope,
            "exact": entry.exact,
            "question": _storable(entry.question),
            "vector": None if vector is None else vector.astype("<f4").tobytes(),
            "message": json.dumps(entry.message),
            "facts": json.dumps(entry.facts),
            "cost_usd": entry.cost_usd,
            "created_at": entry.created_at,
        }
        old = (table.c.scope == entry.scope) & (table.c.exact == entry.exact)
        if alive_since is not None:
            old |= (table.c.scope == entry.scope) & (table.c.created_at <= alive_since)
        store = self._ready()
        with store.write() as connection:
            connection.execute(table.delete().where(old))
            connection.execute(store.insert(table).values(**row).on_conflict_do_nothing())
            if keep is not None:
                mine = table.c.owner == owner
                count = connection.execute(sa.select(sa.func.count()).where(mine)).scalar_one()
                if count > keep:
                    oldest = sa.select(table.c.seq).where(mine).order_by(table.c.seq).limit(count - keep)
                    connection.execute(table.delete().where(table.c.seq.in_(oldest)))

    def vectors_after(self, scope: str, seq: int) -> list[tuple[int, str, bytes, float]]:
        """Sequence number, id, vector and time of a scope's entries stored after `seq`, in order."""
        import sqlalchemy as sa

        table = _entries()
        wanted = sa.select(table.c.seq, table.c.id, table.c.vector, table.c.created_at).where(
            (table.c.scope == scope) & (table.c.seq > seq) & table.c.vector.is_not(None)
        )
        with self._ready().read() as connection:
            return [tuple(row) for row in connection.execute(wanted.order_by(table.c.seq))]

    def delete(self, entry: str) -> bool:
        table = _entries()
        with self._ready().write() as connection:
            return connection.execute(table.delete().where(table.c.id == entry)).rowcount > 0

    def clear(self) -> int:
        """Delete all entries of all scopes; how many there were."""
        with self._ready().write() as connection:
            return int(connection.execute(_entries().delete()).rowcount)

    def count(self) -> int:
        import sqlalchemy as sa

        with self._ready().read() as connection:
            return int(connection.execute(sa.select(sa.func.count()).select_from(_entries())).scalar_one())


def _entry(row: Row[Any]) -> Entry:
    return Entry(
        id=row.id,
        scope=row.scope,
        exact=row.exact,
        question=row.question,
        message=json.loads(row.message),
        facts=json.loads(row.facts),
        cost_usd=row.cost_usd,
        created_at=row.created_at,
    )


def _storable(text: str) -> str:
    """Text that every database takes: no NUL, no half of a surrogate pair."""
    return text.replace("\x00", "\ufffd").encode("utf-8", "replace").decode()
