"""What may be spent, and when that begins anew: settings and pure decisions. Money is counted in whole nano-dollars."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_validator

from chainops.core.attempts import Attempt, Expected
from chainops.core.caller import Caller
from chainops.core.settings import Settings
from chainops.resilience.breaker.policy import StoreUrl

Per = Literal["chain", "user", "tenant", "feature"]
Unit = Literal["usd", "tokens"]
NANO = 1_000_000_000


class Saying(Settings):
    """A fixed sentence."""

    say: str = Field(min_length=1)


class Routing(Settings):
    """A model: the rest of the chain, answered by it."""

    route: str = Field(min_length=1)


class Reviewing(Settings):
    """A person: the question is kept for the review queue."""

    review: str = Field(min_length=1)
    """What the asker is told meanwhile."""


def _form(value: Any) -> str:
    """Which form is meant, by its word; what has none of them is told as a mistaken `route`."""
    if isinstance(value, str):
        return "word"
    words = value if isinstance(value, dict) else getattr(value, "model_fields_set", ())
    return next((word for word in ("say", "review") if word in words), "route")


AtSoft = Annotated[
    Annotated[Literal["warn"], Tag("word")] | Annotated[Routing, Tag("route")],
    Discriminator(lambda value: "word" if isinstance(value, str) else "route"),
]
AtHard = Annotated[
    Annotated[Literal["refuse", "review"], Tag("word")]
    | Annotated[Saying, Tag("say")]
    | Annotated[Reviewing, Tag("review")]
    | Annotated[Routing, Tag("route")],
    Discriminator(_form),
]


class BudgetSettings(Settings):
    """What a chain file may say about a budget."""

    usd_per_request: float | None = Field(default=None, ge=0)
    usd_per_day: float | None = Field(default=None, ge=0)
    usd_per_month: float | None = Field(default=None, ge=0)
    tokens_per_request: int | None = Field(default=None, ge=0)
    tokens_per_day: int | None = Field(default=None, ge=0)
    tokens_per_month: int | None = Field(default=None, ge=0)
    """Read and written tokens together."""
    per: Per = "chain"
    """Whose spending is added up. Those who do not say who they are share one budget."""
    soft: float = Field(default=0.8, gt=0, le=1)
    """The share of a day's or month's limit from which `at_soft` holds."""
    at_soft: AtSoft = "warn"
    """`warn` tells an event, once; `{route: small}` answers with a cheaper model."""
    at_hard: AtHard = "refuse"
    """When a call would go beyond a limit and nothing inside could answer without it: `refuse`, `{say: "…"}`,
    `{route: local}`, or `review` (or `{review: "…"}`, with what is said meanwhile): a person answers."""
    time_zone: str = "UTC"
    """Whose midnight ends a day and a month: `Europe/Berlin`."""
    unknown_price_usd_per_million_tokens: float | None = Field(default=None, ge=0)
    """What tokens of a model without a known price are taken to cost; null: such a model is not asked where USD are
    limited."""
    when_unreachable: Literal["refuse", "allow"] = "refuse"
    """What to do with calls while the store cannot be reached."""
    store: StoreUrl | None = None
    """Where the running totals are; null: where the chain keeps its state. The list of all calls is always there."""

    @field_validator("time_zone")
    @classmethod
    def _is_known(cls, name: str) -> str:
        zone(name)
        return name


def zone(name: str) -> tzinfo:
    """The time zone of a name.

    Raises:
        ValueError: There is none, or this system has no table of them.
    """
    if name == "UTC":
        return UTC
    from zoneinfo import ZoneInfo

    try:
        return ZoneInfo(name)
    except (KeyError, OSError, ValueError):
        raise ValueError(f"no time zone {name!r} is known; expected one such as Europe/Berlin, or UTC") from None


@dataclass(frozen=True, slots=True)
class Amount:
    """Money and tokens."""

    nano_usd: int = 0
    tokens: int = 0

    def __add__(self, other: Amount) -> Amount:
        return Amount(self.nano_usd + other.nano_usd, self.tokens + other.tokens)

    def __sub__(self, other: Amount) -> Amount:
        return Amount(self.nano_usd - other.nano_usd, self.tokens - other.tokens)


@dataclass(frozen=True, slots=True)
class Limit:
    """What may be spent; None for no limit."""

    nano_usd: int | None = None
    tokens: int | None = None

    def broken_by(self, spent: Amount, more: Amount) -> Unit | None:
        """Which limit `more` would break after `spent`. What costs nothing breaks none."""
        if self.nano_usd is not None and more.nano_usd > 0 and spent.nano_usd + more.nano_usd > self.nano_usd:
            return "usd"
        if self.tokens is not None and more.tokens > 0 and spent.tokens + more.tokens > self.tokens:
            return "tokens"
        return None

    def is_reached(self, spent: Amount, share: float) -> bool:
        """Whether this share of a limit is spent."""
        usd = self.nano_usd is not None and spent.nano_usd >= share * self.nano_usd
        return usd or (self.tokens is not None and spent.tokens >= share * self.tokens)


@dataclass(frozen=True, slots=True)
class Window:
    """A day or a month, and what may be spent in it."""

    name: Literal["day", "month"]
    id: str
    """`day 2026-11-21`."""
    ends: float
    """Seconds since 1970."""
    limit: Limit
    soft: float = 1.0


def windows(settings: BudgetSettings, now: float) -> tuple[Window, ...]:
    """Those that are limited, shortest first."""
    found: list[Window] = []
    at = datetime.fromtimestamp(now, zone(settings.time_zone))
    today = at.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    day = Limit(_nano(settings.usd_per_day), settings.tokens_per_day)
    if day != Limit():
        tomorrow = today + timedelta(days=1)  # by the clock on the wall: some days have 23 or 25 hours
        found.append(Window("day", f"day {today:%Y-%m-%d}", tomorrow.timestamp(), day, settings.soft))
    month = Limit(_nano(settings.usd_per_month), settings.tokens_per_month)
    if month != Limit():
        next_month = (today.replace(day=1) + timedelta(days=32)).replace(day=1)
        found.append(Window("month", f"month {today:%Y-%m}", next_month.timestamp(), month, settings.soft))
    return tuple(found)


def of_request(settings: BudgetSettings, caller: Caller) -> Limit:
    """What one request may spend: the lower of what the chain and the caller allow."""
    allowed = [each for each in (settings.usd_per_request, caller.budget_usd) if each is not None]
    return Limit(_nano(min(allowed, default=None)), settings.tokens_per_request)


def limits_usd(settings: BudgetSettings, caller: Caller) -> bool:
    """Whether money is limited at all, so that prices must be known."""
    declared = (settings.usd_per_request, settings.usd_per_day, settings.usd_per_month, caller.budget_usd)
    return any(each is not None for each in declared)


def key_of(per: Per, caller: Caller) -> str:
    """Under what the spending of a caller is added up: a digest, for totals need no names."""
    if per == "user":  # two tenants may each have an ann
        told = json.dumps(["user", caller.tenant, caller.user])
    else:
        value = None if per == "chain" else getattr(caller, per)
        told = per if value is None else f"{per} {value}"
    return hashlib.blake2b(told.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()


def expected_amount(expected: Expected, settings: BudgetSettings, *, is_usd_limited: bool) -> Amount | None:
    """What to set aside for a call; None when its price is not known and must be."""
    tokens = expected.input_tokens + expected.output_tokens
    usd = _priced(expected.cost_usd, tokens, settings)
    if usd is None and is_usd_limited:
        return None
    return Amount(_nano(usd) or 0, tokens)


def actual_amount(attempt: Attempt, reserved: Amount, settings: BudgetSettings) -> Amount:
    """What a settled call has cost. What nobody could tell has cost what was expected."""
    if attempt.outcome == "refused" or (attempt.usage is None and attempt.outcome in ("failed", "cancelled")):
        return Amount()
    if attempt.usage is None:
        return reserved
    tokens = max(0, attempt.usage["total_tokens"])
    usd = _priced(attempt.cost_usd, tokens, settings)
    return Amount(reserved.nano_usd if usd is None else max(0, _nano(usd) or 0), tokens)


def _priced(usd: float | None, tokens: int, settings: BudgetSettings) -> float | None:
    rate = settings.unknown_price_usd_per_million_tokens
    return tokens * rate / 1_000_000 if usd is None and rate is not None else usd


def _nano(usd: float | None) -> int | None:
    return None if usd is None else round(usd * NANO)
