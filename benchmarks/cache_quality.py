"""How often the semantic cache answers, and how often wrongly, on streams of questions with a known answer.

    python benchmarks/cache_quality.py [--data DIR] [--cache DIR] [--orders 10] [--quick] [--only NAME ...]
                                       [--stream FILE.jsonl] [--plot FILE.png]

Online-faithful: a served request teaches nothing unless it is audited; every other one is answered, labelled and kept;
audited requests count as misses. Three policies on the same orders: the best static threshold, chosen in hindsight for
each stream and bound; the rule of the vCache paper (own implementation of its description: a logistic curve for each
entry, here with a posterior on a grid); ours, with a prior made without the stream's domain. `--stream` plays anybody's
rows {"text": ..., "label": ...}, with the shipped prior. DIR as for benchmarks/cache_prior.py.

The judge's few constants were chosen on "banking77 train, 3080" and "clinc150 train, 4500", on orders that are among
those played here: their rows are not independent of that choice. The rule-made twins are alike in both sets, so leaving
one out does not make the other foreign. Free-form answers are not measured yet.

Wrong: share of the served answers, pooled over the orders, and its 95% upper limit (Clopper-Pearson).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cache_prior
import cache_streams as streams
import numpy as np

from chainops.cache.evidence import evidence
from chainops.cache.judge import Judge, Label
from chainops.cache.risk import Prior, shipped

BOUNDS = (0.01, 0.02, 0.05, 0.1)
SKETCH = {
    ("banking77 train, 3080", 0.01): 0.174, ("banking77 train, 3080", 0.02): 0.274,
    ("banking77 train, 3080", 0.05): 0.443, ("banking77 train, 3080", 0.1): 0.649,
    ("clinc150 train, 4500", 0.01): 0.430, ("clinc150 train, 4500", 0.02): 0.534,
    ("clinc150 train, 4500", 0.05): 0.656, ("clinc150 train, 4500", 0.1): 0.736,
}  # fmt: skip
"""Hit rates of an earlier sketch on the test splits of these sizes; the train rows here stand in for them."""
THRESHOLDS = np.concatenate([np.arange(0.60, 0.90, 0.01), np.arange(0.90, 0.99, 0.005), np.arange(0.99, 1.0, 0.002)])


@dataclass(slots=True)
class Tally:
    """Counts over some orders, of the requests that no exact cache answers."""

    requests: int = 0
    served: int = 0
    wrong: int = 0
    audited: int = 0
    repeats_served: int = 0
    """Repeats of a text (Zipf streams): left out of all other counts."""
    repeats_wrong: int = 0

    @property
    def hit_rate(self) -> float:
        return self.served / max(self.requests, 1)

    @property
    def wrong_rate(self) -> float:
        return self.wrong / max(self.served, 1)

    @property
    def upper(self) -> float:
        return upper_limit(self.wrong, self.served)


def upper_limit(wrong: int, served: int) -> float:
    """One-sided 95% Clopper-Pearson limit, by bisection on the binomial distribution."""
    if served == 0 or wrong == served:
        return 1.0
    low, high = wrong / served, 1.0
    for _ in range(50):
        rate = (low + high) / 2
        log = [
            math.lgamma(served + 1) - math.lgamma(k + 1) - math.lgamma(served - k + 1)
            + k * math.log(rate) + (served - k) * math.log1p(-rate)
            for k in range(wrong + 1)
        ]  # fmt: skip
        low, high = (rate, high) if sum(map(math.exp, log)) > 0.05 else (low, rate)
    return high


Policy = Callable[..., None]


def play(stream: streams.Stream, order: Sequence[int], step: Callable, tally: Tally) -> None:
    """Play one order. `step(at, near, places)` gives (served, audited) and learns what it may."""
    is_kept, was_seen = np.zeros(len(stream), bool), np.zeros(len(stream), bool)
    for at in order:
        if is_kept[at]:  # the very text is kept: an exact hit, right by definition
            continue
        near, places = stream.near(at, is_kept, stream.labels)
        served, audited = step(at, near, places) if near else (False, False)
        wrong = served and near[0].group != stream.labels[at]
        if was_seen[at]:
            tally.repeats_served += served
            tally.repeats_wrong += wrong
        else:
            tally.requests += 1
            tally.served += served
            tally.wrong += wrong
            tally.audited += audited
        was_seen[at] = True
        is_kept[at] = not served


def ours(stream: streams.Stream, order: Sequence[int], bound: float, prior: Prior, seed: int, tally: Tally) -> None:
    judge, draws = Judge(bound, prior=prior), np.random.default_rng(seed)
    clock = iter(range(10**9))

    def step(at: int, near: list, places: list[int]) -> tuple[bool, bool]:
        found = evidence(stream.texts[at], near)
        decision = judge.decide(found, draw=draws.random())
        if decision.serve and not decision.audit:
            return True, False
        correct = near[0].group == stream.labels[at]
        judge.learn(Label(found.values, correct, "audit" if decision.serve else "miss", float(next(clock))))
        return False, decision.audit

    play(stream, order, step, tally)


def static(stream: streams.Stream, order: Sequence[int], threshold: float, tally: Tally) -> None:
    is_kept, was_seen = np.zeros(len(stream), bool), np.zeros(len(stream), bool)
    for at in order:
        if is_kept[at]:
            continue
        first = np.flatnonzero(is_kept[stream.nearest[at]])[:1]  # beyond the nearest 256 none is near enough to serve
        served = len(first) > 0 and bool(stream.similarity[at][first[0]] >= threshold)
        if not was_seen[at]:
            tally.requests += 1
            tally.served += served
            tally.wrong += served and stream.labels[stream.nearest[at][first[0]]] != stream.labels[at]
        was_seen[at] = True
        is_kept[at] = not served


_TS, _GAMMAS = np.linspace(0.0, 1.0, 41), np.geomspace(2.0, 200.0, 16)
_T, _GAMMA = (each.ravel() for each in np.meshgrid(_TS, _GAMMAS, indexing="ij"))
_EPSILONS = np.linspace(0.02, 0.5, 25)


def vcache(stream: streams.Stream, order: Sequence[int], bound: float, seed: int, tally: Tally) -> None:
    """The rule of the vCache paper: explore with probability tau = min over eps of 1 - bound / (1 - alpha(eps)).

    alpha(eps) is (1 - eps) times the chance of being right, pessimistic at level eps, by a posterior over the entry's
    own curve (a grid over its threshold and steepness, flat in the first and in the logarithm of the second).
    """
    draws, seen = np.random.default_rng(seed), {}

    def step(at: int, near: list, places: list[int]) -> tuple[bool, bool]:
        similarity, entry = near[0].similarity, places[0]
        right = 1.0 / (1.0 + np.exp(-_GAMMA * (similarity - _T)))
        if entry in seen:
            log = seen[entry]
            weight = np.exp(log - log.max())
            by_size = np.argsort(right)
            share = np.cumsum(weight[by_size]) / weight.sum()
            low = right[by_size][np.minimum(np.searchsorted(share, _EPSILONS), len(right) - 1)]
            tau = float((1.0 - bound / (1.0 - (1.0 - _EPSILONS) * low)).min())
            if draws.random() > tau:
                return True, False
        correct = near[0].group == stream.labels[at]
        likelihood = np.log(np.maximum(right if correct else 1.0 - right, 1e-12))
        seen[entry] = seen.get(entry, np.zeros(len(_T))) + likelihood
        return False, False

    play(stream, order, step, tally)


@dataclass(slots=True)
class Case:
    """One row group of the table."""

    name: str
    stream: streams.Stream
    orders: list[np.ndarray]
    prior: Prior
    is_zipf: bool = False
    rows: list[dict] = field(default_factory=list)


def measure(case: Case, *, with_vcache: bool) -> None:
    """Fill the case's rows and print them as they come."""
    fixed = []
    for threshold in THRESHOLDS:
        tally = Tally()
        for order in case.orders[:3]:
            static(case.stream, order, float(threshold), tally)
        fixed.append(tally)
    for bound in BOUNDS:
        best = max((t for t in fixed if t.served and t.wrong_rate <= bound), key=lambda t: t.hit_rate, default=Tally(1))
        vc, own = Tally(), Tally()
        for number, order in enumerate(case.orders):
            ours(case.stream, order, bound, case.prior, number, own)
        for number, order in enumerate(case.orders[:3] if with_vcache else []):
            vcache(case.stream, order, bound, number, vc)
        sketch = SKETCH.get((case.name, bound))
        removed = 1 - (1 - own.hit_rate) / max(1 - best.hit_rate, 1e-9)
        row = {
            "stream": case.name, "bound": bound, "orders": len(case.orders), "static": round(best.hit_rate, 4),
            "vcache": round(vc.hit_rate, 4), "vcache_wrong": round(vc.wrong_rate, 4),
            "hits": round(own.hit_rate, 4), "wrong": round(own.wrong_rate, 4), "upper": round(own.upper, 4),
            "served": own.served, "audited": round(own.audited / max(own.requests, 1), 4),
            "to_static": round(own.hit_rate / best.hit_rate, 2) if best.served else None,
            "to_sketch": round(own.hit_rate / sketch, 2) if sketch else None,
            "misses_removed": round(removed, 3), "zipf": case.is_zipf,
            "held": own.served == 0 or own.upper <= bound,
        }  # fmt: skip
        case.rows.append(row)
        print(line(row), flush=True)


