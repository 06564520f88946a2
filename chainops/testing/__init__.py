"""Doubles for tests and demos: scripted and served models. No network beyond this machine, no key, no chance."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from chainops.testing.chat import Reply, ScriptedChatModel, ScriptExhausted
    from chainops.testing.faults import Cut, Drip, Fault, Hang, Nonsense, Refuse, Status
    from chainops.testing.listening import Captured, ManualClock, capture_events
    from chainops.testing.server import ModelServer

_WHERE = {
    "chat": ("Reply", "ScriptExhausted", "ScriptedChatModel"),
    "listening": ("Captured", "ManualClock", "capture_events"),
    "faults": ("Cut", "Drip", "Fault", "Hang", "Nonsense", "Refuse", "Status"),
    "server": ("ModelServer",),
}

__all__ = [
    "Captured",
    "Cut",
    "Drip",
    "Fault",
    "Hang",
    "ManualClock",
    "ModelServer",
    "Nonsense",
    "Refuse",
    "Reply",
    "ScriptExhausted",
    "ScriptedChatModel",
    "Status",
    "capture_events",
]


def __getattr__(name: str) -> Any:
    for module, names in _WHERE.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
