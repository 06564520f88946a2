"""Make `chainops/cache/prior.json`: what the cache's judge believes before it has seen a label of its own.

    python benchmarks/cache_prior.py [--data DIR] [--cache DIR] [--without banking77 ...] [--out FILE]

DIR (or CHAINOPS_BENCH_DATA) holds the public data sets named in the file's `about`. Every domain is played as a stream
in which each request is answered and labelled. One logistic model is fitted to those in which answers repeat, with a
level (constant) of its own for each: domains differ most in how often near questions have the same answer. Then the
level of every domain is found. Shipped are the weights, how sure they are (their covariances too), and the mean and
spread of the levels, so that a new domain may be like any of them until its own labels speak. `--without` leaves
domains out, so that a benchmark on them is honest.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import tempfile
from pathlib import Path

import cache_streams as streams
import numpy as np

from chainops.cache.evidence import NAMES, evidence
from chainops.cache.risk import Prior

MOST = 4000
"""Rows of a domain: a shuffled part of the large ones."""
TELLING = 0.5
"""Share of wrong nearest answers below which a domain has a say in the weights: where hardly any answer repeats, the
features have nothing to tell. Such domains count in the level only. Averaged in, they misled the first 1,000 labels."""
WORTH = 800
"""Labels that the weights are worth as a prior."""
SPREAD = 1.0
"""Standard deviation of what `WORTH` leaves open in the weights."""
AGES, AGES_SPREAD = ("age", "age_group"), 0.5
"""What the age of an entry says depends on the order in which questions come, not on the domain: its mean is 0."""
LICENCES = {
    "banking77": "CC BY 4.0",
    "clinc150": "CC BY 3.0",
    "healthcare_routing": "MIT",
    "sts16_qq": "CC BY-SA 3.0",
    "xquad_en": "CC BY-SA 4.0",
    "scifact": "CC BY 4.0",
    "chunking_eval": "MIT",
    "halueval_general": "MIT",
    "hotpot100": "CC BY-SA 4.0",
    "routellm_mmlu": "MIT",
    "routellm_gsm8k": "MIT",
    "llmbar": "MIT",
}


def labelled(name: str, rows: list[tuple[str, str]], cache: Path) -> tuple[np.ndarray, np.ndarray]:
    """Features of every request of a shuffled stream, and whether its nearest entry's answer was wrong."""
    stream = streams.open_stream(name, rows, cache, most=MOST)
    stored = np.zeros(len(stream), np.int64)
    features, wrong = [], []
    for number, at in enumerate(next(stream.orders(1, first=100)), 1):
        near, _ = stream.near(at, stored, stream.labels)
        if near:
            features.append(evidence(stream.texts[at], near).values)
            wrong.append(float(near[0].group != stream.labels[at]))
        stored[at] = number
    return np.array(features), np.array(wrong)


