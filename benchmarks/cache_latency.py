"""What a cache costs: hits, misses, opening and memory, in SQLite and in Redis, and what peers cost in the same run.

    python benchmarks/cache_latency.py --data DIR [--cache DIR] [--sizes 1000,10000,100000] [--stores sqlite,redis]
                                       [--gptcache PYTHON] [--quick]

DIR (or CHAINOPS_BENCH_DATA) holds `banking77/` and `clinc150/`. 4,000 of their questions (train parts) are embedded
with MiniLM and stored; larger caches are filled up with rows made of them: one real vector and one of its ten nearest,
mixed at random, plus noise of length 0.25; its text is the one question with two words of the other. All go through
the store's own `put`, in SQLite 5,000 to a transaction. The cache then learns 400 labels: variants of stored questions,
all answered rightly, so that the bound of 1% (the default) decides as it would in use. Audits are off.

Each number is of a process of its own for each store and size, in which all kinds take turns. `held`: asked again
within a second, served without asking the store. `stored`: the first time in a process, or later. `semantic`: another
variant ("please, ..."), each asked once; the embedding alone is timed on the same question just before or just after.
`miss`: questions of the dev parts, with a chain that answers at once; the chain alone and the embedding are taken off,
and the comparing with stored answers, which goes on behind, is waited for between them. Only what the report says was
served that way counts. CPU is that of all threads of the process: on a busy machine it tells more. Memory is anonymous,
above the same process before its first similar question; mapped pages stand apart.

1,000,000 entries, if asked for, are measured in SQLite only. GPTCache 0.1.44 is run by the interpreter that
`--gptcache` names (pip install gptcache==0.1.44 "numpy<2" faiss-cpu sqlalchemy onnxruntime tokenizers), with 1,000
entries.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from cache_filled import (
    REAL,
    VARIANTS,
    Chain,
    answer_to,
    cache_of,
    fill,
    key_of,
    real_ones,
    records,
    replica_of,
    settle,
    texts,
)
from cache_index import memory_mb, percentiles, unit
from langchain_core.caches import InMemoryCache
from langchain_core.language_models.fake_chat_models import FakeListChatModel

from chainops.cache.component import SemanticCache
from chainops.models.embeddings import embedder

QUICK = {"blocks": 3, "hot": 20, "semantic": 60, "miss": 40, "load": 160}
FULL = {"blocks": 15, "hot": 20, "semantic": 300, "miss": 60, "load": 640}


# The work of a process of its own


def open_only(place: str, home: Path | None, real: np.ndarray) -> dict[str, Any]:
    """From nothing to the neighbours of a first question, and what the next 50 take."""
    embedder("minilm").embed(["warm"])
    import chainops.stores.vector_parts  # noqa: F401  # part of the empty process

    scope, began = key_of("?").scope, time.perf_counter()
    replica = replica_of(records(place), home)
    replica.neighbours(scope, real[0])
    opened = time.perf_counter() - began
    after = [timed(partial(replica.neighbours, scope), vector) for vector in real[1:51]]
    return {"s": round(opened, 3), "next_ms": round(float(np.median([each.ms for each in after])), 3)}


class Took(NamedTuple):
    """One call."""

    ms: float
    cpu_ms: float
    """Of all threads of this process: what other work on the machine does not change much."""
    result: Any


def timed(work: Any, argument: Any) -> Took:
    cpu, began = time.process_time(), time.perf_counter()
    result = work(argument)
    return Took((time.perf_counter() - began) * 1000, (time.process_time() - cpu) * 1000, result)


async def atimed(work: Any, argument: Any) -> Took:
    cpu, began = time.process_time(), time.perf_counter()
    result = await work(argument)
    return Took((time.perf_counter() - began) * 1000, (time.process_time() - cpu) * 1000, result)


def first_of(runnable: Any, question: str) -> tuple[float, Any]:
    """Milliseconds to the first chunk that says something; the whole answer."""
    began, first, total = time.perf_counter(), None, None
    for chunk in runnable.stream(question):
        if first is None and chunk.content:
            first = (time.perf_counter() - began) * 1000
        total = chunk if total is None else total + chunk
    return first or 0.0, total


def how(answer: Any) -> str:
    """What the report says of the lookup."""
    facts = answer.response_metadata["chainops"]["report"]["stages"][0].get("facts", {})
    return str(facts.get("lookup"))


class Meter:
    """Collects milliseconds under names."""

    def __init__(self) -> None:
        self.spent: dict[str, list[tuple[float, float]]] = {}

    def note(self, name: str, ms: float, cpu_ms: float = float("nan")) -> None:
        self.spent.setdefault(name, []).append((ms, cpu_ms))

    def told(self) -> dict[str, Any]:
        return {name: self._summed(np.array(each)) for name, each in self.spent.items()}

    @staticmethod
    def _summed(spent: np.ndarray) -> dict[str, Any]:
        cpu = float(np.median(spent[:, 1]))
        return percentiles(spent[:, 0]) | ({} if np.isnan(cpu) else {"cpu": round(cpu, 4)}) | {"n": len(spent)}


def exact_hits(cache: SemanticCache, questions: list[str], counts: dict[str, int], run: asyncio.Runner, meter: Meter):
    """Held and stored ones, sync and async in turn; beside LangChain's in-memory cache around a model."""
    model = FakeListChatModel(responses=[answer_to("?")], cache=InMemoryCache())
    fresh = iter(questions)
    for _ in range(counts["blocks"]):
        hot = [next(fresh) for _ in range(counts["hot"])]
        for question in hot:  # the first time is from the store
            took = timed(cache.invoke, question)
            assert how(took.result) == "exact", how(took.result)
            meter.note("stored", took.ms, took.cpu_ms)
            meter.note("stored_async", *run.run(atimed(cache.ainvoke, next(fresh)))[:2])
            model.invoke(question)
        for question in hot:
            cache.invoke(question)
        for name, subject in (("held", cache), ("in_memory", model)):
            for question in hot:
                meter.note(name, *timed(subject.invoke, question)[:2])
            for question in hot:
                meter.note(f"{name}_async", *run.run(atimed(subject.ainvoke, question))[:2])


