"""Many rows through one chain: a file in, a file out, nothing asked twice and no row lost.

    summary = chainops.batch.run(chain, "rows.jsonl", "answers.jsonl")

`run` from scripts and notebooks, `arun` inside an event loop, `chainops run` from a shell.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from chainops.batch.openai_api import OpenAIBatch
    from chainops.batch.records import Stopped
    from chainops.batch.running import arun, run
    from chainops.batch.summary import Summary

__all__ = ["OpenAIBatch", "Stopped", "Summary", "arun", "run"]

_WHERE = {"OpenAIBatch": "openai_api", "Stopped": "records", "Summary": "summary", "arun": "running", "run": "running"}


def __getattr__(name: str) -> Any:
    """Import what is asked for."""
    if name in _WHERE:
        return getattr(import_module(f"chainops.batch.{_WHERE[name]}"), name)
    raise AttributeError(f"module 'chainops.batch' has no attribute {name!r}")
