"""A knowledge base: index documents once, search them from any number of threads and processes."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sized
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chainops.core.errors import InvalidInput, StoreError
from chainops.knowledge import lexical, splitting
from chainops.knowledge.documents import Document
from chainops.knowledge.indexing import EMBEDDING_VERSION, Encoder, IndexReport, IndexRun, Progress
from chainops.knowledge.records import Base, Records
from chainops.knowledge.retrieval import Hit
from chainops.knowledge.splitting import Passage, split
from chainops.knowledge.view import View
from chainops.stores.faiss_index import FaissIndex

if TYPE_CHECKING:
    import numpy as np

    from chainops.stores.sql import SqlStore


class NotIndexed(StoreError):
    """Nothing can be found, because nothing was indexed under this name and these settings."""

    def __init__(self, place: str, name: str, *, replaced: bool) -> None:
        self.name, self.replaced = name, replaced
        problem = f"knowledge base {name!r} is not indexed"
        if replaced:
            problem = f"knowledge base {name!r} was indexed with another embedding model or other passage sizes"
        super().__init__(place, problem, "index its documents with these settings first")


class KnowledgeBase:
    """Documents found by meaning and by words.

    SQL holds the truth: documents, passages, vectors. The FAISS file and the word index are made from it,
    and made again when they are missing, damaged or older. Any number of threads may use one object, any
    number of processes one knowledge base; what one of them indexes the others find within `refresh_s`.

    Args:
        store: Where the truth is kept.
        embedder: Its `digest` is part of the identity: with another model everything is embedded again.
        name: Of the knowledge base, unique in the store.
        home: Folder for the FAISS file.
        size_tokens: See `splitting.split`; so too `overlap_sentences`.
        refresh_s: How often, at most, the store is asked whether another process has indexed, in seconds.
        clock: Seconds that only grow.
    """

    def __init__(
        self,
        store: SqlStore,
        embedder: Encoder,
        *,
        name: str,
        home: Path,
        size_tokens: int = splitting.DEFAULT_SIZE_TOKENS,
        overlap_sentences: int = 1,
        refresh_s: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not name.strip():
            raise InvalidInput("knowledge base name", repr(name), "a name")
        self.name = name
        self.size_tokens, self.overlap_sentences = size_tokens, overlap_sentences
        self.notices: deque[str] = deque(maxlen=100)
        """What was repaired on the way, such as a FAISS file that had to be made again; oldest first."""
        self._store, self._embedder = store, embedder
        self._records = Records(store, name, self._recipe())
        self._folder = Path(home) / "knowledge"
        self._refresh_s, self._clock = refresh_s, clock
        self._view: View | None = None
        self._saved: str | None = None
        self._checked_at = float("-inf")
        self._refreshing, self._indexing = threading.Lock(), threading.Lock()

    def __repr__(self) -> str:
        return f"KnowledgeBase({self.name!r}, {self._store!r})"

    @property
    def version(self) -> str:
        """Digest of settings and documents: it changes exactly when answers may.

        Raises:
            NotIndexed: nothing was indexed yet.
        """
        return self._current()[1].version

    @property
    def is_fresh(self) -> bool:
        """Whether `version` and `search` will not ask the store first; for event loops."""
        return self._view is not None and self._clock() - self._checked_at < self._refresh_s

    @property
    def seen_version(self) -> str:
        """`version` as this process last saw it; asks no store once the knowledge base is open."""
        view = self._view
        return self.version if view is None or view.base is None else view.base.version

    def document_digests(self) -> dict[str, str]:
        """Ids and digests of the documents stored now; empty when nothing was indexed."""
        self._records.migrate()
        return self._records.digests()

    def document(self, document_id: str) -> Document | None:
        """A document as it was indexed, with its text; None if it is not there."""
        self._records.migrate()
        return self._records.document(document_id)

    def search(self, question: str, k: int = 20, *, vector: np.ndarray | None = None) -> list[Hit]:
        """The passages closest to the question by meaning and words together, best first.

        Args:
            k: The most hits to return, at least 1.
            vector: The question's unit vector, where the caller has it; shape (dimensions,), float32.

        Returns:
            Hits of one state of the knowledge base. Some are always found, close or not: see `Hit.score`.

        Raises:
            NotIndexed: nothing was indexed under this name with these settings.
            InvalidInput: the question is no string or is blank, or `k` < 1.
        """
        if not isinstance(question, str) or not question.strip():
            raise InvalidInput("question", repr(question)[:40], "a question in words")
        if k < 1:
            raise InvalidInput("k", str(k), "1 or more")
        question = question.encode(errors="replace").decode()  # half a surrogate pair is no text to a tokenizer
        view, _ = self._current()
        if vector is None:
            vector = self._embedder.embed([question])[0]
        return view.search(question, vector, k)

    def index(
        self, documents: Iterable[Document], *, progress: Callable[[Progress], None] | None = None
    ) -> IndexReport:
        """Make the knowledge base hold exactly `documents`; only new and changed ones are embedded.

        Documents are stored in batches, each whole or not at all. A run that is killed loses at most its last
        batch; the next one goes on from there. Documents that are gone are removed at the end.

        Args:
            documents: A `Corpus`, whose problems are reported as `skipped`, or any documents.
            progress: Called in this thread, often; what it raises ends the run.

        Raises:
            EmptyCorpus: there was no document at all. What was indexed before stays.
            StoreUnavailable: the store cannot be written; documents stored so far stay.
        """
        with self._indexing:
            began = time.monotonic()
            self._records.migrate()
            run = IndexRun(self._records, self._embedder, self._split, _length(documents), progress)
            skipped = run.take(documents)
            gone = sorted(run.stored.keys() - run.seen)
            if gone or self._records.base() is None:
                self._records.replace([], gone)
            if self._records.other_recipes():
                for key in self._records.forget_other_recipes():
                    self._discard(self._file(key))
            view, base = self._current(now=True)
            self._save(view)
            return IndexReport(
                added=tuple(run.added),
                changed=tuple(run.changed),
                removed=tuple(gone),
                unchanged=run.unchanged,
                skipped=(*getattr(documents, "problems", ()), *skipped),
                embedded=run.embedded,
                passages=len(view),
                seconds=time.monotonic() - began,
                version=base.version,
            )

    def _recipe(self) -> str:
        versions = [splitting.SPLITTER_VERSION, lexical.TERMS_VERSION, EMBEDDING_VERSION]
        recipe = [self._embedder.digest, self.size_tokens, self.overlap_sentences, versions]
        return hashlib.sha256(json.dumps(recipe).encode()).hexdigest()

    def _split(self, document: Document) -> list[Passage]:
        return split(document, size_tokens=self.size_tokens, overlap_sentences=self.overlap_sentences)

    def _current(self, *, now: bool = False) -> tuple[View, Base]:
        """The view, brought up to date if that was not done lately."""
        view = self._view
        is_fresh = self._clock() - self._checked_at < self._refresh_s
        if view is not None and view.base is not None and not now and (is_fresh or self._refreshing.locked()):
            return view, view.base  # another thread is on it: go on with what there is
        with self._refreshing:
            began = self._clock()  # before reading: what is indexed meanwhile is read next time
            self._records.migrate()
            base = self._records.base()
            if base is None:
                raise NotIndexed(self._store.place, self.name, replaced=self._records.other_recipes() > 0)
            if self._view is None:
                self._view = self._open(base)
            elif self._view.base != base:
                self._view.apply(self._records.changes(self._view.generations, self._embedder.dimensions))
            self._checked_at = began
            view = self._view
            if view.base is None:
                raise NotIndexed(self._store.place, self.name, replaced=True)
            return view, view.base

    def _open(self, base: Base) -> View:
        dimensions = self._embedder.dimensions
        try:
            index: FaissIndex | None = FaissIndex.load(self._file(), stamp=base.version)
        except StoreError as error:
            self.notices.append(f"made the index again: {error}")
            index = None
        if index is not None and index.dimensions == dimensions:
            view = View(dimensions, index)
            view.apply(self._records.changes({}, dimensions, with_vectors=False))
            if view.base == base and view.is_whole():
                self._saved = base.version
                return view
            self.notices.append("made the index again: the store changed while it was opened")
        view = View(dimensions)
        view.apply(self._records.changes({}, dimensions))
        self._save(view)
        return view

    def _save(self, view: View) -> None:
        """Keep the vectors in a file. It only spares time, so a disk that refuses it is a notice, no error."""
        base = view.base
        if base is None or base.version == self._saved:
            return
        try:
            view.index.save(self._file(), base.version)
        except StoreError as error:
            self.notices.append(f"the index was not saved: {error}")
        else:
            self._saved = base.version

    def _discard(self, file: Path) -> None:
        try:
            file.unlink(missing_ok=True)
        except OSError as error:
            self.notices.append(f"an index of other settings was not removed: {file}: {error.strerror}")

    def _file(self, key: str | None = None) -> Path:
        return self._folder / f"{key or self._records.key}.faiss"


def _length(documents: Any) -> int | None:
    return len(documents) if isinstance(documents, Sized) else None
