"""How well and how fast passages are found: SciFact, XQuAD (English), and Chroma's chunking study.

    python benchmarks/knowledge.py --data DIR [--sizes 120,200,300] [--skip scifact]

DIR (or CHAINOPS_BENCH_DATA) holds `scifact/`, `xquad_en/` and `chunking_eval/`, each with gzipped JSON lines:
a corpus and `dev.jsonl.gz`. Everything goes through `KnowledgeBase`, SQL and all.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from chainops.knowledge.base import KnowledgeBase
from chainops.knowledge.documents import Document
from chainops.knowledge.retrieval import rerank
from chainops.models.embeddings import embedder
from chainops.stores.sql import SqlStore

WHOLE = 1_000_000  # tokens: a document is one passage


def rows(path: Path) -> list[dict]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def indexed(folder: Path, name: str, documents: list[Document], size_tokens: int):
    base = KnowledgeBase(
        SqlStore(folder / f"{name}.db"), embedder("minilm"), name=name, home=folder, size_tokens=size_tokens
    )
    return base, base.index(documents)


def rankings(hits) -> dict[str, list[str]]:
    """Document ids, best first, by each way of ranking what one search gave."""
    ranked = {
        "BM25": sorted((h for h in hits if h.lexical_rank), key=lambda h: h.lexical_rank),
        "dense": sorted((h for h in hits if h.dense_rank), key=lambda h: h.dense_rank),
        "reciprocal ranks": sorted(
            hits, key=lambda h: -(1.5 / (5 + (h.lexical_rank or 1e9)) + 1 / (5 + (h.dense_rank or 1e9)))
        ),
        "hybrid": hits,
        "reranked": rerank(hits[:20], keep=10).hits,
    }
    return {way: [hit.passage.document_id for hit in found] for way, found in ranked.items()}


def ndcg(found: list[str], relevant: set[str], k: int = 10) -> float:
    gain = sum(1 / np.log2(place + 2) for place, name in enumerate(found[:k]) if name in relevant)
    return gain / sum(1 / np.log2(place + 2) for place in range(min(k, len(relevant))))


def search_ms(base: KnowledgeBase, questions: list[str]) -> tuple[float, float]:
    """Median milliseconds of a search: the whole of it, and what is left when the question is embedded already."""
    encoder, whole, rest = embedder("minilm"), [], []
    for question in questions[:200]:
        began = time.perf_counter()
        base.search(question)
        whole.append(time.perf_counter() - began)
        vector = encoder.embed([question])[0]
        began = time.perf_counter()
        base.search(question, vector=vector)
        rest.append(time.perf_counter() - began)
    return statistics.median(whole) * 1000, statistics.median(rest) * 1000


def scifact(data: Path, folder: Path) -> dict:
    corpus, questions = rows(data / "corpus.jsonl.gz"), rows(data / "dev.jsonl.gz")
    documents = [Document(id=str(row["id"]), title=row["title"], text=row["text"]) for row in corpus]
    base, report = indexed(folder, "scifact", documents, WHOLE)
    scores: dict[str, list[float]] = {}
    for row in questions:
        for way, found in rankings(base.search(row["query"], 200)).items():
            scores.setdefault(way, []).append(ndcg(found, set(map(str, row["relevant"]))))
    whole, rest = search_ms(base, [row["query"] for row in questions])
    began = time.perf_counter()
    again = KnowledgeBase(
        SqlStore(folder / "scifact.db"), embedder("minilm"), name="scifact", home=folder, size_tokens=WHOLE
    )
    again.search("warm")
    opened = time.perf_counter() - began
    print(f"\nSciFact, {len(documents):,} abstracts, {len(questions)} questions: nDCG@10")
    for way, each in scores.items():
        print(f"  {way:<18} {np.mean(each):.4f}")
    print(f"  index build {report.passages_per_s:.0f} passages/s · opened again in {opened:.2f} s")
    print(f"  search p50 {whole:.2f} ms, without embedding the question {rest:.2f} ms")
    return {
        "ndcg10": {way: round(float(np.mean(each)), 4) for way, each in scores.items()},
        "questions": len(questions),
        "build_passages_per_s": round(report.passages_per_s, 1),
        "open_s": round(opened, 3),
        "search_p50_ms": round(whole, 3),
        "search_without_embedding_p50_ms": round(rest, 3),
    }


def xquad(data: Path, folder: Path) -> dict:
    passages, questions = rows(data / "passages.jsonl.gz"), rows(data / "dev.jsonl.gz")
    base, _ = indexed(
        folder, "xquad", [Document(id=str(row["id"]), title="", text=row["text"]) for row in passages], WHOLE
    )
    places: dict[str, list[float]] = {}
    for row in questions:
        for way, found in rankings(base.search(row["query"], 200)).items():
            place = found.index(str(row["passage"])) + 1 if str(row["passage"]) in found else np.inf
            places.setdefault(way, []).append(place)
    result: dict[str, dict[str, float]] = {}
    for way, each in places.items():
        at = np.array(each)
        scores = {"recall1": (at <= 1).mean(), "recall5": (at <= 5).mean(), "mrr": (1 / at).mean()}
        result[way] = {name: round(float(score), 4) for name, score in scores.items()}
    print(f"\nXQuAD, {len(passages)} passages, {len(questions)} questions: recall@1, recall@5, MRR")
    for way, found in result.items():
        print(f"  {way:<18} {found['recall1']:.4f}  {found['recall5']:.4f}  {found['mrr']:.4f}")
    return result


def chunking(data: Path, folder: Path, sizes: list[int]) -> dict:
    documents = [
        Document(id=row["id"], title=row["id"], text=row["text"], media_type="text/markdown")
        for row in rows(data / "corpora.jsonl.gz")
    ]
    questions = rows(data / "dev.jsonl.gz")
    print(f"\nChunking study, {len(questions)} questions: characters of the evidence in what was retrieved")
    print("  size   passages  |  5 passages: recall precision IoU  |  1,000 tokens: recall precision IoU  | passages/s")
    result = {}
    for size in sizes:
        base, report = indexed(folder, f"chunks{size}", documents, size)
        measured: dict[str, list[tuple[float, float, float]]] = {"five": [], "thousand": []}
        for row in questions:
            hits = base.search(row["query"], 40)
            measured["five"].append(overlap(rerank(hits, keep=5).hits, row))
            measured["thousand"].append(overlap(rerank(hits, keep=40, token_budget=1000).hits, row))
        means = {name: [round(float(mean), 4) for mean in np.mean(each, axis=0)] for name, each in measured.items()}
        columns = "  |  ".join("{:>18.3f} {:>9.3f} {:.3f}".format(*means[name]) for name in measured)
        print(f"  {size:<6} {report.passages:<8}  |  {columns}  | {report.passages_per_s:.0f}", flush=True)
        result[str(size)] = {**means, "passages": report.passages, "passages_per_s": round(report.passages_per_s, 1)}
    return result


def overlap(hits, row: dict) -> tuple[float, float, float]:
    """Recall, precision and intersection over union, in characters."""
    evidence = {at for span in row["spans"] for at in range(span["start"], span["end"])}
    found = {(hit.passage.document_id, at) for hit in hits for at in range(hit.passage.start, hit.passage.end)}
    both = sum((row["corpus"], at) in found for at in evidence)
    return both / len(evidence), both / max(len(found), 1), both / (len(evidence) + len(found) - both)


def reference(folder: Path) -> dict:
    """The language reference that ships with CPython: what everybody has. Build and search speed only."""
    from pydoc_data.topics import topics

    documents = [Document(id=name, title=name, text=text) for name, text in sorted(topics.items())[:20]]
    base, built = indexed(folder, "reference", documents, 200)
    with_ms, without_ms = search_ms(base, [f"What is {name}?" for name in sorted(topics)[:40]])
    print(
        f"\nPython's reference, {len(documents)} topics: {built.passages} passages, {built.passages_per_s:.0f} a second"
    )
    print(f"  search p50 {with_ms:.2f} ms, without embedding the question {without_ms:.2f} ms")
    return {
        "passages": built.passages,
        "passages_per_s": round(built.passages_per_s, 1),
        "search_p50_ms": round(with_ms, 3),
        "search_without_embedding_p50_ms": round(without_ms, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=os.environ.get("CHAINOPS_BENCH_DATA"))
    parser.add_argument("--sizes", default="100,150,200,300")
    parser.add_argument("--skip", action="append", default=[], choices=["scifact", "xquad_en", "chunking_eval"])
    asked = parser.parse_args()
    parts = {
        "xquad_en": xquad,
        "scifact": scifact,
        "chunking_eval": lambda data, folder: chunking(data, folder, [int(size) for size in asked.sizes.split(",")]),
    }
    result: dict[str, object] = {"benchmark": "knowledge"}
    with tempfile.TemporaryDirectory() as folder:
        result["reference"] = reference(Path(folder))
        for name, part in parts.items():
            data = Path(asked.data) / name if asked.data else None
            if name in asked.skip or data is None or not data.is_dir():
                where = "skipped" if name in asked.skip else f"no data at {data}; give --data or CHAINOPS_BENCH_DATA"
                print(f"\n{name}: NOT MEASURED ({where})")
                result[name] = None
                continue
            result[name] = part(data, Path(folder))
    print("\n" + json.dumps(result))


if __name__ == "__main__":
    main()
