from __future__ import annotations

import pytest

DOCUMENTS = {
    "fruit.md": "# Apples\n\nApples are red or green. They grow on trees.\n\n# Bananas\n\n"
    "Bananas are yellow and grow in bunches.\n",
    "shop.txt": "The shop opens at nine in the morning. It is closed on Sundays.",
}
CHAIN = """\
chainops: 1
name: help
kind: rag
models:
  main: {model: extractive}
knowledge: {documents: ["docs/*"]}
pipeline:
  - cache: {threshold: 0.95}
  - fallback: [main, {say: sorry}]
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "docs").mkdir()
    for name, text in DOCUMENTS.items():
        (tmp_path / "docs" / name).write_text(text)
    (tmp_path / "chain.yaml").write_text(CHAIN)
    return tmp_path