def semantic_hits(cache: SemanticCache, asked: list[str], run: asyncio.Runner, meter: Meter) -> float:
    """Each question once; sync and async in turn. Gives the share that was served."""
    embed, served = embedder("minilm").embed, 0
    for number, question in enumerate(asked):
        is_before, name = number % 4 < 2, "semantic" if number % 2 else "semantic_async"
        alone = timed(embed, [question]) if is_before else None
        took = timed(cache.invoke, question) if number % 2 else run.run(atimed(cache.ainvoke, question))
        alone = alone or timed(embed, [question])
        if how(took.result) == "semantic":
            served += 1
            meter.note(name, took.ms, took.cpu_ms)
            meter.note(f"{name}_embedding", alone.ms, alone.cpu_ms)
            meter.note(f"{name}_beyond", took.ms - alone.ms, took.cpu_ms - alone.cpu_ms)
    return served / len(asked)


def misses(cache: SemanticCache, asked: list[str], meter: Meter) -> None:
    """Whole answers and first chunks in turn, less the chain alone and the embedding."""
    embed, chain = embedder("minilm").embed, Chain()
    for number, question in enumerate(asked):
        cache.background.drain(60.0)  # the comparing of the one before
        alone = timed(embed, [question])
        if number % 2:
            own, took = timed(chain.invoke, question), timed(cache.invoke, question)
            if how(took.result) == "missed":
                meter.note("miss_beyond", took.ms - own.ms - alone.ms, took.cpu_ms - own.cpu_ms - alone.cpu_ms)
        else:
            own_ms = first_of(chain, question)[0]
            ms, answer = first_of(cache, question)
            if how(answer) == "missed":
                meter.note("first_token_beyond", ms - own_ms - alone.ms)


def load(cache: SemanticCache, hot: list[str], asked: list[str], count: int) -> dict[str, float]:
    """Answers per second: one thread, 8 threads, 64 tasks."""
    told = {}
    for kind, questions in (("exact", [hot[n % len(hot)] for n in range(count * 4)]), ("semantic", asked)):
        third = len(questions) // 3
        shares = [questions[:third], questions[third : 2 * third], questions[2 * third :]]
        began = time.perf_counter()
        for question in shares[0]:
            cache.invoke(question)
        told[f"{kind}_1_thread"] = len(shares[0]) / (time.perf_counter() - began)
        with ThreadPoolExecutor(8) as pool:
            began = time.perf_counter()
            list(pool.map(cache.invoke, shares[1]))
            told[f"{kind}_8_threads"] = len(shares[1]) / (time.perf_counter() - began)

        async def tasks(questions: list[str] = shares[2]) -> None:
            async def one(mine: list[str]) -> None:
                for question in mine:
                    await cache.ainvoke(question)

            await asyncio.gather(*(one(questions[at::64]) for at in range(64)))

        began = time.perf_counter()
        asyncio.run(tasks())
        told[f"{kind}_64_tasks"] = len(shares[2]) / (time.perf_counter() - began)
    return {name: round(rate) for name, rate in told.items()}


