"""What a call costs, from the tokens the provider counted and a dated price table.

The table is the one bundled with the `genai-prices` package: its installed version dates it, and
nothing here fetches a newer one. A price in the chain file wins over it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from pydantic import Field

from chainops.core.settings import Settings
from chainops.models.known import EXTRACTIVE, PROVIDERS


class Price(Settings):
    """What a chain file may say about the price of a model, in USD per million tokens."""

    input_usd_per_million_tokens: float = Field(ge=0)
    output_usd_per_million_tokens: float = Field(ge=0)
    cached_input_usd_per_million_tokens: float | None = Field(default=None, ge=0)
    """For input tokens the provider read from its cache; None: they cost what other input costs."""


@dataclass(frozen=True, slots=True)
class Cost:
    """A cost and where it comes from."""

    usd: float | None
    """None: not known. Never 0 for lack of a price."""
    source: str
    """The table and its version, "chain file", "runs here", or "unknown: " and why."""


def cost_usd(
    model: str,
    usage: Mapping[str, Any] | None,
    *,
    price: Price | None = None,
    at: datetime | None = None,
    base_url: str | None = None,
) -> Cost:
    """The cost of one call.

    Args:
        model: "provider:name", or "extractive", which costs nothing.
        usage: LangChain's `usage_metadata`: `input_tokens` includes those read from a cache and written to one,
            `output_tokens` those of reasoning. Of the details, `cache_read`, `cache_creation` (and Anthropic's two
            durations of it), `reasoning`, `audio`, `image` and `video` have prices of their own where the table
            knows them; what a LangChain package does not tell costs what text costs.
        price: Overrides the table.
        at: When the call was made, since prices change; None: now. Without a time zone: UTC.
        base_url: Where an `openai:` model was called, if not at OpenAI: an equal name on another server has
            another price.

    Source:
        `genai_prices`, data bundled with the installed version, with its steps for long inputs. Batch and other special
        tiers are not told apart, except OpenAI's "flex" and "priority", whose cost is "unknown".
    """
    if model == EXTRACTIVE:
        return Cost(0.0, "runs here")
    if usage is None:
        return Cost(None, "unknown: no token counts")
    if price is not None:
        return Cost(_declared(usage, price), "chain file")
    tier = next((t for t in ("flex", "priority") if t in (usage.get("input_token_details") or {})), None)
    if tier is not None:
        return Cost(None, f"unknown: no price for service tier {tier!r}")
    return _from_table(model, usage, at, base_url)


def estimate_tokens(text: str) -> int:
    """About how many tokens a text has, where a provider does not say: one for four bytes of UTF-8.

    Source:
        A rule of thumb for BPE vocabularies: 0.94 to 1.28 times the provider's own count on six recorded
        prose answers of four providers; code, numbers and other scripts vary more. Show it as an estimate.
    """
    return math.ceil(len(text.encode("utf-8", "replace")) / 4)


def _cached(usage: Mapping[str, Any]) -> int:
    return int((usage.get("input_token_details") or {}).get("cache_read") or 0)


def _declared(usage: Mapping[str, Any], price: Price) -> float:
    plain = price.input_usd_per_million_tokens
    cheap = plain if price.cached_input_usd_per_million_tokens is None else price.cached_input_usd_per_million_tokens
    cached = min(_cached(usage), usage["input_tokens"])
    total = (usage["input_tokens"] - cached) * plain + cached * cheap
    return float(total + usage["output_tokens"] * price.output_usd_per_million_tokens) / 1_000_000


def _from_table(model: str, usage: Mapping[str, Any], at: datetime | None, base_url: str | None) -> Cost:
    import genai_prices

    word, _, name = model.partition(":")
    provider = PROVIDERS.get(word)
    if provider is None or provider.prices is None:
        return Cost(None, f"unknown: no prices for {word!r}; give the model a price")
    counts = _counted(usage)
    if counts.keys() <= _PLAIN and (known := _plain.get((word, name, base_url))) is not None:
        return Cost(float(known.usd(counts)), known.source)
    when = at if at is None or at.tzinfo else at.replace(tzinfo=UTC)
    place = {"provider_api_url": base_url} if base_url else {"provider_id": provider.prices}
    try:
        found = genai_prices.calc_price(
            genai_prices.Usage(**counts),
            name,
            genai_request_timestamp=when,
            **place,
        )
    except LookupError:
        where = base_url or word
        return Cost(None, f"unknown: {name!r} at {where!r} is not in the price table; give the model a price")
    except ValueError as error:  # counts that contradict each other, such as more cached than read
        return Cost(None, f"unknown: the token counts cannot be priced ({error})")
    source = f"genai-prices {genai_prices.__version__}: {found.provider.id}/{found.model.id}"
    _note_plain((word, name, base_url), found, source)
    return Cost(float(found.total_price), source)


@dataclass(frozen=True, slots=True)
class _Plain:
    """The price of a model that charges for tokens in and out alone, whatever the date and however many."""

    input_usd_per_million: Decimal
    output_usd_per_million: Decimal
    source: str

    def usd(self, counts: Mapping[str, int]) -> Decimal:
        read, written = counts.get("input_tokens", 0), counts.get("output_tokens", 0)
        return (read * self.input_usd_per_million + written * self.output_usd_per_million) / 1_000_000


_PLAIN = frozenset({"input_tokens", "output_tokens"})
_plain: dict[tuple[str, str, str | None], _Plain] = {}
"""Of models asked about before: the table takes 0.1 ms for each call, and most calls are of these few."""
_MOST_PLAIN = 1000


def _note_plain(model: tuple[str, str, str | None], found: Any, source: str) -> None:
    prices = found.model.prices
    # A list of prices depends on the date, and a rate that is no number on how many tokens there are.
    read, written = getattr(prices, "input_mtok", None), getattr(prices, "output_mtok", None)
    if isinstance(read, Decimal) and isinstance(written, Decimal) and len(_plain) < _MOST_PLAIN:
        _plain[model] = _Plain(read, written, source)


def _counted(usage: Mapping[str, Any]) -> dict[str, int]:
    """LangChain's counts by the names of the price table. Parts are contained in their wholes in both."""
    read, written = usage.get("input_token_details") or {}, usage.get("output_token_details") or {}
    # langchain-anthropic tells what it wrote into a cache either in all, or by how long it is kept.
    five_minutes, an_hour = read.get("ephemeral_5m_input_tokens") or 0, read.get("ephemeral_1h_input_tokens") or 0
    counts = {
        "input_tokens": usage["input_tokens"],
        "output_tokens": usage["output_tokens"],
        "cache_read_tokens": read.get("cache_read"),
        "cache_write_tokens": (read.get("cache_creation") or 0) + five_minutes + an_hour,
        "cache_write_5m_tokens": five_minutes,
        "cache_write_1h_tokens": an_hour,
        "output_reasoning_tokens": written.get("reasoning"),
    }
    for kind in ("audio", "image", "video"):
        counts[f"input_{kind}_tokens"] = read.get(kind)
        counts[f"output_{kind}_tokens"] = written.get(kind)
    return {name: int(count) for name, count in counts.items() if count}
