"""Which kind of table a file is, by the end of its name."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import IO, Any, Literal, cast, get_args

from chainops.core.errors import InvalidInput

Format = Literal["jsonl", "csv", "parquet", "txt"]
"""`txt`: one question a line, for reading only."""

_SUFFIXES: dict[str, Format] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".parquet": "parquet",
    ".txt": "txt",
}


def format_of(path: Path, said: str | None = None, *, written: bool = False) -> Format:
    """What was said, else what the suffix says; `.gz` stands behind any but Parquet.

    Raises:
        InvalidInput: Neither says something that can be read (or written).
    """
    names = [each for each in get_args(Format) if not (written and each == "txt")]
    if said is not None and said not in names:
        raise InvalidInput("format", repr(said), f"one of {', '.join(names)}")
    plain = Path(path.stem) if is_packed(path) else path
    found = said or _SUFFIXES.get(plain.suffix.lower())
    if found not in names:
        ends = ", ".join(each for each, name in _SUFFIXES.items() if name in names)
        raise InvalidInput(str(path), f"a name ending in {plain.suffix!r}", f"one of {ends}, or one of these and .gz")
    if found == "parquet" and is_packed(path):
        raise InvalidInput(str(path), "Parquet inside gzip", "a plain .parquet file: it is compressed already")
    return cast("Format", found)


def is_packed(path: Path) -> bool:
    return path.suffix.lower() == ".gz"


def opened(path: Path, mode: Literal["rb", "wb"], *, packed: bool | None = None) -> IO[bytes]:
    """The file's bytes, unpacked where its name (or `packed`) says it is gzip."""
    if is_packed(path) if packed is None else packed:
        return cast("IO[bytes]", gzip.open(path, mode, compresslevel=6))
    return cast("IO[bytes]", path.open(mode))


def pyarrow(module: str = "pyarrow") -> Any:
    """Parquet's library: comes with MLflow.

    Raises:
        MissingExtra: It is not installed.
    """
    from chainops.core.extras import require

    return require(module, extra="mlflow")
