import socket
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from chainops.models import prices
from chainops.models.prices import Price, cost_usd, estimate_tokens

MILLION = {"input_tokens": 1_000_000, "output_tokens": 1_000_000, "total_tokens": 2_000_000}
CHEAP = Price(input_usd_per_million_tokens=1, output_usd_per_million_tokens=4, cached_input_usd_per_million_tokens=0.25)


def used(read, written, **details):
    total = read + written
    return {"input_tokens": read, "output_tokens": written, "total_tokens": total, "input_token_details": details}


def test_a_known_model_costs_what_the_table_says():
    cost = cost_usd("openai:gpt-4o-mini", MILLION, at=datetime(2025, 6, 1, tzinfo=UTC))
    assert cost.usd == pytest.approx(0.15 + 0.60)
    assert cost.source.startswith("genai-prices ")
    assert cost.source.endswith("openai/gpt-4o-mini")


def test_cached_input_is_cheaper():
    assert cost_usd("openai:gpt-4o-mini", used(1_000_000, 0, cache_read=1_000_000)).usd == pytest.approx(0.075)


SUMMER = datetime(2026, 8, 6, 12, tzinfo=UTC)


def test_what_anthropic_writes_into_a_cache_costs_more_and_more_for_an_hour():
    def cost(**details):
        return cost_usd("anthropic:claude-sonnet-4-5", used(1_000_000, 0, **details), at=SUMMER).usd

    assert cost() == pytest.approx(6.0)  # above 200,000 tokens all of them cost twice as much
    in_all = cost(cache_creation=1_000_000)
    assert in_all == pytest.approx(7.5)
    assert cost(cache_creation=0, ephemeral_5m_input_tokens=1_000_000) == pytest.approx(in_all)
    assert cost(cache_creation=0, ephemeral_1h_input_tokens=1_000_000) == pytest.approx(12.0)
    small = cost_usd("anthropic:claude-sonnet-4-5", used(10_000, 0, cache_creation=10_000), at=SUMMER).usd
    assert small == pytest.approx(0.0375)


def test_a_call_as_anthropic_counted_it_costs_what_it_charges():
    """From a recorded answer of claude-sonnet-4-6: 4 plain, 9,134 read from a cache, 237 written to one, 156 out."""
    details = {"cache_read": 9134, "cache_creation": 0, "ephemeral_5m_input_tokens": 237}
    usage = used(9375, 156, **details)
    cost = cost_usd("anthropic:claude-sonnet-4-6", usage, at=SUMMER)
    assert cost.usd == pytest.approx(0.00364095 + 0.00234, abs=1e-12)


def test_sound_and_pictures_have_prices_of_their_own_where_they_are_told():
    plain = used(239, 185)
    assert cost_usd("google_genai:gemini-3-flash-preview", plain, at=SUMMER).usd == pytest.approx(0.0006745)
    heard = used(239, 185, audio=113)
    assert cost_usd("google_genai:gemini-3-flash-preview", heard, at=SUMMER).usd == pytest.approx(0.000731)
    drawn = used(10, 1304) | {"output_token_details": {"image": 1290}}
    assert cost_usd("google_genai:gemini-2.5-flash-image", drawn, at=SUMMER).usd == pytest.approx(0.038738)


def test_thinking_costs_what_speaking_costs_and_is_not_counted_twice():
    usage = used(100, 500) | {"output_token_details": {"reasoning": 400}}
    for model in ("openai:o4-mini", "google_genai:gemini-2.5-flash", "anthropic:claude-sonnet-4-6"):
        assert cost_usd(model, usage, at=SUMMER).usd == cost_usd(model, used(100, 500), at=SUMMER).usd


def test_details_that_are_none_count_nothing():
    details = {"cache_read": None, "audio": None, "cache_creation": None, "ephemeral_5m_input_tokens": None}
    usage = used(100, 10, **details) | {"output_token_details": {"reasoning": None, "audio": 0}}
    assert cost_usd("openai:gpt-4o-mini", usage).usd == cost_usd("openai:gpt-4o-mini", used(100, 10)).usd


