"""`chainops spend`, and a declared chain with a budget and breakers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import chainops
from chainops.cli.spending import spend
from chainops.core.errors import InvalidInput
from chainops.resilience.breaker.circuit import BACKGROUND
from chainops.resilience.breaker.records import CircuitOpen, CircuitOpened
from chainops.resilience.budgets.policy import BudgetSettings
from chainops.resilience.budgets.records import BudgetExceeded, OverBudget
from chainops.spec import budgeting
from chainops.spec.errors import ChainFileError
from chainops.testing.faults import Status
from chainops.testing.listening import capture_events
from chainops.testing.server import ModelServer
from chainops.testing.servers import redis_server

COMMAND = str(Path(sys.executable).parent / "chainops")
CHAIN = """
chainops: 1
name: help
kind: chat
models:
  dear: {{model: "openai:dear", base_url: "{url}", max_tokens: 20, price: {price}}}
  cheap: {{model: "openai:cheap", base_url: "{url}", max_tokens: 20, price: {free}}}
pipeline: {pipeline}
"""
PRICE = "{input_usd_per_million_tokens: 100, output_usd_per_million_tokens: 100}"
FREE = "{input_usd_per_million_tokens: 0, output_usd_per_million_tokens: 0}"


@pytest.fixture
def server():
    with ModelServer("Forty-two.") as server:
        yield server


@pytest.fixture
def make(tmp_path, server, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")

    def make(pipeline):
        text = CHAIN.format(url=server.url, price=PRICE, free=FREE, pipeline=pipeline)
        (tmp_path / "chain.yaml").write_text(text)
        return chainops.load(tmp_path / "chain.yaml")

    return make


def settled(chain):
    assert budgeting.open_books(BudgetSettings(), chain.site).flush(60)


def test_what_a_chain_spent_is_told_by_whom(make, tmp_path, capsys):
    chain = make("[budget: {usd_per_day: 5}]")
    for user in ("ann", "ann", "bob"):
        chain.invoke("What is six by seven?", config=chainops.caller(user=user))
    settled(chain)
    spend(tmp_path / "chain.yaml", by="user", since=None, as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert {row["what"]: row["calls"] for row in told["rows"]} == {"ann": 2, "bob": 1}
    assert told["usd"] > 0
    spend(tmp_path / "chain.yaml", by="model", since="7d", as_json=False)
    assert "openai:dear" in capsys.readouterr().out
    with pytest.raises(InvalidInput, match="7d"):
        spend(tmp_path / "chain.yaml", by="user", since="7", as_json=False)
    with pytest.raises(InvalidInput, match="tenant"):
        spend(tmp_path / "chain.yaml", by="colour", since=None, as_json=False)


def test_a_tenants_budget_can_be_tried_from_the_command_line(make, tmp_path):
    make("[budget: {usd_per_day: 0.005, per: tenant}]")

    def command(*arguments, stdin=""):
        return subprocess.run(
            [COMMAND, *arguments], cwd=tmp_path, input=stdin, capture_output=True, text=True, timeout=120
        )

    who = "--tenant", "acme", "--feature", "help", "--user", "ann"
    assert command("ask", "chain.yaml", "hi", *who).returncode == 0
    refused = command("ask", "chain.yaml", "hi", *who)
    assert refused.returncode == 1
    assert "the day's budget" in refused.stderr
    assert "the day's budget" in command("chat", "chain.yaml", *who, stdin="hi\n").stderr
    assert command("ask", "chain.yaml", "hi", "--tenant", "beta", "--feature", "search").returncode == 0
    for by, names in (("tenant", {"acme", "beta"}), ("feature", {"help", "search"})):
        told = json.loads(command("spend", "chain.yaml", "--by", by, "--json").stdout)
        assert {row["what"] for row in told["rows"]} == names


def test_a_declared_budget_refuses_says_or_routes(make, server):
    with pytest.raises(BudgetExceeded):
        make("[budget: {usd_per_request: 0.000001}]").invoke("hi")
    answer = make("[budget: {usd_per_request: 0.000001, at_hard: {say: Later.}}]").invoke("hi")
    assert (answer.text, answer.status) == ("Later.", "degraded")
    with capture_events() as events:
        answer = make("[budget: {usd_per_request: 0.000001, at_hard: {route: cheap}}]").invoke("hi")
    assert (answer.text, answer.status) == ("Forty-two.", "degraded")
    assert events.of(OverBudget)[0].instead == "route"
    assert [each.model for each in server.requests] == ["cheap"]
    answer = make("[budget: {usd_per_request: 0.000001, at_hard: review}]").invoke("hi")
    assert (answer.text, answer.status) == (budgeting.ASKED, "pending_review")
    answer = make("[budget: {usd_per_request: 0.000001}, fallback: [dear, cheap]]").invoke("hi")
    assert (answer.text, answer.status) == ("Forty-two.", "degraded")


def test_near_the_limit_the_declared_cheaper_model_answers(make, server):
    chain = make("[budget: {usd_per_day: 0.3, soft: 0.001, at_soft: {route: cheap}}]")
    for _ in range(3):
        chain.invoke("hi")
        settled(chain)
    assert [each.model for each in server.requests] == ["dear", "cheap", "cheap"]


def test_two_budgets_are_kept_apart(make):
    chain = make("[budget: {usd_per_day: 5, per: user}, budget: {tokens_per_day: 15}]")
    with pytest.raises(BudgetExceeded) as caught:
        chain.invoke("hi", config=chainops.caller(user="ann"))
    assert caught.value.budget == "help/budget 2"


def test_a_model_that_is_not_declared_is_an_error_of_the_file(make):
    with pytest.raises(ChainFileError, match="chaep"):
        make("[budget: {usd_per_day: 1, at_hard: {route: chaep}}]")


def test_each_route_of_a_fallback_has_a_breaker_of_its_own(make, server):
    server.rule(lambda request: request.model == "dear", Status(503))
    chain = make("[fallback: [dear, cheap], breaker: {failures: 2, open_s: 60}]")
    with capture_events() as events:
        for _ in range(5):
            assert chain.invoke("hi").text == "Forty-two."
    assert [each.route for each in events.of(CircuitOpened)] == ["help/dear"]
    assert [each.model for each in server.requests].count("dear") == 2


@pytest.mark.usefixtures("patient_redis")
def test_breakers_and_totals_can_be_shared_through_redis(make, server):
    with redis_server() as redis:
        pipeline = f"[budget: {{usd_per_day: 5, store: '{redis.url}'}}, breaker: {{failures: 1, store: '{redis.url}'}}]"
        server.fail(Status(503), times=1)
        first, second = make(pipeline), make(pipeline)
        with pytest.raises(Exception, match="503"):
            first.invoke("hi")
        assert BACKGROUND.drain(60)
        with pytest.raises(CircuitOpen):
            second.invoke("hi")
