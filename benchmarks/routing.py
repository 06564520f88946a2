"""Routers on public data: by meaning, by complexity, by confidence; and what choosing costs in time.

    python benchmarks/routing.py --data DIR [--vectors DIR] [--peer PYTHON] [--only meaning]

DIR holds `clinc150`, `banking77`, `routellm_gsm8k`, `routellm_mmlu`; CHAINOPS_BENCH_DATA names it too. Vectors (MiniLM)
are kept in --vectors, since they take minutes. PYTHON is the interpreter of an environment with semantic-router 1.1.1:
it is measured beside, with the same vectors, by `routing_peers.py`.

By meaning: fitted on the sets' train rows, thresholds by cross-validation on these; nothing is chosen on the rows it
is measured on. "after" counts a question that belongs somewhere and was turned away as wrong.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

for threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(threads, "1")

import numpy as np  # noqa: E402 (threads are set before)

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parent)]
import routing_fit as scorers  # noqa: E402

PUBLISHED = {
    "routellm_gsm8k": {
        "matrix factorisation, Arena": (0.475, 0.536, 0.852),
        "matrix factorisation, Arena and judge": (0.565, 0.388, 0.726),
        "causal LLM (Llama 3 8B), Arena and judge": (0.622, 0.336, 0.633),
    },
    "routellm_mmlu": {
        "matrix factorisation, Arena": (0.524, 0.450, 0.769),
        "matrix factorisation, Arena and MMLU labels": (0.597, 0.355, 0.714),
        "similarity-weighted, Arena and MMLU labels": (0.603, 0.354, 0.716),
    },
}
"""APGR, CPT(50%), CPT(80%) on the whole sets.

