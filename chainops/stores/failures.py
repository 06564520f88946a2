"""Turn what database drivers say into the three store errors, naming the place and the next move."""

from __future__ import annotations

import sqlite3
from typing import Any

from chainops.core.errors import StoreCorrupted, StoreError, StoreUnavailable

SPACE = "free some space, or set CHAINOPS_HOME to a disk that has some, and repeat the request"
WRITABLE = "make it writable for this user, or set CHAINOPS_HOME to a folder that is"
RESTORE = "restore it from a backup, or move it away to start with an empty store"

# Primary result codes of SQLite (https://sqlite.org/rescode.html) -> (error, problem, next move).
_SQLITE: dict[int, tuple[type[StoreError], str, str]] = {
    3: (StoreUnavailable, "access is not permitted", WRITABLE),
    5: (StoreUnavailable, "locked by another process", "repeat the request, or end the process that holds the lock"),
    6: (StoreUnavailable, "locked by another connection", "repeat the request"),
    8: (StoreUnavailable, "the file or its folder is read-only", WRITABLE),
    10: (StoreUnavailable, "the disk failed to read or write, or a size limit is reached", SPACE),
    11: (StoreCorrupted, "the database is damaged", RESTORE),
    13: (StoreUnavailable, "the disk is full", SPACE),
    14: (StoreUnavailable, "the file cannot be opened or created", WRITABLE),
    24: (StoreCorrupted, "not a database of a known format", RESTORE),
    26: (StoreCorrupted, "the file is not a database", RESTORE),
}
_SQLITE_READONLY = 8  # exactly this, without an extended code, is also what `PRAGMA query_only` answers

# SQLSTATE classes and codes of PostgreSQL (its manual, appendix A), the longest match wins.
_POSTGRES: dict[str, tuple[type[StoreError], str, str]] = {
    "08": (StoreUnavailable, "the connection failed", "repeat the request, or check that the server is up"),
    "28": (StoreUnavailable, "the server refused the login", "check user, password and pg_hba.conf"),
    "3D000": (StoreUnavailable, "the database does not exist", "create it (createdb), or correct the URL"),
    "40": (StoreUnavailable, "two transactions stood in each other's way", "repeat the request"),
    "42501": (StoreUnavailable, "the user lacks a privilege", "grant it, or connect as another user"),
    "53": (StoreUnavailable, "the server is out of memory, connections or disk", "free some, and repeat the request"),
    "55P03": (StoreUnavailable, "locked by another transaction", "repeat the request"),
    "57": (StoreUnavailable, "the server is shutting down or ended the query", "repeat the request"),
    "58": (StoreUnavailable, "the server's disk failed", "see the server's log"),
    "25006": (StoreUnavailable, "the server only reads", "connect to the primary"),
    "XX001": (StoreCorrupted, "the database is damaged", "restore the server from a backup"),
    "XX002": (StoreCorrupted, "an index is damaged", "REINDEX it, or restore the server from a backup"),
}


def driver_errors() -> tuple[type[Exception], ...]:
    """What to catch around statements: SQLAlchemy's errors, and SQLite's own where SQLAlchemy does not wrap them."""
    from sqlalchemy.exc import SQLAlchemyError

    return SQLAlchemyError, sqlite3.Error


def store_error(error: BaseException, *, place: str, reading: bool) -> StoreError | None:
    """The store error that a driver's error means, or None for one that is the caller's own (a bug, a broken key).

    Args:
        error: As raised by sqlite3, psycopg or SQLAlchemy.
        place: The file, or the server's address without user and password.
        reading: Whether it came from a transaction that may only read.
    """
    from sqlalchemy.exc import DBAPIError, OperationalError
    from sqlalchemy.exc import TimeoutError as PoolTimeout

    if isinstance(error, PoolTimeout):
        return StoreUnavailable(place, "all connections are in use", "repeat the request, or send fewer at once")
    driver: Any = error.orig if isinstance(error, DBAPIError) else error
    if isinstance(driver, sqlite3.Error):
        return _sqlite_error(driver, place, reading=reading)
    state: str | None = getattr(driver, "sqlstate", None)
    if state is None:
        # psycopg gives no SQLSTATE when there was no server to give one.
        if not isinstance(error, OperationalError):
            return None
        return StoreUnavailable(place, _first_line(driver), "check that the server is up and the URL is right")
    if reading and state == "25006":
        return _wrote_while_reading(place)
    return _named(_POSTGRES, (state, state[:2]), place, driver)


def _sqlite_error(error: sqlite3.Error, place: str, *, reading: bool) -> StoreError | None:
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        return None
    if reading and code == _SQLITE_READONLY:
        return _wrote_while_reading(place)
    return _named(_SQLITE, (code & 0xFF,), place, error)


def _named(
    table: dict[Any, tuple[type[StoreError], str, str]], codes: tuple[Any, ...], place: str, driver: BaseException
) -> StoreError | None:
    for code in codes:
        if code in table:
            kind, problem, next_move = table[code]
            return kind(place, f"{problem} ({_first_line(driver)})", next_move)
    return None


def _wrote_while_reading(place: str) -> StoreError:
    return StoreError(place, "a statement inside read() tried to write", "use write() for it")


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
