"""Caches for `cache_latency.py`: what is stored and asked in them, and how they are filled and opened."""

from __future__ import annotations

import gzip
import json
import os
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import faiss
import numpy as np
from cache_index import unit
from langchain_core.messages import AIMessage

from chainops.cache import policy
from chainops.cache.background import UPKEEP
from chainops.cache.component import SemanticCache
from chainops.cache.judge import Judge, Label
from chainops.cache.lookup import Lookup
from chainops.cache.messages import as_json
from chainops.cache.opening import open_comparer
from chainops.cache.records import Entry
from chainops.cache.replica import Replica
from chainops.cache.settings import CacheSettings
from chainops.cache.sharing.flight import Flights
from chainops.cache.standalone import Standalone
from chainops.cache.stores.redis_records import RedisRecords
from chainops.cache.stores.sql_records import SqlRecords
from chainops.core.background import Background
from chainops.core.caller import Caller
from chainops.core.component import Component
from chainops.core.steps import Say
from chainops.models.embeddings import embedder
from chainops.stores.redis import redis_store
from chainops.stores.sql import SqlStore

OWNER, ANSWERED_BY = "benchmark", "the same chain"
REAL, LABELS, NOISE, AT_ONCE = 4_000, 400, 0.25, 5_000
VARIANTS = ("please, {}", "hi, {}", "{} please", "ok {}", "{} thanks", "hello: {}", "{} now please")
SETTINGS = CacheSettings(audit_rate=0, ttl=None, max_entries=10_000_000, max_mb=100_000.0)


class Chain(Component[Any, Any]):
    """Answers at once, to each question something else."""

    def plan(self, value, run):
        message = AIMessage(content=answer_to(value))
        yield Say(message)
        return message


class Bulk(SqlStore):
    """Many puts in one transaction: the same statements without a commit after each."""

    _open: Any = None

    @contextmanager
    def write(self) -> Iterator[Any]:
        if self._open is not None:
            yield self._open
            return
        with super().write() as connection:
            yield connection

    @contextmanager
    def together(self) -> Iterator[None]:
        with super().write() as connection:
            self._open = connection
            try:
                yield
            finally:
                self._open = None


# What is stored and asked


def answer_to(question: str) -> str:
    return (
        f'You asked: "{question}". Open the menu, choose the entry of that name and follow the steps that it shows. '
        "If it is not there, the service has not been enabled for your account, and the help desk can change that."
    )


def texts(data: Path, part: str) -> list[str]:
    found = []
    for name in ("banking77", "clinc150"):
        with gzip.open(data / name / f"{part}.jsonl.gz", "rt", encoding="utf-8") as file:
            found += [json.loads(line)["text"] for line in file]
    unlike = list({policy.plain(text).casefold(): text for text in found}.values())
    return random.Random(0).sample(unlike, len(unlike))


def real_ones(data: Path, cache: Path) -> tuple[list[str], np.ndarray]:
    questions, path = texts(data, "train")[:REAL], cache / "cache_latency_minilm.npy"
    if not path.exists():
        encode = embedder("minilm").embed
        np.save(path, np.concatenate([encode(questions[i : i + 64]) for i in range(0, len(questions), 64)]))
    return questions, np.load(path)


def rows(questions: list[str], real: np.ndarray, count: int) -> Iterator[tuple[str, np.ndarray]]:
    """The real ones, then made ones, each with a text of its own."""
    yield from zip(questions[:count], real, strict=False)
    rng, words = np.random.default_rng(1), [text.split() for text in questions]
    near, seen = faiss.knn(real, real, 11, metric=faiss.METRIC_INNER_PRODUCT)[1][:, 1:], set(questions)
    for start in range(len(questions), count, 20_000):
        size = min(20_000, count - start)
        one = rng.integers(len(real), size=size)
        other = near[one, rng.integers(near.shape[1], size=size)]
        weight = rng.random((size, 1), np.float32)
        noise = unit(rng.standard_normal((size, real.shape[1]), np.float32))
        mixed = unit(unit(real[one] * weight + real[other] * (1 - weight)) + NOISE * noise).astype(np.float32)
        places = rng.integers(1 << 30, size=(size, 4))
        for vector, a, b, at in zip(mixed, one, other, places, strict=True):
            text = _mixed(words[a], words[b], at)
            while text in seen:
                text += " " + words[int(rng.integers(len(words)))][0]
            seen.add(text)
            yield text, vector


