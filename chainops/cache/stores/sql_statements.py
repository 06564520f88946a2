"""The statements of the cache that run often, built once: building one costs more than running it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from chainops.cache.stores.sql_tables import tables

if TYPE_CHECKING:
    from sqlalchemy import Connection, Executable

    from chainops.stores.sql import SqlStore

FEW = 16
"""How many entries a lookup usually asks for at once."""
MANY = 250


class Statement:
    """A statement that runs often. On SQLite it goes straight to the driver: SQLAlchemy takes longer than SQLite.

    There values are bound and read as they are, which is right for text, numbers and bytes.
    """

    def __init__(self, built: Any, store: SqlStore) -> None:
        self._built, self._store = built, store
        self._text: str | None = None
        self._order: list[str] = []
        if store.dialect == "sqlite":
            from sqlalchemy.dialects.sqlite import dialect

            compiled = built.compile(dialect=dialect())
            self._text = str(compiled)
            self._order = list(compiled.positiontup or ())
            self._fixed = {name: value for name, value in compiled.params.items() if value is not None}

    def rows(self, connection: Connection, parameters: dict[str, Any]) -> list[Any]:
        """Run it; the rows that it gives."""
        if self._text is None:
            result = connection.execute(self._built, parameters)
            return list(result.all()) if result.returns_rows else []
        cursor = connection.connection.cursor()
        cursor.execute(self._text, self._values(parameters))
        found: list[Any] = list(cursor.fetchall())
        return found

    def read(self, parameters: dict[str, Any]) -> list[Any]:
        """Run it alone; the rows that it gives."""
        if self._text is None:
            with self._store.read() as connection:
                return self.rows(connection, parameters)
        return self._store.select(self._text, self._values(parameters))

    def change(self, parameters: dict[str, Any]) -> list[Any]:
        """Run it alone, as one transaction; the rows of its RETURNING."""
        if self._text is None:
            with self._store.write() as connection:
                return self.rows(connection, parameters)
        return self._store.change(self._text, self._values(parameters))

    def _values(self, parameters: dict[str, Any]) -> list[Any]:
        values = self._fixed | parameters if self._fixed else parameters
        return [values[name] for name in self._order]

    def run(self, connection: Connection, *parameters: dict[str, Any]) -> None:
        """Run it once for each; it gives no rows."""
        if self._text is None:
            connection.execute(self._built, list(parameters))
            return
        values = [[each[name] for name in self._order] for each in parameters]
        connection.connection.cursor().executemany(self._text, values)


class Statements(NamedTuple):
    """Parameters are named as the columns, or as written here."""

    exact: Statement
    get: Statement
    entry_at: Statement
    few_at: Statement
    """Parameters seq0 ... seq15."""
    many_at: Statement
    """Parameters seq0 ... seq249."""
    scope: Statement
    """Number, last and floor."""
    puts: Statement
    """Parameters scope (its number), after, limit."""
    drops: Statement
    next_seq: Statement
    """Parameters scope, first."""
    old: Statement
    """Parameters scope (its number), exact, id."""
    insert: Statement
    mark: Statement
    grow: Statement
    shrink: Statement
    served: Statement
    """Parameters entry_id, owner_name, count, now, half_life."""
    next_label: Statement
    """Parameters owner, first."""
    label: Statement
    labels: Statement
    """Parameters owner, after, limit."""
    tally: Statement
    take_lease: Statement
    """Parameters as the columns, and now, longest."""
    valid_leases: Statement
    """Parameters of_scope, now, until."""
    end_lease: Statement
    """Parameters of_scope, of_exact, of_holder."""
    end_leases: Statement
    """Those that have expired. Parameters of_scope, now."""


def read_columns(*, body: bool) -> list[Any]:
    """What `stored.entry_of` (with body) or `stored.outline_of` needs, and before it number and id."""
    columns = tables().entries.c
    between = columns.body if body else columns.body_sum
    return [
        columns.number,
        columns.id,
        columns.seq,
        columns.head,
        between,
        columns.vector_sum,
        columns.checksum,
        columns.seal,
    ]


def build(store: SqlStore) -> Statements:
    """For a store's dialect."""
    import sqlalchemy as sa

    t = tables()
    e, s, bind = t.entries.c, t.scopes.c, sa.bindparam
    of_scope = e.scope == sa.select(s.number).where(s.scope == bind("scope")).scalar_subquery()
    whole = sa.select(*read_columns(body=True))

    def at(count: int) -> Executable:
        return sa.select(*read_columns(body=False)).where(of_scope, e.seq.in_([bind(f"seq{n}") for n in range(count)]))

    def counted(table: Any, key: str) -> Executable:
        insert = store.insert(table).values({key: bind(key), "last": bind("first"), **_floor(table, bind)})
        bumped = insert.on_conflict_do_update(index_elements=[key], set_={"last": table.c.last + 1})
        return bumped.returning(*[column for column in table.c if column.name in {"number", "last"}])

    built: dict[str, Any] = {
        "exact": whole.where(of_scope, e.exact == bind("exact")),
        "get": whole.where(e.id == bind("id")),
        "entry_at": whole.where(of_scope, e.seq == bind("seq")),
        "few_at": at(FEW),
        "many_at": at(MANY),
        "scope": sa.select(s.number, s.last, s.floor).where(s.scope == bind("scope")),
        "puts": sa.select(e.number, e.id, e.seq, e.vector, e.embedder, e.created_at, e.vector_sum)
        .where(e.scope == bind("scope"), e.seq > bind("after"))
        .order_by(e.seq)
        .limit(bind("limit")),
        "drops": sa.select(t.drops.c.seq, t.drops.c.dropped)
        .where(t.drops.c.scope == bind("scope"), t.drops.c.seq > bind("after"))
        .order_by(t.drops.c.seq)
        .limit(bind("limit")),
        "next_seq": counted(t.scopes, "scope"),
        "old": sa.select(*victim_columns(), e.hits, e.used_at).where(
            sa.or_(sa.and_(e.scope == bind("scope"), e.exact == bind("exact")), e.id == bind("id"))
        ),
        "insert": _insert(t.entries, except_for="number").returning(e.number),
        "mark": _insert(t.marks),
        "grow": _upsert(store, t.sizes, ("owner", "tenant")),
        "shrink": t.sizes.update()
        .where(t.sizes.c.owner == bind("of_owner"), t.sizes.c.tenant == bind("of_tenant"))
        .values(entries=t.sizes.c.entries - bind("less"), bytes=t.sizes.c.bytes - bind("less_bytes")),
        "served": t.entries.update()
        .where(e.id == bind("entry_id"), e.owner == bind("owner_name"))
        .values(
            hits=e.hits + bind("count"),
            worth=e.worth + (bind("now", type_=sa.Float) - e.used_at) / bind("half_life", type_=sa.Float),
            used_at=bind("now", type_=sa.Float),
        ),
        "next_label": counted(t.learned, "owner"),
        "label": _insert(t.labels),
        "labels": sa.select(*[t.labels.c[name] for name in ("number", "features", "correct", "source", "at")])
        .where(t.labels.c.owner == bind("owner"), t.labels.c.number > bind("after"))
        .order_by(t.labels.c.number.desc())
        .limit(bind("limit")),
        "tally": _upsert(store, t.tallies, ("owner", "tenant", "kind")),
        "take_lease": _take_lease(store),
    } | _lease_statements()
    return Statements(**{name: Statement(each, store) for name, each in built.items()})