def collect(data: Path, cache: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    return {name: labelled(name, rows, cache) for name, rows in streams.domains(data).items()}


def is_left_out(name: str, without: tuple[str, ...]) -> bool:
    return any(part in without for part in name.split("+"))


def make(labels: dict[str, tuple[np.ndarray, np.ndarray]], *, without: tuple[str, ...] = ()) -> Prior:
    """Fit the weights, how sure they are, and the levels of the domains."""
    used = {name: each for name, each in labels.items() if not is_left_out(name, without)}
    together = np.concatenate([features[:3000] for features, _ in used.values()])
    centre = np.round(together.mean(0), 4)
    scale = np.round(np.maximum(together.std(0), 0.1), 4)
    designs = {name: np.clip((f - centre) / scale, -4, 4) for name, (f, _) in used.items()}
    telling = [name for name, (_, wrong) in used.items() if wrong.mean() < TELLING]
    slopes, precision = _slopes([(designs[name], used[name][1]) for name in telling])
    levels = np.array([_level(designs[name] @ slopes, wrong) for name, (_, wrong) in used.items()])
    mean = np.concatenate([[levels.mean()], slopes])
    whole = np.zeros((len(mean), len(mean)))
    whole[0, 0], whole[1:, 1:] = 1 / max(1.0, float(levels.std())) ** 2, precision
    about = {
        "what": "weights of the log odds that the nearest entry's answer is wrong, and how sure they are",
        "how": "benchmarks/cache_prior.py: logistic regression with a level for each domain, MiniLM embeddings",
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "domains": {
            name: {
                "labels": len(wrong), "wrong": round(float(wrong.mean()), 3), "level": round(float(level), 2),
                "weights": name in telling,
            }
            for (name, (_, wrong)), level in zip(used.items(), levels, strict=True)
        },
        "licences": {
            name: LICENCES[name] for name in LICENCES if any(name in used_name.split("+") for used_name in used)
        },
        "note": "a name with + is those sources' questions with twins made by rule (benchmarks/cache_edits.py)",
        "left_out": list(without),
    }  # fmt: skip
    triangle = tuple(tuple(round(float(each), 4) for each in row[: at + 1]) for at, row in enumerate(whole))
    return Prior(NAMES, _plain(centre), _plain(scale), _plain(mean), triangle, about)


def _slopes(domains: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Weights common to some domains, each with a level of its own, and their precision: as if from `WORTH` labels."""
    sizes = [len(wrong) for _, wrong in domains]
    own = np.repeat(np.eye(len(domains)), sizes, axis=0)
    rows = np.hstack([np.concatenate([rows for rows, _ in domains]), own])
    wrong = np.concatenate([wrong for _, wrong in domains])
    penalty = np.concatenate([np.full(len(NAMES), 2.0), np.full(len(domains), 1 / 9)])
    penalty[[NAMES.index(name) for name in AGES]] = 1e6
    weights = np.zeros(rows.shape[1])
    for _ in range(40):
        risk = 1 / (1 + np.exp(-rows @ weights))
        curvature = (rows * (risk * (1 - risk))[:, None]).T @ rows
        weights += np.linalg.solve(curvature + np.diag(penalty), rows.T @ (wrong - risk) - penalty * weights)
    count = len(NAMES)
    known, across, levels = curvature[:count, :count], curvature[:count, count:], curvature[count:, count:]
    known = known - across @ np.linalg.solve(levels + np.eye(len(domains)) / 9, across.T)  # the levels are not known
    information = known / len(wrong)
    ages = [NAMES.index(name) for name in AGES]
    information[ages], information[:, ages] = 0.0, 0.0
    spread = np.array([SPREAD if name not in AGES else AGES_SPREAD for name in NAMES])
    return weights[:count], information * WORTH + np.diag(1 / spread**2)


def _level(odds: np.ndarray, wrong: np.ndarray) -> float:
    """The constant of a domain whose other weights are the common ones."""
    level = 0.0
    for _ in range(60):
        risk = 1 / (1 + np.exp(-odds - level))
        level += np.clip(((wrong - risk).sum() - level / 9) / ((risk * (1 - risk)).sum() + 1 / 9), -2.0, 2.0)
    return level


def _plain(row: np.ndarray) -> tuple[float, ...]:
    return tuple(float(round(each, 4)) for each in row)


def plain(prior: Prior) -> dict:
    return {field: getattr(prior, field) for field in ("names", "centre", "scale", "mean", "precision", "about")}


def _lines(value: object) -> str:
    """JSON with a line for each member of an object, and for each row of a matrix."""
    if isinstance(value, dict):
        return "{\n" + ",\n".join(f"  {json.dumps(k)}: {json.dumps(each)}" for k, each in value.items()) + "\n }"
    if isinstance(value, tuple) and isinstance(value[0], tuple):
        return "[\n" + ",\n".join(f"  {json.dumps(each)}" for each in value) + "\n ]"
    return json.dumps(value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=os.environ.get("CHAINOPS_BENCH_DATA"))
    parser.add_argument("--cache", default=str(Path(tempfile.gettempdir()) / "chainops-bench"))
    parser.add_argument("--without", nargs="*", default=[])
    parser.add_argument("--out", default=None)
    given = parser.parse_args()
    labels = collect(Path(given.data), Path(given.cache)) if given.data else {}
    if not labels:
        print("not made: no data (give --data or CHAINOPS_BENCH_DATA)")
        print(json.dumps({"benchmark": "cache_prior", "measured": False}))
        return
    prior = make(labels, without=tuple(given.without))
    print(f"{'domain':<42}{'labels':>8}{'nearest wrong':>15}")
    for name, (_, wrong) in labels.items():
        print(f"{name:<42}{len(wrong):>8}{wrong.mean():>15.3f}")
    print(f"\n{'weight':<18}{'mean':>8}{'spread':>8}")
    spread = np.sqrt(np.diag(np.linalg.inv(prior.matrix())))
    for name, mean, sd in zip(("constant", *NAMES), prior.mean, spread, strict=True):
        print(f"{name:<18}{mean:>8.2f}{sd:>8.2f}")
    if given.out:
        fields = (f" {json.dumps(name)}: {_lines(value)}" for name, value in plain(prior).items())
        Path(given.out).write_text("{\n" + ",\n".join(fields) + "\n}\n", encoding="utf-8")
    print(json.dumps({"benchmark": "cache_prior", "domains": len(labels), "out": given.out}))


if __name__ == "__main__":
    main()
