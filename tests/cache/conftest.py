from __future__ import annotations

import hashlib

import numpy as np
import pytest

from chainops.cache.records import CacheRecords
from chainops.cache.replica import Replica
from chainops.stores.sql import SqlStore


class WordVectors:
    """An embedder that is quick to start: texts with the same words are near each other."""

    name, digest, dimensions = "words", "words-1", 64

    def __init__(self) -> None:
        self.embedded: list[str] = []

    def embed(self, texts):
        self.embedded += texts
        rows = np.zeros((len(texts), self.dimensions), dtype=np.float32)
        for row, text in zip(rows, texts, strict=True):
            for word in text.lower().strip("?").split():
                row[int(hashlib.sha256(word.encode()).hexdigest(), 16) % self.dimensions] += 1
        return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)


@pytest.fixture
def embedder():
    return WordVectors()


@pytest.fixture
def store(tmp_path):
    store = SqlStore(tmp_path / "cache.db")
    yield store
    store.close()


@pytest.fixture
def replica(store, embedder):
    return Replica(CacheRecords(store), lambda: embedder)