def use(place: str, home: Path, data: Path, cache: Path, counts: dict[str, int], size: int) -> dict[str, Any]:
    """Everything that is measured in one process that opens a filled cache."""
    questions, dev = texts(data, "train")[: min(REAL, size)], texts(data, "dev")
    rng = random.Random(2)
    asked = [VARIANTS[rng.randrange(len(VARIANTS))].format(text) for text in rng.sample(questions, len(questions))]
    replica, meter = replica_of(records(place), home), Meter()
    subject = cache_of(replica)
    embedder("minilm").embed(["warm", *dev[-3:]])
    import chainops.stores.vector_parts  # noqa: F401  # part of the empty process

    with asyncio.Runner() as run:
        for question in questions[-30:]:
            subject.invoke(question)
            run.run(subject.ainvoke(question))
        gc.collect()
        before = memory_mb()
        for question in asked[-20:]:
            subject.invoke(question)
            run.run(subject.ainvoke(question))
        settle()
        exact_hits(subject, questions, counts, run, meter)
        share = semantic_hits(subject, asked[: counts["semantic"]], run, meter)
        gc.collect()
        after = memory_mb()
        misses(subject, dev[: counts["miss"]], meter)
    told = meter.told()
    told["served_share"] = round(share, 3)
    told["per_s"] = load(subject, questions[:20], asked[counts["semantic"] : -20][: counts["load"]], counts["load"])
    told["anonymous_mb"] = round(after["anonymous"] - before["anonymous"], 1)
    told["mapped_mb"] = round(after["file"] - before["file"], 1)
    return told


def lookups(place: str, home: Path, data: Path, cache: Path, count: int) -> dict[str, Any]:
    """Neighbours alone, as the replica finds them, for question vectors that are not stored."""
    _, real = real_ones(data, cache)
    rng, meter = np.random.default_rng(3), Meter()
    noise = unit(rng.standard_normal((count + 100, real.shape[1]))).astype(np.float32)
    queries = unit(real[rng.integers(len(real), size=count + 100)] + 0.3 * noise).astype(np.float32)
    embedder("minilm").embed(["warm"])
    replica, scope = replica_of(records(place), home), key_of("?").scope
    before = memory_mb()
    began = time.perf_counter()
    replica.neighbours(scope, queries[0])
    opened = time.perf_counter() - began
    settle()
    for query in queries[1:100]:
        replica.neighbours(scope, query)
    for query in queries[100:]:
        meter.note("neighbours", *timed(partial(replica.neighbours, scope), query)[:2])
    after = memory_mb()
    return meter.told() | {
        "open_s": round(opened, 3),
        "anonymous_mb": round(after["anonymous"] - before["anonymous"], 1),
        "mapped_mb": round(after["file"] - before["file"], 1),
    }


# Processes


def child(given: argparse.Namespace) -> None:
    work, place, folder, size = given.child
    counts, home = QUICK if given.quick else FULL, Path(folder)
    if work == "fill":
        told = fill(place, int(size), home, given.data, given.cache)
    elif work in ("open", "open_cold"):
        _, real = real_ones(given.data, given.cache)
        told = open_only(place, home if work == "open" else None, real)
    elif work == "lookups":
        told = lookups(place, home, given.data, given.cache, counts["semantic"] * 3)
    else:
        told = use(place, home, given.data, given.cache, counts, int(size))
    print(json.dumps(told))


