"""What a cache's vector index costs and finds, up to a million entries: time, recall, memory.

    python benchmarks/cache_index.py --data DIR [--cache DIR] [--sizes 1000,10000,100000,1000000]

DIR (or CHAINOPS_BENCH_DATA) holds `banking77/`, `clinc150/`, `xquad_en/`, `halueval_general/`, `hotpot100/` and
`scifact/`. Up to 20,000 of their questions (the train part of the first two, the dev part of the others) are embedded
with MiniLM and multiplied: one real vector and one of its ten nearest, mixed with a weight drawn evenly from 0..1,
scaled to length 1, plus noise of length 0.25 in an even direction, scaled again. 1,000 queries are made in the same
way from 2,000 held-out questions (the dev part of the first two). Truth is the exact search by FAISS. Everything is
added in one go; while lists are built, one lookup is made every 100 ms. Every size runs in two processes of its own,
one that builds and saves, one that opens; memory is from /proc/self/smaps_rollup, above what the process has before
the index is made. `--cache` keeps the embeddings.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import faiss
import numpy as np

from chainops.stores.vectors import Vectors

STORED, HELD, QUERIES, K, NOISE = 20_000, 2_000, 1_000, 16, 0.25


def texts(folder: Path, field: str, part: str) -> list[str]:
    with gzip.open(folder / f"{part}.jsonl.gz", "rt", encoding="utf-8") as file:
        return [json.loads(line)[field] for line in file]


def embedded(data: Path, cache: Path) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors of the stored and of the held-out questions."""
    path = cache / "cache_index_minilm.npz"
    if not path.exists():
        from chainops.models.embeddings import embedder

        stored = [text for name in ("banking77", "clinc150") for text in texts(data / name, "text", "train")]
        for name in ("xquad_en", "halueval_general", "hotpot100", "scifact"):
            stored += texts(data / name, "query", "dev")
        held = [text for name in ("banking77", "clinc150") for text in texts(data / name, "text", "dev")]
        rng = np.random.default_rng(0)
        picked = [list(dict.fromkeys(each)) for each in (stored, held)]
        picked = [[each[i] for i in rng.permutation(len(each))[:n]] for each, n in zip(picked, (STORED, HELD))]
        encode = embedder("minilm").embed
        vectors = [np.concatenate([encode(each[i : i + 64]) for i in range(0, len(each), 64)]) for each in picked]
        np.savez(path, stored=vectors[0], held=vectors[1])
    found = np.load(path)
    return found["stored"], found["held"]


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def multiplied(real: np.ndarray, count: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    near = faiss.knn(real, real, 11, metric=faiss.METRIC_INNER_PRODUCT)[1][:, 1:]
    rows = np.empty((count, real.shape[1]), np.float32)
    for start in range(0, count, 20_000):
        size = min(20_000, count - start)
        one = rng.integers(len(real), size=size)
        other = near[one, rng.integers(near.shape[1], size=size)]
        weight = rng.random((size, 1), np.float32)
        noise = unit(rng.standard_normal((size, real.shape[1]), np.float32))
        mixed = unit(real[one] * weight + real[other] * (1 - weight))
        rows[start : start + size] = unit(mixed + NOISE * noise)
    return rows


def memory_mb() -> dict[str, float]:
    """Anonymous and file-backed resident memory of this process; nothing where the system does not tell."""
    path = Path("/proc/self/smaps_rollup")
    if not path.exists():
        return {"anonymous": float("nan"), "file": float("nan")}
    told = {line.split(":")[0]: line.split()[1] for line in path.read_text().splitlines()[1:]}
    anonymous, resident = (int(told[name]) / 1024 for name in ("Anonymous", "Rss"))
    return {"anonymous": anonymous, "file": resident - anonymous}


class Peak:
    """The most anonymous memory while it is open, looked at every 100 ms (in the place that costs least to read)."""

    def __enter__(self):
        self.mb, self._over = 0.0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def _watch(self):
        path, is_over = Path("/proc/self/status"), False
        while path.exists() and not is_over:
            is_over = self._over.wait(0.1)
            told = next(line for line in path.read_text().splitlines() if line.startswith("RssAnon"))
            self.mb = max(self.mb, int(told.split()[1]) / 1024)

    def __exit__(self, *_):
        self._over.set()
        self._thread.join()


def timed_ms(work, arguments) -> np.ndarray:
    spent = []
    for each in arguments:
        began = time.perf_counter()
        work(each)
        spent.append((time.perf_counter() - began) * 1000)
    return np.array(spent)


def percentiles(spent: np.ndarray) -> dict[str, float]:
    return {f"p{q}": round(float(np.percentile(spent, q)), 4) for q in (50, 95, 99)}


def build(rows: np.ndarray, folder: Path) -> dict:
    """Add everything while lookups go on, save."""
    before = memory_mb()["anonymous"]
    vectors, lookups = Vectors(rows.shape[1], folder=folder), []
    with Peak() as peak:
        began, cpu = time.perf_counter(), time.process_time()
        vectors.add(range(len(rows)), rows)
        added = time.perf_counter()
        while not vectors.settle(0.1):
            lookups.append(timed_ms(lambda query: vectors.search(query, K), [rows[len(lookups) % len(rows)]])[0])
        built, cpu_s = time.perf_counter(), time.process_time() - cpu
        vectors.save(mark=1)
        saved = time.perf_counter()
    if vectors.build_error is not None:
        raise vectors.build_error
    during = percentiles(np.array(lookups)) if lookups else {}
    return {
        "add_all_s": round(added - began, 2),
        "build_s": round(built - added, 2),
        "add_and_build_cpu_s": round(cpu_s, 2),
        "save_s": round(saved - built, 2),
        "peak_anonymous_mb": round(peak.mb - before, 1),
        "lookup_while_building_ms": during,
        "disk_mb": round(sum(path.stat().st_size for path in folder.iterdir()) / 2**20, 1),
    }


def use(folder: Path, queries: np.ndarray, truth: np.ndarray) -> dict:
    """Open what was saved, look up, change, remove."""
    before = memory_mb()
    began = time.perf_counter()
    vectors = Vectors.open(folder)
    opened, size = time.perf_counter() - began, len(vectors)
    for query in queries[:200]:
        vectors.search(query, K)
    found: list[list[int]] = []
    lookups = timed_ms(lambda query: found.append([near.key for near in vectors.search(query, K)]), queries)
    held = memory_mb()
    adds = timed_ms(lambda number: vectors.add([size + number], queries[number : number + 1]), range(len(queries)))
    later = timed_ms(lambda query: vectors.search(query, K), queries)
    seen = sum(vectors.search(query, 1)[0].key == size + number for number, query in enumerate(queries[:200])) / 200
    removes = timed_ms(lambda number: vectors.remove([number]), range(1000))
    result = {
        "open_s": round(opened, 3),
        "lookup_ms": percentiles(lookups),
        "lookup_after_1000_adds_ms": percentiles(later),
        "recall1": float(np.mean([keys[0] == true[0] for keys, true in zip(found, truth)])),
        "recall16": float(np.mean([len(set(keys) & set(true)) / K for keys, true in zip(found, truth.tolist())])),
        "new_found": seen,
        "add_ms": percentiles(adds),
        "remove_ms": percentiles(removes),
        "anonymous_mb": round(held["anonymous"] - before["anonymous"], 1),
        "file_resident_mb": round(held["file"] - before["file"], 1),
        "anonymous_bytes_per_entry": round((held["anonymous"] - before["anonymous"]) * 2**20 / size, 1),
        "mapped_bytes_per_entry": round(vectors.mapped_bytes / len(vectors), 1),
    }
    vectors.settle()
    began = time.perf_counter()
    vectors.remove(range(size // 2))
    result["remove_half_s"] = round(time.perf_counter() - began, 3)
    vectors.settle()
    vectors.save(mark=2)
    result["after_removing_half"] = {
        "entries": len(vectors),
        "anonymous_mb": round(memory_mb()["anonymous"] - before["anonymous"], 1),
        "mapped_mb": round(vectors.mapped_bytes / 2**20, 1),
        "disk_mb": round(sum(path.stat().st_size for path in folder.iterdir()) / 2**20, 1),
    }
    return result


def child(work: str, folder: Path, prepared: Path) -> None:
    import chainops.stores.vector_parts  # noqa: F401  # part of the empty process

    if work == "build":
        result = build(np.load(prepared / "rows.npy", mmap_mode="r"), folder)
    else:
        result = use(folder, np.load(prepared / "queries.npy"), np.load(prepared / "truth.npy"))
    print(json.dumps(result))


def measured(size: int, real: tuple[np.ndarray, np.ndarray]) -> dict:
    with tempfile.TemporaryDirectory() as home:
        prepared, folder = Path(home), Path(home) / "index"
        rows, queries = multiplied(real[0], size, 1), multiplied(real[1], QUERIES, 2)
        np.save(prepared / "rows.npy", rows)
        np.save(prepared / "queries.npy", queries)
        np.save(prepared / "truth.npy", faiss.knn(queries, rows, K, metric=faiss.METRIC_INNER_PRODUCT)[1])
        del rows
        result: dict = {"entries": size}
        for work in ("build", "use"):
            command = [sys.executable, __file__, "--child", work, str(folder), str(prepared)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                sys.exit(done.stderr)
            result |= json.loads(done.stdout)
    return result


def show(result: dict) -> None:
    def line(name: str) -> str:
        return " / ".join(f"{value:.3f}" for value in result[name].values()) or "-"

    print(f"\n{result['entries']:,} entries x 384")
    print(f"  lookup, k = {K}             {line('lookup_ms')} ms (p50 / p95 / p99)")
    print(f"  lookup after 1,000 adds    {line('lookup_after_1000_adds_ms')} ms")
    print(f"  lookup during the build    {line('lookup_while_building_ms')} ms")
    print(
        f"  recall@1 {result['recall1']:.4f} · recall@16 {result['recall16']:.4f} · new rows {result['new_found']:.3f}"
    )
    print(f"  add of one {line('add_ms')} ms · remove of one {line('remove_ms')} ms")
    print(f"  adding {result['add_all_s']} s, then {result['build_s']} s until built", end="")
    print(f" (both {result['add_and_build_cpu_s']} s of processor time) · save {result['save_s']} s", end="")
    print(f" · open {result['open_s']} s")
    print(f"  anonymous {result['anonymous_mb']} MB ({result['anonymous_bytes_per_entry']} bytes per entry)", end="")
    print(f" · peak of build {result['peak_anonymous_mb']} MB")
    print(
        f"  mapped {result['mapped_bytes_per_entry']} bytes per entry, resident {result['file_resident_mb']} MB", end=""
    )
    print(f" · disk {result['disk_mb']} MB")
    after = result["after_removing_half"]
    print(f"  half removed in {result['remove_half_s']} s; then {after['anonymous_mb']} MB anonymous", end="")
    print(f", {after['mapped_mb']} MB mapped, {after['disk_mb']} MB on disk", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("CHAINOPS_BENCH_DATA"))
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--sizes", default="1000,10000,100000,1000000")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child(given.child[0], Path(given.child[1]), Path(given.child[2]))
        return
    if given.data is None:
        print("not measured: no --data and no CHAINOPS_BENCH_DATA")
        print(json.dumps({"benchmark": "cache_index", "measured": False}))
        return
    with tempfile.TemporaryDirectory() as scratch:
        cache = given.cache or Path(scratch)
        cache.mkdir(parents=True, exist_ok=True)
        real = embedded(given.data, cache)
    results = []
    for size in map(int, given.sizes.split(",")):
        results.append(measured(size, real))
        show(results[-1])
    print(json.dumps({"benchmark": "cache_index", "measured": True, "sizes": results}))


if __name__ == "__main__":
    main()
