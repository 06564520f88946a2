"""Read the rows of a file, or of Python objects, one at a time. What cannot be read is a row with a problem."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from langchain_core.runnables import RunnableConfig

from chainops.batch.formats import Format, format_of, opened, pyarrow
from chainops.core.caller import caller
from chainops.core.errors import InvalidInput
from chainops.spec.errors import nearest

MAX_LINE_BYTES = 64 * 1024 * 1024
"""A longer line is not read into memory: it becomes a row with a problem."""
CARRIED = frozenset({"id", "question"})
"""Columns that every answer has, whether they are to be kept or not."""
CALLER_FACTS = ("user", "tenant", "feature", "session")
"""Columns that say who asks. They go into the row's caller, not to the prompt."""
_NAMES_READ, _NAMES_TOLD, _NAME_CHARS = 1000, 20, 60
"""How many names of columns are remembered and told, and how much of each, when one is missing."""
_NO_JSON = {"NaN": None, "Infinity": "inf", "-Infinity": "-inf"}
_MISSING = {"NaT", "<NA>"}
"""What pandas has for a missing time or value."""
_PARQUET_ROWS = 256
"""How many rows of a Parquet file are in memory at once."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row: what is asked, for whom, or why that cannot be told."""

    number: int
    """From 1, in the order of the input; blank lines are not counted. This is the row's identity."""
    id: str | int | None
    """Carried along; may be missing or repeated."""
    question: str | None
    value: Mapping[str, Any]
    """What the chain takes: question, history and the other columns."""
    facts: Mapping[str, str]
    """Fields of `Caller`."""
    problem: Exception | None = None
    kept: Mapping[str, Any] = field(default_factory=dict)
    """Columns that go into the output as they are."""

    @property
    def config(self) -> RunnableConfig:
        """Who asks, for the chain."""
        return caller(**self.facts)


@dataclass(frozen=True, slots=True)
class Source:
    """Rows that can be read again from the start."""

    name: str
    digest: str | None
    """sha256 of the file's bytes, or of the objects; None: read once only, so a run cannot be taken up again."""
    total: int | None
    """How many rows; None where that is known only at their end."""
    raw: Iterable[Any]
    question: str
    columns: Sequence[str] | None = None
    """Of a table with a header; None where each row has names of its own."""
    keep: Sequence[str] = ()

    def rows(self) -> Iterator[Row]:
        for number, raw in enumerate(self.raw, start=1):
            row = row_of(number, raw, self.question)
            yield replace(row, kept=_kept(raw, self.keep)) if self.keep else row


def source_of(rows: str | Path | Iterable[Any], *, question: str = "question", keep: Sequence[str] = ()) -> Source:
    """Where rows come from: a path, or Python objects (dicts, or questions as strings).

    Reads a file once from start to end: for its digest, and to count its rows.

    Raises:
        InvalidInput: No such file, of a kind that is not read, or no row has a column that is named.
        MissingExtra: A Parquet file, and pyarrow is not installed.
    """
    source = replace(_source_of(rows, question), keep=keep)
    if source.digest is not None:  # what can be read only once is not looked at before it is asked
        _check_columns(source)
    return source


def _source_of(rows: str | Path | Iterable[Any], question: str) -> Source:
    if isinstance(rows, str | Path):
        path = Path(rows)
        if not path.is_file():
            raise InvalidInput(str(path), "no file", "a file of rows: .jsonl, .csv, .parquet or .txt")
        kind = format_of(path)
        file = _File(path, kind)
        return Source(str(path), _digest_of_file(path), file.count(), file, question, file.columns())
    if hasattr(rows, "to_dict") and hasattr(rows, "columns"):  # a pandas table, without importing pandas
        rows = cast("list[Any]", rows.to_dict("records"))
    if isinstance(rows, Sequence):
        told = json.dumps(list(rows), sort_keys=True, default=repr).encode("utf-8", "surrogatepass")
        return Source("the rows", hashlib.sha256(told).hexdigest(), len(rows), rows, question)
    return Source("the rows", None, None, cast("Iterable[Any]", rows), question)


