"""How often the extractive model's answer holds a gold answer of XQuAD (English), and how often it says it cannot.

    python benchmarks/extractive.py [--data DIR] [--split dev] [--limit N]

DIR holds `xquad_en/passages.jsonl.gz` and `xquad_en/SPLIT.jsonl.gz` (or set CHAINOPS_BENCH_DATA). Four settings:
the right passage alone; five passages, the right one and the four others most like the question; the five that the
knowledge base finds; and five most like it from other articles, where the right answer is to decline.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import re
import statistics
import string
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("HF_HUB_OFFLINE", "1")


def rows_of(file: Path) -> list[dict]:
    plain = file.with_suffix("")
    if plain.is_file():
        return [json.loads(line) for line in plain.read_text("utf-8").splitlines()]
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def normal(text: str) -> str:
    """As SQuAD's own scorer does: lower case, no punctuation, no articles."""
    text = "".join(mark for mark in text.lower() if mark not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default=os.environ.get("CHAINOPS_BENCH_DATA"))
    parser.add_argument("--split", default="dev")
    parser.add_argument("--limit", type=int, default=None)
    given = parser.parse_args()
    folder = Path(given.data or ".") / "xquad_en"
    files = [folder / f"{name}.jsonl.gz" for name in ("passages", given.split)]
    if not all(file.is_file() or file.with_suffix("").is_file() for file in files):
        print(f"not measured: answers on XQuAD ({folder} is not there; give --data or CHAINOPS_BENCH_DATA)")
        print(json.dumps({"benchmark": "extractive", "measured": False}))
        return
    measure(rows_of(files[0]), rows_of(files[1])[: given.limit], given.split)


def retrieve(pool: list[dict], queries: list[str], encoder: Any) -> list[list[str]]:
    """Ids of the five passages that the knowledge base finds for each question."""
    from chainops.knowledge.base import KnowledgeBase
    from chainops.knowledge.documents import Document
    from chainops.stores.sql import SqlStore

    with tempfile.TemporaryDirectory() as folder:
        store = SqlStore(Path(folder) / "xquad.db")
        base = KnowledgeBase(store, encoder, name="xquad", home=Path(folder), size_tokens=2000)
        base.index(Document(id=row["id"], title="", text=row["text"]) for row in pool)
        found = [[hit.passage.document_id for hit in base.search(query, 5)] for query in queries]
        store.close()
    return found


def measure(pool: list[dict], questions: list[dict], split: str) -> None:
    import numpy as np
    from langchain_core.messages import HumanMessage

    from chainops.models.embeddings import embedder
    from chainops.models.extractive import ExtractiveChatModel
    from chainops.text.passages import NO_ANSWER, PromptPassage, render_passages

    model, minilm = ExtractiveChatModel(), embedder("minilm")
    likeness = minilm.embed([row["query"] for row in questions]) @ minilm.embed([row["text"] for row in pool]).T
    at = {row["id"]: number for number, row in enumerate(pool)}
    retrieved = retrieve(pool, [row["query"] for row in questions], minilm)
    found: dict[str, list[bool]] = {}
    declined: dict[str, list[bool]] = {}
    sentences: dict[str, list[int]] = {}
    first_ms: list[float] = []
    again_ms: list[float] = []
    for row, alike, best in zip(questions, likeness, retrieved, strict=True):
        right = at[row["passage"]]
        order = [int(number) for number in np.argsort(-alike, kind="stable")]
        five = {right, *[number for number in order if number != right][:4]}
        settings = {
            "right passage": [right],
            "five, the right one among them": [number for number in order if number in five],
            "five as the knowledge base finds them": [at[name] for name in best],
            "none answers": [number for number in order if pool[number]["article"] != pool[right]["article"]][:5],
        }
        for name, numbers in settings.items():
            block = render_passages([PromptPassage(n, "", pool[p]["text"]) for n, p in enumerate(numbers, 1)])
            asked = [HumanMessage(f"{block}\n\nQuestion: {row['query']}")]
            start = time.perf_counter()
            text = model.invoke(asked).text
            first_ms.append((time.perf_counter() - start) * 1000)
            start = time.perf_counter()
            model.invoke(asked)
            again_ms.append((time.perf_counter() - start) * 1000)
            said = normal(re.sub(r"\s*\[\d+\]", "", text))
            found.setdefault(name, []).append(any(normal(answer) in said for answer in row["answers"]))
            declined.setdefault(name, []).append(text == NO_ANSWER)
            if text != NO_ANSWER:
                sentences.setdefault(name, []).append(len(re.findall(r"\[\d+\]", text)))
    print(f"XQuAD English {split}, {len(questions)} questions{'gold inside':>17}{'declined':>11}{'sentences':>12}")
    result: dict[str, object] = {"benchmark": "extractive", "split": split, "questions": len(questions)}
    for name, hits in found.items():
        inside, no, length = (statistics.mean(each) for each in (hits, declined[name], sentences[name]))
        print(f"  {name:<38}{'-' if name == 'none answers' else f'{inside:.3f}':>12}{no:>11.3f}{length:>12.2f}")
        key = name.replace(" ", "_")
        result |= {f"{key}_inside": round(inside, 4), f"{key}_declined": round(no, 4)}
    first, again = statistics.median(first_ms), statistics.median(again_ms)
    p95 = statistics.quantiles(first_ms, n=20)[-1]
    print(f"  per answer: p50 {first:.1f} ms, p95 {p95:.1f} ms; asked again p50 {again:.1f} ms")
    print(json.dumps(result | {"p50_ms": round(first, 2), "p95_ms": round(p95, 1), "again_p50_ms": round(again, 2)}))


if __name__ == "__main__":
    main()
