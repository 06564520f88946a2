"""What happened in a request, as frozen records. Rooms add their own; `observe` listens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from chainops.core.run import Request


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Base of all events. Fields are plain values, so `to_dict` is JSON."""

    def to_dict(self) -> dict[str, Any]:
        return {"kind": type(self).__name__} | {each.name: getattr(self, each.name) for each in fields(self)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempted(Event):
    """One call to a model was settled."""

    model: str
    outcome: str
    """ok, failed, cancelled, or lost (nobody settled it before the request ended)."""
    purpose: str
    duration_s: float
    input_tokens: int
    output_tokens: int
    cost_usd: float | None
    """None when no price is known."""
    error: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CleanupFailed(Event):
    """Work done after an answer, a failure or a cancellation went wrong; the answer itself stands."""

    component: str
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerFailed(Event):
    """A listener raised; the request went on without it."""

    listener: str
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestEnded(Event):
    """The whole request is over. Reaches listeners only; it is not part of the report it carries."""

    request: Request
    output: Any
    error: BaseException | None

    def to_dict(self) -> dict[str, Any]:
        return {"kind": "RequestEnded", "request": self.request.id, "error": self.error and repr(self.error)}


Listener = Callable[[Event], None]
_listening: ContextVar[tuple[Listener, ...]] = ContextVar("chainops_listening", default=())


def current_listeners() -> tuple[Listener, ...]:
    return _listening.get()


@contextmanager
def listen(listener: Listener) -> Iterator[None]:
    """Hear every event of the requests that begin inside the block, in this thread or task.

    The listener is called where the event happens: it must be quick and must not block.
    One that raises is recorded as `ListenerFailed` and does not disturb the request.
    """
    token = _listening.set((*_listening.get(), listener))
    try:
        yield
    finally:
        _listening.reset(token)