def _check_columns(source: Source) -> None:
    """A wrong name is told once, before anything is asked, and not by every row.

    A table's header decides; elsewhere the rows are read up to the first that has the column. Rows that cannot be read
    say so themselves.
    """
    seen: dict[str, None] = {}
    missing = {source.question, *source.keep}
    for raw in source.raw if source.columns is None else [dict.fromkeys(source.columns)]:
        names = _names(raw, source.question)
        missing.difference_update(names)
        if not missing:
            return
        if len(seen) < _NAMES_READ:
            seen.update(dict.fromkeys(names))
    if seen:
        raise _no_column(source, source.question if source.question in missing else min(missing), list(seen))


def _names(raw: Any, question: str) -> list[str]:
    """The columns of a row; none of one that cannot be read."""
    if isinstance(raw, str):
        return [question]
    return [str(name) for name in raw] if isinstance(raw, Mapping) else []


def _no_column(source: Source, name: str, names: list[str]) -> InvalidInput:
    told = ", ".join(each[:_NAME_CHARS] for each in names[:_NAMES_TOLD])
    more = f" and {len(names) - _NAMES_TOLD} more" if len(names) > _NAMES_TOLD else ""
    option = "named by --question (question=)" if name == source.question else "in --keep (keep=)"
    like = nearest(name, names)
    hint = f"; did you mean {like!r}?" if like else ""
    return InvalidInput(source.name, f"the columns {told}{more}", f"{name!r} among them, or one of them {option}{hint}")


def _kept(raw: Any, keep: Sequence[str]) -> dict[str, Any]:
    """The columns to be kept of a row, as JSON has them; None for what it does not have."""
    found = raw if isinstance(raw, Mapping) else {}
    return {name: _as_json(found.get(name)) for name in keep if name not in CARRIED}


def _as_json(value: Any) -> Any:
    """What JSON can say of a value, however deep: NaN is nothing there, other numbers that it lacks are text."""
    if value is None or isinstance(value, str | int):
        return value
    return json.loads(json.dumps(value, default=_as_text), parse_constant=_NO_JSON.get)


def _as_text(value: Any) -> str | None:
    text = str(value)
    return None if text in _MISSING else text


def row_of(number: int, raw: Any, column: str) -> Row:
    """A row from what was read: a dict, a string, or the exception that reading it raised."""
    if isinstance(raw, Exception):
        return Row(number, None, None, {}, {}, raw)
    if isinstance(raw, str):
        raw = {column: raw}
    if not isinstance(raw, Mapping):
        problem = InvalidInput(f"row {number}", type(raw).__name__, f'an object with "{column}", or a string')
        return Row(number, None, None, {}, {}, problem)
    rest = {str(name): each for name, each in raw.items() if each is not None and each != ""}
    question, row_id = rest.pop(column, None), _plain_id(rest.pop("id", None))
    facts = {name: str(rest.pop(name)) for name in CALLER_FACTS if isinstance(rest.get(name), str | int)}
    try:
        if question is None:
            found = "nothing in it" if column in raw else f"columns {', '.join(map(str, raw)) or 'none'}"[:200]
            raise InvalidInput(f"row {number}, {column!r}", found, "a question")
        if not isinstance(question, str):
            raise InvalidInput(f"row {number}, {column!r}", type(question).__name__, "a question as a string")
        if wrong := [name for name in CALLER_FACTS if name in rest]:
            raise InvalidInput(f"row {number}, {wrong[0]!r}", type(rest[wrong[0]]).__name__, "a string or a number")
        if isinstance(history := rest.get("history"), str):  # as CSV holds it
            rest["history"] = _history(number, history)
    except InvalidInput as problem:
        return Row(number, row_id, question if isinstance(question, str) else None, {}, facts, problem)
    return Row(number, row_id, question, {**rest, "question": question}, facts)


