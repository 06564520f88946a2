"""Write the output whole or not at all."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import IO, Any

from chainops.batch.formats import Format, is_packed, opened, pyarrow

_PARQUET_ROWS = 1000
"""Rows in one row group."""

_TEXT, _NUMBER, _WHOLE = "string", "float64", "int64"
COLUMNS = {
    "row": _WHOLE,
    "id": _TEXT,
    "question": _TEXT,
    "answer": _TEXT,
    "status": _TEXT,
    "reasons": _TEXT,
    "sources": _TEXT,
    "data": _TEXT,
    "served_by": _TEXT,
    "cost_usd": _NUMBER,
    "input_tokens": _WHOLE,
    "output_tokens": _WHOLE,
    "duration_s": _NUMBER,
    "error_type": _TEXT,
    "error_message": _TEXT,
    "error_kind": _TEXT,
}
"""Of CSV and Parquet. What is a list or an object in JSON lines is JSON text here; nothing is an empty cell."""


TAKEN = {*COLUMNS, "tokens", "error", "batch"}
"""Names that a record or a table has for itself."""


def write(path: Path, lines: Iterable[bytes], kind: Format, keep: Sequence[str] = ()) -> None:
    """Write records (JSON lines) to `path`: to a file beside it first, which then takes its name at once.

    Args:
        keep: Columns of the input that the records carry.
    """
    beside = path.with_name(f".{path.name}.writing")
    try:
        if kind == "parquet":
            _parquet(beside, lines, keep)
        else:
            with opened(beside, "wb", packed=is_packed(path)) as file:
                if kind == "csv":
                    _csv(file, lines, keep)
                else:
                    file.writelines(lines)
        _force(beside)
        beside.replace(path)
        _force(path.parent)
    finally:
        beside.unlink(missing_ok=True)


def _force(path: Path) -> None:
    """Onto the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def columns(keep: Sequence[str]) -> dict[str, str]:
    """Of CSV and Parquet, with those of the input that are carried behind the question. Their cells are text."""
    told = dict.fromkeys(keep, _TEXT)
    first = {name: COLUMNS[name] for name in ("row", "id", "question")}
    return {**first, **told, **COLUMNS}


def flat(record: dict[str, Any], keep: Sequence[str] = ()) -> dict[str, Any]:
    """A record as one row of cells."""
    error = record["error"] or {}
    told = {name: record.get(name) for name in COLUMNS}
    told |= {name: _text(record.get(name)) for name in keep}
    told |= {"input_tokens": record["tokens"]["input"], "output_tokens": record["tokens"]["output"]}
    told |= {f"error_{name}": error.get(name) for name in ("type", "message", "kind")}
    for name in ("reasons", "sources", "data"):
        told[name] = None if record[name] in (None, []) else json.dumps(record[name], ensure_ascii=False)
    told["id"] = None if record["id"] is None else str(record["id"])
    return told


def _text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _csv(file: IO[bytes], lines: Iterable[bytes], keep: Sequence[str]) -> None:
    text = io.TextIOWrapper(file, encoding="utf-8", newline="")
    writer = csv.DictWriter(text, columns(keep))
    writer.writeheader()
    writer.writerows(flat(json.loads(line), keep) for line in lines)
    text.flush()
    text.detach()


def _parquet(path: Path, lines: Iterable[bytes], keep: Sequence[str]) -> None:
    arrow, parquet = pyarrow(), pyarrow("pyarrow.parquet")
    schema = arrow.schema([(name, getattr(arrow, kind)()) for name, kind in columns(keep).items()])
    with parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        for group in _groups(lines):
            rows = [flat(json.loads(line), keep) for line in group]
            writer.write_table(arrow.Table.from_pylist(rows, schema=schema))


def _groups(lines: Iterable[bytes]) -> Iterator[list[bytes]]:
    waiting = iter(lines)
    while group := list(islice(waiting, _PARQUET_ROWS)):
        yield group
