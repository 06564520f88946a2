"""Stores of a test's own, and encoders that count what they are given."""

from __future__ import annotations

import hashlib
import os

import numpy as np
import pytest

from chainops.knowledge.base import KnowledgeBase
from chainops.stores.sql import SqlStore
from chainops.text.tokens import stems

os.environ["HF_HUB_OFFLINE"] = "1"


class CountingEncoder:
    """A real, small encoder: hashed stems, so that texts sharing words are close. It remembers what it embedded."""

    dimensions = 64

    def __init__(self, digest: str = "stems-1") -> None:
        self.digest = digest
        self.embedded: list[str] = []

    def embed(self, texts):
        self.embedded.extend(texts)
        vectors = np.zeros((len(texts), self.dimensions), np.float32)
        for row, text in enumerate(texts):
            text.encode()  # tokenizers refuse what is no Unicode text
            for stem in stems(text):
                vectors[row, int(hashlib.sha256(stem.encode()).hexdigest(), 16) % self.dimensions] += 1
            vectors[row, 0] += 0.01
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture
def encoder():
    return CountingEncoder()


@pytest.fixture
def make_encoder():
    return CountingEncoder


@pytest.fixture
def store(tmp_path):
    store = SqlStore(tmp_path / "chainops.db")
    yield store
    store.close()


@pytest.fixture
def open_base(tmp_path, encoder):
    """Open the same knowledge base as another process would: own store, own memory."""
    opened = []

    def open_it(name="help", *, encoder=encoder, refresh_s=0.0, **settings):
        store = SqlStore(tmp_path / "chainops.db")
        opened.append(store)
        return KnowledgeBase(store, encoder, name=name, home=tmp_path, refresh_s=refresh_s, **settings)

    yield open_it
    for store in opened:
        store.close()
