"""The cache's truth in SQLite or PostgreSQL."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from chainops.cache.records import Change, Entry, Limits, Outline, Tombstone, Where
from chainops.cache.stores import sql_taking
from chainops.cache.stores.sql_beside import SqlBeside
from chainops.cache.stores.sql_statements import FEW, MANY, Statement, read_columns
from chainops.cache.stores.sql_tables import tables
from chainops.cache.stores.stored import (
    HALF_LIFE_S,
    changed,
    entry_of,
    first_number,
    fits_nothing,
    is_vector,
    marks_of,
    name_key,
    outline_of,
    pack,
    repack,
    seal_of,
    storable,
    user_mark,
    worth,
)
from chainops.core.errors import StoreError

if TYPE_CHECKING:
    import numpy as np

    from chainops.cache.judge import Label
    from chainops.stores.sql import SqlStore

_BATCHES_PER_ENFORCE = 8


class SqlRecords(SqlBeside):
    """A `CacheStore` in a SQL database. Thread-safe; nothing is opened before it is first used.

    Every change is one transaction, in which the scope's counter is held: so numbers are given in the order of
    commits, and a reader who goes on from the last number it saw misses nothing.
    """

    def __init__(self, store: SqlStore) -> None:
        super().__init__(store)
        self._damaged: list[str] = []
        self._telling = threading.Lock()

    def exact(self, scope: str, exact: str) -> Entry | None:
        return self._one(self._ready().exact, {"scope": scope, "exact": exact}, scope=scope, exact=exact)

    def get(self, entry: str) -> Entry | None:
        return self._one(self._ready().get, {"id": entry}, id=entry)

    def entry_at(self, scope: str, seq: int) -> Entry | None:
        return self._one(self._ready().entry_at, {"scope": scope, "seq": seq}, scope=scope)

    def _one(self, statement: Statement, parameters: dict[str, Any], **expected: str) -> Entry | None:
        rows = statement.read(parameters)
        if not rows:
            return None
        (row,) = rows
        entry = entry_of(*row[2:])
        # A whole entry that lies under another's key is as damaged as a broken one.
        if entry is None or any(getattr(entry, name) != value for name, value in expected.items()):
            self._discard([row])
            return None
        return entry

    def at(self, scope: str, seqs: Sequence[int]) -> dict[int, Outline]:
        statements = self._ready()
        rows: list[Any] = []
        for start in range(0, len(seqs), MANY):
            some = seqs[start : start + MANY]
            statement, count = (statements.few_at, FEW) if len(some) <= FEW else (statements.many_at, MANY)
            padded = [*some, *[some[0]] * (count - len(some))]
            rows += statement.read({"scope": scope} | {f"seq{n}": seq for n, seq in enumerate(padded)})
        outlines = {row[2]: outline_of(*row[2:]) for row in rows}
        self._discard([row for row in rows if outlines[row[2]] is None])
        return {seq: outline for seq, outline in outlines.items() if outline is not None}

    def put(
        self, entry: Entry, vector: np.ndarray | None, *, label: Label | None = None, over: int | None = None
    ) -> int:
        try:
            return self._put(entry, vector, label, over)
        except _Overtaken:
            return 0

    def _put(self, entry: Entry, vector: np.ndarray | None, label: Label | None, over: int | None) -> int:
        stored, statements = pack(entry, vector), self._ready()
        row = {
            "id": entry.id,
            "exact": entry.exact,
            "owner": entry.owner,
            "tenant": name_key(entry.tenant),
            "is_unknown": entry.is_unknown,
            "created_at": float(entry.created_at),
            "bytes": stored.size_bytes,
            "embedder": entry.embedder,
            "vector_sum": stored.vector_sum,
            "body_sum": stored.body_sum,
            "checksum": stored.checksum,
            "question": storable(entry.question),
            "head": stored.head.decode(),
            "vector": stored.vector,
            "body": stored.body.decode(),
        }
        marks = marks_of(entry)
        with self._store.write() as connection:
            first = {"scope": entry.scope, "first": first_number()}
            ((scope, seq),) = statements.next_seq.rows(connection, first)
            hits, used_at = 0, float(entry.created_at)
            old = sql_taking.as_victims(
                statements.old.rows(connection, {"scope": scope, "exact": entry.exact, "id": entry.id})
            )
            if over is not None and [each.seq for each in old] != ([over] if over else []):
                raise _Overtaken  # out of the transaction: no number is used up
            if old:
                sql_taking.take_out(connection, statements, old)
                if (same := next((each for each in old if each.id == entry.id), None)) is not None:
                    hits, used_at = same.hits, same.used_at  # stored again, with another vector
            row |= {"scope": scope, "seq": seq, "seal": seal_of(stored.checksum, seq)}
            row |= {"hits": hits, "used_at": used_at, "worth": worth(entry.cost_usd, used_at)}
            ((number,),) = statements.insert.rows(connection, row)
            if marks:
                mentioned = [{"mark": mark, "entry": number, "digest": digest} for mark, digest in marks.items()]
                statements.mark.run(connection, *mentioned)
            sql_taking.grow(connection, statements, row)
            if label is not None:
                self._add_label(connection, statements, entry.owner, label, entry.tenant, entry.user)
        return int(seq)

    def update(
        self,
        entry: str,
        *,
        knowledge: str | None = None,
        is_verified: bool | None = None,
        group: str | None = None,
    ) -> bool:
        self._ready()
        e = tables().entries
        with self._store.write() as connection:
            # PostgreSQL must be told that nobody else may change it meanwhile; SQLite lets nobody write.
            row = connection.execute(e.select().where(e.c.id == entry).with_for_update()).first()
            if row is None:
                return False
            found = entry_of(row.seq, row.head, row.body, row.vector_sum, row.checksum, row.seal)
            if found is None:
                return False
            new = changed(found, knowledge=knowledge, is_verified=is_verified, group=group)
            head, checksum = repack(new, row.vector_sum, row.body_sum)
            columns = {"head": head.decode(), "checksum": checksum, "seal": seal_of(checksum, row.seq)}
            connection.execute(e.update().where(e.c.number == row.number).values(**columns))
        return True

    def position(self, scope: str) -> int:
        rows = self._ready().scope.read({"scope": scope})
        return int(rows[0][1]) if rows else 0

    def changes(self, scope: str, after: int, *, limit: int = 10_000, began: int = 0) -> list[Change] | None:
        statements = self._ready()
        if after and began <= after and self.position(scope) == after:
            return []  # most often; without a transaction
        with self._store.read() as connection:
            log = statements.scope.rows(connection, {"scope": scope})
            if not log:
                return [] if after == 0 else None
            number, last, floor = log[0]
            if max(after, began) > last or (after and max(after, began) < floor):
                return None
            if after == last:
                return []
            page = {"scope": number, "after": after, "limit": limit}
            puts, drops = statements.puts.rows(connection, page), statements.drops.rows(connection, page)
        lines, damaged = [Change(seq, dropped) for seq, dropped in drops], []
        for row in puts:
            _, _, seq, vector, embedder, created_at, vector_sum = row
            if is_vector(vector, embedder, created_at, vector_sum):
                lines.append(Change(seq, None, vector, embedder, created_at))
            else:
                damaged.append(row)
                lines.append(Change(seq, seq))
        self._discard(damaged)
        return sorted(lines, key=lambda line: line.seq)[:limit]

    def drop(self, owner: str, where: Where, *, reason: str, now: float) -> list[str]:
        if fits_nothing(where):
            return []
        conditions, gone = sql_taking.conditions(owner, where), []
        for condition in conditions:
            while ids := self._take_some(condition, reason=reason, now=now):
                gone += ids
        return gone

    def clear(self, owner: str) -> int:
        count, t = 0, tables()
        while ids := self._take_some(t.entries.c.owner == owner):
            count += len(ids)
        with self._store.write() as connection:
            connection.execute(t.tombstones.delete().where(t.tombstones.c.owner == owner))
        return count

    def _take_some(self, condition: Any, *, reason: str | None = None, now: float = 0.0) -> list[str]:
        """Take out at most a batch of what fits, in one transaction."""
        statements = self._ready()
        with self._store.write() as connection:
            victims = sql_taking.victims(connection, condition)
            gone = sql_taking.take_out(connection, statements, victims)
            if reason is not None and gone:
                sql_taking.remember(connection, gone, reason=reason, now=now)
        return [row.id for row in gone]

    def tombstones(self, owner: str, *, limit: int = 50) -> list[Tombstone]:
        self._ready()
        t = tables().tombstones
        wanted = t.select().where(t.c.owner == owner).order_by(t.c.number.desc()).limit(limit)
        with self._store.read() as connection:
            rows = connection.execute(wanted).all()
        return [Tombstone(row.id, row.question, row.group, row.reason, row.dropped_at) for row in rows]

    def enforce(self, owner: str, limits: Limits, *, now: float) -> list[str]:
        del now  # worth counts from when an entry was last served
        gone: list[str] = []
        for _ in range(_BATCHES_PER_ENFORCE):
            self._ready()
            with self._store.read() as connection:
                if not sql_taking.is_over(connection, owner, limits):
                    break
            with self._store.write() as connection:
                least = sql_taking.least_valuable(connection, owner, limits)
                gone += [row.id for row in sql_taking.take_out(connection, self._ready(), least)]
        return gone

    def served(self, owner: str, hits: Mapping[str, int], *, now: float) -> None:
        same = {"owner_name": owner, "now": now, "half_life": HALF_LIFE_S}
        rows = [same | {"entry_id": entry, "count": count} for entry, count in sorted(hits.items())]
        if rows:
            statement = self._ready().served
            with self._store.write() as connection:
                statement.run(connection, *rows)

    def size(self, owner: str, tenant: str | None = None) -> tuple[int, int]:
        self._ready()
        with self._store.read() as connection:
            return sql_taking.size(connection, owner, tenant)

    def entries(
        self, owner: str, *, containing: str = "", offset: int = 0, limit: int = 50
    ) -> list[tuple[Entry, int, float]]:
        import sqlalchemy as sa

        self._ready()
        e = tables().entries.c
        wanted = sa.select(*read_columns(body=True), e.hits, e.used_at).where(e.owner == owner)
        if containing:
            wanted = wanted.where(e.question.icontains(storable(containing), autoescape=True))
        wanted = wanted.order_by(e.created_at.desc(), e.number.desc()).offset(offset).limit(limit)
        with self._store.read() as connection:
            rows: Sequence[Any] = connection.execute(wanted).all()
        found = [(entry_of(*row[2:8]), row) for row in rows]
        self._discard([row for entry, row in found if entry is None])
        return [(entry, row.hits, row.used_at) for entry, row in found if entry is not None]

    def damaged(self) -> list[str]:
        with self._telling:
            told, self._damaged = self._damaged, []
        return told

    def _discard(self, rows: Sequence[Any]) -> None:
        """Take out what is damaged, and tell. Rows begin with number and id."""
        if not rows:
            return
        with self._telling:
            self._damaged += [str(row[1]) for row in rows]
        try:
            self._take_some(tables().entries.c.number.in_([row[0] for row in rows]))
        except StoreError:
            return  # it was not given out, and the next reader tries to drop it again

    def forget(self, *, user: str, tenant: str | None, now: float) -> int:
        del now
        self._ready()
        count, mark = 0, user_mark(user)
        while ids := self._take_some(sql_taking.of_user(mark, tenant)):
            count += len(ids)
        with self._store.write() as connection:
            count += sql_taking.forget_beside(connection, mark, tenant)
        self._store.scrub()
        return count


class _Overtaken(Exception):  # never leaves this file
    """Another entry has the place by now."""
