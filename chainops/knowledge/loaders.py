"""Files and Python objects become documents; what cannot be read is reported, never passed over."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from langchain_core.documents import Document as LangChainDocument

from chainops.core.errors import InvalidInput
from chainops.knowledge import formats
from chainops.knowledge.documents import Document, EmptyCorpus, LoadProblem, UnusableDocument
from chainops.knowledge.files import identify, match

Source = str | Path | Document | LangChainDocument | tuple[str, str] | Mapping[str, str]
"""A path or glob, a document, an `(id, text)` pair, or a mapping of ids to texts."""

MAX_DOCUMENT_BYTES = 20_000_000

_READERS: dict[str, Callable[[bytes], formats.Read]] = {
    ".md": formats.read_markdown,
    ".markdown": formats.read_markdown,
    ".mdx": formats.read_markdown,
    ".html": formats.read_html,
    ".htm": formats.read_html,
    ".xhtml": formats.read_html,
    ".pdf": formats.read_pdf,
    ".ipynb": formats.read_notebook,
}
"""By file ending; every other file is plain text if it decodes as text."""


def load(
    sources: Source | Sequence[Source],
    base: Path | None = None,
    *,
    max_document_bytes: int = MAX_DOCUMENT_BYTES,
) -> Corpus:
    """Documents of `sources`, read one at a time as the corpus is iterated.

    Args:
        base: Where relative patterns start and what ids of files are relative to; None means
            the working directory.
        max_document_bytes: Larger files and texts are reported, not read.
    """
    listed = [sources] if isinstance(sources, str | Path | Document | LangChainDocument | Mapping) else list(sources)
    return Corpus(listed, Path.cwd() if base is None else Path(base), max_document_bytes=max_document_bytes)


class Corpus:
    """What was asked for, in a fixed order. Iterate it for documents; then see `problems`.

    Raises (when iterated):
        EmptyCorpus: nothing at all could be loaded. Holds the problems.
        MissingExtra: a PDF or HTML file is there and the extra `knowledge` is not.
    """

    def __init__(self, sources: Sequence[Source], base: Path, *, max_document_bytes: int = MAX_DOCUMENT_BYTES) -> None:
        self.base = base.absolute()
        self.max_document_bytes = max_document_bytes
        self.problems: list[LoadProblem] = []
        """What could not be used, in order, filled anew by each iteration."""
        self.names: list[str] = [_name(source) for source in sources]
        """The sources as they would be written in an error."""
        self._unmatched: list[LoadProblem] = []
        self._candidates: list[Path | Document | LangChainDocument | tuple[str, str]] = []
        for source in sources:
            self._add(source)

    def __len__(self) -> int:
        """How many documents will be tried; those in `problems` will be missing."""
        return len(self._candidates)

    def __iter__(self) -> Iterator[Document]:
        self.problems = list(self._unmatched)
        seen: set[str] = set()
        for candidate in self._candidates:
            try:
                document = self._document(candidate, seen)
                if document.id in seen:
                    problem = "a document of that id came before; this one is left out"
                    raise UnusableDocument(document.id, problem)
            except UnusableDocument as error:
                self.problems.append(LoadProblem(error.path, error.problem))
                continue
            seen.add(document.id)
            yield document
        if not seen:
            raise EmptyCorpus(self.names, str(self.base), self.problems)

    def _add(self, source: object) -> None:  # callers' lists hold what they hold
        if isinstance(source, str | Path):
            found = match(str(source), self.base)
            self._unmatched.extend(found.problems)
            known = {path for path in self._candidates if isinstance(path, Path)}
            self._candidates.extend(path for path in found.paths if path not in known)
        elif isinstance(source, Document | LangChainDocument):
            self._candidates.append(source)
        elif isinstance(source, Mapping):
            self._candidates.extend((str(key), text) for key, text in source.items())
        elif isinstance(source, tuple) and len(source) == 2:
            self._candidates.append((str(source[0]), source[1]))
        else:
            expected = "a path, a glob, a Document, an (id, text) pair, or a mapping of ids to texts"
            raise InvalidInput("documents", type(source).__name__, expected)

    def _document(self, candidate: Path | Document | LangChainDocument | tuple[str, str], seen: set[str]) -> Document:
        if isinstance(candidate, Path):
            return read_file(candidate, self.base, max_document_bytes=self.max_document_bytes)
        if isinstance(candidate, Document):
            document = candidate
        elif isinstance(candidate, LangChainDocument):
            document = _from_langchain(candidate, seen)
        else:
            name, text = candidate
            if not isinstance(text, str):
                raise UnusableDocument(name, f"its text is {type(text).__name__}, not str")
            document = Document(id=name, title=name, text=text)
        _check_size(document.id, len(document.text.encode()), self.max_document_bytes)
        return document


def read_file(path: Path, base: Path, *, max_document_bytes: int = MAX_DOCUMENT_BYTES) -> Document:
    """One file as a document; its id is its path relative to `base`.

    Raises:
        UnusableDocument: too large, unreadable, not text, damaged, or empty.
        MissingExtra: it is PDF or HTML and the extra `knowledge` is not installed.
    """
    name = identify(path, base)
    try:
        _check_size(name, path.stat().st_size, max_document_bytes)
        if not path.is_file():
            raise UnusableDocument(name, "is no regular file")
        with path.open("rb") as file:
            content = file.read(max_document_bytes + 1)
    except OSError as error:
        problem = "is a link that leads nowhere" if path.is_symlink() and not path.exists() else f"{error.strerror}"
        raise UnusableDocument(name, f"cannot be read: {problem}") from error
    _check_size(name, len(content), max_document_bytes)
    read = _READERS.get(path.suffix.lower(), formats.read_text)
    try:
        found = read(content)
    except formats.Unreadable as error:
        raise UnusableDocument(name, error.problem) from error
    return Document(
        id=name,
        title=found.title or path.stem,
        text=found.text,
        media_type=found.media_type,
        metadata=found.metadata,
    )


def _from_langchain(given: LangChainDocument, seen: set[str]) -> Document:
    metadata: dict[str, Any] = dict(given.metadata)
    name = given.id or metadata.get("source")
    if name is None:
        name = "text-" + hashlib.sha256(given.page_content.encode(errors="replace")).hexdigest()[:16]
    name = str(name)
    if given.id is None:  # LangChain's loaders give the pages of one file the same source
        if (page := metadata.get("page")) is not None:
            name = f"{name}#page={page}"
        again, first = 2, name
        while name in seen:
            name, again = f"{first}#{again}", again + 1
    title = metadata.get("title")
    title = title if isinstance(title, str) and title.strip() else Path(name).stem
    return Document(id=name, title=title, text=given.page_content, metadata=metadata)


def _check_size(name: str, size_bytes: int, limit_bytes: int) -> None:
    if size_bytes > limit_bytes:
        problem = f"is larger than {limit_bytes:,} bytes ({size_bytes:,}); split it, or raise max_document_bytes"
        raise UnusableDocument(name, problem)


def _name(source: Source) -> str:
    if isinstance(source, str | Path):
        return str(source)
    if isinstance(source, Mapping):
        return f"a mapping of {len(source)} texts"
    return f"document {str(source[0] if isinstance(source, tuple) and source else getattr(source, 'id', None))[:80]}"
