"""Fits the two small scorers that chainops ships, and judges them by cross-validation. Used by `routing.py`.

    python benchmarks/routing_fit.py --data DIR      # writes chainops/routing/{complexity,arithmetic}.json

DIR holds `routellm_gsm8k` and `routellm_mmlu` (question, whether a weak and a strong model were right; on GSM8K the
weak model's answer too). Ridge regression and logistic regression, in numpy.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

FEATURE_PENALTY, TOPIC_PENALTY = 1000.0, 10_000.0
"""Of the ridge, on standardised features and on vectors scaled to unit variance: chosen by 5-fold cross-validation on
the rows below, from 30 to 1,000 and 1,000 to 10,000."""
LOGISTIC_PENALTY = 30.0
SOURCE = (
    "lm-sys/RouteLLM (Apache-2.0), its evaluation responses of Mixtral-8x7B-Instruct and gpt-4-1106-preview on "
    "GSM8K (MIT, openai/grade-school-math) and MMLU (MIT, hendrycks/test)"
)


def read(folder: Path, name: str, split: str = "dev") -> list[dict]:
    path = folder / name / f"{split}.jsonl.gz"
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def vectors(embedder, texts: list[str], size: int = 64) -> np.ndarray:
    return np.concatenate([embedder.embed(texts[at : at + size]) for at in range(0, len(texts), size)])


@dataclass
class Judged:
    """Questions with what both models made of them."""

    counted: np.ndarray
    vectors: np.ndarray
    weak: np.ndarray
    strong: np.ndarray
    group: np.ndarray
    """The set (gsm8k) or the subject (MMLU)."""

    def __getitem__(self, rows) -> Judged:
        return Judged(self.counted[rows], self.vectors[rows], self.weak[rows], self.strong[rows], self.group[rows])

    @property
    def is_gsm(self) -> np.ndarray:
        return self.group == "gsm8k"


def judged(folder: Path, embedder, names: tuple[str, ...] = ("routellm_gsm8k", "routellm_mmlu")) -> Judged:
    from chainops.routing.complexity import features

    rows = [row | {"group": row.get("subject", "gsm8k")} for name in names for row in read(folder, name)]
    counted = np.array([list(features(row["prompt"]).values()) for row in rows])
    about = vectors(embedder, [row["prompt"] for row in rows]).astype(float)
    weak, strong = (np.array([row[each] for row in rows], float) for each in ("weak", "strong"))
    return Judged(counted, about, weak, strong, np.array([row["group"] for row in rows]))


def ridge(data: Judged, *, topic: bool) -> tuple[np.ndarray, np.ndarray, float]:
    """Weights of the features, of the vector, and the offset: of the strong model's gain. Inputs and gain are centred
    within each set, so that the sets themselves are not what is learnt."""
    mean, spread, middle = data.counted.mean(0), data.counted.std(0) + 1e-9, data.vectors.mean(0)
    inputs = (data.counted - mean) / spread / np.sqrt(FEATURE_PENALTY)
    if topic:
        inputs = np.hstack([inputs, (data.vectors - middle) * np.sqrt(data.vectors.shape[1] / TOPIC_PENALTY)])
    inputs, gain, offsets = inputs.copy(), data.strong - data.weak, []
    for mine in (data.is_gsm, ~data.is_gsm):
        if mine.any():
            offsets.append(gain[mine].mean())
            inputs[mine] -= inputs[mine].mean(0)
            gain = np.where(mine, gain - offsets[-1], gain)
    weights = np.linalg.solve(inputs.T @ inputs + np.eye(inputs.shape[1]), inputs.T @ gain)
    count = data.counted.shape[1]
    features, about = weights[:count] / spread / np.sqrt(FEATURE_PENALTY), weights[count:]
    about = about * np.sqrt(data.vectors.shape[1] / TOPIC_PENALTY)
    return features, about, float(np.mean(offsets)) - float(mean @ features) - (float(middle @ about) if topic else 0.0)


def scored(data: Judged, fitted) -> np.ndarray:
    features, about, offset = fitted
    return data.counted @ features + (data.vectors @ about if len(about) else 0.0) + offset


def curve(score: np.ndarray, weak: np.ndarray, strong: np.ndarray) -> tuple[float, float, float]:
    """APGR, CPT(50%) and CPT(80%): the share of the gap between the models that is recovered, averaged over all shares
    of strong calls; and the share of strong calls that recovers half and four fifths of it. Random: 0.5, 0.5, 0.8."""
    order = np.argsort(-score, kind="stable")
    gap = np.concatenate([[0], np.cumsum((strong - weak)[order])]) / (strong - weak).sum()
    share = np.linspace(0, 1, len(gap))
    area = float(((gap[1:] + gap[:-1]) / 2).mean())
    return area, float(share[np.argmax(gap >= 0.5)]), float(share[np.argmax(gap >= 0.8)])


def out_of_fold(data: Judged, folds: np.ndarray, *, topic: bool) -> np.ndarray:
    score = np.zeros(len(folds))
    for fold in np.unique(folds[folds >= 0]):
        score[folds == fold] = scored(data[folds == fold], ridge(data[folds != fold], topic=topic))
    return score


def logistic(counted: np.ndarray, right: np.ndarray, penalty: float = LOGISTIC_PENALTY) -> tuple[np.ndarray, float]:
    """Weights and offset, by Newton's method."""
    mean, spread = counted.mean(0), counted.std(0) + 1e-9
    scaled = np.c_[(counted - mean) / spread, np.ones(len(counted))]
    weights, shrink = np.zeros(scaled.shape[1]), np.r_[np.full(counted.shape[1], penalty), 0.0]
    for _ in range(30):
        p = 1 / (1 + np.exp(-scaled @ weights))
        weights -= np.linalg.solve(
            (scaled * (p * (1 - p))[:, None]).T @ scaled + np.diag(shrink), scaled.T @ (p - right) + shrink * weights
        )
    each = weights[:-1] / spread
    return each, float(weights[-1] - mean @ each)


