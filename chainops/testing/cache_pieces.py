"""Entries, vectors and a reader of change logs, for tests of places that keep the cache's truth."""

from __future__ import annotations

from typing import Any

import numpy as np

from chainops.cache.records import CacheStore, Entry

ODD = 'naïve ☃ 你好 𝔘 \'; DROP TABLE cache_entries; -- % _ :x \\ \n\t \x00 \ud800 {json} "quoted"'
NOW = 1_800_000_000.0


def entry(name: str = "e", **told: Any) -> Entry:
    """An entry whose id and question are its name, in scope `s` of cache `o`."""
    given: dict[str, Any] = {
        "id": name,
        "owner": "o",
        "scope": "s",
        "exact": name,
        "question": f"question {name}",
        "message": {"content": f"answer {name}", "type": "ai"},
        "facts": {"status": "ok"},
        "group": name,
        "cost_usd": 0.001,
        "created_at": NOW,
    }
    return Entry(**given | told)


def vector(*numbers: float) -> np.ndarray:
    """A unit vector of 4 dimensions."""
    row = np.zeros(4, dtype=np.float32)
    row[: len(numbers)] = numbers
    return row / np.linalg.norm(row)


class Follower:
    """What a process knows of a scope that only reads its change log."""

    def __init__(self, records: CacheStore, scope: str, *, page: int = 10_000) -> None:
        self.records, self.scope, self.page = records, scope, page
        self.held: dict[int, bytes | None] = {}
        self.position, self.began, self.restarts = 0, 0, 0

    def read(self) -> set[int]:
        """Come up to the log's end; the numbers of the entries that are there."""
        before = self.restarts
        while True:
            if self.position == 0:
                self.held, self.began = {}, self.records.position(self.scope)
            lines = self.records.changes(self.scope, self.position, limit=self.page, began=self.began)
            if lines is None:
                self.position, self.began = 0, 0
                self.restarts += 1
                assert self.restarts < before + 10, "beginning again must help"
                continue
            if not lines:
                return set(self.held)
            assert len(lines) <= self.page
            assert [line.seq for line in lines] == sorted({line.seq for line in lines}), "in order, each once"
            assert lines[0].seq > self.position
            for line in lines:
                if line.dropped is None:
                    self.held[line.seq] = line.vector
            for line in lines:
                if line.dropped is not None:
                    self.held.pop(line.dropped, None)
            self.position = lines[-1].seq
