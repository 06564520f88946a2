"""A declared chain with a cache, filled by asking it and by its store."""

from __future__ import annotations

import dataclasses

import pytest

import chainops

DOCUMENTS = [
    ("returns.md", "Returns are free for 30 days. Refunds arrive within 5 working days."),
    ("shipping.md", "Shipping takes 2 days. Express shipping costs 9 dollars."),
]


@pytest.fixture
def chain(tmp_path):
    words = {
        "name": "shop",
        "kind": "rag",
        "models": {"local": {"model": "extractive"}},
        "pipeline": [{"cache": {"max_error_rate": 0.02, "audit_rate": 0}}],
    }
    return chainops.declare(words, base=tmp_path, documents=DOCUMENTS)


@pytest.fixture
def fill(chain):
    """Stores this many more entries, made from one real answer; the last stored comes first in the list."""

    def fill(count, *, question="Question {number}: how long do refunds take?", content=None, **facts):
        if not chain.cache.entries(limit=1):
            chain.invoke("How long do refunds take?")
        entry = chain.cache.entries(limit=1)[0][0]
        store = chain.cache._replica.store
        if content is not None:
            facts["message"] = {"content": content}
        before = chain.cache.stats().entries
        for number in range(before, before + count):
            text = question.format(number=number)
            store.put(
                dataclasses.replace(entry, id=f"e{number:031d}", exact=f"x{number}", question=text, seq=0, **facts),
                None,
            )

    return fill
