"""Streams of questions for the cache benchmarks: read from public data, embedded once, played in any order.

Not a benchmark itself. A stream is texts and, for each, a label: questions of one label have the same answer.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import cache_edits
import numpy as np

from chainops.cache.evidence import Near

KEPT = 256
"""Nearest texts of the whole stream that are found beforehand for each text."""


def rows_of(folder: Path, name: str) -> list[dict]:
    """Rows of `name`.jsonl or `name`.jsonl.gz; none where the file is absent."""
    plain, packed = folder / f"{name}.jsonl", folder / f"{name}.jsonl.gz"
    if plain.is_file():
        return [json.loads(line) for line in plain.read_text("utf-8").splitlines() if line.strip()]
    if packed.is_file():
        with gzip.open(packed, "rt", encoding="utf-8") as lines:
            return [json.loads(line) for line in lines]
    return []


def intents(folder: Path, data: str, split: str) -> list[tuple[str, str]]:
    """Texts and intents; what is out of scope has no answer in common and is left out."""
    return [(row["text"], row["intent"]) for row in rows_of(folder, f"{data}/{split}") if row["intent"] != "oos"]


def unique(folder: Path, name: str, field: str) -> list[tuple[str, str]]:
    """Questions that all want an answer of their own."""
    return [(row[field], row["id"]) for row in rows_of(folder, name)]


def graded(folder: Path) -> list[tuple[str, str]]:
    """Pairs that people graded 4 or 5 of 5 ask the same; lower ones do not."""
    found = []
    for row in rows_of(folder, "sts16_qq/dev"):
        other = row["id"] if row["score"] >= 4 else row["id"] + "b"
        found += [(row["a"], row["id"]), (row["b"], other)]
    return found


def evidenced(folder: Path) -> list[tuple[str, str]]:
    """Claims with the same evidence have the same answer; those without any have none in common."""
    rows = rows_of(folder, "scifact/dev")
    return [
        (row["query"], json.dumps(row["evidence"], sort_keys=True) if row["evidence"] else row["id"]) for row in rows
    ]


def answered(folder: Path) -> list[tuple[str, str]]:
    """Questions of XQuAD: the same answer in the same passage."""
    return [(row["query"], f"{row['passage']}:{row['answers'][0]}") for row in rows_of(folder, "xquad_en/dev")]


def edits(*parts: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Questions of some sources, with rule-made twins: other words and the same meaning, or nearly the same words
    and another meaning.
    """
    base = [" ".join(text.split()) for part in parts for text, _ in part if len(text) < 160]
    return cache_edits.stream(list(dict.fromkeys(base)), np.random.default_rng(5))


def domains(folder: Path) -> dict[str, list[tuple[str, str]]]:
    """What the prior is made from. Keys are sources; `a+b` is made from both."""
    xquad, chunking = answered(folder), unique(folder, "chunking_eval/dev", "query")
    scifact, halueval = evidenced(folder), unique(folder, "halueval_general/dev", "query")
    hotpot, mmlu = unique(folder, "hotpot100/dev", "query"), unique(folder, "routellm_mmlu/dev", "prompt")
    found = {
        "banking77": intents(folder, "banking77", "train"),
        "clinc150": intents(folder, "clinc150", "train"),
        "healthcare_routing": [
            (row["text"], str(row["route"])) for row in rows_of(folder, "healthcare_routing/dev") if row["route"]
        ],
        "sts16_qq": graded(folder),
        "xquad_en": xquad,
        "scifact": scifact,
        "chunking_eval": chunking,
        "halueval_general": halueval,
        "hotpot100": hotpot,
        "routellm_mmlu": mmlu,
        "routellm_gsm8k": unique(folder, "routellm_gsm8k/dev", "prompt"),
        "llmbar": unique(folder, "llmbar/dev", "input"),
        "xquad_en+chunking_eval+hotpot100": edits(xquad, chunking, hotpot),
        "scifact+halueval_general+routellm_mmlu": edits(scifact, halueval, mmlu),
    }
    return {name: rows for name, rows in found.items() if rows}