Source: Ong et al. 2024, "RouteLLM: Learning to Route LLMs with Preference Data", arXiv 2406.18665, tables 2, 3. Those
routers were trained on Chatbot Arena's comparisons, some with 1,500 labels of MMLU's validation rows or with a judge's
comparisons added; ours on correctness labels of these very sets' other rows. That is the easier task.
"""


class Vectors:
    def __init__(self, folder: Path) -> None:
        from chainops.models.embeddings import embedder

        self.embedder, self.folder = embedder("minilm"), folder
        folder.mkdir(parents=True, exist_ok=True)
        self.digest = self.embedder.digest

    def embed(self, texts: list[str]) -> np.ndarray:
        return self.embedder.embed(texts)

    def of(self, texts: list[str]) -> np.ndarray:
        mark = hashlib.sha256("\0".join([self.digest, *texts]).encode()).hexdigest()[:16]
        path = self.folder / f"{mark}.npy"
        if not path.is_file():
            np.save(path, scorers.vectors(self.embedder, texts))
        return np.load(path)


def split(folder: Path, name: str, which: str) -> tuple[list[str], list[str | None]]:
    rows = scorers.read(folder, name, which)
    return [row["text"] for row in rows], [None if row["intent"] == "oos" else row["intent"] for row in rows]


def rated(top: list, taken: list, truth: list) -> dict[str, float]:
    """Accuracy before and after turning away, false rejects, and the share of out-of-scope rows turned away."""
    inside = [at for at, each in enumerate(truth) if each is not None]
    outside = [at for at, each in enumerate(truth) if each is None]
    told = {
        "accuracy": np.mean([top[at] == truth[at] for at in inside]),
        "after": np.mean([taken[at] == truth[at] for at in inside]),
        "false_rejects": np.mean([taken[at] is None for at in inside]),
    }
    if outside:
        told["oos_recall"] = np.mean([taken[at] is None for at in outside])
    return {name: round(float(each), 4) for name, each in told.items()}


def nearest_alone(examples_at: np.ndarray, y: list, asked_at: np.ndarray, share: float) -> tuple[list, list]:
    """1-NN: each question goes where the most similar example goes. Turned away below the similarity to the next
    example that `share` of the examples do not reach."""
    own = np.empty(len(examples_at))
    for at in range(0, len(examples_at), 1000):
        similar = examples_at[at : at + 1000] @ examples_at.T
        similar[np.arange(len(similar)), np.arange(at, at + len(similar))] = -1
        own[at : at + 1000] = similar.max(1)
    similar = np.concatenate([asked_at[at : at + 500] @ examples_at.T for at in range(0, len(asked_at), 500)])
    top = [y[at] for at in similar.argmax(1)]
    threshold = np.quantile(own, share)
    return top, [name if most >= threshold else None for name, most in zip(top, similar.max(1), strict=True)]


def by_meaning(folder: Path, vectors: Vectors, peer: str | None) -> list[dict]:
    from chainops.text.nearest_fit import fit

    told = []
    for name, dev in (("clinc150", "dev"), ("banking77", "dev")):
        texts, routes = split(folder, name, "train")
        asked, truth = split(folder, name, dev)
        examples_at, asked_at = vectors.of(texts), vectors.of(asked)
        inside = [at for at, each in enumerate(routes) if each is not None]
        y = [routes[at] for at in inside]
        runs = {"chainops": inside}
        if len(inside) < len(routes):
            runs["chainops, with the train rows out of scope"] = list(range(len(routes)))
        for per in (3, 10, 30):
            runs[f"chainops, {per} examples a route"] = few(routes, per)
        for how, rows in runs.items():
            began = time.perf_counter()
            nearest, validation = fit(examples_at[rows], [routes[at] for at in rows])
            took = time.perf_counter() - began
            decisions = [nearest.decide(row) for row in asked_at]
            top = [next(each.group for each in one.likest if each.group) for one in decisions]
            rates = rated(top, [one.group for one in decisions], truth)
            more = {"fit_s": round(took, 1), "cv_accuracy": round(validation.accuracy, 4)}
            told.append({"set": name, "router": how} | rates | more)
        told.append(
            {"set": name, "router": "1-NN"} | rated(*nearest_alone(examples_at[inside], y, asked_at, 0.025), truth)
        )
        if peer:
            told += [{"set": name} | row for row in semantic_router(peer, examples_at[inside], y, asked_at, truth)]
    return told


def few(routes: list, per: int) -> list[int]:
    """The first examples of each route."""
    seen: dict = {}
    return [at for at, each in enumerate(routes) if each and seen.setdefault(each, []).append(at) is None
            and len(seen[each]) <= per]  # fmt: skip


def semantic_router(python: str, examples_at: np.ndarray, y: list, asked_at: np.ndarray, truth: list) -> list[dict]:
    with tempfile.TemporaryDirectory() as folder:
        np.savez(Path(folder) / "vectors.npz", examples=examples_at, questions=asked_at)
        (Path(folder) / "labels.json").write_text(json.dumps({"examples": y, "questions": truth}))
        script = Path(__file__).with_name("routing_peers.py")
        done = subprocess.run([python, str(script), folder], capture_output=True, text=True, check=False)
        if done.returncode:
            print(f"not measured: semantic-router failed: {done.stderr.strip().splitlines()[-1]}")
            return []
        told = json.loads(done.stdout.splitlines()[-1])
    return [
        {"router": each["router"], "p50_ms": each["p50_ms"]} | rated(each["top"], each["taken"], truth) for each in told
    ]


def by_complexity(folder: Path, vectors: Vectors) -> list[dict]:
    data = scorers.judged(folder, vectors.embedder)
    sets, told = {"routellm_gsm8k": data.is_gsm, "routellm_mmlu": ~data.is_gsm}, []

    def row(name: str, how: str, score: np.ndarray, mine: np.ndarray) -> None:
        apgr, half, most = curve(score[mine], data.weak[mine], data.strong[mine])
        told.append({"set": name, "router": how, "apgr": round(apgr, 3), "cpt50": round(half, 3),
                     "cpt80": round(most, 3)})  # fmt: skip

    curve = scorers.curve
    random = [np.random.default_rng(seed).integers(0, 5, len(data.weak)) for seed in range(3)]
    subjects = {name: at % 5 for at, name in enumerate(np.random.default_rng(0).permutation(np.unique(data.group)))}
    for name, mine in sets.items():
        row(name, "length alone", data.counted[:, 0], mine)
        for topic, what in ((False, "features"), (True, "features and vector")):
            out = [scorers.out_of_fold(data, folds, topic=topic) for folds in random]
            rows = [curve(score[mine], data.weak[mine], data.strong[mine]) for score in out]
            mean = np.mean(rows, axis=0).round(3).tolist()
            how = f"{what}; 5-fold on both sets, mean of 3"
            told.append({"set": name, "router": how, "apgr": mean[0], "cpt50": mean[1], "cpt80": mean[2]})
            other = scorers.ridge(data[~mine], topic=topic)
            row(name, f"{what}; trained on the other set", scorers.scored(data, other), mine)
            if name == "routellm_mmlu":
                folds = np.array([subjects[each] for each in data.group])
                row(name, f"{what}; on unseen subjects", scorers.out_of_fold(data, folds, topic=topic), mine)
        for router, (apgr, half, most) in PUBLISHED[name].items():
            told.append({"set": name, "router": f"published: {router}", "apgr": apgr, "cpt50": half, "cpt80": most})
    return told


def by_confidence(folder: Path) -> list[dict]:
    """A cascade whose threshold is chosen on four fifths of the rows and used on the last, in turn."""
    checks, weak, strong, _ = scorers.answers(folder)
    told = []
    for keep in (0.95, 0.97, 0.99):
        calls, right = [], []
        for seed in range(5):
            folds = np.random.default_rng(seed).integers(0, 5, len(weak))
            asked, correct = np.zeros(len(weak), bool), np.zeros(len(weak))
            for fold in range(5):
                train, test = folds != fold, folds == fold
                inner = np.random.default_rng(seed + 100).integers(0, 5, len(weak))
                score = np.zeros(len(weak))
                for part in range(5):  # what the threshold is chosen by must not have been learnt from either
                    fit, use = train & (inner != part), train & (inner == part)
                    score[use] = checks[use] @ (model := scorers.logistic(checks[fit], weak[fit]))[0] + model[1]
                order = np.argsort(score[train])
                gain = (strong - weak)[train][order]
                reached = weak[train].mean() + np.concatenate([[0], np.cumsum(gain)]) / train.sum()
                first = int(np.argmax(reached >= keep * strong[train].mean()))
                threshold = np.sort(score[train])[min(first, train.sum() - 1)]
                model = scorers.logistic(checks[train], weak[train])
                asked[test] = checks[test] @ model[0] + model[1] < threshold
            correct = np.where(asked, strong, weak)
            calls.append(asked.mean())
            right.append(correct.mean() / strong.mean())
        told.append({"set": "routellm_gsm8k", "aim": keep, "strong_calls": round(float(np.mean(calls)), 3),
                     "kept_of_strong": round(float(np.mean(right)), 4)})  # fmt: skip
    return told


def timed(vectors: Vectors, folder: Path) -> dict[str, float]:
    from langchain_core.runnables import RunnableLambda

    from chainops.routing.component import Route
    from chainops.routing.meaning import Meaning

    texts, routes = split(folder, "clinc150", "train")
    examples: dict = {}
    for text, route in zip(texts, routes, strict=True):
        if route is not None:
            examples.setdefault(route, []).append(text)
    seen: dict[str, str] = {}
    for route, mine in examples.items():  # some sentences stand in two intents: that is an error in a chain file
        examples[route] = [text for text in mine if seen.setdefault(" ".join(text.lower().split()), route) == route]
    questions = split(folder, "clinc150", "dev")[0][:500]
    known = Known(vectors, texts, questions)
    chooser = Meaning(lambda: known, examples)
    answer = RunnableLambda(lambda _: "yes")
    router = Route(routes=dict.fromkeys(examples, answer), chooser=chooser, default=next(iter(examples)))
    router.invoke(questions[0])
    fitted = chooser.fitted().nearest
    spent: dict[str, list[float]] = {"decide": [], "component": [], "route_alone": []}
    for question in questions:
        vector = chooser.prepare(question)
        for name, work in (
            ("decide", lambda: fitted.decide(vector)),
            ("component", lambda: router.invoke(question)),
            ("route_alone", lambda: answer.invoke(question)),
        ):
            began = time.perf_counter()
            work()
            spent[name].append((time.perf_counter() - began) * 1000)
    told = {f"{name}_p50_ms": float(np.median(each)) for name, each in spent.items()}
    told["beyond_embedding_p50_ms"] = told["component_p50_ms"] - told["route_alone_p50_ms"]
    return {name: round(each, 3) for name, each in told.items()}


class Known:
    """An embedder whose vectors are known: what is measured is the rest."""

    def __init__(self, vectors: Vectors, *texts: list[str]) -> None:
        self.digest = vectors.digest
        self.rows = {text: row for each in texts for text, row in zip(each, vectors.of(each), strict=True)}

    def embed(self, texts: list[str]) -> np.ndarray:
        return np.stack([self.rows[text] for text in texts])


def table(rows: list[dict], columns: tuple[str, ...]) -> None:
    if not rows:
        return
    print(f"{'set':<16}{'router':<58}" + "".join(f"{name:>15}" for name in columns))
    for row in rows:
        cells = "".join(f"{row.get(name, ''):>15}" for name in columns)
        print(f"{row['set']:<16}{row.get('router', ''):<58}{cells}")
    print()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("CHAINOPS_BENCH_DATA"))
    parser.add_argument("--vectors", type=Path, default=Path(tempfile.gettempdir()) / "chainops-bench-vectors")
    parser.add_argument("--only", choices=("meaning", "complexity"), help="One part.")
    parser.add_argument("--peer", help="The Python of an environment with semantic-router.")
    given = parser.parse_args()
    data = None if given.data is None else Path(given.data)

    def has(*names: str) -> bool:
        there = data is not None and all((data / name).is_dir() for name in names)
        if not there:
            print(f"not measured: {', '.join(names)}: not in the folder given with --data")
        return there

    told: dict = {"benchmark": "routing"}
    vectors = Vectors(given.vectors)
    if given.only != "complexity" and has("clinc150", "banking77"):
        if not given.peer:
            print("not measured: semantic-router: no --peer")
        told["meaning"] = by_meaning(data, vectors, given.peer)
        table(told["meaning"], ("accuracy", "after", "false_rejects", "oos_recall", "fit_s", "p50_ms"))
        told["time"] = timed(vectors, data)
        print("150 routes, " + ", ".join(f"{name} {each}" for name, each in told["time"].items()) + "\n")
    if given.only != "meaning" and has("routellm_gsm8k", "routellm_mmlu"):
        told["complexity"] = by_complexity(data, vectors)
        table(told["complexity"], ("apgr", "cpt50", "cpt80"))
        told["confidence"] = by_confidence(data)
        table(told["confidence"], ("aim", "strong_calls", "kept_of_strong"))
    print(json.dumps(told))


if __name__ == "__main__":
    main()
