"""Make `chainops/cache/prior.json`: what the cache's judge believes before it has seen a label of its own.

    python benchmarks/cache_prior.py [--data DIR] [--cache DIR] [--without banking77 ...] [--out FILE]

DIR (or CHAINOPS_BENCH_DATA) holds the public data sets named in the file's `about`. Every domain is played as a stream
in which each request is answered and labelled. One logistic model is fitted to all, with a level (constant) of its own
for each domain: domains differ most in how often near questions have the same answer. The mean and spread of those
levels are shipped, so that a new domain may be like any of them until its own labels speak. `--without` leaves domains
out, so that a benchmark on them is honest.
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
from chainops.cache.risk import Model, Prior

MOST = 4000
"""Rows of a domain: a shuffled part of the large ones."""
SPREAD = 0.3
"""Standard deviation of the other weights between domains. Chosen: spreads fitted by EM served fewer hits."""
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
    """Fit mean and spread of the weights over the domains."""
    used = {name: each for name, each in labels.items() if not is_left_out(name, without)}
    together = np.concatenate([features[:3000] for features, _ in used.values()])
    centre = together.mean(0)
    scale = np.maximum(together.std(0), 0.1)
    names = list(used)
    start = Prior(NAMES, tuple(centre), tuple(scale), (0.0,) * (len(NAMES) + 1), (1.0,) * (len(NAMES) + 1), {})
    rows = [Model.before(start).design(features) for features, _ in used.values()]
    own = [np.eye(len(names))[[at] * len(each)] for at, each in enumerate(rows)]
    weights = _joint(
        np.hstack([np.concatenate(rows), np.concatenate(own)]), np.concatenate([w for _, w in used.values()])
    )
    mean, levels = weights[: len(NAMES) + 1], weights[len(NAMES) + 1 :]
    sd = np.array([max(1.0, float(levels.std())), *(SPREAD if name not in AGES else AGES_SPREAD for name in NAMES)])
    about = {
        "what": "weights of the log odds that the nearest entry's answer is wrong, and how they differ between domains",
        "how": "benchmarks/cache_prior.py: logistic regression with a level for each domain, MiniLM embeddings",
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "domains": {
            name: {"labels": len(wrong), "wrong": round(float(wrong.mean()), 3)} for name, (_, wrong) in used.items()
        },
        "licences": {
            name: LICENCES[name] for name in LICENCES if any(name in used_name.split("+") for used_name in used)
        },
        "note": "a name with + is those sources' questions with twins made by rule (benchmarks/cache_edits.py)",
        "left_out": list(without),
    }
    return _prior(centre, scale, mean, sd, about)


def _joint(rows: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    """Weights common to all domains and a level of its own for each (the last columns), by Newton's method."""
    penalty = np.concatenate([[0.01], np.full(len(NAMES), 2.0), np.full(rows.shape[1] - len(NAMES) - 1, 1 / 9)])
    penalty[[1 + NAMES.index(name) for name in AGES]] = 1e6
    weights = np.zeros(rows.shape[1])
    for _ in range(40):
        risk = 1 / (1 + np.exp(-rows @ weights))
        curvature = (rows * (risk * (1 - risk))[:, None]).T @ rows + np.diag(penalty)
        weights += np.linalg.solve(curvature, rows.T @ (wrong - risk) - penalty * weights)
    return weights


def _prior(centre: np.ndarray, scale: np.ndarray, mean: np.ndarray, sd: np.ndarray, about: dict) -> Prior:
    centre, scale, mean, sd = (tuple(float(round(each, 4)) for each in row) for row in (centre, scale, mean, sd))
    return Prior(NAMES, centre, scale, mean, sd, about)


def plain(prior: Prior) -> dict:
    return {field: getattr(prior, field) for field in ("names", "centre", "scale", "mean", "sd", "about")}


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
    for name, mean, sd in zip(("constant", *NAMES), prior.mean, prior.sd, strict=True):
        print(f"{name:<18}{mean:>8.2f}{sd:>8.2f}")
    if given.out:
        Path(given.out).write_text(json.dumps(plain(prior), indent=1) + "\n", encoding="utf-8")
    print(json.dumps({"benchmark": "cache_prior", "domains": len(labels), "out": given.out}))


if __name__ == "__main__":
    main()