def _history(number: int, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        found, expected = repr(text[:60]), 'a JSON list of {"role": ..., "text": ...}'
        raise InvalidInput(f"row {number}, 'history'", found, expected) from None


def _plain_id(value: Any) -> str | int | None:
    return value if value is None or isinstance(value, str | int) else str(value)


@dataclass(frozen=True, slots=True)
class _File:
    """The raw rows of a file: dicts and strings, or an exception in the place of what cannot be read."""

    path: Path
    kind: Format

    def __iter__(self) -> Iterator[Any]:
        read = {"jsonl": self._jsonl, "txt": self._txt, "csv": self._csv, "parquet": self._parquet}[self.kind]
        try:
            yield from read()
        except (EOFError, zlib.error, OSError) as error:  # a damaged archive or disk: what came before it is read
            if isinstance(error, FileNotFoundError):
                raise
            yield InvalidInput(str(self.path), f"an end in the middle ({error})", "a whole file")

    def count(self) -> int | None:
        """How many rows there are, without looking into them."""
        try:
            if self.kind == "parquet":
                return int(self._open_parquet().metadata.num_rows)
            if self.kind == "csv":
                return sum(1 for _ in self._csv())
            with opened(self.path, "rb") as file:
                return sum(1 for line in _lines(file) if isinstance(line, Exception) or line.strip())
        except (EOFError, zlib.error, OSError):
            return None

    def columns(self) -> list[str] | None:
        """The names in its header; None where it has none, or it cannot be read."""
        if self.kind == "parquet":
            return list(self._open_parquet().schema_arrow.names)
        if self.kind != "csv":
            return None
        try:
            with self._csv_cells() as cells:
                names: list[str] = next(cells, [])
                return names
        except (EOFError, zlib.error, OSError, csv.Error):
            return None

    def _jsonl(self) -> Iterator[Any]:
        with opened(self.path, "rb") as file:
            for line in _lines(file):
                if isinstance(line, Exception):
                    yield line
                elif line.strip():
                    yield self._parsed(line)

    def _parsed(self, line: bytes) -> Any:
        try:
            return json.loads(line)
        except (ValueError, RecursionError) as error:
            found = f"no JSON ({error}): {line[:60].decode('utf-8', 'replace')!r}"
            return InvalidInput(str(self.path), found, "one JSON object or string per line")

    def _txt(self) -> Iterator[Any]:
        with opened(self.path, "rb") as file:
            for line in _lines(file):
                if isinstance(line, Exception) or line.strip():
                    yield line if isinstance(line, Exception) else _decoded(line, self.path)

    @contextmanager
    def _csv_cells(self) -> Iterator[Any]:
        csv.field_size_limit(MAX_LINE_BYTES)
        with (
            opened(self.path, "rb") as file,
            io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="") as text,
        ):
            yield csv.reader(text)

    def _csv(self) -> Iterator[Any]:
        with self._csv_cells() as reader:
            names: list[str] = next(reader, [])
            while True:
                try:
                    cells = next(reader)
                except StopIteration:
                    return
                except csv.Error as error:
                    yield InvalidInput(f"{self.path}, line {reader.line_num}", str(error), "a row of CSV")
                    continue
                if cells:
                    yield self._named(names, cells, reader.line_num)

    def _named(self, names: list[str], cells: list[str], line: int) -> Any:
        place = f"{self.path}, line {line}"
        if len(cells) > len(names):
            return InvalidInput(place, f"{len(cells)} cells", f"{len(names)}, as the first line has columns")
        try:
            "".join(cells).encode()  # a stray byte was read as half a surrogate pair, which has no UTF-8
        except UnicodeEncodeError:
            return InvalidInput(place, "bytes that are no UTF-8", "UTF-8")
        return dict(zip(names, cells, strict=False))

    def _parquet(self) -> Iterator[Any]:
        for batch in self._open_parquet().iter_batches(batch_size=_PARQUET_ROWS):
            yield from batch.to_pylist()

    def _open_parquet(self) -> Any:
        arrow, parquet = pyarrow(), pyarrow("pyarrow.parquet")
        try:
            return parquet.ParquetFile(self.path)
        except arrow.ArrowInvalid as error:
            raise InvalidInput(str(self.path), f"no Parquet ({error})", "a Parquet file") from None


def _lines(file: Any) -> Iterator[bytes | Exception]:
    """Lines without the byte order mark; a line that is too long is passed over."""
    is_first = True
    while line := file.readline(MAX_LINE_BYTES):
        if is_first:
            line, is_first = line.removeprefix(b"\xef\xbb\xbf"), False
        if len(line) < MAX_LINE_BYTES or line.endswith(b"\n"):
            yield line
            continue
        while (more := file.readline(MAX_LINE_BYTES)) and not more.endswith(b"\n"):
            pass
        yield InvalidInput("a line", f"more than {MAX_LINE_BYTES:,} bytes", "shorter lines")


def _decoded(line: bytes, path: Path) -> str | Exception:
    try:
        return line.decode().strip()
    except UnicodeDecodeError as error:
        return InvalidInput(str(path), f"bytes that are no UTF-8 ({error.reason})", "UTF-8")


def _digest_of_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
