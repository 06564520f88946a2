"""Declare a LangChain chain once: run it in a notebook, evaluate it, review it, serve it.

    import chainops

    chain = chainops.load("python-help.yaml")
    answer = chain.invoke("What does yield from do?", config=chainops.caller(user="ann"))
    answer.text, answer.sources, answer.status, answer.report

Everything else is imported from the room it lives in.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from chainops.core.answer import Answer, AnswerChunk
    from chainops.core.caller import Caller, caller
    from chainops.core.errors import ChainopsError, InvalidInput, MissingExtra
    from chainops.core.events import listen
    from chainops.spec.chain import Chain, declare, load

__version__ = "0.1.0"

__all__ = [
    "Answer",
    "AnswerChunk",
    "Caller",
    "Chain",
    "ChainopsError",
    "InvalidInput",
    "MissingExtra",
    "caller",
    "declare",
    "listen",
    "load",
]

_WHERE = {
    "core.answer": ("Answer", "AnswerChunk"),
    "core.caller": ("Caller", "caller"),
    "core.errors": ("ChainopsError", "InvalidInput", "MissingExtra"),
    "core.events": ("listen",),
    "spec.chain": ("Chain", "declare", "load"),
}


def __getattr__(name: str) -> Any:
    """Import what is asked for: LangChain takes half a second, and a command line may not need it."""
    for module, names in _WHERE.items():
        if name in names:
            value = globals()[name] = getattr(import_module(f"chainops.{module}"), name)
            return value
    raise AttributeError(f"module 'chainops' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
