"""Open SQLite and PostgreSQL the same way everywhere: two engines per store, one that reads and one that writes."""

from __future__ import annotations

import os
import sqlite3
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chainops.core.errors import InvalidInput, StoreUnavailable
from chainops.stores.failures import WRITABLE

if TYPE_CHECKING:
    from sqlalchemy import URL, Connection, Engine

_POOL_SIZE = 4
_POSTGRES_OVERFLOW = 12
_CONNECT_TIMEOUT_S = 5
_EXPECTED = "sqlite:///path/to/file.db, a path, or postgresql://user:password@host/database"


def parse(url: str | Path) -> URL:
    """A URL with an absolute file, or with the PostgreSQL driver we use.

    Raises:
        InvalidInput: Anything else. The message never shows the URL, which may hold a password.
    """
    import sqlalchemy as sa

    if isinstance(url, Path):
        return sa.URL.create("sqlite", database=str(url.expanduser().resolve()))
    try:
        parsed = sa.make_url(url)
    except (sa.exc.ArgumentError, ValueError):
        raise InvalidInput("store URL", "something that is no URL", _EXPECTED) from None
    if parsed.drivername in {"sqlite", "sqlite+pysqlite"}:
        if not parsed.database or parsed.database == ":memory:" or parsed.database.startswith("file:"):
            raise InvalidInput("store URL", "SQLite without a file", _EXPECTED)
        return sa.URL.create("sqlite", database=str(Path(parsed.database).expanduser().resolve()))
    if parsed.drivername in {"postgresql", "postgres", "postgresql+psycopg"}:
        return parsed.set(drivername="postgresql+psycopg")
    raise InvalidInput("store URL", f"{parsed.drivername}://", _EXPECTED)


def place(url: URL) -> str:
    """The file, or the server and database, without user and password."""
    if url.get_backend_name() == "sqlite":
        return str(url.database)
    asked = url.query.get("host")
    host = url.host or (asked if isinstance(asked, str) else None) or "localhost"
    port = f":{url.port}" if url.port else ""
    return f"postgresql://{host}{port}/{url.database or ''}"


def sqlite(file: WatchedFile, *, wait_s: float, writes: bool) -> Engine:
    """An engine on one SQLite file, for transactions that write or for those that may not. It does not connect yet."""
    import sqlalchemy as sa

    return sa.create_engine(
        "sqlite://",
        creator=lambda: _open_sqlite(file, wait_s, writes=writes),
        poolclass=sa.QueuePool,
        pool_size=_POOL_SIZE,
        max_overflow=-1,  # a connection is a file handle: more readers than expected must not wait for each other
        hide_parameters=True,  # they are users' questions and answers
    )


def begin_sqlite(connection: Connection, *, writes: bool) -> None:
    """Open the transaction that SQLAlchemy will end.

    The driver's own BEGIN is off: it would come late, without IMMEDIATE, and never before a SELECT or DDL.
    SQLAlchemy's `begin` event would do, but any engine event makes every statement half as slow again.
    """
    connection.connection.cursor().execute("BEGIN IMMEDIATE" if writes else "BEGIN")


def _open_sqlite(file: WatchedFile, wait_s: float, *, writes: bool) -> sqlite3.Connection:
    path = file.path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreUnavailable(str(path), f"its folder cannot be made ({error.strerror})", WRITABLE) from error
    connection = sqlite3.connect(
        path, timeout=wait_s, isolation_level=None, check_same_thread=False, cached_statements=256
    )
    try:
        _write_ahead(connection, wait_s)
        # A commit reaches the operating system before it is acknowledged, so a killed process loses none;
        # FULL would add an fsync to each, and only a power cut could tell the difference.
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute("PRAGMA secure_delete=ON")  # forgetting a user means overwriting what they said
        connection.execute("PRAGMA journal_size_limit=67108864")  # give a burst's log back to the disk
        if not writes:
            connection.execute("PRAGMA query_only=ON")
        file.refuse_if_replaced()
    except BaseException:
        connection.close()
        raise
    return connection


def _write_ahead(connection: sqlite3.Connection, wait_s: float) -> None:
    """Switch to the write-ahead log. SQLite does not wait for a lock here, so two first starts need a retry."""
    deadline = time.monotonic() + wait_s
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.005)
        else:
            return


def postgresql(url: URL, *, wait_s: float) -> tuple[Engine, Engine]:
    """A reading and a writing engine over one pool. They do not connect yet."""
    import sqlalchemy as sa

    writer = sa.create_engine(
        url,
        connect_args={"connect_timeout": _CONNECT_TIMEOUT_S, "application_name": "chainops"},
        pool_size=_POOL_SIZE,
        max_overflow=_POSTGRES_OVERFLOW,
        pool_timeout=wait_s,
        pool_pre_ping=True,  # servers restart, networks drop idle connections: a round trip is cheaper than a failure
        hide_parameters=True,
    )

    @sa.event.listens_for(writer, "connect")
    def limit_waiting(connection: Any, _record: object) -> None:
        connection.autocommit = True
        connection.execute(f"SET lock_timeout = {int(wait_s * 1000)}")
        connection.autocommit = False

    reader = writer.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
    return reader, writer


class WatchedFile:
    """Notices that a database file was deleted or replaced while open: writes would go to a file nobody sees."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen: tuple[int, int] | None = None

    def forget(self) -> None:
        """Accept whichever file is there next."""
        self._seen = None

    def refuse_if_replaced(self) -> None:
        """Compare with the file that was there at the first call.

        Raises:
            StoreUnavailable: The path now leads to another file, or to none.
        """
        try:
            found = os.stat(self.path)  # noqa: PTH116  # half the time of Path.stat(), at every write
        except FileNotFoundError:
            now = None
        else:
            now = (found.st_dev, found.st_ino)
        if self._seen is None:
            self._seen = now
        if now is None or now != self._seen:
            raise StoreUnavailable(
                str(self.path), "the file was deleted or replaced while in use", "restart the process"
            )
