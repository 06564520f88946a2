"""Documents, passages and vectors in SQL: the truth that the indexes in memory are made from.

A knowledge base is kept per name *and* recipe (embedding model, sizes, versions), so that vectors of two
models can never be compared, and a process that still runs with the old settings never reads the new ones.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from chainops.knowledge.documents import Document
from chainops.knowledge.lexical import weigh
from chainops.knowledge.splitting import Passage
from chainops.knowledge.tables import tables

if TYPE_CHECKING:
    import numpy as np
    from sqlalchemy import Connection

    from chainops.stores.sql import SqlStore

_CHUNK = 500
"""Keys per statement; SQLite takes 32,766 parameters, PostgreSQL 65,535."""


@dataclass(frozen=True, slots=True)
class Base:
    """A knowledge base as it is stored now."""

    key: str
    generation: int
    """Grows with every committed change. Unlike `version` it is cheap to compare, and it never comes back."""
    version: str
    """Digest of recipe and documents: equal content, equal version."""


@dataclass(frozen=True, slots=True)
class IndexedDocument:
    """A document with everything derived from it, ready to be stored in one piece."""

    document: Document
    passages: Sequence[Passage]
    vectors: np.ndarray
    """Shape (passages, dimensions), float32, unit rows."""


@dataclass(frozen=True, slots=True)
class StoredPassages:
    """One document's passages as the indexes in memory need them."""

    document_id: str
    digest: str
    generation: int
    passages: list[Passage]
    weights: list[dict[str, float]]
    """Terms and weights of each passage, as `lexical.weigh` gives them."""
    vectors: np.ndarray
    """Shape (passages, dimensions), float32; (0, dimensions) when they were not asked for."""


@dataclass(frozen=True, slots=True)
class Changes:
    """The store as of one moment, as the difference to what is known."""

    base: Base | None
    loaded: list[StoredPassages]
    """New and changed documents, whole."""
    gone: list[str]
    """Ids of documents that are no longer there."""


