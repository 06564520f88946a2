"""Who asks, on whose behalf, and what they allow."""

from __future__ import annotations

from typing import Any, Literal

from langchain_core.runnables import RunnableConfig
from pydantic import Field

from chainops.core.settings import Settings

STATE_KEY = "__chainops"
"""The one private key in `config["configurable"]`. Two leading underscores keep it out of trace metadata."""

Exposed = Literal["status", "sources", "data", "report"]


class Caller(Settings):
    """The person or program behind a request. A server fills this from the authenticated key."""

    user: str | None = None
    tenant: str | None = None
    feature: str | None = None
    """What the answer is for, such as "help" or "search": budgets and limits can be counted per feature."""
    session: str | None = None
    """Names the conversation that memory continues. None: nothing is remembered."""
    priority: int = Field(default=0, ge=-10, le=10)
    deadline_s: float | None = Field(default=None, gt=0)
    """Seconds from the start of the request until an answer is of no use."""
    budget_usd: float | None = Field(default=None, ge=0)
    max_attempts: int | None = Field(default=None, ge=1)
    """How many calls to models the request may make in all: first tries, retries, fallbacks, judges."""
    restarts: bool = False
    """Whether a stream may begin anew: after a chunk with `restart` among its facts, all that came before is void."""
    cache: Literal["use", "refresh", "bypass"] = "use"
    """`refresh` asks anew and replaces what is stored; `bypass` neither reads nor writes."""
    tags: frozenset[str] = frozenset()
    """Words for what this request leaves behind, such as cache entries: `pricing`. They can be dropped by it."""
    purpose: Literal["answer", "audit"] = "answer"
    """Whether somebody waits for the answer, or it is asked for to check another. Every call it makes is told so."""
    flags: dict[str, str | bool | int | float] = Field(default_factory=dict)
    expose: frozenset[Exposed] | None = None
    """Which facts about an answer this caller may see; None means all."""

    def __repr__(self) -> str:
        return "<caller>"  # never spill who asks into somebody's log of a config

    __str__ = __repr__


def caller(**facts: Any) -> RunnableConfig:
    """A config that says who asks: `chain.invoke(question, config=chainops.caller(user="ann"))`.

    Takes the fields of `Caller`; an unknown one raises pydantic's `ValidationError`.
    """
    return RunnableConfig(configurable={STATE_KEY: Caller(**facts)})
