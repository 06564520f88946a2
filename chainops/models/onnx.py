"""Run a compiled embedding model with ONNX Runtime and tokenizers: no torch, no transformers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import TYPE_CHECKING, Any

from chainops.core.errors import StoreCorrupted
from chainops.models.compile import Compiled

if TYPE_CHECKING:
    import numpy as np

_TOKENIZED_AT_ONCE = 4096
"""Texts in memory as token ids at one time."""


def cores() -> int:
    """Processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class OnnxRunner:
    """Texts to unit rows. Any number of threads may call `rows` at once.

    Every text is run by itself, never padded to another's length: a text's vector is the same, bit for bit, whatever
    it was embedded with, and on a processor that is as fast as batches are. One run uses two cores, which wait for
    each other only briefly and never between runs (a pool that spins as ONNX Runtime's does by default makes a run
    twice as slow on a busy machine); a list is shared out over `threads` callers.

    Args:
        compiled: An opened, verified folder.
        threads: At most this many runs at once for one list; None means one per core, up to four.

    Raises:
        StoreCorrupted: the folder's files are not what these libraries can read.
    """

    def __init__(self, compiled: Compiled, *, threads: int | None = None) -> None:
        import onnxruntime
        import tokenizers

        self.compiled = compiled
        self.threads = threads or min(4, cores())
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = min(2, cores())
        options.add_session_config_entry("session.force_spinning_stop", "1")
        options.add_session_config_entry("session.intra_op.spin_duration_us", "20")
        options.add_session_config_entry("session.intra_op.spin_backoff_max", "8")
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session: Any = onnxruntime.InferenceSession(
                str(compiled.folder / "model.onnx"), options, providers=["CPUExecutionProvider"]
            )
            self._tokenizer: Any = tokenizers.Tokenizer.from_file(str(compiled.folder / "tokenizer.json"))
        except Exception as error:  # both libraries raise bare Exceptions of their own
            raise StoreCorrupted(
                str(compiled.folder), f"compiled model cannot be opened: {error}", "delete the folder"
            ) from error
        self._has_types = "token_type_ids" in compiled.meta.inputs

    def rows(self, texts: Sequence[str]) -> np.ndarray:
        """Shape (len(texts), d), float32, rows of unit length, in the order of the texts."""
        import numpy as np

        if len(texts) == 1:
            return self._run(self._tokenizer.encode(texts[0]).ids)
        found = np.empty((len(texts), self.compiled.meta.dimensions), dtype=np.float32)
        for start in range(0, len(texts), _TOKENIZED_AT_ONCE):
            piece = list(texts[start : start + _TOKENIZED_AT_ONCE])
            ids = [encoding.ids for encoding in self._tokenizer.encode_batch(piece)]
            self._fill(found[start : start + len(piece)], ids)
        return found

    def count_tokens(self, text: str) -> int:
        """Tokens of the whole text, also beyond what the model reads; the marks around it are not counted."""
        return len(self._counter.encode(text, add_special_tokens=False).ids)

    @cached_property
    def _counter(self) -> Any:
        import tokenizers

        counter = tokenizers.Tokenizer.from_str(self._tokenizer.to_str())
        counter.no_truncation()
        return counter

    def _fill(self, found: np.ndarray, ids: list[list[int]]) -> None:
        workers = min(self.threads, len(ids))

        def work(first: int) -> None:
            for row in range(first, len(ids), workers):
                found[row] = self._run(ids[row])[0]

        if workers == 1:
            work(0)
            return
        with ThreadPoolExecutor(workers, thread_name_prefix="chainops-embed") as pool:
            for _ in pool.map(work, range(workers)):
                pass

    def _run(self, ids: list[int]) -> np.ndarray:
        import numpy as np

        tokens = np.array([ids], dtype=np.int64)
        given = {"input_ids": tokens, "attention_mask": np.ones_like(tokens)}
        if self._has_types:
            given["token_type_ids"] = np.zeros_like(tokens)
        rows: np.ndarray = self._session.run(None, given)[0]
        return rows
