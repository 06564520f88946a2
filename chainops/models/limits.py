"""What a chain file may say about the limits of a model's keys."""

from __future__ import annotations

from pydantic import Field, field_validator

from chainops.core.settings import Seconds, Settings


class QueueSettings(Settings):
    """Who may wait at a limit."""

    most: int = Field(default=100, ge=0)
    """So many calls may stand in one queue (each user, tenant, key ... has its own); the next is refused at once. Those
    who only wait for a shared store to say whether they have to queue do not count."""
    wait_s: Seconds = 10.0
    """So long at most. A call that would take longer is refused at once."""


class ModelLimits(Settings):
    """What each key of a model may do, in all processes that share the store."""

    requests_per_minute: int | None = Field(default=None, gt=0)
    tokens_per_minute: int | None = Field(default=None, gt=0)
    """Of questions and answers together."""
    concurrency: int | None = Field(default=None, gt=0)
    """Calls at a time."""
    queue: QueueSettings = QueueSettings()
    store: str = "chain"
    """Where calls are counted: `chain` (the chain's store: all processes that use it), a URL such as `redis://…`, or
    `process` (this one alone: so many processes, so many times the limit)."""

    @field_validator("store")
    @classmethod
    def _a_place(cls, store: str) -> str:
        if store not in ("process", "chain") and "://" not in store:
            raise ValueError("expected 'process', 'chain', or a URL such as redis://localhost:6379/0")
        return store
