"""One run of indexing: what is new is split, embedded and stored, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from chainops.knowledge.documents import Document, EmptyCorpus, LoadProblem
from chainops.knowledge.records import IndexedDocument, Records
from chainops.knowledge.splitting import Passage

if TYPE_CHECKING:
    import numpy as np

BATCH_PASSAGES = 128
"""Passages embedded together and committed together: about a second of work that `kill -9` can undo."""

EMBEDDING_VERSION = 1
"""Raised when `embedding_text` changes: indexed documents are then embedded again."""


class Encoder(Protocol):
    """What turns texts into vectors; `chainops.models.embeddings.Embedder` is one."""

    digest: str

    @property
    def dimensions(self) -> int: ...

    def embed(self, texts: list[str], /) -> np.ndarray:
        """Shape (len(texts), dimensions), float32, unit rows."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far indexing has come."""

    done: int
    """Documents dealt with: stored, or found unchanged."""
    total: int | None
    """Documents there may be; None when the source does not say."""
    what: str
    """What is being worked on, for people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexReport:
    """What one run of `index` did."""

    added: tuple[str, ...]
    """Ids of documents, in the order they came; so too below."""
    changed: tuple[str, ...]
    removed: tuple[str, ...]
    unchanged: int
    skipped: tuple[LoadProblem, ...]
    """What was asked for and is not in the knowledge base, and why."""
    embedded: int
    """Passages embedded by this run."""
    passages: int
    """Passages in the knowledge base now."""
    seconds: float
    version: str

    @property
    def passages_per_s(self) -> float:
        """Passages embedded and stored per second of the whole run; 0 when there was nothing to embed."""
        return self.embedded / self.seconds if self.embedded else 0.0


def embedding_text(passage: Passage) -> str:
    """What is embedded: the passage under its title and nearest heading, where it does not begin with them."""
    above = [name for name in (passage.title, *passage.headings[-1:]) if name]
    lines = [name for name in dict.fromkeys(above) if name not in passage.text[: len(name) + 8]]
    return "\n".join([*lines, passage.text])


class IndexRun:
    """One run of `index`: collects documents into batches and stores them."""

    def __init__(
        self,
        records: Records,
        embedder: Encoder,
        split: Callable[[Document], list[Passage]],
        total: int | None,
        progress: Callable[[Progress], None] | None,
    ) -> None:
        self._records, self._embedder, self._split = records, embedder, split
        self._total, self._progress = total, progress
        self._waiting: list[tuple[Document, list[Passage]]] = []
        self._done = 0
        self.stored = records.digests()
        self.seen: set[str] = set()
        self.added: list[str] = []
        self.changed: list[str] = []
        self.unchanged = 0
        self.embedded = 0

    def take(self, documents: Iterable[Document]) -> list[LoadProblem]:
        """Store what is new or changed; what was left out because its id came twice."""
        skipped = []
        for document in documents:
            if document.id in self.seen:
                skipped.append(LoadProblem(document.id, "a document of that id came before; this one is left out"))
                continue
            self.seen.add(document.id)
            if self.stored.get(document.id) == document.digest:
                self.unchanged += 1
                self._done += 1
                self._tell(document.id)
                continue
            (self.changed if document.id in self.stored else self.added).append(document.id)
            self._waiting.append((document, self._split(document)))
            if sum(len(passages) for _, passages in self._waiting) >= BATCH_PASSAGES:
                self._flush()
        if not self.seen:
            raise EmptyCorpus(["documents"], "what was handed over", skipped)
        self._flush()
        return skipped

    def _flush(self) -> None:
        import numpy as np

        if not self._waiting:
            return
        texts = [embedding_text(passage) for _, passages in self._waiting for passage in passages]
        rows = []
        for at in range(0, len(texts), BATCH_PASSAGES):
            part = f" ({at:,} of {len(texts):,} passages)" if at else ""
            self._tell(self._waiting[-1][0].id + part)
            rows.append(self._embedder.embed(texts[at : at + BATCH_PASSAGES]))
        vectors, at = np.concatenate(rows), 0
        ready = []
        for document, passages in self._waiting:
            ready.append(IndexedDocument(document, passages, vectors[at : at + len(passages)]))
            at += len(passages)
        self._records.replace(ready)
        self.embedded += len(texts)
        self._done += len(ready)
        self._waiting.clear()
        self._tell(ready[-1].document.id)

    def _tell(self, what: str) -> None:
        if self._progress is not None:
            self._progress(Progress(self._done, self._total, what))
