"""The statements of totals, built once: building one costs more than running it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from chainops.resilience.budgets.sql_tables import tables

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from chainops.stores.sql import SqlStore


class Statement:
    """A statement that runs often. On SQLite it goes straight to the driver: SQLAlchemy takes longer than SQLite."""

    def __init__(self, built: Any, store: SqlStore) -> None:
        self._built = built
        self._text: str | None = None
        if store.dialect == "sqlite":
            from sqlalchemy.dialects.sqlite import dialect

            compiled = built.compile(dialect=dialect())
            self._text, self._order = str(compiled), list(compiled.positiontup or ())

    def run(self, connection: Connection, parameters: dict[str, Any]) -> Any:
        """Run it; the first row that it gives, or None."""
        if self._text is None:
            result = connection.execute(self._built, parameters)
            return result.first() if result.returns_rows else None
        cursor = connection.connection.cursor()
        cursor.execute(self._text, [parameters[name] for name in self._order])
        return cursor.fetchone()


class Statements(NamedTuple):
    """Parameters are named as the columns, or as written here."""

    add: Statement
    """Adds to a window's total and gives it: nano-dollars, tokens, whether its soft limit was told."""
    tell: Statement
    """Notes that it was. Parameters of_budget, of_key, of_window; so with `correct`."""
    correct: Statement
    """Adds more_nano_usd and more_tokens, which may be negative. No total falls below 0."""
    hold: Statement
    release: Statement
    """Takes the hold `of_hold` away and gives budget, key, windows, nano-dollars and tokens."""


def build(store: SqlStore) -> Statements:
    """For a store's dialect."""
    import sqlalchemy as sa

    t, bind = tables(), sa.bindparam
    c, h = t.windows.c, t.holds.c
    insert = store.insert(t.windows).values({each.name: bind(each.name) for each in c})
    more = {name: c[name] + insert.excluded[name] for name in ("nano_usd", "tokens")}
    added = insert.on_conflict_do_update(index_elements=["budget", "key", "window"], set_=more)
    window = t.windows.update().where(
        c.budget == bind("of_budget"), c.key == bind("of_key"), c.window == bind("of_window")
    )

    def at_least_none(name: str) -> Any:
        total = c[name] + bind(f"more_{name}", type_=sa.BigInteger)
        return sa.case((total > bind("none", type_=sa.BigInteger), total), else_=bind("none", type_=sa.BigInteger))

    taken = t.holds.delete().where(h.hold == bind("of_hold"))
    built = {
        "add": added.returning(c.nano_usd, c.tokens, c.is_soft_told),
        "tell": window.values(is_soft_told=bind("told")),
        "correct": window.values({name: at_least_none(name) for name in ("nano_usd", "tokens")}),
        "hold": t.holds.insert().values({each.name: bind(each.name) for each in h}),
        "release": taken.returning(h.budget, h.key, h.windows, h.nano_usd, h.tokens),
    }
    return Statements(**{name: Statement(each, store) for name, each in built.items()})
