"""What is said about a choice, and how choosing fails."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from langchain_core.messages import BaseMessage

from chainops.core.caller import Caller
from chainops.core.errors import ChainopsError
from chainops.core.events import Event

Judge = Literal["auto", "grounding", "agreement", "logprobs", "arithmetic"]
"""What a cascade judges an answer by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteChosen(Event):
    """A router decided who answers."""

    route: str
    by: str
    """meaning, complexity, confidence, cost, latency or weight."""
    why: str
    """One sentence."""
    score: float | None = None
    """Of the choice, on the chooser's own scale; None where it has none."""
    runners_up: dict[str, float | None] = field(default_factory=dict)
    """The next best and their scores, best first."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Which route, and why."""

    route: str | None
    """None: none of them; the router's default answers."""
    why: str
    """One sentence, without a full stop."""
    score: float | None = None
    runners_up: Mapping[str, float | None] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    """More for the report: plain JSON."""


@dataclass(frozen=True, slots=True)
class Asking:
    """A request as choosers see it."""

    question: str
    caller: Caller
    prepared: Any = None
    """What the chooser's `prepare` gave: the question's vector."""


class Chooser(Protocol):
    """Decides where a question goes. One object serves any number of requests at the same time."""

    by: str

    @property
    def names(self) -> Iterable[str]:
        """Every route it may choose."""

    def prepare(self, question: str) -> Any:
        """What takes longer than some 100 µs: embedding. Run off the event loop, where `is_slow`."""

    @property
    def is_slow(self) -> bool:
        """Whether `prepare` has anything to do."""

    def choose(self, asking: Asking) -> Choice: ...

    def learn(self, route: str, duration_s: float | None) -> None:
        """What came of a choice: how long the answer took; None when the route failed."""


class RoutingError(ChainopsError):
    """Base of what goes wrong in choosing."""


class NoRouteFits(RoutingError):
    """The question belongs to none of the routes, and no default is declared."""

    def __init__(self, router: str, why: str) -> None:
        self.router, self.why = router, why
        super().__init__(f"{router}: {why}; declare who answers then (`none: NAME`)")


class BadExamples(RoutingError, ValueError):
    """Examples a router cannot be fitted on."""

    def __init__(self, place: str, problem: str, next_move: str) -> None:
        self.place, self.problem = place, problem
        super().__init__(f"{place}: {problem}; {next_move}")


def question_of(value: Any) -> str | None:
    """The question of a request: a string, a mapping with `question`, or messages that end with a person's. None for
    anything else, and for a question without a word.
    """
    if isinstance(value, Mapping):
        value = value.get("question")
    messages = value.to_messages() if hasattr(value, "to_messages") else value
    if isinstance(messages, list | tuple) and messages and isinstance(messages[-1], BaseMessage):
        value = messages[-1].text if messages[-1].type == "human" else None
    return str(value) if isinstance(value, str) and value.strip() else None