HEAD = (
    f"{'stream':<34}{'bound':>6}{'static':>8}{'vCache':>8}{'wrong':>7}{'ours':>8}{'wrong':>8}{'95% up':>8}"
    f"{'audits':>8}{'/static':>9}{'/sketch':>9}{'-misses':>9}  bound"
)


def line(row: dict) -> str:
    def ratio(value: float | None) -> str:
        return "-" if value is None else f"{value:.2f}"

    held = "held" if row["held"] else ("not shown" if row["wrong"] <= row["bound"] else "BROKEN")
    return (
        f"{row['stream']:<34}{row['bound']:>6.2f}{row['static']:>8.3f}{row['vcache']:>8.3f}{row['vcache_wrong']:>7.3f}"
        f"{row['hits']:>8.3f}{row['wrong']:>8.4f}{row['upper']:>8.4f}{row['audited']:>8.3f}{ratio(row['to_static']):>9}"
        f"{ratio(row['to_sketch']):>9}{row['misses_removed']:>9.2f}  {held if row['served'] else 'held (none served)'}"
    )


def zipf(stream: streams.Stream, seed: int) -> np.ndarray:
    """Twice as many requests as texts: half in shuffled order, half repeats, the text of rank r drawn as 1/r."""
    rng = np.random.default_rng(1000 + seed)
    order = rng.permutation(len(stream))
    popular = rng.permutation(len(stream))
    weight = 1.0 / np.arange(1, len(stream) + 1)
    repeats = popular[rng.choice(len(stream), size=len(stream), p=weight / weight.sum())]
    mixed = np.concatenate([order, repeats])
    return mixed[rng.permutation(len(mixed))]


