"""Circuits in SQLite or PostgreSQL: one row for each route that was ever opened."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

from chainops.resilience.breaker.policy import CLOSED, Route
from chainops.resilience.breaker.records import of_text, to_text
from chainops.stores.sql import Schema, SqlStore

if TYPE_CHECKING:
    from sqlalchemy import Table


class SqlCircuits:
    """`Circuits` in a database."""

    def __init__(self, store: SqlStore) -> None:
        self.place = store.place
        self._store = store

    def look(self, route: str) -> Route:
        self._store.migrate(_schema())
        if self._store.dialect == "sqlite":
            rows = self._store.select("SELECT told FROM breaker_routes WHERE route = ?", [route])
            return of_text(rows[0][0]) if rows else CLOSED
        table = _table()
        with self._store.read() as connection:
            query = table.select().with_only_columns(table.c.told).where(table.c.route == route)
            return of_text(connection.execute(query).scalar())

    def change(self, route: str, change: Callable[[Route], Route]) -> Route:
        self._store.migrate(_schema())
        table = _table()
        query = table.select().with_only_columns(table.c.told).where(table.c.route == route).with_for_update()
        first = self._store.insert(table).values(route=route, told=to_text(CLOSED)).on_conflict_do_nothing()
        with self._store.write() as connection:
            connection.execute(first)  # a row to lock
            before = of_text(connection.execute(query).scalar())
            after = change(before)
            if after != before:
                connection.execute(table.update().where(table.c.route == route).values(told=to_text(after)))
        return after


@cache
def _schema() -> Schema:
    return Schema("breaker", _table().metadata)


@cache
def _table() -> Table:
    import sqlalchemy as sa

    columns = (sa.Column("route", sa.Text, primary_key=True), sa.Column("told", sa.Text, nullable=False))
    return sa.Table("breaker_routes", sa.MetaData(), *columns)
