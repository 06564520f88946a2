"""What a chain file may say about a cache."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, field_validator, model_validator

from chainops.cache.policy import Share
from chainops.cache.records import Limits
from chainops.core.settings import Seconds, Settings

_SCHEMES = ("redis", "rediss", "unix", "sqlite", "postgresql")


class CacheSettings(Settings):
    """What a chain file may say about a cache."""

    max_error_rate: float | None = Field(default=None, ge=0, le=0.5)
    """Of the answers served for similar questions, at most this share may differ from what the chain would have said;
    0.01 when nothing is said. 0 serves exact repeats only."""
    threshold: float | None = Field(default=None, gt=0, le=1)
    """Instead of a bound: cosine similarity from which a similar question is served the same answer. Nothing is
    promised then; 1 serves exact repeats only."""
    mode: Literal["serve", "shadow"] = "serve"
    """`shadow` decides and logs what it would have served, and asks the chain all the same."""
    ttl: Seconds | None = Field(default=86_400.0)
    """How long an answer may be served, counted from when it was stored: `24h`, `30m`, `7d`; null for ever."""
    share: Share = "tenant"
    """Who is served each other's answers: everyone of the same tenant, only the same user, or all. Between tenants,
    `all` serves only entries that a person has verified."""
    audit_rate: float = Field(default=0.03, ge=0, le=1)
    """Share of served answers that are asked for again in the background and compared. The bound rests on them: at 0
    it can only become stricter."""
    compare: str = "auto"
    """How two answers are found to be the same: `auto` (labels and JSON exactly, prose by meaning and facts), `exact`,
    or the name of a declared model that is asked."""
    follow_ups: str = "rules"
    """How a question in a conversation is made to stand alone: `rules` (deterministic; what cannot be condensed is
    not cached), `exact` (only the same conversation word for word), or the name of a declared model that is asked."""
    keep_unknown: bool = False
    """Whether answers that say they do not know are kept."""
    keep_personal: bool = False
    """Whether questions and answers with personal data in them are kept. Mask them instead."""
    max_entries: int = Field(default=100_000, ge=1)
    """How many answers this chain's cache keeps; the least valuable go first: saved cost and recency."""
    max_mb: float = Field(default=2_000.0, gt=0)
    """How many megabytes they may take up in the store."""
    max_entries_per_tenant: int | None = Field(default=None, ge=1)
    """How many of them one tenant may have."""
    pace_tokens_per_s: float | None = Field(default=None, gt=0)
    """How fast a hit is streamed; null: all at once."""
    store: str | None = None
    """`redis://...`, `sqlite:///...`, a path; null: where the chain keeps its state."""

    @field_validator("store")
    @classmethod
    def _has_no_password(cls, url: str | None) -> str | None:
        if url and re.match(r"[a-z+0-9]+://[^/@]*:[^/@]+@", url):
            raise ValueError("expected a URL without a password: REDIS_PASSWORD or PGPASSWORD is read instead")
        if url and "://" in url and url.partition("://")[0] not in _SCHEMES:
            raise ValueError(f"expected {', '.join(f'{each}://' for each in _SCHEMES)}, or a path")
        return url

    @model_validator(mode="after")
    def _has_one_rule(self) -> CacheSettings:
        if self.threshold is not None and self.max_error_rate is not None:
            raise ValueError("expected `max_error_rate` or `threshold`, not both: a threshold cannot hold a bound")
        return self

    @property
    def bound(self) -> float:
        """The error rate that is allowed."""
        return 0.01 if self.max_error_rate is None else self.max_error_rate

    @property
    def limits(self) -> Limits:
        return Limits(self.max_entries, int(self.max_mb * 1e6), self.max_entries_per_tenant)

    @property
    def looks_near(self) -> bool:
        """Whether similar questions are looked for at all."""
        return self.bound > 0 if self.threshold is None else self.threshold < 1