def victim_columns() -> list[Any]:
    """What is needed of an entry to take it out, and to remember it."""
    e = tables().entries.c
    return [e.number, e.id, e.scope, e.seq, e.owner, e.tenant, e.bytes, e.question, e.head]


def _floor(table: Any, bind: Any) -> dict[str, Any]:
    return {"floor": bind("first") - 1} if "floor" in table.c else {}


def _insert(table: Any, *, except_for: str = "") -> Any:
    import sqlalchemy as sa

    return table.insert().values({c.name: sa.bindparam(c.name) for c in table.c if c.name != except_for})


def _upsert(store: SqlStore, table: Any, keys: tuple[str, ...]) -> Executable:
    """Insert numbers, or add them to those that are there."""
    import sqlalchemy as sa

    insert = store.insert(table).values({c.name: sa.bindparam(c.name) for c in table.c})
    added = {c.name: c + insert.excluded[c.name] for c in table.c if c.name not in keys}
    return insert.on_conflict_do_update(index_elements=list(keys), set_=added)


def _lease_statements() -> dict[str, Any]:
    import sqlalchemy as sa

    leases, bind = tables().leases, sa.bindparam
    told = [leases.c[name] for name in ("scope", "exact", "holder", "question", "vector", "expires_at", "tenant")]
    of_scope, now = leases.c.scope == bind("of_scope"), bind("now", type_=sa.Float)
    is_valid = sa.and_(leases.c.expires_at > now, leases.c.expires_at <= bind("until", type_=sa.Float))
    mine = sa.and_(leases.c.exact == bind("of_exact"), leases.c.holder == bind("of_holder"))
    return {
        "valid_leases": sa.select(*told).where(of_scope, is_valid).order_by(leases.c.exact),
        "end_lease": leases.delete().where(of_scope, mine),
        "end_leases": leases.delete().where(of_scope, leases.c.expires_at <= now),
    }


def _take_lease(store: SqlStore) -> Executable:
    """Nothing happens where somebody else holds a valid one."""
    import sqlalchemy as sa

    leases, now = tables().leases, sa.bindparam("now", type_=sa.Float)
    insert = store.insert(leases).values({c.name: sa.bindparam(c.name) for c in leases.c})
    free = sa.or_(
        leases.c.holder == insert.excluded.holder,
        leases.c.expires_at <= now,
        leases.c.expires_at > now + sa.bindparam("longest", type_=sa.Float),
    )
    taken = insert.on_conflict_do_update(
        index_elements=["scope", "exact"],
        set_={c.name: insert.excluded[c.name] for c in leases.c if c.name not in {"scope", "exact"}},
        where=free,
    )
    return taken.returning(leases.c.holder)
