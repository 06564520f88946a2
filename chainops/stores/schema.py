"""Each room's tables carry a version, and older ones are brought up to date before they are used."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from chainops.core.errors import InvalidInput, StoreTooNew

if TYPE_CHECKING:
    from sqlalchemy import Connection, MetaData, Table

Upgrade = Callable[["Connection"], None]

_ADVISORY_LOCK = 0x636861696E6F7073  # "chainops"; PostgreSQL locks are numbers


@dataclass(frozen=True)
class Schema:
    """The tables of one room, as they are now, and how to get there from older versions.

    Args:
        room: The room's name. All its tables are called `room` or `room_...`, so that rooms sharing one
            database cannot meet.
        tables: The tables at the latest version.
        upgrades: Pairs of version and function, numbered 2, 3, 4, ... Each takes the version before it to its own,
            in the transaction it is given. It speaks SQL to the connection and never uses `tables`, which are
            already newer. A table made by an upgrade is made by its own DDL.
    """

    room: str
    tables: MetaData
    upgrades: Sequence[tuple[int, Upgrade]] = ()

    def __post_init__(self) -> None:
        numbers = [number for number, _ in self.upgrades]
        if numbers != list(range(2, len(numbers) + 2)):
            raise InvalidInput(f"upgrades of {self.room}", f"versions {numbers}", "2, 3, 4, ... without gaps")
        for name in self.tables.tables:
            if name != self.room and not name.startswith(f"{self.room}_"):
                raise InvalidInput(f"tables of {self.room}", repr(name), f"a name that begins with {self.room}_")

    @property
    def version(self) -> int:
        """The version `tables` describe; 1 before the first upgrade."""
        return len(self.upgrades) + 1


@cache
def versions_table() -> Table:
    """Where every room's version is kept: `chainops_schema(room, version, applied_at)`."""
    import sqlalchemy as sa

    return sa.Table(
        "chainops_schema",
        sa.MetaData(),
        sa.Column("room", sa.String, primary_key=True),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("applied_at", sa.Float, nullable=False, comment="seconds since 1970, UTC"),
    )


def found_version(connection: Connection, room: str) -> int | None:
    """The version the store holds of a room's tables; None if it has never seen the room."""
    import sqlalchemy as sa

    table = versions_table()
    if not sa.inspect(connection).has_table(table.name):
        return None
    found: int | None = connection.execute(sa.select(table.c.version).where(table.c.room == room)).scalar()
    return found


def refuse_newer(found: int | None, schema: Schema, *, place: str) -> None:
    if found is not None and found > schema.version:
        raise StoreTooNew(
            place,
            f"its {schema.room} tables are version {found}, this chainops knows them up to {schema.version}",
            "upgrade chainops, or set CHAINOPS_HOME to another folder",
        )


def bring_up_to_date(connection: Connection, schema: Schema, *, place: str) -> None:
    """Create or upgrade a room's tables inside a write transaction; all or nothing.

    Raises:
        StoreTooNew: A newer chainops has been here.
    """
    import sqlalchemy as sa

    if connection.dialect.name == "postgresql":
        # SQLite's BEGIN IMMEDIATE already keeps others out; here two first starts would both CREATE.
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_ADVISORY_LOCK)))
    table = versions_table()
    table.create(connection, checkfirst=True)
    found = found_version(connection, schema.room)
    refuse_newer(found, schema, place=place)
    if found is None:
        schema.tables.create_all(connection)
        connection.execute(table.insert().values(room=schema.room, version=schema.version, applied_at=time.time()))
        return
    for version, upgrade in schema.upgrades:
        if version > found:
            upgrade(connection)
            stamp = table.update().where(table.c.room == schema.room)
            connection.execute(stamp.values(version=version, applied_at=time.time()))
