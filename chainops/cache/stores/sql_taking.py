"""Taking entries out of SQL: which, how many at once, and what is remembered. Always in the caller's transaction."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple

from chainops.cache.records import Limits, Where
from chainops.cache.stores.sql_statements import Statements, victim_columns
from chainops.cache.stores.sql_tables import tables
from chainops.cache.stores.stored import (
    LOG_KEPT,
    TOMBSTONES_KEPT,
    TOMBSTONES_KEPT_S,
    Mention,
    mentions_of,
    name_key,
    parts_of_head,
    storable,
    user_mark,
)

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection


class Victim(NamedTuple):
    """What is needed of an entry to take it out, and to remember it: `victim_columns`, and perhaps its use."""

    number: int
    id: str
    scope: int
    seq: int
    owner: str
    tenant: str
    bytes: int
    question: str
    head: str
    hits: int = 0
    used_at: float = 0.0


BATCH = 250
"""Entries per transaction: others wait for some hundredths of a second."""
_CUT_EVERY = 1_000
_CHUNK = 200
"""Alternatives per condition: SQLite takes expressions of limited depth."""


def take_out(connection: Connection, statements: Statements, rows: Sequence[Victim]) -> list[Victim]:
    """Delete entries, and write it into the logs of their scopes.

    Args:
        rows: The scopes' counters are taken in the order of their numbers, so that two who
            drop at the same moment cannot wait for each other.

    Returns:
        Those that were still there, in the order given.
    """
    t, gone = tables(), set[int]()
    for scope, group in groupby(sorted(rows, key=lambda row: (row.scope, row.number)), key=lambda row: row.scope):
        of_scope = list(group)
        counter = t.scopes.update().where(t.scopes.c.number == scope)
        count = len(of_scope)
        last = connection.execute(counter.values(last=t.scopes.c.last + count).returning(t.scopes.c.last)).scalar_one()
        numbers = [row.number for row in of_scope]
        deleted = t.entries.delete().where(t.entries.c.number.in_(numbers)).returning(t.entries.c.number)
        there = set(connection.execute(deleted).scalars())
        connection.execute(t.marks.delete().where(t.marks.c.entry.in_(numbers)))
        lines = [
            {"scope": scope, "seq": last - place, "dropped": row.seq}
            for place, row in enumerate(of_scope)
            if row.number in there
        ]
        if lines:
            connection.execute(t.drops.insert(), lines)
        if (last - count) // _CUT_EVERY != last // _CUT_EVERY:
            _cut(connection, scope)
        gone |= there
    taken = [row for row in rows if row.number in gone]
    _shrink(connection, statements, taken)
    return taken


def _cut(connection: Connection, scope: int) -> None:
    """Forget the oldest drops of a scope. The newest always stays, so that a reader can come up to the log's end."""
    t = tables()
    drops = t.drops.c
    oldest = t.drops.select().with_only_columns(drops.seq).where(drops.scope == scope)
    cut = connection.execute(oldest.order_by(drops.seq.desc()).offset(LOG_KEPT).limit(1)).scalar()
    if cut is not None:
        connection.execute(t.drops.delete().where(drops.scope == scope, drops.seq <= cut))
        connection.execute(t.scopes.update().where(t.scopes.c.number == scope).values(floor=cut))


def grow(connection: Connection, statements: Statements, row: dict[str, Any]) -> None:
    """Count an entry that was put in."""
    more = {"owner": row["owner"], "tenant": row["tenant"], "entries": 1, "bytes": row["bytes"]}
    statements.grow.run(connection, more)


def _shrink(connection: Connection, statements: Statements, rows: Sequence[Victim]) -> None:
    less: dict[tuple[str, str], tuple[int, int]] = {}
    for row in rows:
        count, size = less.get((row.owner, row.tenant), (0, 0))
        less[row.owner, row.tenant] = (count + 1, size + row.bytes)
    for (owner, tenant), (count, size) in sorted(less.items()):
        smaller = {"of_owner": owner, "of_tenant": tenant, "less": count, "less_bytes": size}
        statements.shrink.run(connection, smaller)


def as_victims(rows: Iterable[Any]) -> list[Victim]:
    return [Victim(*row) for row in rows]


def victims(connection: Connection, condition: ColumnElement[bool]) -> Sequence[Victim]:
    """A batch of the entries that fit."""
    import sqlalchemy as sa

    return as_victims(connection.execute(sa.select(*victim_columns()).where(condition).limit(BATCH)).all())


def conditions(owner: str, where: Where) -> list[ColumnElement[bool]]:
    """What entries to drop must fit: one of these. More than one only where there are many alternatives."""
    import sqlalchemy as sa

    e, t = tables().entries.c, tables()
    alike = [e.owner == owner]
    if where.scope is not None:
        alike.append(e.scope == sa.select(t.scopes.c.number).where(t.scopes.c.scope == where.scope).scalar_subquery())
    if where.tenant is not None:
        alike.append(e.tenant == name_key(where.tenant))
    if where.is_unknown is not None:
        alike.append(e.is_unknown == where.is_unknown)
    if where.before is not None:
        alike.append(e.created_at <= where.before)
    groups: list[list[ColumnElement[bool]]] = [
        [e.number.in_(_mentioned(chunk)) for chunk in _chunks(group)] for group in mentions_of(where)
    ]
    if where.ids:
        groups.append([e.id.in_(chunk) for chunk in _chunks(where.ids)])
    whole = [sa.and_(*alike)]
    for group in groups:
        whole = [sa.and_(each, one) for each in whole for one in group]
    return whole


