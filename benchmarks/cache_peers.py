"""GPTCache 0.1.44 as `cache_latency.py` measures it. Runs in an environment of its own; no part of chainops is needed.

    python benchmarks/cache_peers.py FOLDER

FOLDER holds `peers.json`, written by `cache_latency.py`. SQLite and FAISS, GPTCache's own default similarity evaluation
(distance), nothing evicted. The embedding is the same compiled MiniLM, run by ONNX Runtime with the same settings as in
chainops. Stored are the same questions, answers and vectors. Prints one line of JSON: milliseconds per hit of `get` on
stored questions, once with embedding and once with the question's vector looked up in a dict, and of the embedding.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import tokenizers
from gptcache import Cache
from gptcache.adapter.api import get, put
from gptcache.manager import CacheBase, VectorBase, get_data_manager
from gptcache.processor.pre import get_prompt
from gptcache.similarity_evaluation.distance import SearchDistanceEvaluation

ROUNDS = 10


def compiled(folder: Path) -> Callable[[str], np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = 2, 1
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.add_session_config_entry("session.intra_op.spin_duration_us", "20")
    options.add_session_config_entry("session.intra_op.spin_backoff_max", "8")
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"])
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    names = {each.name for each in session.get_inputs()}

    def embed(text: str, **_) -> np.ndarray:
        ids = np.array([tokenizer.encode(text).ids], dtype=np.int64)
        given = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        return session.run(None, {name: given[name] for name in names})[0][0]

    return embed


def percentiles(spent: list[float]) -> dict[str, float]:
    return {f"p{q}": round(float(np.percentile(spent, q)), 4) for q in (50, 95, 99)}


def main() -> None:
    folder = Path(sys.argv[1])
    given = json.loads((folder / "peers.json").read_text("utf-8"))
    vectors = dict(zip(given["questions"], np.load(folder / "peers.npy"), strict=True))
    embed, known = compiled(Path(given["model"])), {"is": True}

    def embedding(text: str, **_) -> np.ndarray:
        return vectors[text] if known["is"] else embed(text)

    manager = get_data_manager(
        CacheBase("sqlite", sql_url=f"sqlite:///{folder}/gptcache.db"),
        VectorBase("faiss", dimension=384, index_path=str(folder / "gptcache.index")),
        max_size=1_000_000_000,
    )
    cache = Cache()
    cache.init(
        pre_embedding_func=get_prompt,
        embedding_func=embedding,
        data_manager=manager,
        similarity_evaluation=SearchDistanceEvaluation(),
    )
    for question, answer in zip(given["questions"], given["answers"], strict=True):
        put(question, answer, cache_obj=cache)
    spent: dict[str, list[float]] = {"hit": [], "hit_vector_known": [], "embedding": []}
    wrong = 0
    for round_ in range(-1, ROUNDS):  # the first is not counted
        mine = given["asked"][max(round_, 0) :: ROUNDS]
        for name, is_known in (("hit", False), ("hit_vector_known", True)):
            known["is"] = is_known
            for at in mine:
                began = time.perf_counter()
                found = get(given["questions"][at], cache_obj=cache)
                took = (time.perf_counter() - began) * 1000
                wrong += found != given["answers"][at]
                if round_ >= 0:
                    spent[name].append(took)
        for at in mine if round_ >= 0 else ():
            began = time.perf_counter()
            embed(given["questions"][at])
            spent["embedding"].append((time.perf_counter() - began) * 1000)
    told = {name: percentiles(each) for name, each in spent.items()}
    agree = statistics.median(float(embed(text) @ vectors[text]) for text in given["questions"][:20])
    print(json.dumps(told | {"entries": len(given["questions"]), "other_answers": wrong, "cosine": round(agree, 6)}))


if __name__ == "__main__":
    main()
