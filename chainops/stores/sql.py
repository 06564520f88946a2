"""What must not be lost, in SQLite beside the chain or in PostgreSQL by URL."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from chainops.core.errors import InvalidInput, StoreError, StoreUnavailable
from chainops.core.extras import require
from chainops.core.settings import home
from chainops.stores import engines, fork, schema
from chainops.stores.failures import driver_errors, store_error
from chainops.stores.schema import Schema

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine, Table
    from sqlalchemy.dialects.postgresql import Insert

__all__ = ["NestedWrite", "Schema", "SqlStore", "open_store"]

_SINGLE_HELD = 4  # connections that `select`, and `change`, keep open


class NestedWrite(StoreError):
    """A thread asked for a second write transaction while its first was open: it would wait for itself."""

    def __init__(self, place: str) -> None:
        super().__init__(place, "this thread already has a write open", "pass that connection on instead")


class SqlStore:
    """Transactions on one database, for many threads and processes.

    On SQLite, writers wait for each other and readers for nobody. What `write()` has returned from survives
    `kill -9`; a power cut may take the last commits but not corrupt the file (WAL with `synchronous=NORMAL`).

    A forked child opens its own connections. If the parent had one in use at the moment of the fork, SQLite
    cannot be used safely in that child, and using it there raises `StoreUnavailable`.

    Args:
        url: `sqlite:///relative.db`, `sqlite:////absolute.db`, a path, or `postgresql://user:password@host/database`
            (psycopg 3, extra `postgres`). Nothing is opened or created until first used.
        wait_s: How long a lock is waited for, in seconds, before `StoreUnavailable`.

    Raises:
        InvalidInput: The URL is not one of those.
        MissingExtra: The URL is PostgreSQL's and psycopg is not installed.
    """

    def __init__(self, url: str | Path, *, wait_s: float = 10.0) -> None:
        self._url = engines.parse(url)
        self.wait_s = wait_s
        self.place = engines.place(self._url)
        """The file, or the server's address without user and password: for messages."""
        self.dialect = self._url.get_backend_name()
        """`sqlite` or `postgresql`."""
        self._file: engines.WatchedFile | None = None
        if self.dialect == "postgresql":
            require("psycopg", extra="postgres")
            self._reader, self._writer = engines.postgresql(self._url, wait_s=wait_s)
        else:
            self._file = engines.WatchedFile(Path(self.place))
            self._reader = engines.sqlite(self._file, wait_s=wait_s, writes=False)
            self._writer = engines.sqlite(self._file, wait_s=wait_s, writes=True)
        self._failures = driver_errors()
        self._up_to_date: dict[str, int] = {}
        self.reset_after_fork(usable=True)
        fork.watch(self)

    def __repr__(self) -> str:
        return f"SqlStore({self._url.render_as_string(hide_password=True)!r})"

    @property
    def url(self) -> str:
        """The whole URL, with its password: for opening the same store elsewhere, never for showing."""
        return self._url.render_as_string(hide_password=False)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that sees one state of the store, and cannot change it.

        Statements are quickest when built once, with `bindparam`, and reused.

        Raises:
            StoreUnavailable: No server, no such file and no right to create it, or locked for `wait_s`.
            StoreCorrupted: The file is no database, or damaged.
            StoreError: A statement tried to write.
        """
        self._check_usable()
        try:
            with self._reader.connect() as connection:  # closing it ends the transaction; there is nothing to commit
                if self._file is not None:
                    engines.begin_sqlite(connection, writes=False)
                yield connection
        except self._failures as error:
            self._translate(error, reading=True)

    def select(self, text: str, values: Sequence[Any]) -> list[Any]:
        """The rows of one SELECT, on SQLite alone, straight from its driver: values are bound and read as they are.

        A statement by itself is a transaction, so nothing has to be begun or ended. That, and SQLAlchemy's share, take
        ten times as long as the statement where the processor's caches are cold.

        Raises:
            StoreError: As for `read`.
        """
        self._check_usable()
        try:
            return self._selecting.rows(text, values)
        except self._failures as error:
            self._translate(error, reading=True)

    def change(self, text: str, values: Sequence[Any]) -> list[Any]:
        """As `select`, for one INSERT, UPDATE or DELETE, which is committed; the rows of its RETURNING.

        Raises:
            StoreError: As for `write`.
        """
        self._check_usable()
        if getattr(self._thread, "writes", False):
            raise NestedWrite(self.place)
        try:
            with self._turn():
                if self._file is not None:
                    self._file.refuse_if_replaced()
                return self._changing.rows(text, values)
        except self._failures as error:
            self._translate(error, reading=False)

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that is committed when the block ends, and undone when it raises.

        On SQLite it holds the write lock from the start, so what it reads cannot change under it. On PostgreSQL it
        is READ COMMITTED: lock the rows you decide by (`with_for_update()`), or decide in one statement.

        Raises:
            StoreUnavailable: As for `read`, or the disk is full or read-only. Nothing was kept, except that a
                connection lost during PostgreSQL's own commit leaves the outcome unknown.
            StoreCorrupted: The file is no database, or damaged.
            NestedWrite: This thread has a write open already.
        """
        self._check_usable()
        if getattr(self._thread, "writes", False):
            raise NestedWrite(self.place)
        self._thread.writes = True
        try:
            with self._turn(), self._writer.begin() as connection:
                if self._file is not None:
                    engines.begin_sqlite(connection, writes=True)
                    self._file.refuse_if_replaced()
                yield connection
        except self._failures as error:
            self._translate(error, reading=False)
        finally:
            self._thread.writes = False

    def migrate(self, wanted: Schema) -> None:
        """Create a room's tables, or upgrade them, in one transaction; instant when they are up to date.

        Safe when many processes start at once. Call it before a room first uses its tables.

        Raises:
            StoreTooNew: The tables were written by a newer chainops.
        """
        if self._up_to_date.get(wanted.room) == wanted.version:
            return
        with self.read() as connection:
            found = schema.found_version(connection, wanted.room)
        schema.refuse_newer(found, wanted, place=self.place)
        if found != wanted.version:
            with self.write() as connection:
                schema.bring_up_to_date(connection, wanted, place=self.place)
        self._up_to_date[wanted.room] = wanted.version

    def insert(self, table: Table) -> Insert:
        """An INSERT of this store's own dialect: it has `on_conflict_do_update` and `on_conflict_do_nothing`."""
        if self.dialect == "postgresql":
            from sqlalchemy.dialects import postgresql

            return postgresql.insert(table)
        from sqlalchemy.dialects import sqlite

        # The two classes share these methods and their meaning, but no base that declares them.
        return sqlite.insert(table)  # type: ignore[return-value]

    def scrub(self) -> None:
        """Make what was deleted unreadable in the SQLite file too, by emptying its write-ahead log into it.

        Deleted rows are overwritten when they are deleted (`secure_delete`), but older copies stay in the log until
        it is emptied. Nothing to do on PostgreSQL, where it is VACUUM's business.

        Raises:
            StoreUnavailable: A reader of an older state kept the log from being emptied for `wait_s`.
        """
        if self.dialect != "sqlite":
            return
        try:
            with self._turn(), self._writer.connect() as connection:
                cursor = connection.connection.cursor()
                cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                (busy, *_) = cursor.fetchone() or (0,)
        except self._failures as error:
            self._translate(error, reading=False)
        if busy:
            raise StoreUnavailable(
                self.place, "its log is being read", "call scrub() again when other readers are done"
            )

    def close(self) -> None:
        """Close all idle connections. The store opens new ones if it is used again."""
        self.close_idle()
        self._up_to_date.clear()
        if self._file is not None:
            self._file.forget()

    def connections_in_use(self) -> int:
        """How many connections are inside `read()`, `select()` or `write()` now."""
        pools = (self._reader.pool, self._writer.pool)
        pooled = sum(pool.checkedout() for pool in pools)  # type: ignore[attr-defined]  # both are QueuePools
        return int(pooled) + len(self._selecting.lent) + len(self._changing.lent)

    def close_idle(self) -> None:
        """Close the connections nobody uses; for `fork`, which must find none open."""
        self._selecting.close_idle()
        self._changing.close_idle()
        self._reader.dispose()
        self._writer.dispose()

    def reset_after_fork(self, *, usable: bool) -> None:
        """Start with fresh locks and no connections, in a forked child (and at first)."""
        self._usable = usable or self.dialect != "sqlite"
        self._writers = threading.Lock()
        self._thread = threading.local()
        _left_open.extend(getattr(self, name) for name in ("_selecting", "_changing") if hasattr(self, name))
        self._selecting, self._changing = _Single(self._reader), _Single(self._writer)
        self._reader.dispose(close=False)
        self._writer.dispose(close=False)

    def _check_usable(self) -> None:
        fork.wait_while_forking()
        if not self._usable:
            raise StoreUnavailable(
                self.place,
                "this process was forked while its parent was using the store",
                "start workers with the 'spawn' or 'forkserver' method, or fork before the store is used",
            )

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Queue up inside this process: SQLite's own waiting is polling, slower and unfair."""
        if self.dialect != "sqlite":
            yield
            return
        writers = self._writers
        if not writers.acquire(timeout=self.wait_s):
            raise StoreUnavailable(
                self.place, f"another thread has been writing for {self.wait_s:g} s", "repeat the request"
            )
        try:
            yield
        finally:
            writers.release()

    def _translate(self, error: BaseException, *, reading: bool) -> NoReturn:
        if (ours := store_error(error, place=self.place, reading=reading)) is None:
            raise error
        raise ours from error