def _chunks(items: Sequence[Any]) -> list[Sequence[Any]]:
    return [items[start : start + _CHUNK] for start in range(0, len(items), _CHUNK)]


def _mentioned(mentions: Sequence[Mention]) -> Any:
    """Entries that are marked with one of these."""
    import sqlalchemy as sa

    marks = tables().marks.c

    def fits(mention: Mention) -> ColumnElement[bool]:
        if mention.digest is None:
            return marks.mark == mention.mark
        same = marks.digest == mention.digest
        return sa.and_(marks.mark == mention.mark, sa.not_(same) if mention.differs else same)

    return sa.select(marks.entry).where(sa.or_(*[fits(mention) for mention in mentions]))


def of_user(mark: str, tenant: str | None) -> ColumnElement[bool]:
    """One user's entries, in all caches."""
    import sqlalchemy as sa

    e = tables().entries.c
    mine = e.number.in_(_mentioned([Mention(mark)]))
    return mine if tenant is None else sa.and_(mine, e.tenant == name_key(tenant))


def remember(connection: Connection, rows: Sequence[Victim], *, reason: str, now: float) -> None:
    """Leave tombstones, and remove those that are too many or too old."""
    t = tables().tombstones
    lines = []
    for row in rows:
        head = parts_of_head(row.head)
        lines.append(
            {
                "owner": row.owner,
                "id": row.id,
                "question": row.question,
                "group": storable(head.get("group") or ""),
                "reason": storable(reason),
                "dropped_at": now,
                "tenant": row.tenant,
                "user": user_mark(head.get("user")),
            }
        )
    connection.execute(t.insert(), lines)
    for owner in {row.owner for row in rows}:
        newest = t.select().with_only_columns(t.c.number).where(t.c.owner == owner).order_by(t.c.number.desc())
        limit = newest.offset(TOMBSTONES_KEPT).limit(1).scalar_subquery()
        connection.execute(t.delete().where(t.c.owner == owner, t.c.number <= limit))
        connection.execute(t.delete().where(t.c.owner == owner, t.c.dropped_at < now - TOMBSTONES_KEPT_S))


def forget_beside(connection: Connection, mark: str, tenant: str | None) -> int:
    """Delete what one user left beside the entries; how many rows."""
    t, count = tables(), 0
    for table in (t.tombstones, t.labels, t.leases):
        mine = table.delete().where(table.c.user == mark)
        if tenant is not None:
            mine = mine.where(table.c.tenant == name_key(tenant))
        count += connection.execute(mine).rowcount
    return count


def size(connection: Connection, owner: str, tenant: str | None) -> tuple[int, int]:
    """Entries and bytes; of all tenants, unless one is named."""
    import sqlalchemy as sa

    s = tables().sizes.c
    wanted = sa.select(sa.func.sum(s.entries), sa.func.sum(s.bytes)).where(s.owner == owner)
    if tenant is not None:
        wanted = wanted.where(s.tenant == name_key(tenant))
    entries, size_bytes = connection.execute(wanted).one()
    return int(entries or 0), int(size_bytes or 0)


def is_over(connection: Connection, owner: str, limits: Limits) -> bool:
    entries, size_bytes = size(connection, owner, None)
    return entries > limits.entries or size_bytes > limits.bytes or bool(_over_tenant(connection, owner, limits))


def _over_tenant(connection: Connection, owner: str, limits: Limits) -> tuple[str, int] | None:
    """A tenant that has too many entries, and how many too many."""
    s = tables().sizes
    if limits.entries_per_tenant is None:
        return None
    over = s.select().where(s.c.owner == owner, s.c.entries > limits.entries_per_tenant).limit(1)
    row = connection.execute(over).first()
    return None if row is None else (row.tenant, row.entries - limits.entries_per_tenant)


def least_valuable(connection: Connection, owner: str, limits: Limits) -> list[Victim]:
    """A batch of what is over the limits: first of tenants that have too much, then of all."""
    import sqlalchemy as sa

    e = tables().entries.c
    wanted = sa.select(*victim_columns()).where(e.owner == owner).order_by(e.worth, e.number)
    if (over := _over_tenant(connection, owner, limits)) is not None:
        tenant, excess = over
        return as_victims(connection.execute(wanted.where(e.tenant == tenant).limit(min(excess, BATCH))).all())
    entries, size_bytes = size(connection, owner, None)
    rows: list[Victim] = []
    for row in as_victims(connection.execute(wanted.limit(BATCH)).all()):
        if entries <= limits.entries and size_bytes <= limits.bytes:
            break
        rows.append(row)
        entries, size_bytes = entries - 1, size_bytes - row.bytes
    return rows
