"""What the cache keeps in SQL beside its entries: totals, labels, and who is answering what now."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, cast, get_args

from chainops.cache.records import LONGEST_LEASE_S, Kind, Lease, Tally
from chainops.cache.stores.sql_statements import Statements, build
from chainops.cache.stores.sql_tables import schema, tables
from chainops.cache.stores.stored import LABELS_KEPT, check_lease, first_number, label_of, name_key, to_json, user_mark
from chainops.stores.sql import SqlStore

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from chainops.cache.judge import Label


_LEASES_PER_TIDYING = 32
"""How often those that killed processes have left are looked for. They do not count meanwhile."""


class SqlBeside:
    """Totals, labels and leases. `SqlRecords` adds the entries."""

    def __init__(self, store: SqlStore) -> None:
        self.place = store.place
        self._store = store
        self._built: Statements | None = None
        self._taken = 0

    def _ready(self) -> Statements:
        """The statements, after making sure that there are tables."""
        if self._built is None:
            self._store.migrate(schema())
            self._built = build(self._store)
        return self._built

    def tally(self, owner: str, tenant: str | None, counts: Mapping[Kind, Tally]) -> None:
        rows = [
            {
                "owner": owner,
                "tenant": name_key(tenant),
                "kind": kind,
                "count": tally.count,
                "usd": tally.usd,
                "seconds": tally.seconds,
            }
            for kind, tally in sorted(counts.items())
        ]
        if rows:
            statement = self._ready().tally
            with self._store.write() as connection:
                statement.run(connection, *rows)

    def totals(self, owner: str, tenant: str | None = None) -> dict[Kind, Tally]:
        import sqlalchemy as sa

        self._ready()
        t = tables().tallies.c
        wanted = sa.select(t.kind, sa.func.sum(t.count), sa.func.sum(t.usd), sa.func.sum(t.seconds))
        wanted = wanted.where(t.owner == owner).group_by(t.kind)
        if tenant is not None:
            wanted = wanted.where(t.tenant == name_key(tenant))
        with self._store.read() as connection:
            rows = connection.execute(wanted).all()
        return {kind: Tally(int(count), usd, seconds) for kind, count, usd, seconds in rows if kind in get_args(Kind)}

    def labels(self, owner: str, after: int, *, limit: int = 5_000) -> list[tuple[int, Label]]:
        statement = self._ready().labels
        with self._store.read() as connection:
            rows = statement.rows(connection, {"owner": owner, "after": after, "limit": limit})
        found = [(number, label_of(*told)) for number, *told in reversed(rows)]
        return [(number, label) for number, label in found if label is not None]

    def add_label(self, owner: str, label: Label, *, tenant: str | None = None, user: str | None = None) -> int:
        statements = self._ready()
        with self._store.write() as connection:
            return self._add_label(connection, statements, owner, label, tenant, user)

    def _add_label(
        self,
        connection: Connection,
        statements: Statements,
        owner: str,
        label: Label,
        tenant: str | None,
        user: str | None,
    ) -> int:
        first = {"owner": owner, "first": first_number()}
        ((number,),) = statements.next_label.rows(connection, first)
        row = {
            "owner": owner,
            "number": number,
            "features": to_json(label.features).decode(),
            "correct": bool(label.correct),
            "source": label.source,
            "at": label.at,
            "tenant": name_key(tenant),
            "user": user_mark(user),
        }
        statements.label.run(connection, row)
        if number % 256 == 0:
            old = tables().labels
            connection.execute(old.delete().where(old.c.owner == owner, old.c.number <= number - LABELS_KEPT))
        return int(number)

    def lease(self, owner: str, lease: Lease, *, now: float) -> Lease | None:
        check_lease(lease, now)
        statements, leases = self._ready(), tables().leases
        row = {
            "owner": owner,
            "scope": lease.scope,
            "exact": lease.exact,
            "holder": lease.holder,
            "question": to_json(lease.question).decode(),
            "vector": lease.vector,
            "expires_at": lease.expires_at,
            "tenant": name_key(lease.tenant),
            "user": user_mark(lease.user),
        }
        if statements.take_lease.change(row | {"now": now, "longest": LONGEST_LEASE_S}):
            if self._taken % _LEASES_PER_TIDYING == 0:
                statements.end_leases.change({"of_scope": lease.scope, "now": now})
            self._taken += 1
            return None
        with self._store.read() as connection:
            held = connection.execute(
                leases.select().where(leases.c.scope == lease.scope, leases.c.exact == lease.exact)
            ).first()
        # It may have been released between the two statements: then the next asks again.
        return self.lease(owner, lease, now=now) if held is None else _lease(*(getattr(held, name) for name in _LEASE))

    def renew(self, holder: str, leases: Sequence[tuple[str, str]], *, until: float) -> set[tuple[str, str]]:
        self._ready()
        table = tables().leases
        lost = set()
        with self._store.write() as connection:
            for scope, exact in sorted(leases):
                mine = (table.c.scope == scope) & (table.c.exact == exact) & (table.c.holder == holder)
                if not connection.execute(table.update().where(mine).values(expires_at=until)).rowcount:
                    lost.add((scope, exact))
        return lost

    def release(self, holder: str, scope: str, exact: str) -> None:
        statement = self._ready().end_lease
        with self._store.write() as connection:
            statement.run(connection, {"of_scope": scope, "of_exact": exact, "of_holder": holder})

    def leases(self, scope: str, *, now: float) -> list[Lease]:
        rows = self._ready().valid_leases.read({"of_scope": scope, "now": now, "until": now + LONGEST_LEASE_S})
        return [_lease(*row) for row in rows]


_LEASE = ("scope", "exact", "holder", "question", "vector", "expires_at", "tenant")


def _lease(
    scope: str, exact: str, holder: str, question: str, vector: bytes | None, expires_at: float, tenant: str
) -> Lease:
    asked = cast("str", json.loads(question))
    return Lease(scope, exact, holder, asked, vector, expires_at, json.loads(tenant))
