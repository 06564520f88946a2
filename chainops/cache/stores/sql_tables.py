"""The cache's tables. A cache may be emptied: an upgrade makes the tables anew."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from chainops.stores.sql import Schema

if TYPE_CHECKING:
    from sqlalchemy import Connection, Table


class Tables(NamedTuple):
    """All tables of the room `cache`."""

    scopes: Table
    """Each scope's counter: the row that everybody who writes the scope's log holds until the commit, so that numbers
    are given in the order of commits. A reader who stands below `floor` has missed drops."""
    entries: Table
    """The answers, and by being there the lines of the change logs that put them in."""
    marks: Table
    """What entries can be dropped by, as digests: used documents, prompts and models, tags, users."""
    drops: Table
    """The lines of the change logs that take entries out."""
    sizes: Table
    """How many entries and bytes each tenant has in each cache."""
    learned: Table
    """Each cache's counter of labels: held until the commit, like `scopes`."""
    labels: Table
    tombstones: Table
    tallies: Table
    leases: Table


@cache
def schema() -> Schema:
    """For `SqlStore.migrate`."""
    return Schema("cache", tables().entries.metadata, ((2, _make_anew),))


def _make_anew(connection: Connection) -> None:
    import sqlalchemy as sa

    for name in sa.inspect(connection).get_table_names():
        if name.startswith("cache_"):
            connection.execute(sa.text(f'DROP TABLE "{name}"'))
    tables().entries.metadata.create_all(connection)


@cache
def tables() -> Tables:
    """Made once, and sqlalchemy imported only then."""
    import sqlalchemy as sa

    metadata = sa.MetaData()
    big = sa.BigInteger().with_variant(sa.Integer, "sqlite")

    def table(name: str, *columns: Any, **options: Any) -> Table:
        return sa.Table(f"cache_{name}", metadata, *columns, **options)

    def text(name: str, **options: Any) -> sa.Column[str]:
        return sa.Column(name, sa.Text, **({"nullable": False} | options))

    def number(name: str, **options: Any) -> sa.Column[int]:
        return sa.Column(name, big, **({"nullable": False} | options))

    def real(name: str, **options: Any) -> sa.Column[float]:
        return sa.Column(name, sa.Float(53), **({"nullable": False} | options))

    return Tables(
        scopes=table(
            "scopes",
            number("number", primary_key=True),
            text("scope", unique=True),
            number("last"),
            number("floor"),
        ),
        entries=_entries(table, text, number, real),
        marks=table(
            "marks",
            text("mark", primary_key=True),
            number("entry", primary_key=True, index=True),
            text("digest"),
            sqlite_with_rowid=False,
        ),
        drops=table(
            "drops",
            number("scope", primary_key=True, autoincrement=False),
            number("seq", primary_key=True, autoincrement=False),
            number("dropped"),
            sqlite_with_rowid=False,
        ),
        sizes=table(
            "sizes",
            text("owner", primary_key=True),
            text("tenant", primary_key=True),
            number("entries"),
            number("bytes"),
        ),
        leases=table(
            "leases",
            text("scope", primary_key=True),
            text("exact", primary_key=True),
            text("owner"),
            text("holder"),
            text("question"),
            sa.Column("vector", sa.LargeBinary),
            real("expires_at"),
            text("tenant"),
            text("user"),
        ),
        **_learned(table, text, number, real),
    )


def _learned(table: Any, text: Any, number: Any, real: Any) -> dict[str, Table]:
    """What outlives the entries: labels, what was reported as wrong, and counts."""
    import sqlalchemy as sa

    return {
        "learned": table("learned", text("owner", primary_key=True), number("last")),
        "labels": table(
            "labels",
            text("owner", primary_key=True),
            number("number", primary_key=True, autoincrement=False),
            text("features"),
            sa.Column("correct", sa.Boolean, nullable=False),
            text("source"),
            real("at"),
            text("tenant"),
            text("user"),
        ),
        "tombstones": table(
            "tombstones",
            number("number", primary_key=True),
            text("owner"),
            text("id"),
            text("question"),
            text("group"),
            text("reason"),
            real("dropped_at"),
            text("tenant"),
            text("user"),
            sa.Index("cache_tombstones_by_owner", "owner", "number"),
            sqlite_autoincrement=True,
        ),
        "tallies": table(
            "tallies",
            text("owner", primary_key=True),
            text("tenant", primary_key=True),
            text("kind", primary_key=True),
            number("count"),
            real("usd"),
            real("seconds"),
        ),
    }


def _entries(table: Any, text: Any, number: Any, real: Any) -> Table:
    import sqlalchemy as sa

    made: Table = table(
        "entries",
        number("number", primary_key=True),
        text("id", unique=True),
        number("scope"),
        number("seq"),
        text("exact"),
        text("owner"),
        text("tenant"),
        sa.Column("is_unknown", sa.Boolean, nullable=False),
        real("created_at"),
        number("bytes"),
        real("worth"),
        number("hits"),
        real("used_at"),
        text("embedder", nullable=True),
        text("vector_sum"),
        text("body_sum"),
        text("checksum"),
        text("seal"),
        text("question"),
        text("head"),
        sa.Column("vector", sa.LargeBinary),
        text("body"),  # last: SQLite reads a row from its beginning, and this may be megabytes
        sa.UniqueConstraint("scope", "exact"),
        sa.UniqueConstraint("scope", "seq"),
        sa.Index("cache_entries_by_worth", "owner", "worth"),
        sa.Index("cache_entries_by_tenant", "owner", "tenant", "worth"),
        sa.Index("cache_entries_by_age", "owner", "created_at"),
        sqlite_autoincrement=True,
    )
    return made