def in_process(given: argparse.Namespace, work: str, place: str, folder: Path, size: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--data", str(given.data), "--cache", str(given.cache)]
    command += ["--quick"] if given.quick else []
    done = subprocess.run(
        [*command, "--child", work, place, str(folder), str(size)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def measured(given: argparse.Namespace, place: str, folder: Path, size: int) -> dict[str, Any]:
    told = in_process(given, "fill", place, folder, size)
    for work in ("open", "open_cold"):
        for name, took in in_process(given, work, place, folder, size).items():
            told[f"{work}_{name}"] = took
    work = "use" if size < 1_000_000 else "lookups"
    return told | in_process(given, work, place, folder, size)


def gptcache(given: argparse.Namespace, folder: Path, size: int = 1000) -> dict[str, Any]:
    questions, real = real_ones(given.data, given.cache)
    questions, model = questions[:size], embedder("minilm").compiled.folder  # type: ignore[attr-defined]
    asked = random.Random(4).sample(range(size), 60 if given.quick else 200)
    plain = {"questions": questions, "answers": [answer_to(q) for q in questions], "asked": asked, "model": str(model)}
    (folder / "peers.json").write_text(json.dumps(plain), "utf-8")
    np.save(folder / "peers.npy", real[:size])
    peers = str(Path(__file__).with_name("cache_peers.py"))
    done = subprocess.run([given.gptcache, peers, str(folder)], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


# Telling


def show(told: dict[str, Any]) -> None:
    def line(title: str, name: str) -> None:
        if name in told:
            each = told[name]
            cpu = f"{each['cpu']:>9.3f}" if "cpu" in each else ""
            print(f"  {title:<34}{each['p50']:>9.3f}{each['p95']:>9.3f}{each['p99']:>9.3f}{cpu}")

    title = f"{told['store']}, {told['entries']:,} entries; ms"
    print(f"\n{title:<36}{'p50':>9}{'p95':>9}{'p99':>9}{'CPU p50':>9}")
    for kind, title in (("held", "exact, held"), ("stored", "exact, from the store"), ("semantic", "semantic")):
        for suffix, driver in (("", "sync"), ("_async", "async")):
            line(f"{title}, {driver}", kind + suffix)
    for name, title in (
        ("semantic_embedding", "embedding alone"),
        ("semantic_beyond", "semantic beyond it, sync"),
        ("semantic_async_beyond", "semantic beyond it, async"),
        ("miss_beyond", "miss, beyond chain and embedding"),
        ("first_token_beyond", "first token of a miss, the same"),
        ("in_memory", "LangChain InMemoryCache, sync"),
        ("in_memory_async", "LangChain InMemoryCache, async"),
        ("neighbours", "neighbours, by the replica"),
    ):
        line(title, name)
    if "semantic_ratio" in told:
        print(f"  semantic / embedding alone: {told['semantic_ratio']} (CPU {told['semantic_cpu_ratio']})", end="")
        print(f" · served {told['served_share']:.0%} of the variants")
    for name, rate in told.get("per_s", {}).items():
        print(f"  {name.replace('_', ' '):<34}{rate:>9,}  answers/s")
    print(f"  filled at {told['puts_per_s']:,} puts/s · anonymous {told['anonymous_mb']} MB", end="")
    print(f" ({told['anonymous_mb'] * 2**20 / told['entries']:,.0f} bytes per entry), mapped {told['mapped_mb']} MB")
    for work, title in (("open", "opened"), ("open_cold", "opened without snapshot")):
        print(
            f"  {title} in {told[f'{work}_s']} s, and the next 50 lookups {told[f'{work}_next_ms']} ms each", flush=True
        )


@contextmanager
def opened(store: str, folder: Path) -> Iterator[str]:
    if store == "sqlite":
        yield f"sqlite:///{folder}/cache.db"
        return
    from chainops.testing.servers import redis_server

    with redis_server() as server:
        yield server.url


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("CHAINOPS_BENCH_DATA"))
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--sizes")
    parser.add_argument("--stores", default="sqlite,redis")
    parser.add_argument("--gptcache", metavar="PYTHON")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    return parser.parse_args()


def run_all(given: argparse.Namespace) -> dict[str, Any]:
    results: list[dict[str, Any]] = []
    real_ones(given.data, given.cache)
    sizes = given.sizes or ("1000" if given.quick else "1000,10000,100000")
    for size in map(int, sizes.split(",")):
        for store in given.stores.split(","):
            if size >= 1_000_000 and store != "sqlite":
                print(f"\n{store}, {size:,} entries: not measured")
                continue
            with tempfile.TemporaryDirectory() as scratch, opened(store, Path(scratch)) as place:
                told = {"store": store, "entries": size} | measured(given, place, Path(scratch) / "index", size)
            if "semantic" in told:
                for name, of in (("semantic_ratio", "p50"), ("semantic_cpu_ratio", "cpu")):
                    told[name] = round(told["semantic"][of] / told["semantic_embedding"][of], 3)
            results.append(told)
            show(told)
    peer: dict[str, Any] | None = None
    if given.gptcache is None:
        print("\nGPTCache: not measured (no --gptcache PYTHON)")
    else:
        with tempfile.TemporaryDirectory() as scratch:
            peer = gptcache(given, Path(scratch))
        print(f"\nGPTCache 0.1.44, SQLite and FAISS, {peer['entries']:,} entries: repeats of stored questions")
        for name in ("hit", "hit_vector_known", "embedding"):
            print(f"  {name.replace('_', ' '):<34}" + "".join(f"{ms:>9.3f}" for ms in peer[name].values()) + "  ms")
        held = next((told["held"]["p50"] for told in results if "held" in told), None)
        if held:
            peer["ratio_exact"] = round(peer["hit"]["p50"] / held, 1)
            print(f"  times an exact hit of ours (held, sync): {peer['ratio_exact']}")
    return {"results": results, "gptcache": peer}


def main() -> None:
    given = arguments()
    if given.data is None:
        print("not measured: no --data and no CHAINOPS_BENCH_DATA")
        print(json.dumps({"benchmark": "cache_latency", "measured": False}))
    elif given.child:
        child(given)
    else:
        with tempfile.TemporaryDirectory() as scratch:
            given.cache = given.cache or Path(scratch)
            given.cache.mkdir(parents=True, exist_ok=True)
            print(json.dumps({"benchmark": "cache_latency", "measured": True} | run_all(given)))


if __name__ == "__main__":
    main()