class Records:
    """The rows of one knowledge base. Every method is one transaction."""

    def __init__(self, store: SqlStore, name: str, recipe: str) -> None:
        self._store, self._name = store, name
        self.key = hashlib.sha256(f"{name}\x1f{recipe}".encode()).hexdigest()[:40]
        self._recipe = recipe
        self._schema, self._bases, self._documents, self._passages = tables()

    def migrate(self) -> None:
        """Create the tables, or bring them up to date."""
        self._store.migrate(self._schema)

    def base(self) -> Base | None:
        """What is stored now; None if this name was never indexed with this recipe."""
        with self._store.read() as connection:
            return self._base(connection)

    def other_recipes(self) -> int:
        """How many other recipes this name is stored with."""
        import sqlalchemy as sa

        with self._store.read() as connection:
            bases = self._bases
            others = sa.select(sa.func.count()).where(bases.c.name == self._name, bases.c.key != self.key)
            return int(connection.execute(others).scalar_one())

    def digests(self) -> dict[str, str]:
        """Document ids and digests."""
        import sqlalchemy as sa

        documents = self._documents
        with self._store.read() as connection:
            rows = connection.execute(sa.select(documents.c.id, documents.c.digest).where(documents.c.base == self.key))
            return {row.id: row.digest for row in rows}

    def replace(self, indexed: Sequence[IndexedDocument], removed: Collection[str] = ()) -> Base:
        """Store documents in place of what was there under their ids, and remove others: all of it or nothing."""
        with self._store.write() as connection:
            generation = self._begin(connection)
            ids = [one.document.id for one in indexed]
            self._delete(connection, [*ids, *removed])
            if indexed:
                connection.execute(self._documents.insert(), [self._document_row(one, generation) for one in indexed])
            if rows := [row for one in indexed for row in self._passage_rows(one)]:
                connection.execute(self._passages.insert(), rows)
            return self._finish(connection, generation)

    def forget_other_recipes(self) -> list[str]:
        """Remove what this name was indexed as before, with other settings; the keys of those."""
        import sqlalchemy as sa

        bases = self._bases
        with self._store.write() as connection:
            wanted = sa.select(bases.c.key).where(bases.c.name == self._name, bases.c.key != self.key)
            others = list(connection.execute(wanted).scalars())
            for table, column in ((self._passages, "base"), (self._documents, "base"), (bases, "key")):
                if others:
                    connection.execute(table.delete().where(table.c[column].in_(others)))
            return others

    def changes(self, known: Mapping[str, int], dimensions: int, *, with_vectors: bool = True) -> Changes:
        """What must happen to indexes that hold `known` (document id to generation) to be as the store is now.

        Args:
            with_vectors: Whether to read the vectors too; without, they come out as shape (0, dimensions).
        """
        import sqlalchemy as sa

        documents = self._documents
        with self._store.read() as connection:
            rows = connection.execute(
                sa.select(documents.c.id, documents.c.generation).where(documents.c.base == self.key)
            )
            now = {row.id: int(row.generation) for row in rows}
            wanted = sorted(name for name, generation in now.items() if known.get(name) != generation)
            loaded: list[StoredPassages] = []
            for at in range(0, len(wanted), _CHUNK):
                some = wanted[at : at + _CHUNK]
                loaded.extend(self._stored(connection, some, dimensions, with_vectors=with_vectors))
            gone = [name for name in known if name not in now]
            return Changes(self._base(connection), loaded, gone)

    def document(self, document_id: str) -> Document | None:
        """A stored document with its text."""
        import sqlalchemy as sa

        documents = self._documents
        with self._store.read() as connection:
            row = connection.execute(
                sa.select(documents).where(documents.c.base == self.key, documents.c.id == document_id)
            ).one_or_none()
        if row is None:
            return None
        return Document(
            id=row.id, title=row.title, text=row.text, media_type=row.media_type, metadata=json.loads(row.metadata)
        )

    def _base(self, connection: Connection) -> Base | None:
        import sqlalchemy as sa

        bases = self._bases
        row = connection.execute(
            sa.select(bases.c.generation, bases.c.version).where(bases.c.key == self.key)
        ).one_or_none()
        return None if row is None else Base(self.key, int(row.generation), str(row.version))

    def _begin(self, connection: Connection) -> int:
        """Take the base's row first: on PostgreSQL that keeps two indexing processes apart."""
        bases = self._bases
        nothing = self._store.insert(bases).values(key=self.key, name=self._name, generation=0, version="")
        connection.execute(nothing.on_conflict_do_nothing())
        bumped = bases.update().where(bases.c.key == self.key).values(generation=bases.c.generation + 1)
        return int(connection.execute(bumped.returning(bases.c.generation)).scalar_one())

    def _finish(self, connection: Connection, generation: int) -> Base:
        import sqlalchemy as sa

        documents, bases = self._documents, self._bases
        rows = connection.execute(sa.select(documents.c.id, documents.c.digest).where(documents.c.base == self.key))
        content = hashlib.sha256(self._recipe.encode())
        for document_id, digest in sorted((row.id, row.digest) for row in rows):
            content.update(f"\x1e{document_id}\x1f{digest}".encode())
        version = content.hexdigest()
        connection.execute(bases.update().where(bases.c.key == self.key).values(version=version))
        return Base(self.key, generation, version)

    def _delete(self, connection: Connection, ids: Sequence[str]) -> None:
        for at in range(0, len(ids), _CHUNK):
            some = ids[at : at + _CHUNK]
            for table, column in ((self._passages, "document"), (self._documents, "id")):
                connection.execute(table.delete().where(table.c.base == self.key, table.c[column].in_(some)))

    def _document_row(self, indexed: IndexedDocument, generation: int) -> dict[str, Any]:
        document = indexed.document
        return {
            "base": self.key,
            "id": document.id,
            "digest": document.digest,
            "generation": generation,
            "title": document.title,
            "media_type": document.media_type,
            "metadata": json.dumps(document.metadata),
            "text": document.text,
        }

    def _passage_rows(self, indexed: IndexedDocument) -> Iterator[dict[str, Any]]:
        import numpy as np

        for position, passage in enumerate(indexed.passages):
            yield {
                "base": self.key,
                "document": passage.document_id,
                "position": position,
                "id": passage.id,
                "start_at": passage.start,
                "end_at": passage.end,
                "headings": json.dumps(passage.headings, ensure_ascii=False),
                "terms": json.dumps(weigh(passage.title, passage.headings, passage.text), ensure_ascii=False),
                "vector": np.ascontiguousarray(indexed.vectors[position], dtype="<f4").tobytes(),
            }

    def _stored(
        self, connection: Connection, ids: Sequence[str], dimensions: int, *, with_vectors: bool
    ) -> Iterator[StoredPassages]:
        import numpy as np
        import sqlalchemy as sa

        documents, passages = self._documents, self._passages
        columns = (documents.c.id, documents.c.title, documents.c.text, documents.c.digest, documents.c.generation)
        texts = connection.execute(
            sa.select(*columns).where(documents.c.base == self.key, documents.c.id.in_(ids))
        ).all()
        wanted = [column for column in passages.c if with_vectors or column.name != "vector"]
        rows = connection.execute(
            sa.select(*wanted)
            .where(passages.c.base == self.key, passages.c.document.in_(ids))
            .order_by(passages.c.document, passages.c.position)
        ).all()
        by_document: dict[str, list[Any]] = {}
        for row in rows:
            by_document.setdefault(row.document, []).append(row)
        for text in texts:
            own = by_document.get(text.id, [])
            joined = b"".join(row.vector for row in own) if with_vectors else b""
            yield StoredPassages(
                text.id,
                text.digest,
                int(text.generation),
                [_passage(text, row) for row in own],
                [json.loads(row.terms) for row in own],
                np.frombuffer(joined, "<f4").reshape(-1, dimensions),
            )


def _passage(document: Any, row: Any) -> Passage:
    return Passage(
        id=row.id,
        document_id=document.id,
        title=document.title,
        start=row.start_at,
        end=row.end_at,
        text=document.text[row.start_at : row.end_at],
        headings=tuple(json.loads(row.headings)),
    )
