"""Permits shared by the processes of one machine in SQLite, or by many machines in PostgreSQL."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING

from chainops.core.errors import StoreCorrupted
from chainops.resilience.limits.exchange import LEASE_MS, TTL_MS, WINDOW_MS, Ask, Given, State, exchange, is_empty
from chainops.stores.schema import Schema

if TYPE_CHECKING:
    import sqlalchemy as sa
    from sqlalchemy import Connection, Table

    from chainops.stores.sql import SqlStore

_FORGOTTEN_MS = 2 * (WINDOW_MS + LEASE_MS + TTL_MS)
_SWEEP_EVERY = 500
_FORGET = "delete it: nothing is lost but what was counted in the last minute"


class SqlBank:
    """A `Bank` (see `records.py`): one row per key, one transaction per step.

    Args:
        clock: Seconds since 1970, on SQLite. On PostgreSQL the server's clock counts.
    """

    def __init__(self, store: SqlStore, clock: Callable[[], float] = time.time) -> None:
        self._store, self._clock = store, clock
        self._steps = 0

    @property
    def place(self) -> str:
        return self._store.place

    def exchange(self, asks: Sequence[tuple[str, Ask]]) -> list[Given]:
        import sqlalchemy as sa

        table = _table()
        self._store.migrate(Schema("limits", table.metadata))
        self._steps += 1
        given: dict[int, Given] = {}
        in_order = sorted(range(len(asks)), key=lambda each: asks[each][0])  # rows are locked: everybody in one order
        with self._store.write() as connection:
            now = self._now(connection)
            for place in in_order:
                key, ask = asks[place]
                state = self._read(connection, table, key)
                given[place] = exchange(state, ask, now)
                if is_empty(state):
                    connection.execute(_delete(), {"one": key})
                else:
                    connection.execute(_update(), {"one": key, "state": json.dumps(state), "seen": state["seen"]})
            if self._steps % _SWEEP_EVERY == 1:
                connection.execute(sa.delete(table).where(table.c.seen < now - _FORGOTTEN_MS))
        return [given[place] for place in range(len(asks))]

    def _now(self, connection: Connection) -> int:
        if self._store.dialect == "sqlite":
            return int(self._clock() * 1000)
        import sqlalchemy as sa

        return int(connection.execute(sa.text("SELECT extract(epoch FROM clock_timestamp()) * 1000")).scalar_one())

    def _read(self, connection: Connection, table: Table, key: str) -> State:
        found = connection.execute(_select(), {"one": key}).scalar()
        if found is None:
            fresh = self._store.insert(table).values(key=key, state="{}", seen=0).on_conflict_do_nothing()
            connection.execute(fresh)
            found = connection.execute(_select(), {"one": key}).scalar_one()  # PostgreSQL: locked from here on
        try:
            state: State = json.loads(str(found))
        except ValueError as error:
            raise StoreCorrupted(self.place, f"a row of limits cannot be read ({error})", _FORGET) from error
        return state


@cache
def _table() -> Table:
    import sqlalchemy as sa

    return sa.Table(
        "limits",
        sa.MetaData(),
        sa.Column("key", sa.String, primary_key=True),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("seen", sa.BigInteger, nullable=False),
    )


@cache
def _select() -> sa.Select[tuple[str]]:
    import sqlalchemy as sa

    table = _table()
    return sa.select(table.c.state).where(table.c.key == sa.bindparam("one")).with_for_update()


@cache
def _update() -> sa.Update:
    import sqlalchemy as sa

    table = _table()
    return sa.update(table).where(table.c.key == sa.bindparam("one"))


@cache
def _delete() -> sa.Delete:
    import sqlalchemy as sa

    table = _table()
    return sa.delete(table).where(table.c.key == sa.bindparam("one"))
