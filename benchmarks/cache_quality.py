"""How often the semantic cache answers, and how often wrongly, on streams of questions with a known answer.

    python benchmarks/cache_quality.py [--data DIR] [--cache DIR] [--orders 10] [--quick] [--only NAME ...]
                                       [--stream FILE.jsonl] [--plot FILE.png]

Online-faithful: a served request teaches nothing unless it is audited; every other one is answered, labelled and kept;
audited requests count as misses. Four policies on the same orders: the best static threshold, chosen in hindsight for
each stream and bound; the rule of the vCache paper (own implementation of its description: a logistic curve for each
entry, here with a posterior on a grid); a plain sketch; ours, with a prior made without the stream's domain. `--stream`
plays anybody's rows {"text": ..., "label": ...}, with the shipped prior. DIR as for benchmarks/cache_prior.py.

The judge's few constants were chosen on these streams in other orders than those played here, and on their sorted
order. That one order is played as often as there are random ones, each time with other audits: how soon a run of
errors ends is their luck. The rule-made twins are alike in both sets, so leaving one out does not make the other
foreign. The sketch is an earlier, plainer logistic model without any guarantee. "written": answers are sentences, and
whether two of them say the same is what the cache's comparer says of them.

Wrong: share of the served answers, pooled over the orders, and its 95% upper limit (Clopper-Pearson). In Zipf streams
repeats of a text are left out of all columns, and the share with those that were served in brackets behind.
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

from chainops.cache.evidence import NAMES, evidence
from chainops.cache.judge import Judge, Label
from chainops.cache.risk import Prior, shipped

BOUNDS = (0.01, 0.02, 0.05, 0.1)
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
    def wrong_rate_of_all(self) -> float:
        """Repeats of a text that were served count as well."""
        return (self.wrong + self.repeats_wrong) / max(self.served + self.repeats_served, 1)

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


def play(
    stream: streams.Stream, order: Sequence[int], step: Callable, tally: Tally, groups: Sequence[str] | None = None
) -> None:
    """Play one order. `step(at, near, places)` gives (served, audited) and learns what it may.

    Args:
        groups: Which answer each text has, as far as the cache knows; None: as its label says.
    """
    stored, was_seen = np.zeros(len(stream), np.int64), np.zeros(len(stream), bool)
    count = 0
    for at in order:
        if stored[at]:  # the very text is kept: an exact hit, right by definition
            continue
        near, places = stream.near(at, stored, groups or stream.labels)
        served, audited = step(at, near, places) if near else (False, False)
        wrong = served and stream.labels[places[0]] != stream.labels[at]
        if was_seen[at]:
            tally.repeats_served += served
            tally.repeats_wrong += wrong
        else:
            tally.requests += 1
            tally.served += served
            tally.wrong += wrong
            tally.audited += audited
        was_seen[at] = True
        count += not served
        stored[at] = 0 if served else count


def ours(
    stream: streams.Stream,
    order: Sequence[int],
    bound: float,
    prior: Prior,
    seed: int,
    tally: Tally,
    same: streams.Same | None = None,
) -> None:
    """Play the judge. `same`: whether the answers of two texts say the same, where they are no labels."""
    judge, draws = Judge(bound, prior=prior), np.random.default_rng(seed)
    clock, groups = iter(range(10**9)), list(stream.labels)

    def step(at: int, near: list, places: list[int]) -> tuple[bool, bool]:
        found = evidence(stream.texts[at], near)
        decision = judge.decide(found, draw=draws.random())
        if decision.serve and not decision.audit:
            return True, False
        if same is None:
            correct = near[0].group == stream.labels[at]
        else:
            correct = same(at, places[0])
            groups[at] = joined(at, near, places)
        judge.learn(Label(found.values, correct, "audit" if decision.serve else "miss", float(next(clock))))
        return False, decision.audit

    def joined(at: int, near: list, places: list[int]) -> str:
        """The group of the first of the four nearest answers that says the same; else one of its own."""
        assert same is not None
        first = {each.group: place for each, place in zip(near[::-1], places[::-1], strict=True)}
        for group in list(dict.fromkeys(each.group for each in near))[:4]:
            if same(at, first[group]):
                return group
        return str(at)

    if same is not None:
        groups = [str(at) for at in range(len(stream))]
    play(stream, order, step, tally, groups)


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


SKETCHED = ("similarity", "margin", "agreement", "agreement_near", "mean_similarity", "overlap", "overlap_rare",
            "rarest_asked", "rarest_kept", "numbers", "negation")  # fmt: skip
"""What the sketch looks at; the similarity of the nearest other answer is the first two's difference."""
_COLUMNS = [NAMES.index(name) for name in SKETCHED]
Rows = tuple[np.ndarray, np.ndarray]


