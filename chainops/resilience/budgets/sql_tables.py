"""The tables of budgets: totals by window, holds of calls under way, and all settled calls."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from chainops.stores.sql import Schema

if TYPE_CHECKING:
    from sqlalchemy import Column, Table


class Tables(NamedTuple):
    """All tables of the room `budget`."""

    windows: Table
    holds: Table
    calls: Table


@cache
def schema() -> Schema:
    """For `SqlStore.migrate`."""
    return Schema("budget", tables().calls.metadata)


@cache
def tables() -> Tables:
    """Made once, and sqlalchemy imported only then."""
    import sqlalchemy as sa

    metadata = sa.MetaData()

    def number(name: str) -> Column[int]:
        return sa.Column(name, sa.BigInteger, nullable=False)

    def text(name: str, *, nullable: bool = False, **more: Any) -> Column[str]:
        return sa.Column(name, sa.Text, nullable=nullable, **more)

    def call(*, is_key: bool) -> list[Column[Any]]:
        return [
            text("id", primary_key=is_key),
            sa.Column("at", sa.Float(53), nullable=False),
            text("chain"),
            text("user", nullable=True),
            text("tenant", nullable=True),
            text("feature", nullable=True),
            text("model"),
            text("key_name", nullable=True),
            text("purpose"),
            text("outcome"),
            number("input_tokens"),
            number("output_tokens"),
            number("cached_tokens"),
            sa.Column("usd", sa.Float(53)),
            text("request"),
        ]

    return Tables(
        windows=sa.Table(
            "budget_windows",
            metadata,
            text("budget", primary_key=True),
            text("key", primary_key=True),
            text("window", primary_key=True),
            number("nano_usd"),
            number("tokens"),
            number("is_soft_told"),
            sa.Column("ends", sa.Float(53), nullable=False),
        ),
        holds=sa.Table(
            "budget_holds",
            metadata,
            text("hold", primary_key=True),
            *call(is_key=False),
            text("budget"),
            text("key"),
            text("windows"),
            number("nano_usd"),
            number("tokens"),
            sa.Index("budget_holds_by_time", "at"),
        ),
        calls=sa.Table(
            "budget_calls",
            metadata,
            *call(is_key=True),
            text("day", comment="of `at`, in UTC"),
            sa.Index("budget_calls_by_chain", "chain", "at"),
            sa.Index("budget_calls_by_user", "user"),
        ),
    )
