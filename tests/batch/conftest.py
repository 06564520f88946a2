from __future__ import annotations

import json

import pytest

import chainops
from chainops.testing import ModelServer

PRICE = {"input_usd_per_million_tokens": 1_000_000, "output_usd_per_million_tokens": 2_000_000}
"""USD for every token, so that sums can be checked by eye."""


@pytest.fixture
def server(monkeypatch):
    with ModelServer() as running:
        monkeypatch.setenv("OPENAI_API_KEY", "none")
        yield running


@pytest.fixture
def talk(server, tmp_path):
    """A chat chain that is answered by the server, with its own words."""

    def make(**words):
        model = {"model": "openai:gpt-4o-mini", "base_url": server.url, "price": PRICE, "timeout_s": 60}
        declared = {"name": "talk", "kind": "chat", "models": {"main": model}, "traces": "off", **words}
        return chainops.declare(declared, base=tmp_path)

    return make


@pytest.fixture
def rows(tmp_path):
    """Writes a file of so many questions."""

    def write(count, name="rows.jsonl", **more):
        path = tmp_path / name
        with path.open("w") as file:
            for n in range(1, count + 1):
                file.write(json.dumps({"id": f"id-{n}", "question": f"question {n}", **more}) + "\n")
        return path

    return write


@pytest.fixture
def read():
    """The records of a JSON lines output."""
    return lambda path: [json.loads(line) for line in path.read_text().splitlines()]
