"""What was said in each conversation, kept per tenant, user and session."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from chainops.core.errors import InvalidInput
from chainops.stores.sql import Schema, SqlStore

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Table

_LONGEST_NAME = 200
"""Characters. PostgreSQL indexes at most 2,704 bytes, and the index holds three names of up to 4 bytes a character."""


_UNSTORABLE = re.compile("[\\0\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class SessionKey:
    """Whose conversation, and which. Two keys share nothing unless all three names are equal, letter by letter.

    Args:
        tenant: "" where there is only one.
        user: "" for someone unnamed.
        session: The conversation.

    Raises:
        InvalidInput: A name is longer than 200 characters, or holds a NUL or half a surrogate pair, which databases
            cannot keep apart.
    """

    tenant: str
    user: str
    session: str

    def __post_init__(self) -> None:
        for what, name in (("tenant", self.tenant), ("user", self.user), ("session", self.session)):
            if len(name) > _LONGEST_NAME:
                raise InvalidInput(what, f"{len(name)} characters", f"at most {_LONGEST_NAME}")
            if _storable(name) != name:
                raise InvalidInput(what, repr(name), "text without NUL and lone surrogates")


@dataclass(frozen=True, slots=True)
class Turn:
    """One thing said, and by whom: `role` is a message role such as "user" or "assistant"."""

    role: str
    text: str


class Sessions:
    """The conversations in one store.

    Raises:
        StoreTooNew: A newer chainops keeps its conversations here.
    """

    def __init__(self, store: SqlStore) -> None:
        import sqlalchemy as sa

        store.migrate(_schema())
        self._store = store
        self._sessions, self._turns = _tables()
        turns = self._turns.c
        # Built once: building a statement takes longer than running it.
        self._lengthen = store.insert(self._sessions).on_conflict_do_update(
            index_elements=["tenant", "user", "session"],
            set_={
                "turns": self._sessions.c.turns + sa.bindparam("added"),
                "updated_at": sa.bindparam("now"),
            },
        )
        self._length = sa.select(self._sessions.c.turns).where(*_is_session(self._sessions))
        self._window = (
            sa.select(turns.role, turns.text)
            .where(*_is_session(self._turns))
            .order_by(turns.position.desc())
            .limit(sa.bindparam("at_most"))
        )

    def append(self, key: SessionKey, turns: Sequence[Turn], *, at: float) -> None:
        """Add turns to the end of a conversation: all or none, and with no others between them.

        Characters that no database can hold (NUL, half of a surrogate pair) are kept as U+FFFD.

        Args:
            key: Created by its first turns.
            turns: In the order they were said.
            at: Seconds since 1970, UTC.
        """
        if not turns:
            return
        names = _names(key)
        added = len(turns)
        with self._store.write() as connection:
            # The session's row is the lock: whoever lengthens it owns the new positions until commit.
            connection.execute(self._lengthen, {**names, "turns": added, "added": added, "updated_at": at, "now": at})
            start = connection.execute(self._length, _sought(key)).scalar_one() - added
            rows = [
                {**names, "position": start + n, "role": _storable(turn.role), "text": _storable(turn.text), "at": at}
                for n, turn in enumerate(turns)
            ]
            connection.execute(self._turns.insert(), rows)

    def window(self, key: SessionKey, turns: int) -> list[Turn]:
        """The last `turns` turns of a conversation, oldest first; fewer if there are not so many."""
        if turns < 0:
            raise InvalidInput("window", str(turns), "0 or more turns")
        if turns == 0:
            return []
        with self._store.read() as connection:
            rows = connection.execute(self._window, {**_sought(key), "at_most": turns}).all()
        return [Turn(role, text) for role, text in reversed(rows)]

    def clear(self, key: SessionKey) -> int:
        """Delete one conversation. Returns how many turns it had."""
        with self._store.write() as connection:
            # The session's row goes first, so that an append at this moment waits and then starts anew.
            connection.execute(self._sessions.delete().where(*_is_session(self._sessions)), _sought(key))
            return connection.execute(self._turns.delete().where(*_is_session(self._turns)), _sought(key)).rowcount

    def forget(self, tenant: str, user: str) -> int:
        """Delete all conversations of one user of one tenant. Returns how many turns they had.

        Afterwards the words are in no file of the store: `SqlStore.scrub()` says what that takes.
        """
        with self._store.write() as connection:
            for table in (self._sessions, self._turns):
                whose = (table.c.tenant == tenant, table.c.user == user)
                deleted = connection.execute(table.delete().where(*whose)).rowcount
        self._store.scrub()
        return deleted


def _names(key: SessionKey) -> dict[str, str]:
    return {"tenant": key.tenant, "user": key.user, "session": key.session}


def _sought(key: SessionKey) -> dict[str, str]:
    return {"of_tenant": key.tenant, "of_user": key.user, "of_session": key.session}


def _is_session(table: Table) -> tuple[ColumnElement[bool], ...]:
    from sqlalchemy import bindparam

    return (
        table.c.tenant == bindparam("of_tenant"),
        table.c.user == bindparam("of_user"),
        table.c.session == bindparam("of_session"),
    )


def _storable(text: str) -> str:
    return _UNSTORABLE.sub("\ufffd", text)


@cache
def _tables() -> tuple[Table, Table]:
    import sqlalchemy as sa

    tables = sa.MetaData()

    def key() -> list[sa.Column[str]]:
        return [sa.Column(name, sa.String, primary_key=True) for name in ("tenant", "user", "session")]

    sessions = sa.Table(
        "memory_sessions",
        tables,
        *key(),
        sa.Column("turns", sa.Integer, nullable=False, comment="how many were ever added: the next one's position"),
        sa.Column("updated_at", sa.Float, nullable=False, comment="seconds since 1970, UTC"),
    )
    turns = sa.Table(
        "memory_turns",
        tables,
        *key(),
        sa.Column("position", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("role", sa.String, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("at", sa.Float, nullable=False, comment="seconds since 1970, UTC"),
    )
    return sessions, turns


@cache
def _schema() -> Schema:
    sessions, _ = _tables()
    return Schema("memory", sessions.metadata)
