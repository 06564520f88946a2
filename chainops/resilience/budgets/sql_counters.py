"""Running totals in SQLite or PostgreSQL."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any

from chainops.core.lazy import Lazy
from chainops.resilience.budgets.policy import Amount, Unit, Window
from chainops.resilience.budgets.records import Hold, Reserved, Spend
from chainops.resilience.budgets.sql_statements import build
from chainops.resilience.budgets.sql_tables import schema, tables
from chainops.stores.sql import SqlStore

_KEPT_S = 62 * 86_400
"""How long a window's total is kept after its end."""
_CALL = tuple(each.name for each in fields(Spend))


class SqlCounters:
    """`Counters` in a database. Rows are always locked in one order, so that nobody waits in a circle."""

    def __init__(self, store: SqlStore) -> None:
        self.place = store.place
        self._store = store
        self._statements = Lazy(lambda: build(store))

    def reserve(self, hold: Hold, windows: Sequence[Window], *, enforces_tokens: bool = True) -> Reserved:
        self._store.migrate(schema())
        statements = self._statements()
        try:
            with self._store.write() as connection:
                totals, soft = [], []
                for position, window in enumerate(windows):
                    total, is_told = self._add(connection, hold, window)
                    broken = window.limit.broken_by(total - hold.amount, hold.amount)
                    if broken == "usd" or (broken == "tokens" and enforces_tokens):
                        raise _Refused(position, broken)
                    totals.append(total)
                    if not is_told and window.limit.is_reached(total, window.soft):
                        soft.append(position)
                        statements.tell.run(connection, _of(hold.budget, hold.key, window.id) | {"told": 1})
                statements.hold.run(connection, _row(hold))
        except _Refused as refused:
            before = self.totals(hold.budget, hold.key, [each.id for each in windows])
            return Reserved(tuple(before), (refused.position, refused.unit))
        return Reserved(tuple(totals), newly_soft=tuple(soft))

    def _add(self, connection: Any, hold: Hold, window: Window) -> tuple[Amount, bool]:
        """A window's total with the hold, which its row is locked for; and whether its soft limit was told."""
        values = {"budget": hold.budget, "key": hold.key, "window": window.id, "ends": window.ends, "is_soft_told": 0}
        values |= {"nano_usd": hold.amount.nano_usd, "tokens": hold.amount.tokens}
        nano_usd, tokens, is_told = self._statements().add.run(connection, values)
        return Amount(nano_usd, tokens), bool(is_told)

    def settle(self, settled: Sequence[tuple[str, Amount]]) -> None:
        self._store.migrate(schema())
        statements = self._statements()
        more: dict[tuple[str, str, str], Amount] = defaultdict(Amount)
        with self._store.write() as connection:
            for name, actual in sorted(settled, key=lambda each: each[0]):
                row = statements.release.run(connection, {"of_hold": name})
                if row is None:
                    continue
                budget, key, windows, nano_usd, tokens = row
                for window in json.loads(windows):
                    more[budget, key, window] += actual - Amount(nano_usd, tokens)
            for which, amount in sorted(more.items(), key=lambda each: each[0]):
                values = {"more_nano_usd": amount.nano_usd, "more_tokens": amount.tokens, "none": 0}
                statements.correct.run(connection, _of(*which) | values)

    def totals(self, budget: str, key: str, windows: Sequence[str]) -> list[Amount]:
        table = tables().windows
        self._store.migrate(schema())
        query = table.select().where(table.c.budget == budget, table.c.key == key, table.c.window.in_(windows))
        with self._store.read() as connection:
            found = {row.window: Amount(row.nano_usd, row.tokens) for row in connection.execute(query)}
        return [found.get(each, Amount()) for each in windows]

    def holds(self, *, before: float, limit: int = 500) -> list[Hold]:
        table = tables().holds
        self._store.migrate(schema())
        query = table.select().where(table.c.at < before).order_by(table.c.at).limit(limit)
        with self._store.read() as connection:
            rows = connection.execute(query).mappings().all()
        return [
            Hold(
                row["hold"],
                row["budget"],
                row["key"],
                tuple(json.loads(row["windows"])),
                Amount(row["nano_usd"], row["tokens"]),
                Spend(**{name: row[name] for name in _CALL}),
            )
            for row in rows
        ]

    def forget(self, user: str, tenant: str | None = None) -> None:
        c = tables().holds.c
        self._store.migrate(schema())
        whose = (c.user == user, *(() if tenant is None else (c.tenant == tenant,)))
        with self._store.write() as connection:
            connection.execute(tables().holds.update().where(*whose).values(user=None))
        self._store.scrub()

    def nameless(self, holds: Sequence[str]) -> list[str]:
        table = tables().holds
        self._store.migrate(schema())
        query = table.select().with_only_columns(table.c.hold).where(table.c.hold.in_(holds), table.c.user.is_(None))
        with self._store.read() as connection:
            return list(connection.execute(query).scalars())

    def tidy(self, now: float) -> None:
        """Delete the totals of windows that ended long ago."""
        table = tables().windows
        self._store.migrate(schema())
        with self._store.write() as connection:
            connection.execute(table.delete().where(table.c.ends < now - _KEPT_S))


class _Refused(Exception):
    """Undoes a transaction; never leaves this file."""

    def __init__(self, position: int, unit: Unit) -> None:
        self.position, self.unit = position, unit
        super().__init__(position, unit)


def _of(budget: str, key: str, window: str) -> dict[str, Any]:
    return {"of_budget": budget, "of_key": key, "of_window": window}


def _row(hold: Hold) -> dict[str, Any]:
    return asdict(hold.call) | {
        "hold": hold.id,
        "budget": hold.budget,
        "key": hold.key,
        "windows": json.dumps(hold.windows),
        "nano_usd": hold.amount.nano_usd,
        "tokens": hold.amount.tokens,
    }