def without_repeats(rows: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """The first of each text, case and space aside: repeats are the exact cache's."""
    seen: dict[str, tuple[str, str]] = {}
    for text, label in rows:
        seen.setdefault(" ".join(text.lower().split()), (text, label))
    return list(seen.values())


def embed(texts: list[str], cache: Path) -> np.ndarray:
    """MiniLM embeddings, kept beside others in `cache`. Shape (n, 384), float32, rows of unit length."""
    digest = hashlib.sha256("\0".join(texts).encode()).hexdigest()[:20]
    file = cache / f"embedded-{digest}.npz"
    if file.is_file():
        return np.load(file)["rows"]
    from chainops.models.embeddings import embedder

    rows = np.asarray(embedder("minilm").embed(texts), dtype=np.float32)
    cache.mkdir(parents=True, exist_ok=True)
    np.savez(file, rows=rows)
    return rows


class Stream:
    """Texts with labels and, for each, its nearest among all."""

    def __init__(self, name: str, rows: Sequence[tuple[str, str]], vectors: np.ndarray) -> None:
        self.name = name
        self.texts, self.labels = [text for text, _ in rows], [label for _, label in rows]
        self.vectors = vectors
        size = len(rows)
        kept = min(KEPT, size - 1)
        self.nearest = np.empty((size, kept), np.int32)
        self.similarity = np.empty((size, kept), np.float32)
        for start in range(0, size, 1000):
            block = vectors[start : start + 1000] @ vectors.T
            block[np.arange(len(block)), start + np.arange(len(block))] = -2.0
            some = np.argpartition(-block, kept - 1, axis=1)[:, :kept]
            values = np.take_along_axis(block, some, 1)
            order = np.argsort(-values, axis=1, kind="stable")
            self.nearest[start : start + 1000] = np.take_along_axis(some, order, 1)
            self.similarity[start : start + 1000] = np.take_along_axis(values, order, 1)

    def __len__(self) -> int:
        return len(self.texts)

    def near(self, at: int, stored: np.ndarray, groups: Sequence[str]) -> tuple[list[Near], list[int]]:
        """The up to 16 nearest entries kept so far, and their places.

        Args:
            stored: Shape (n,), the number under which each text was kept, from 1; 0 where it is not.
        """
        is_kept, newest = stored > 0, int(stored.max())
        found = self.nearest[at]
        first = np.flatnonzero(is_kept[found])[:16]
        places, similar = found[first], self.similarity[at][first]
        if len(first) < 16 and int(is_kept.sum()) > len(first):
            kept = np.flatnonzero(is_kept)
            values = self.vectors[kept] @ self.vectors[at]
            best = np.argsort(-values, kind="stable")[:16]
            places, similar = kept[best], values[best]
        near = [
            Near(float(s), self.texts[p], groups[p], newest - int(stored[p]))
            for s, p in zip(similar, places, strict=True)
        ]
        return near, [int(place) for place in places]

    def orders(self, count: int, *, first: int = 300) -> Iterator[np.ndarray]:
        """Shuffled orders, of the seeds from `first` on."""
        for number in range(count):
            yield np.random.default_rng(first + number).permutation(len(self))

    def by_label(self) -> np.ndarray:
        """The adversarial order: one class after the other."""
        return np.array(sorted(range(len(self)), key=lambda at: (self.labels[at], at)))


def open_stream(name: str, rows: Sequence[tuple[str, str]], cache: Path, *, most: int | None = None) -> Stream:
    """A stream without repeats, of at most `most` rows drawn at random."""
    kept = without_repeats(rows)
    if most is not None and most < len(kept):
        kept = [kept[at] for at in np.random.default_rng(1).permutation(len(kept))[:most]]
    return Stream(name, kept, embed([text for text, _ in kept], cache))


Same = Callable[[int, int], bool]
"""Whether the answers of two texts, by their places, say the same."""

WORDINGS = (
    "To settle {topic}, open the help page on {topic} and follow the steps there.",
    "Open the help page on {topic} and follow the steps there to settle {topic}.",
    "Please open the help page on {topic}. Follow the steps there to settle {topic}.",
)


def reply(label: str, number: int) -> str:
    """The answer to a question of a class, in one of three wordings. The comparer misses that the last, which every
    eighth has, says the same as the others.
    """
    return WORDINGS[2 if number % 8 == 7 else number % 2].format(topic=label.replace("_", " ").strip("?"))


def own_answers(folder: Path) -> list[tuple[str, str, str]]:
    """Questions, labels and written answers of sources in which hardly two questions have the same answer."""
    found = [
        (row["query"], f"{row['passage']}:{row['answers'][0]}", row["answers"][0])
        for row in rows_of(folder, "xquad_en/dev")
    ]
    return found + [(row["query"], row["id"], row["spans"][0]["text"]) for row in rows_of(folder, "chunking_eval/dev")]


def by_comparer(questions: Sequence[str], answers: Sequence[str]) -> Same:
    """The cache's own comparer. Sentences are embedded once."""
    from chainops.cache.compare import Auto, Reply
    from chainops.cache.prose import Prose
    from chainops.models.embeddings import embedder

    rows: dict[str, np.ndarray] = {}

    def embed_once(texts: list[str]) -> np.ndarray:
        if missing := [text for text in dict.fromkeys(texts) if text not in rows]:
            rows.update(zip(missing, np.asarray(embedder("minilm").embed(missing)), strict=True))
        return np.stack([rows[text] for text in texts])

    comparer, known = Auto(Prose(embed_once)), dict[tuple[str, str], bool]()

    def same(at: int, place: int) -> bool:
        pair = answers[at], answers[place]
        if pair not in known:
            known[pair] = comparer.same(questions[at], Reply(pair[0]), Reply(pair[1])).same
        return known[pair]

    return same