def answers(folder: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
    from chainops.routing.arithmetic import features

    rows = read(folder, "routellm_gsm8k")
    found = [features(row["prompt"], row["weak_response"]) for row in rows]
    weak, strong = (np.array([row[each] for row in rows], float) for each in ("weak", "strong"))
    return np.array([list(each.values()) for each in found]), weak, strong, list(found[0])


def _rounded(names: list[str], values: np.ndarray) -> dict[str, float]:
    return {name: round(float(value), 6) for name, value in zip(names, values, strict=True)}


def write(folder: Path) -> None:
    from chainops.models.embeddings import embedder
    from chainops.routing import arithmetic, complexity

    minilm = embedder("minilm")
    data, names = judged(folder, minilm), list(complexity.features("x"))
    means = _rounded(names, data.counted.mean(0))
    told: dict = {
        "trained_on": f"{SOURCE}; the {len(data.weak)} rows of the development split. The target is the strong "
        "model's correctness less the weak model's, centred within each set.",
        "method": "ridge regression, benchmarks/routing_fit.py",
    }
    for name, topic in (("question", False), ("question_and_vector", True)):
        fitted = ridge(data, topic=topic)
        levels = np.quantile(scored(data, fitted), np.linspace(0, 1, 41)[1:])
        told[name] = {
            "offset": round(fitted[2] + float(data.counted.mean(0) @ fitted[0]), 6),
            "features": _rounded(names, fitted[0]),
            "means": means,
            "levels": [round(float(each), 5) for each in levels],
        }
        if topic:
            told[name] |= {
                "embedder_digest": minilm.digest,
                "embedder": "sentence-transformers/all-MiniLM-L6-v2",
                "topic": [round(float(each), 5) for each in fitted[1]],
            }
    complexity.NUMBERS.write_text(json.dumps(told, indent=1).replace(",\n   ", ", ") + "\n", "utf-8")
    checks, weak, _, names = answers(folder)
    weights, offset = logistic(checks, weak)
    told = {
        "trained_on": f"{SOURCE}; Mixtral's answers to {len(weak)} GSM8K questions of the development split and "
        "whether they were right",
        "method": "logistic regression, benchmarks/routing_fit.py",
        "offset": round(offset + float(checks.mean(0) @ weights), 6),
        "features": _rounded(names, weights),
        "means": _rounded(names, checks.mean(0)),
    }
    arithmetic.NUMBERS.write_text(json.dumps(told, indent=1) + "\n", "utf-8")
    for path in (complexity.NUMBERS, arithmetic.NUMBERS):
        print(f"{path}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("CHAINOPS_BENCH_DATA"))
    given = parser.parse_args().data
    if given is None or not (given / "routellm_gsm8k").is_dir():
        sys.exit("nothing written: give the folder that holds routellm_gsm8k and routellm_mmlu with --data")
    write(given)