class _Single:
    """Driver connections for single statements, without a pool's bookkeeping. Thread-safe: its lists are."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._idle: list[Any] = []
        self.lent: list[Any] = []
        """Those in use; None for one that is about to be. A fork at any moment finds each open one here or idle."""

    def rows(self, text: str, values: Sequence[Any]) -> list[Any]:
        connection = self._take()
        try:
            found: list[Any] = connection.execute(text, values).fetchall()
            if len(self._idle) < _SINGLE_HELD:
                self._idle.append(connection)
            else:
                connection.close()
        except BaseException:
            connection.close()
            raise
        finally:
            self.lent.remove(connection)
        return found

    def _take(self) -> Any:
        self.lent.append(None)
        try:
            try:
                connection = self._idle.pop()
            except IndexError:
                opened = self._engine.raw_connection()
                opened.detach()  # the pool forgets it
                connection = opened.dbapi_connection
            self.lent.append(connection)
        finally:
            self.lent.remove(None)
        return connection

    def close_idle(self) -> None:
        with suppress(IndexError):  # another thread may take the last one
            while self._idle:
                self._idle.pop().close()


_left_open: list[_Single] = []
"""In a forked child: connections of its parent's that were in use. Closing them here would harm the parent's."""
_opened: dict[str, SqlStore] = {}
_opening = threading.Lock()


def open_store(url_or_home: str | Path | None = None) -> SqlStore:
    """The store at a URL or in a folder; the same object for the same place, within this process.

    Args:
        url_or_home: A URL (anything with `://`), a `.db` file, or a folder to hold `chainops.db`. None means the
            folder `chainops.core.settings.home()` names.

    Raises:
        InvalidInput: A URL that is neither SQLite's nor PostgreSQL's.
        MissingExtra: A PostgreSQL URL without psycopg.
    """
    place = home() if url_or_home is None else url_or_home
    if not (isinstance(place, str) and "://" in place):
        if not str(place):
            raise InvalidInput("store", "''", "a URL, a folder, or a .db file")
        path = Path(place).expanduser().resolve()
        place = path if path.suffix == ".db" else path / "chainops.db"
    store = SqlStore(place)
    with _opening:
        return _opened.setdefault(store.url, store)
