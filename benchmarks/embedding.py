"""Embedding alone: `SentenceTransformer.encode` beside the compiled model, in one process, in turn.

    python benchmarks/embedding.py [--rounds 60]

One text is a question, as a cache or a retriever embeds it; the batch is 64 sentences of 5 to 60 words. Both
libraries may use all cores. Needs the `embed` extra. No data of others.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("HF_HUB_OFFLINE", "1")

QUESTION = "What does yield from do in a generator?"
TEXT = "a generator function delegates part of its work to another one and hands every value on to its caller"
WORDS = TEXT.split()
BATCH = [f"Sentence {n}: " + " ".join((WORDS * 4)[n % 7 : n % 7 + 5 + (n * 11) % 56]) + "." for n in range(64)]


def in_turn(rounds: int, *works: Callable[[], object], block: int = 10) -> list[float]:
    """Median milliseconds of each, taken block by block in turn so that all meet the same machine.

    Before each block a pause and one call that is not counted: PyTorch's threads spin on for a while after their work,
    and would be measured as the other's slowness.
    """
    took: list[list[float]] = [[] for _ in works]
    for _ in range(-(-rounds // block)):
        for work, times in zip(works, took, strict=True):
            time.sleep(0.3)
            work()
            for _ in range(block):
                start = time.perf_counter()
                work()
                times.append((time.perf_counter() - start) * 1000)
    return [statistics.median(times) for times in took]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=60)
    rounds = parser.parse_args().rounds
    from chainops.models.embeddings import embedder
    from chainops.models.weights import MINILM, find_published

    ours = embedder("minilm", on_progress=print)
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError:
        print("not measured: sentence-transformers is not installed (pip install 'chainops[embed]')")
        (one,), (batch,) = in_turn(rounds, lambda: ours.embed([QUESTION])), in_turn(6, lambda: ours.embed(BATCH))
        print(json.dumps({"benchmark": "embedding", "one_ms": round(one, 2), "batch64_ms": round(batch, 1)}))
        return
    theirs = SentenceTransformer(str(find_published("minilm", MINILM)), device="cpu")
    one_theirs, one_ours = in_turn(
        rounds, lambda: theirs.encode(QUESTION, show_progress_bar=False), lambda: ours.embed([QUESTION])
    )
    many_theirs, many_ours = in_turn(
        max(6, rounds // 10), lambda: theirs.encode(BATCH, show_progress_bar=False), lambda: ours.embed(BATCH), block=2
    )
    texts = [QUESTION, *BATCH, " ".join(WORDS * 30)]
    cosine = float((theirs.encode(texts, show_progress_bar=False) * ours.embed(texts)).sum(axis=1).min())
    print(f"{'MiniLM, median ms':<26}{'SentenceTransformer':>21}{'chainops':>11}{'ratio':>8}")
    print(f"{'one question':<26}{one_theirs:>21.2f}{one_ours:>11.2f}{one_theirs / one_ours:>8.2f}")
    print(f"{'batch of 64':<26}{many_theirs:>21.1f}{many_ours:>11.1f}{many_theirs / many_ours:>8.2f}")
    print(f"least cosine between the two, {len(texts)} texts: {cosine:.7f}")
    row = {
        "benchmark": "embedding",
        "one_ms": round(one_ours, 2),
        "one_ratio": round(one_theirs / one_ours, 2),
        "batch64_ms": round(many_ours, 1),
        "batch64_ratio": round(many_theirs / many_ours, 2),
        "least_cosine": round(cosine, 7),
    }
    print(json.dumps(row))


if __name__ == "__main__":
    main()
