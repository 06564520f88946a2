import socket
from datetime import UTC, datetime

import pytest
from pydantic import ValidationError

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
