"""An embedder for tests that is there at once: no weights, no chance."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from chainops.models.embeddings import Embedder

if TYPE_CHECKING:
    import numpy as np


class WordVectors(Embedder):
    """Texts that share words are near each other: each word counts in one of so many places; case does not,
    nor does "?" at the ends. A text without words has a row of zeros.

    Two words may share a place; with more `dimensions` fewer do. `embedded` holds every text it was given, in order.

        replica = open_replica(CacheSettings(), WordVectors, owner="help")

    Args:
        digest: Another one stands for other weights: caches and indexes are kept apart by it.
    """

    name = "words"
    dimensions: int = 64

    def __init__(self, digest: str = "words-1", *, dimensions: int = 64) -> None:
        self.digest = digest
        self.embedded: list[str] = []
        self.dimensions = dimensions

    def _rows(self, texts: Sequence[str]) -> np.ndarray:
        import numpy as np

        self.embedded += texts
        rows = np.zeros((len(texts), self.dimensions), dtype=np.float32)
        for row, text in zip(rows, texts, strict=True):
            for word in text.lower().strip("?").split():
                row[int(hashlib.sha256(word.encode()).hexdigest(), 16) % self.dimensions] += 1
        rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)
        return rows
