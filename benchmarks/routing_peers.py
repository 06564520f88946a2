"""aurelio's semantic-router 1.1.1 as `routing.py` measures it. Runs in an environment of its own, without chainops.

    python benchmarks/routing_peers.py FOLDER

FOLDER holds `vectors.npz` and `labels.json`, written by `routing.py`: the same MiniLM vectors, so only the routers
differ. Measured with its defaults: the mean of each route's examples among the 5 nearest. The
one confidence threshold is set so that 2.5% of held-back examples (one in five) are turned away, as chainops does by
cross-validation. Its own `fit` maps confidences to probabilities without changing their order, which changes nothing
here. Prints one line of JSON.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
from semantic_router import Route
from semantic_router.encoders import DenseEncoder
from semantic_router.routers import IndexedRouter

SHARE = 0.025


class Known(DenseEncoder):
    """Vectors by the text's number."""

    name: str = "known"
    rows: dict = {}  # noqa: RUF012 (pydantic's field)

    def __call__(self, docs: list[str]) -> list[list[float]]:
        return [self.rows[each].tolist() for each in docs]


def router(rows: dict, texts: list[str], labels: list[str], aggregation: str, top_k: int) -> IndexedRouter:
    by: dict[str, list[str]] = {}
    for text, label in zip(texts, labels, strict=True):
        by.setdefault(label, []).append(text)
    routes = [Route(name=name, utterances=mine) for name, mine in by.items()]
    return IndexedRouter(encoder=Known(rows=rows), routes=routes, aggregation=aggregation, top_k=top_k)


def asked(router: IndexedRouter, texts: list[str]) -> tuple[list, list[float], list[float]]:
    names, confidences, spent = [], [], []
    for text in texts:
        began = time.perf_counter()
        choice = router(text, threshold=-2.0)
        spent.append((time.perf_counter() - began) * 1000)
        names.append(choice.name)
        confidences.append(choice.confidence)
    return names, confidences, spent


def main() -> None:
    folder = Path(sys.argv[1])
    given, labels = np.load(folder / "vectors.npz"), json.loads((folder / "labels.json").read_text())
    examples, questions = ([f"{mark}{n}" for n in range(len(given[name]))] for mark, name in
                           (("e", "examples"), ("q", "questions")))  # fmt: skip
    rows = dict(zip(examples, given["examples"], strict=True)) | dict(zip(questions, given["questions"], strict=True))
    out = np.random.default_rng(0).random(len(examples)) < 0.2
    kept = [text for text, is_out in zip(examples, out, strict=True) if not is_out]
    kept_labels = [label for label, is_out in zip(labels["examples"], out, strict=True) if not is_out]
    held = [text for text, is_out in zip(examples, out, strict=True) if is_out]
    told = []
    for aggregation, top_k in (("mean", 5),):
        _, confidences, _ = asked(router(rows, kept, kept_labels, aggregation, top_k), held[:1000])
        threshold = float(np.quantile(confidences, SHARE))
        names, confidences, spent = asked(router(rows, examples, labels["examples"], aggregation, top_k), questions)
        taken = [name if sure >= threshold else None for name, sure in zip(names, confidences, strict=True)]
        told.append({
            "router": f"semantic-router, {aggregation} of {top_k}", "top": names, "taken": taken,
            "p50_ms": round(float(np.median(spent)), 3),
        })  # fmt: skip
    print(json.dumps(told))


if __name__ == "__main__":
    main()