def cases(data: Path, cache: Path, orders: int, only: Sequence[str]) -> list[Case]:
    known = streams.domains(data)
    labels = cache_prior.collect(data, cache)
    banking, clinc = (
        {split: streams.intents(data, name, split) for split in ("train", "dev")} for name in ("banking77", "clinc150")
    )
    hard_a, hard_b = "xquad_en+chunking_eval+hotpot100", "scifact+halueval_general+routellm_mmlu"
    given = [
        ("banking77 train, 3080", "banking77", banking["train"], 3080),
        ("banking77 dev", "banking77", banking["dev"], None),
        ("banking77 train", "banking77", banking["train"], None),
        ("clinc150 train, 4500", "clinc150", clinc["train"], 4500),
        ("clinc150 dev", "clinc150", clinc["dev"], None),
        ("clinc150 train", "clinc150", clinc["train"], None),
        ("xquad", "xquad_en", known.get("xquad_en", []), None),
        ("scifact", "scifact", known.get("scifact", []), None),
        ("sts16 question pairs", "sts16_qq", known.get("sts16_qq", []), None),
        ("twins A (by rule)", hard_a, known.get(hard_a, []), None),
        ("twins B (by rule)", hard_b, known.get(hard_b, []), None),
    ]
    found: list[Case] = []
    for name, domain, rows, most in given:
        if not rows:
            print(f"not measured: {name} (its data is not there)")
        elif not only or any(word in name for word in only):
            prior = cache_prior.make(labels, without=tuple(domain.split("+")))
            stream = streams.open_stream(name, rows, cache, most=most)
            found.append(Case(name, stream, list(stream.orders(orders)), prior))
            if domain in ("banking77", "clinc150"):
                found.append(Case(f"{name}, sorted", stream, [stream.by_label()], prior))
                if most or "dev" in name:
                    mixed = [zipf(stream, seed) for seed in range(orders)]
                    found.append(Case(f"{name}, Zipf", stream, mixed, prior, is_zipf=True))
    return found


