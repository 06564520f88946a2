"""The questions handed to people, kept until somebody answers them."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from chainops.core.events import Event
from chainops.stores.sql import Schema, SqlStore

if TYPE_CHECKING:
    from sqlalchemy import Table


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewAsked(Event):
    """A question was handed to people."""

    review_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Waiting:
    """A question that waits for a person."""

    id: str
    chain: str
    question: dict[str, Any]
    """What was asked, as the chain got it."""
    reason: str
    user: str | None
    tenant: str | None
    asked_at: float
    """Seconds since 1970, UTC."""


class Reviews:
    """The questions that wait, in one store.

    Raises:
        StoreTooNew: A newer chainops keeps its reviews here.
    """

    def __init__(self, store: SqlStore) -> None:
        store.migrate(_schema())
        self._store, self._table = store, _table()

    def ask(
        self, chain: str, question: dict[str, Any], *, reason: str, user: str | None, tenant: str | None, at: float
    ) -> str:
        """Keep a question for people. Gives its id; when this returns, it will not be lost."""
        name = uuid.uuid4().hex
        row = {
            "id": name,
            "chain": chain,
            "question": json.dumps(question, ensure_ascii=True, default=str),
            "reason": reason.replace("\0", "\ufffd"),
            "user": user,
            "tenant": tenant,
            "asked_at": at,
        }
        with self._store.write() as connection:
            connection.execute(self._table.insert(), row)
        return name

    def waiting(self, chain: str | None = None, *, limit: int = 100) -> list[Waiting]:
        """The questions that wait, the oldest first.

        Args:
            chain: Of this chain alone; None for all that share the store.
        """
        import sqlalchemy as sa

        asked = sa.select(self._table).order_by(self._table.c.asked_at, self._table.c.id).limit(limit)
        if chain is not None:
            asked = asked.where(self._table.c.chain == chain)
        with self._store.read() as connection:
            rows = connection.execute(asked).all()
        return [
            Waiting(row.id, row.chain, json.loads(row.question), row.reason, row.user, row.tenant, row.asked_at)
            for row in rows
        ]


@cache
def _table() -> Table:
    import sqlalchemy as sa

    return sa.Table(
        "review_questions",
        sa.MetaData(),
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("chain", sa.String, nullable=False, index=True),
        sa.Column("question", sa.Text, nullable=False, comment="JSON"),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("user", sa.String),
        sa.Column("tenant", sa.String),
        sa.Column("asked_at", sa.Float, nullable=False, comment="seconds since 1970, UTC"),
    )


@cache
def _schema() -> Schema:
    return Schema("review", _table().metadata)
