"""`chainops route`."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from chainops.cli.routing import app
from chainops.core.errors import InvalidInput
from chainops.spec import registry
from chainops.spec.routing import route
from chainops.spec.routing_settings import RouteSettings, models_named

CHAIN = """\
chainops: 1
name: help
kind: chat
models: {small: extractive, large: extractive}
pipeline:
  - route:
      by: meaning
      examples:
        billing: [my invoice is wrong, I want my money back, why was my card charged twice, refund my last payment]
        tech: [the app crashes when it starts, I cannot log in, the screen stays black, the page does not load]
      routes: {billing: small, tech: large}
      none: small
"""


@pytest.fixture(autouse=True)
def _word(monkeypatch):
    """The word, also before the registry lists it."""
    wrapper = registry.Wrapper("route", RouteSettings, route, "asks the route that fits", models_named=models_named)
    monkeypatch.setitem(registry._BUILT_IN, "route", wrapper)


@pytest.fixture
def run(tmp_path):
    def run(*arguments, chain=CHAIN):
        (tmp_path / "chain.yaml").write_text(chain)
        done = CliRunner().invoke(app, [arguments[0], str(tmp_path / "chain.yaml"), *arguments[1:]])
        if done.exception is not None:
            raise done.exception
        return done.stdout

    return run


def by(**words):
    return CHAIN.partition("pipeline:")[0] + "pipeline: [{route: " + json.dumps(words) + "}]\n"


def test_a_fit_is_shown_kept_and_not_made_twice(run):
    told = json.loads(run("fit", "--json"))
    assert told["is_new"]
    assert (told["examples"], set(told["routes"])) == (8, {"billing", "tech"})
    assert told["accuracy"] >= 0.7
    assert told["routes"]["tech"]["threshold"] is not None
    shown = run("fit")
    assert "as fitted before" in shown
    assert "billing" in shown
    assert "turned away" in shown


def test_a_choice_is_explained(run):
    told = json.loads(run("explain", "you charged my card two times", "--json"))
    assert (told["route"], told["answered_by"], told["by"]) == ("billing", "small", "meaning")
    assert set(told["runners_up"]) == {"tech"}
    shown = run("explain", "it crashes as soon as I open it")
    assert shown.startswith("tech (large)\nbecause like ")


def test_the_features_of_a_question_are_shown(run):
    chain = by(by="complexity", simple="small", complex="large")
    shown = run("explain", "Half of 30 apples are sold each day; how many are left after 3 days?", chain=chain)
    assert "fractions" in shown
    assert "harder than" in shown


def test_who_asks_decides_between_weights(run):
    chain = by(by="weight", weights={"small": 0.5, "large": 0.5})
    routes = {json.loads(run("explain", "q", "--json", "--user", user, chain=chain))["route"] for user in "abcdefgh"}
    assert routes == {"small", "large"}


def test_what_cannot_be_fitted_or_explained_is_said(run):
    with pytest.raises(InvalidInput, match="nothing to fit"):
        run("fit", chain=by(by="complexity", simple="small", complex="large"))
    with pytest.raises(InvalidInput, match="the first answer decides"):
        run("explain", "q", chain=by(by="confidence", **{"try": "small", "then": "large"}))
    with pytest.raises(InvalidInput, match="no router"):
        run("explain", "q", chain=CHAIN.partition("pipeline:")[0])
    with pytest.raises(InvalidInput, match="no words"):
        run("explain", "  ")