def draw(rows: list[dict], file: Path) -> None:
    """Hit rate against error, one panel for each stream."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    names = list(dict.fromkeys(row["stream"] for row in rows))
    columns = min(4, len(names))
    figure, panels = plt.subplots(
        -(-len(names) // columns), columns, figsize=(4 * columns, 3 * -(-len(names) // columns))
    )
    for panel, name in zip(np.atleast_1d(panels).ravel(), names, strict=False):
        own = [row for row in rows if row["stream"] == name]
        panel.plot([row["bound"] for row in own], [row["static"] for row in own], "s--", label="best static (at bound)")
        panel.plot([row["wrong"] for row in own], [row["hits"] for row in own], "o-", label="ours (measured error)")
        panel.plot([row["vcache_wrong"] for row in own], [row["vcache"] for row in own], "^:", label="vCache rule")
        panel.set(title=name, xlabel="wrong among served", ylabel="hit rate", xlim=(0, 0.15), ylim=(0, 1))
    np.atleast_1d(panels).ravel()[0].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(file, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=os.environ.get("CHAINOPS_BENCH_DATA"))
    parser.add_argument("--cache", default=str(Path(tempfile.gettempdir()) / "chainops-bench"))
    parser.add_argument("--orders", type=int, default=10)
    parser.add_argument("--quick", action="store_true", help="two orders, without the vCache rule")
    parser.add_argument("--only", nargs="*", default=[], help="streams whose name holds one of these")
    parser.add_argument("--stream", type=Path, default=None)
    parser.add_argument("--plot", type=Path, default=None)
    given = parser.parse_args()
    orders, cache = 2 if given.quick else given.orders, Path(given.cache)
    begun = time.perf_counter()
    if given.stream:
        rows = [json.loads(text) for text in given.stream.read_text("utf-8").splitlines() if text.strip()]
        stream = streams.open_stream(given.stream.stem, [(row["text"], str(row["label"])) for row in rows], cache)
        todo = [Case(given.stream.stem, stream, list(stream.orders(orders)), shipped())]
        todo.append(Case(f"{given.stream.stem}, sorted", stream, [stream.by_label()], shipped()))
    elif given.data:
        todo = cases(Path(given.data), cache, orders, given.only)
    else:
        print("not measured: no data (give --data, --stream or CHAINOPS_BENCH_DATA)")
        print(json.dumps({"benchmark": "cache_quality", "measured": False}))
        return
    print(HEAD)
    for case in todo:
        measure(case, with_vcache=not given.quick)
    rows = [row for case in todo for row in case.rows]
    if given.plot:
        draw(rows, given.plot)
        print(f"drawn: {given.plot}")
    took = round(time.perf_counter() - begun)
    print(json.dumps({"benchmark": "cache_quality", "orders": orders, "took_s": took, "rows": rows}))


if __name__ == "__main__":
    main()