def sketch(stream: streams.Stream, order: Sequence[int], bound: float, begun: Rows, seed: int, tally: Tally) -> None:
    """A simple rule to compare with: a logistic model, begun from other domains' rows and refitted every 200 labels.

    Served is what has at most the risk below which all requests so far have a predicted error of 0.8 x the bound on
    average; 3% of it is audited. Audited labels stand for 1/3% requests.
    """
    draws = np.random.default_rng(seed)
    features, wrong = [list(row) for row in begun[0][:, _COLUMNS]], list(begun[1])
    weight, asked = [1.0] * len(wrong), list[list[float]]()
    model, limit = _logistic(np.array(features), np.array(wrong), np.array(weight)), -1.0

    def step(at: int, near: list, places: list[int]) -> tuple[bool, bool]:
        nonlocal model, limit
        row = [evidence(stream.texts[at], near).values[column] for column in _COLUMNS]
        asked.append(row)
        served = bool(model(np.array([row]))[0] <= limit)
        audited = served and draws.random() < 0.03
        if not served or audited:
            features.append(row)
            wrong.append(float(near[0].group != stream.labels[at]))
            weight.append(1 / 0.03 if audited else 1.0)
            if (len(wrong) - len(begun[1])) % 200 == 0:
                model = _logistic(np.array(features), np.array(wrong), np.array(weight))
                risk = np.sort(model(np.array(asked)))
                fits = np.flatnonzero(np.cumsum(risk) <= 0.8 * bound * np.arange(1, len(risk) + 1))
                limit = float(risk[fits[-1]]) if len(fits) else -1.0
        return served and not audited, audited

    play(stream, order, step, tally)


