"""Records with an id each, in memory or in a folder. Ids count up and are never given twice."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Shelf:
    """JSON records, each perhaps with bytes. Not thread-safe.

    Args:
        kind: First part of every id: "batch" gives "batch_000001", "file" gives "file-000001".
        folder: Kept there, where given; what another shelf of this kind left in it is found again.
    """

    def __init__(self, kind: str, folder: Path | None) -> None:
        self._prefix = "file-" if kind == "file" else f"{kind}_"
        self._folder = folder
        self._records: dict[str, dict[str, Any]] = {}
        self._contents: dict[str, bytes] = {}
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            for path in sorted(folder.glob(f"{self._prefix}*.json")):
                self._records[path.stem] = json.loads(path.read_text("utf-8"))
        last = folder / f"{self._prefix}last" if folder is not None else None
        self._last = int(last.read_text()) if last is not None and last.exists() else 0

    def add(self, facts: Mapping[str, Any], content: bytes | None = None) -> dict[str, Any]:
        """A new record with an id."""
        self._last += 1
        name = f"{self._prefix}{self._last:06d}"
        if content is not None:
            if self._folder is None:
                self._contents[name] = content
            else:
                self._write(f"{name}.content", content)
        if self._folder is not None:
            self._write(f"{self._prefix}last", str(self._last).encode())
        return self.save({"id": name, **facts})

    def save(self, record: dict[str, Any]) -> dict[str, Any]:
        self._records[record["id"]] = record
        if self._folder is not None:
            self._write(f"{record['id']}.json", json.dumps(record).encode())
        return record

    def get(self, name: str) -> dict[str, Any] | None:
        return self._records.get(name)

    def all(self) -> list[dict[str, Any]]:
        """Oldest first."""
        return list(self._records.values())

    def content(self, name: str) -> bytes | None:
        if name not in self._records:
            return None
        return self._contents.get(name) if self._folder is None else (self._folder / f"{name}.content").read_bytes()

    def delete(self, name: str) -> bool:
        """Whether there was one. Its id stays used."""
        if self._records.pop(name, None) is None:
            return False
        self._contents.pop(name, None)
        if self._folder is not None:
            for ending in ("json", "content"):
                (self._folder / f"{name}.{ending}").unlink(missing_ok=True)
        return True

    def _write(self, name: str, content: bytes) -> None:
        """All or nothing: a server that dies in between leaves no half file."""
        assert self._folder is not None
        beside = self._folder / f"{name}.part"
        beside.write_bytes(content)
        beside.replace(self._folder / name)
