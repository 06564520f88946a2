"""The tables of knowledge, for SQLite and PostgreSQL alike."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlalchemy import Table

    from chainops.stores.schema import Schema


@cache
def tables() -> tuple[Schema, Table, Table, Table]:
    """Bases, documents and passages, and the schema that makes them."""
    import sqlalchemy as sa

    from chainops.stores.schema import Schema

    metadata = sa.MetaData()
    bases = sa.Table(
        "knowledge_bases",
        metadata,
        sa.Column("key", sa.String(120), primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("generation", sa.BigInteger, nullable=False),
        sa.Column("version", sa.String(64), nullable=False),
        sa.Index("knowledge_bases_name", "name"),
    )
    documents = sa.Table(
        "knowledge_documents",
        metadata,
        sa.Column("base", sa.String(120), primary_key=True),
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("generation", sa.BigInteger, nullable=False),
        sa.Column("title", sa.Text, nullable=False),
        sa.Column("media_type", sa.Text, nullable=False),
        sa.Column("metadata", sa.Text, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
    )
    passages = sa.Table(
        "knowledge_passages",
        metadata,
        sa.Column("base", sa.String(120), primary_key=True),
        sa.Column("document", sa.Text, primary_key=True),
        sa.Column("position", sa.Integer, primary_key=True),
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("start_at", sa.Integer, nullable=False),
        sa.Column("end_at", sa.Integer, nullable=False),
        sa.Column("headings", sa.Text, nullable=False),
        sa.Column("terms", sa.Text, nullable=False),
        sa.Column("vector", sa.LargeBinary, nullable=False),
    )
    return Schema("knowledge", metadata), bases, documents, passages
