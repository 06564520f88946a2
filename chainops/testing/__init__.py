"""Doubles for tests and demos: scripted and served models. No network beyond this machine, no key, no chance."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from chainops.testing.chat import Reply, ScriptedChatModel, ScriptExhausted
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
    "chat": ("Reply", "ScriptExhausted", "ScriptedChatModel"),
    "listening": ("Captured", "ManualClock", "capture_events"),
    "faults": (
        "Cut",
        "Drip",
        "Duplicate",
        "Fault",
        "Finish",
        "Hang",
        "Nonsense",
        "Refuse",
        "Reset",
        "Slow",
        "Stall",
        "Status",
        "Together",
        "Usage",
    ),
    "limits": ("Limits",),
    "script": ("sometimes",),
    "server": ("ModelServer",),
}

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
    "capture_events",
    "sometimes",
]


def __getattr__(name: str) -> Any:
    for module, names in _WHERE.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