def _logistic(features: np.ndarray, wrong: np.ndarray, weight: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    centre, scale = features.mean(0), features.std(0) + 1e-9
    rows = np.hstack([np.ones((len(features), 1)), (features - centre) / scale])
    at = np.zeros(rows.shape[1])
    for _ in range(12):
        risk = 1 / (1 + np.exp(-np.clip(rows @ at, -30, 30)))
        curvature = (rows * (weight * risk * (1 - risk))[:, None]).T @ rows + np.eye(len(at))
        at += np.linalg.solve(curvature, rows.T @ (weight * (wrong - risk)) - at)
    return lambda given: 1 / (1 + np.exp(-np.clip(at[0] + (given - centre) / scale @ at[1:], -30, 30)))


@dataclass(slots=True)
class Case:
    """One row group of the table."""

    name: str
    stream: streams.Stream
    orders: list[np.ndarray]
    prior: Prior
    begun: Rows
    """What the sketch begins with: labelled rows of the other domains of its kind."""
    is_zipf: bool = False
    same: streams.Same | None = None
    """Compares written answers; None: the labels are the answers."""
    rows: list[dict] = field(default_factory=list)


def measure(case: Case, *, peers: int) -> None:
    """Fill the case's rows and print them as they come. The other policies play the first `peers` orders."""
    fixed = []
    for threshold in THRESHOLDS:
        tally = Tally()
        for order in case.orders[:3]:
            static(case.stream, order, float(threshold), tally)
        fixed.append(tally)
    for bound in BOUNDS:
        best = max((t for t in fixed if t.served and t.wrong_rate <= bound), key=lambda t: t.hit_rate, default=Tally(1))
        vc, sketched, own = Tally(), Tally(), Tally()
        for number, order in enumerate(case.orders):
            ours(case.stream, order, bound, case.prior, number, own, case.same)
        for number, order in enumerate(case.orders[:peers]):
            vcache(case.stream, order, bound, number, vc)
            if len(case.begun[0]):
                sketch(case.stream, order, bound, case.begun, number, sketched)
        row = {
            "stream": case.name, "bound": bound, "orders": len(case.orders), "static": round(best.hit_rate, 4),
            "vcache": round(vc.hit_rate, 4), "vcache_wrong": round(vc.wrong_rate, 4),
            "sketch": round(sketched.hit_rate, 4), "sketch_wrong": round(sketched.wrong_rate, 4),
            "hits": round(own.hit_rate, 4), "wrong": round(own.wrong_rate, 4), "upper": round(own.upper, 4),
            "served": own.served, "wrong_with_repeats": round(own.wrong_rate_of_all, 4),
            "audited": round(own.audited / max(own.requests, 1), 4),
            "to_static": round(own.hit_rate / best.hit_rate, 2) if best.served else None,
            "to_sketch": round(own.hit_rate / sketched.hit_rate, 2) if sketched.served else None,
            "misses_removed": round(1 - (1 - own.hit_rate) / max(1 - best.hit_rate, 1e-9), 3), "zipf": case.is_zipf,
            "held": own.served == 0 or own.upper <= bound,
        }  # fmt: skip
        case.rows.append(row)
        print(line(row), flush=True)


HEAD = (
    f"{'stream':<34}{'bound':>6}{'static':>8}{'vCache':>8}{'wrong':>7}{'sketch':>8}{'wrong':>7}"
    f"{'ours':>8}{'wrong':>8}{'95% up':>8}{'audits':>8}{'/static':>9}{'/sketch':>9}{'-misses':>9}  bound"
)


def line(row: dict) -> str:
    def ratio(value: float | None) -> str:
        return "-" if value is None else f"{value:.2f}"

    held = "held" if row["held"] else ("not shown" if row["wrong"] <= row["bound"] else "BROKEN")
    if row["zipf"]:
        held += f" ({row['wrong_with_repeats']:.4f} with repeats)"
    return (
        f"{row['stream']:<34}{row['bound']:>6.2f}{row['static']:>8.3f}{row['vcache']:>8.3f}{row['vcache_wrong']:>7.3f}"
        f"{row['sketch']:>8.3f}{row['sketch_wrong']:>7.3f}"
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


INTENTS = ("banking77", "clinc150")


def cases(data: Path, cache: Path, orders: int, only: Sequence[str]) -> list[Case]:
    known = streams.domains(data)
    labels = cache_prior.collect(data, cache)
    hard_a, hard_b = "xquad_en+chunking_eval+hotpot100", "scifact+halueval_general+routellm_mmlu"
    given = [
        (f"{name} {split}{f', {most}' if most else ''}", name, streams.intents(data, name, split), most)
        for name, few in zip(INTENTS, (3080, 4500), strict=True)
        for split, most in (("train", few), ("dev", None), ("train", None))
    ] + [
        ("xquad", "xquad_en", known.get("xquad_en", []), None),
        ("scifact", "scifact", known.get("scifact", []), None),
        ("sts16 question pairs", "sts16_qq", known.get("sts16_qq", []), None),
        ("twins A (by rule)", hard_a, known.get(hard_a, []), None),
        ("twins B (by rule)", hard_b, known.get(hard_b, []), None),
    ]
    nothing = (np.empty((0, len(NAMES))), np.empty(0))
    found: list[Case] = []
    for name, domain, rows, most in given:
        if not rows:
            print(f"not measured: {name} (its data is not there)")
            continue
        if only and not any(word in name for word in only):
            continue
        prior = cache_prior.make(labels, without=tuple(domain.split("+")))
        stream = streams.open_stream(name, rows, cache, most=most)
        begun = next((labels[other] for other in INTENTS if other != domain), nothing) if domain in INTENTS else nothing
        whole = domain in INTENTS and most is None and "train" in name
        found.append(Case(name, stream, list(stream.orders(min(3, orders) if whole else orders)), prior, begun))
        if domain in INTENTS and not whole:
            found.append(Case(f"{name}, sorted", stream, [stream.by_label()] * orders, prior, begun))
            mixed = [zipf(stream, seed) for seed in range(300, 300 + max(1, orders // 2))]
            found.append(Case(f"{name}, Zipf", stream, mixed, prior, begun, is_zipf=True))
        if domain in INTENTS and most is None and not whole:
            found.append(written(name, rows, data, cache, prior, begun, max(1, orders // 2)))
    return found


def written(
    name: str, rows: list[tuple[str, str]], data: Path, cache: Path, prior: Prior, begun: Rows, orders: int
) -> Case:
    """Answers in sentences: of each class three wordings by rule, mixed with questions that have answers of their own.

    "Same" is what the cache's own comparer says; wrong is by label.
    """
    answers = [(text, label, streams.reply(label, number)) for number, (text, label) in enumerate(rows)]
    answers += streams.own_answers(data)
    stream = streams.open_stream(name, [(text, label) for text, label, _ in answers], cache)
    texts = {" ".join(text.lower().split()): answer for text, _, answer in reversed(answers)}
    same = streams.by_comparer(stream.texts, [texts[" ".join(text.lower().split())] for text in stream.texts])
    return Case(f"{name}, written", stream, list(stream.orders(orders)), prior, begun, same=same)


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
        panel.plot([row["sketch_wrong"] for row in own], [row["sketch"] for row in own], "x:", label="sketch")
        panel.set(title=name, xlabel="wrong among served", ylabel="hit rate", xlim=(0, 0.15), ylim=(0, 1))
    np.atleast_1d(panels).ravel()[0].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(file, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=os.environ.get("CHAINOPS_BENCH_DATA"))
    parser.add_argument("--cache", default=str(Path(tempfile.gettempdir()) / "chainops-bench"))
    parser.add_argument("--orders", type=int, default=10)
    parser.add_argument(
        "--quick", action="store_true", help="two orders, without the other policies but the static one"
    )
    parser.add_argument("--only", nargs="*", default=[], help="streams whose name holds one of these")
    parser.add_argument("--stream", type=Path, default=None)
    parser.add_argument("--plot", type=Path, default=None)
    given = parser.parse_args()
    orders, cache = 2 if given.quick else given.orders, Path(given.cache)
    begun = time.perf_counter()
    if given.stream:
        rows = [json.loads(text) for text in given.stream.read_text("utf-8").splitlines() if text.strip()]
        stream = streams.open_stream(given.stream.stem, [(row["text"], str(row["label"])) for row in rows], cache)
        nothing = (np.empty((0, len(NAMES))), np.empty(0))
        todo = [Case(given.stream.stem, stream, list(stream.orders(orders)), shipped(), nothing)]
        todo.append(Case(f"{given.stream.stem}, sorted", stream, [stream.by_label()], shipped(), nothing))
    elif given.data:
        todo = cases(Path(given.data), cache, orders, given.only)
    else:
        print("not measured: no data (give --data, --stream or CHAINOPS_BENCH_DATA)")
        print(json.dumps({"benchmark": "cache_quality", "measured": False}))
        return
    print(HEAD)
    for case in todo:
        measure(case, peers=0 if given.quick else 3)
    rows = [row for case in todo for row in case.rows]
    if given.plot:
        draw(rows, given.plot)
        print(f"drawn: {given.plot}")
    took = round(time.perf_counter() - begun)
    print(json.dumps({"benchmark": "cache_quality", "orders": orders, "took_s": took, "rows": rows}))


if __name__ == "__main__":
    main()