def _mixed(one: list[str], other: list[str], at: np.ndarray) -> str:
    made = list(one)
    for where, which in ((at[0], at[1]), (at[2], at[3])):
        made[where % len(made)] = other[which % len(other)]
    return " ".join(made)


def key_of(question: str) -> policy.Key:
    asked = policy.asked(question)
    made = policy.key_of(
        asked,
        answered_by=ANSWERED_BY,
        share=SETTINGS.share,
        caller=Caller(),
        kwargs=policy.settings_of({}, {}, Caller()),
        alone=Standalone(question),
    )
    assert made is not None
    return made


# Opening


def records(place: str, *, bulk: bool = False) -> Any:
    if place.startswith("redis:"):
        return RedisRecords(redis_store(place, timeout_s=10.0))
    return SqlRecords((Bulk if bulk else SqlStore)(place))


def replica_of(store: Any, folder: Path | None) -> Replica:
    return Replica(
        store,
        lambda: embedder("minilm"),
        owner=OWNER,
        judge=Judge(SETTINGS.bound, audit_rate=0),
        folder=folder,
    )


def cache_of(replica: Replica) -> SemanticCache:
    comparer = open_comparer(SETTINGS, lambda: embedder("minilm"))
    return SemanticCache(
        inner=Chain(),
        replica=lambda: replica,
        settings=SETTINGS,
        answered_by=lambda: ANSWERED_BY,
        comparer=lambda: comparer,
        flights=Flights(),
        background=Background("audits", waiting_at_most=256),
    )


def settle() -> None:
    """Wait for a snapshot that is being written, and for lists that are being built."""
    UPKEEP.drain(1_800.0)
    for thread in threading.enumerate():
        if thread.name == "chainops vectors":
            thread.join()


def fill(place: str, size: int, home: Path, data: Path, cache: Path) -> dict[str, Any]:
    """Store everything, teach the cache, leave a snapshot."""
    questions, real = real_ones(data, cache)
    store, digest, now = records(place, bulk=True), embedder("minilm").digest, time.time()
    scope, began = key_of("?").scope, time.perf_counter()
    pending = rows(questions, real, size)
    for start in range(0, size, AT_ONCE):
        store.position(scope)  # makes the tables
        with store._store.together() if isinstance(store, SqlRecords) else nullcontext():
            for number in range(start, min(start + AT_ONCE, size)):
                text, vector = next(pending)
                entry = Entry(
                    id=f"{number:032x}",
                    owner=OWNER,
                    scope=scope,
                    exact=policy.digest(policy.plain(text)),
                    question=text,
                    message=as_json(AIMessage(content=answer_to(text))) or {},
                    facts={"status": "ok", "sources": []},
                    group=f"{number:032x}",
                    embedder=digest,
                    cost_usd=0.001,
                    duration_s=1.0,
                    created_at=now,
                )
                store.put(entry, vector)
    filled = time.perf_counter() - began
    replica = replica_of(store, home)
    lookup, rng = Lookup(replica, SETTINGS, None), random.Random(1)
    for _ in range(LABELS if size < 1_000_000 else 1):
        asked = VARIANTS[rng.randrange(len(VARIANTS))].format(rng.choice(questions[:size]))
        found = lookup.find(key_of(asked), tenant=None, now=now, now_s=0.0, draw=1.0)
        if found.evidence is not None:
            store.add_label(OWNER, Label(found.evidence.values, True, "miss", now))
    settle()
    return {"fill_s": round(filled, 1), "puts_per_s": round(size / filled)}
