"""All settled calls, in SQLite or PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Any

from chainops.resilience.budgets.records import By, Spend
from chainops.resilience.budgets.sql_tables import schema, tables
from chainops.stores.sql import SqlStore


class SqlLedger:
    """`Ledger` in a database."""

    def __init__(self, store: SqlStore) -> None:
        self.place = store.place
        self._store = store

    def add(self, calls: Sequence[Spend]) -> None:
        """Note calls; those that are there already stay as they are.

        Raises:
            StoreError: Nothing was noted.
        """
        self._store.migrate(schema())
        rows = [asdict(each) | {"day": f"{datetime.fromtimestamp(each.at, UTC):%Y-%m-%d}"} for each in calls]
        with self._store.write() as connection:
            connection.execute(self._store.insert(tables().calls).on_conflict_do_nothing(), rows)

    def sums(self, chain: str | None, by: By, since: float, until: float) -> list[dict[str, Any]]:
        """What was spent, added up for each value of a column, the dearest first."""
        import sqlalchemy as sa

        self._store.migrate(schema())
        c = tables().calls.c
        total = sa.func.sum
        query = (
            sa.select(
                c[by].label("what"),
                sa.func.count().label("calls"),
                sa.func.count(c.request.distinct()).label("requests"),
                total(c.input_tokens).label("input_tokens"),
                total(c.output_tokens).label("output_tokens"),
                total(c.cached_tokens).label("cached_tokens"),
                sa.func.coalesce(total(c.usd), 0.0).label("usd"),
                total(sa.case((c.usd.is_(None), 1), else_=0)).label("unpriced"),
                total(sa.case((c.outcome == "ok", 0), else_=1)).label("not_ok"),
            )
            .where(c.at >= since, c.at < until, *(() if chain is None else (c.chain == chain,)))
            .group_by(c[by])
            .order_by(c[by] if by == "day" else sa.desc("usd"), c[by])
        )
        with self._store.read() as connection:
            rows = connection.execute(query).mappings().all()
        whole = {"what": str, "usd": float}  # the rest are counts, whatever number a database makes of their sum
        return [
            {name: value if value is None else whole.get(name, int)(value) for name, value in row.items()}
            for row in rows
        ]

    def forget(self, user: str, tenant: str | None = None) -> int:
        """Take a user's name off all calls, which stay; how many there were."""
        self._store.migrate(schema())
        c = tables().calls.c
        whose = (c.user == user, *(() if tenant is None else (c.tenant == tenant,)))
        with self._store.write() as connection:
            count = connection.execute(tables().calls.update().where(*whose).values(user=None)).rowcount
        self._store.scrub()
        return int(count)

    def take_names_off(self, calls: Sequence[str]) -> None:
        """Make these calls nobody's; unknown ones are ignored."""
        self._store.migrate(schema())
        table = tables().calls
        with self._store.write() as connection:
            connection.execute(table.update().where(table.c.id.in_(calls)).values(user=None))
        self._store.scrub()


def clean(call: Spend) -> Spend:
    """With text that every database takes."""
    told: dict[str, Any] = {name: _text(value) for name, value in asdict(call).items() if isinstance(value, str)}
    return replace(call, **told)


def _text(value: str) -> str:
    return value.replace("\x00", "").encode("utf-8", "replace").decode("utf-8")
