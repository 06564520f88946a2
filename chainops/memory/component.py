"""Continue a conversation: the last turns go in, the new ones are kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import Field

from chainops.core.component import AnyRunnable, Component
from chainops.core.errors import ChainopsError
from chainops.core.events import Event
from chainops.core.run import Run
from chainops.core.settings import Settings
from chainops.core.steps import Do, Forward, Plan
from chainops.memory.records import SessionKey, Sessions, Turn


@dataclass(frozen=True, slots=True, kw_only=True)
class NotRemembered(Event):
    """A turn could not be kept; the next question will not know of it."""

    error: str


class MemorySettings(Settings):
    """What a chain file may say about memory."""

    window: int = Field(default=6, ge=0, le=100)
    """How many past turns a question is asked with; a question and its answer are two turns."""


class Remember(Component[dict[str, Any], Any]):
    """Gives the chain inside the caller's last turns as `history`, and keeps the new ones.

    Without a session in the caller nothing is read or kept. History given by the caller goes first
    over what is kept. Answers that were cut, refused or held for review, and stand-in sentences, are not remembered.
    """

    kind: ClassVar[str] = "memory"

    inner: AnyRunnable
    sessions: Callable[[], Sessions]
    window: int = 6

    def plan(self, value: dict[str, Any], run: Run) -> Plan[Any]:
        caller = run.caller
        if caller.session is None:
            return (yield Forward(self.inner, value, kwargs=run.kwargs))
        key = SessionKey(tenant=caller.tenant or "", user=caller.user or "", session=caller.session)
        if not value.get("history"):
            turns = yield Do(lambda: self.sessions().window(key, self.window))
            value = {**value, "history": [{"role": turn.role, "text": turn.text} for turn in turns]}
        run.stage.facts["turns"] = len(value["history"])
        answer = yield Forward(self.inner, value, kwargs=run.kwargs)
        if run.report.status in ("ok", "cached", "degraded") and run.report.may_remember:
            said = [Turn(role="user", text=value["question"]), Turn(role="assistant", text=str(answer.text))]
            try:
                yield Do(lambda: self.sessions().append(key, said, at=run.clock.time()))
            except ChainopsError as error:  # the answer is there and good; that it is forgotten is told
                run.emit(NotRemembered(error=str(error)))
                run.report.reasons.append(f"this turn is not remembered: {error}")
        return answer