def test_prices_change_with_the_date():
    early, late = datetime(2025, 1, 1), datetime(2025, 8, 1)
    assert cost_usd("openai:o3", MILLION, at=early).usd > cost_usd("openai:o3", MILLION, at=late).usd


def test_a_declared_price_wins():
    cost = cost_usd("openai:gpt-4o-mini", used(1_000_000, 500_000, cache_read=200_000), price=CHEAP)
    assert cost.usd == pytest.approx(0.8 + 0.05 + 2.0)
    assert cost.source == "chain file"


def test_without_a_cached_price_cached_input_costs_the_same():
    price = Price(input_usd_per_million_tokens=1, output_usd_per_million_tokens=0)
    assert cost_usd("x:y", used(1_000_000, 0, cache_read=1_000_000), price=price).usd == 1.0


@pytest.mark.parametrize(
    ("model", "usage", "more"),
    [
        ("openai:my-own-finetune-of-something", MILLION, {}),
        ("ollama:llama3", MILLION, {}),
        ("nobody:nothing", MILLION, {}),
        ("openai:gpt-4o-mini", None, {}),
        ("openai:gpt-4o-mini", MILLION, {"base_url": "http://127.0.0.1:8000/v1"}),
        ("openai:gpt-4o-mini", used(10, 10, flex=10), {}),
        ("openai:gpt-4o-mini", used(10, 10, cache_read=50), {}),
    ],
)
def test_an_unknown_price_is_unknown_and_never_zero(model, usage, more):
    cost = cost_usd(model, usage, **more)
    assert cost.usd is None
    assert cost.source.startswith("unknown: ")


def test_a_known_server_is_priced_by_its_address():
    cost = cost_usd("openai:deepseek-chat", MILLION, base_url="https://api.deepseek.com/v1")
    assert cost.usd > 0
    assert "deepseek/" in cost.source


def test_the_extractive_model_costs_nothing():
    assert cost_usd("extractive", MILLION).usd == 0.0
    assert cost_usd("extractive", None).usd == 0.0


def test_no_price_is_fetched(monkeypatch):
    def refuse(*_):
        raise AssertionError("a price lookup opened a socket")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert cost_usd("anthropic:claude-3-5-haiku-latest", MILLION).usd > 0


def test_a_price_is_never_negative():
    with pytest.raises(ValidationError):
        Price(input_usd_per_million_tokens=-1, output_usd_per_million_tokens=0)


def test_tokens_are_estimated_from_bytes():
    assert estimate_tokens("") == 0
    assert estimate_tokens("abcd") == 1
    assert estimate_tokens("The quick brown fox jumps over the lazy dog.") == 11
    assert estimate_tokens("漢字") == 2
    assert estimate_tokens("\ud800") == 1


@given(read=st.integers(0, 3_000_000), written=st.integers(0, 200_000))
def test_what_is_known_of_plain_prices_gives_what_the_table_gives(read, written):
    usage = {"input_tokens": read, "output_tokens": written, "total_tokens": read + written}
    for model in (
        "openai:gpt-4o-mini",
        "openai:gpt-4o",
        "anthropic:claude-3-5-haiku-latest",
        "google_genai:gemini-1.5-pro",
    ):
        prices._plain.clear()
        slow = cost_usd(model, usage)
        assert cost_usd(model, usage) == slow
        assert cost_usd(model, {**usage, "input_token_details": {"cache_read": read // 2}}).source == slow.source


def test_only_prices_without_steps_and_dates_are_remembered():
    prices._plain.clear()
    usage = {"input_tokens": 300_000, "output_tokens": 10, "total_tokens": 300_010}
    for model in ("openai:gpt-4o-mini", "google_genai:gemini-2.5-pro", "deepseek:deepseek-chat"):
        assert cost_usd(model, usage).usd
    assert [name for _, name, _ in prices._plain] == ["gpt-4o-mini"]
