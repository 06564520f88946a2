"""Doubles for tests and demos: models, scripted and served, and an embedder. No network, no key, no chance."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from chainops.testing.chat import Reply, ScriptedChatModel, ScriptExhausted
    from chainops.testing.embedding import WordVectors
    from chainops.testing.faults import (
        Cut,
        Drip,
        Duplicate,
        Fault,
        Finish,
        Hang,
        Nonsense,
        Refuse,
        Reset,
        Slow,
        Stall,
        Status,
        Together,
        Usage,
    )
    from chainops.testing.limits import Limits
    from chainops.testing.listening import Captured, ManualClock, capture_events
    from chainops.testing.script import sometimes
    from chainops.testing.server import ModelServer

_WHERE = {
    "Captured": "listening",
    "Limits": "limits",
    "ManualClock": "listening",
    "ModelServer": "server",
    "Reply": "chat",
    "ScriptExhausted": "chat",
    "ScriptedChatModel": "chat",
    "WordVectors": "embedding",
    "capture_events": "listening",
    "sometimes": "script",
}
"""Where names live that are no faults."""

__all__ = [
    "Captured",
    "Cut",
    "Drip",
    "Duplicate",
    "Fault",
    "Finish",
    "Hang",
    "Limits",
    "ManualClock",
    "ModelServer",
    "Nonsense",
    "Refuse",
    "Reply",
    "Reset",
    "ScriptExhausted",
    "ScriptedChatModel",
    "Slow",
    "Stall",
    "Status",
    "Together",
    "Usage",
    "WordVectors",
    "capture_events",
    "sometimes",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WHERE.get(name, 'faults')}"), name)


def __dir__() -> list[str]:
    return __all__
