"""`route` in a chain file: what may be said, and what it means."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

import chainops
from chainops.spec import registry
from chainops.spec.errors import ChainFileError
from chainops.spec.routing import route
from chainops.spec.routing_settings import RouteSettings, chains_named, models_named

HEAD = """\
chainops: 1
name: help
kind: chat
models: {small: extractive, large: extractive}
"""


@pytest.fixture(autouse=True)
def _word(monkeypatch):
    """The word, also before the registry lists it."""
    wrapper = registry.Wrapper(
        "route", RouteSettings, route, "asks the route that fits", models_named=models_named, chains_named=chains_named
    )
    monkeypatch.setitem(registry._BUILT_IN, "route", wrapper)


@pytest.fixture
def load(tmp_path, embedder):
    def load(router, *, head=HEAD):
        (tmp_path / "chain.yaml").write_text(f"{head}pipeline:\n  - route: {json.dumps(router)}\n")
        chain = chainops.load(tmp_path / "chain.yaml")
        chain.site.embedder = lambda: embedder
        return chain

    return load


def facts(answer):
    return next(each["facts"] for each in answer.report.to_dict()["stages"] if each["name"] == "route")


def test_by_complexity(load):
    chain = load({"by": "complexity", "simple": "small", "complex": "large"})
    assert facts(chain.invoke("hi there"))["route"] == "small"
    hard = (
        "If half of 30 apples are sold each day, then twice as many, how many more are left after 3 days than before?"
    )
    assert facts(chain.invoke(hard))["route"] == "large"


def test_by_meaning_with_examples_in_the_file_or_beside_it(load, examples, tmp_path):
    routes = {"billing": "small", "tech": "large"}
    inside = load({"by": "meaning", "examples": examples, "routes": routes, "none": "small", "false_rejects": 0.2})
    assert facts(inside.invoke("the app crashes"))["route"] == "tech"
    assert facts(inside.invoke("zebras graze quietly far away"))["route"] == "none"
    assert (tmp_path / ".chainops" / "routing" / "help-0.npz").is_file()
    rows = [{"route": name, "text": text} for name, texts in examples.items() for text in texts]
    (tmp_path / "routes.jsonl").write_text("\n".join(map(json.dumps, rows)))
    beside = load({"by": "meaning", "examples": "routes.jsonl", "routes": routes})
    assert facts(beside.invoke("my invoice is wrong"))["route"] == "billing"


def test_by_confidence(load):
    chain = load({"by": "confidence", "try": "small", "then": "large", "at_least": 0.0, "judge": "grounding"})
    assert facts(chain.invoke("hello"))["route"] == "small"
    assert chain.declared.words()["pipeline"][0]["route"]["try"] == "small"


def test_by_cost_the_one_that_runs_here_is_the_cheapest(load):
    head = HEAD.replace("large: extractive", "large: {model: 'openai:gpt-4o', base_url: 'http://127.0.0.1:9'}")
    chain = load({"by": "cost", "among": ["large", "small"], "max_s": "3s", "explore": 0}, head=head)
    assert facts(chain.invoke("hello"))["route"] == "small"


def test_by_latency(load):
    chain = load({"by": "latency", "among": ["small", "large"], "explore": 0})
    assert {facts(chain.invoke("hello"))["route"] for _ in range(2)} == {"small", "large"}


def test_by_weight_users_stay_where_they_are(load):
    chain = load({"by": "weight", "weights": {"small": 0.5, "large": 0.5}})
    taken = {
        user: {facts(chain.invoke("hello", chainops.caller(user=user)))["route"] for _ in range(3)}
        for user in "abcdefgh"
    }
    assert all(len(each) == 1 for each in taken.values())
    assert len({route for each in taken.values() for route in each}) == 2


def test_another_chain_is_a_route(load, tmp_path):
    (tmp_path / "faq.yaml").write_text(HEAD.replace("name: help", "name: faq"))
    settings = {"by": "complexity", "simple": {"chain": "faq.yaml"}, "complex": "large"}
    chain = load(settings)
    answer = chain.invoke("hi there")
    assert facts(answer)["route"] == "faq.yaml"
    assert len([each for each in answer.report.to_dict()["stages"] if each["kind"] == "chain"]) == 2
    assert list(chains_named(RouteSettings.model_validate(settings))) == [(("simple", "chain"), "faq.yaml")]


def test_a_route_chosen_further_out_is_where_the_fallback_begins(load, tmp_path):
    load({"by": "complexity", "simple": "small", "complex": "large"})
    text = (tmp_path / "chain.yaml").read_text() + "  - fallback: [large, small]\n"
    (tmp_path / "chain.yaml").write_text(text)
    answer = chainops.load(tmp_path / "chain.yaml").invoke("hi there")
    told = {each["name"]: each["facts"].get("route") for each in answer.report.to_dict()["stages"] if "facts" in each}
    assert (told["route"], told["fallback"]) == ("small", "small")


@pytest.mark.parametrize(
    ("router", "said"),
    [
        ({"by": "meening"}, "did you mean 'meaning'"),
        ({"by": "complexity", "simple": "small"}, "by: complexity needs `complex`"),
        ({"by": "complexity", "simple": "small", "complex": "large", "weights": {"a": 1}}, "not `weights`"),
        ({"by": "complexity", "simple": "smal", "complex": "large"}, "did you mean 'small'"),
        ({"by": "confidence", "try": "nobody", "then": "large"}, "models declared above"),
        ({"by": "confidence", "try": "small", "then": "large", "at_least": 7}, "less than or equal to 1"),
        ({"by": "meaning", "examples": {"a": ["x"], "b": ["y"]}, "routes": {"a": "small", "c": "large"}}, "`b`, `c`"),
        ({"by": "weight", "weights": {"small": 0, "large": 0}}, "a weight above 0"),
        ({"by": "weight", "weights": {"small": -1}}, "greater than or equal to 0"),
        ({"by": "weight", "weights": {"a": 1}, "routes": {"b": "small"}}, "only in one"),
        ({"by": "cost", "among": ["small"]}, "two routes at least"),
        ({"by": "latency", "among": ["small", "large"], "max_s": "soon"}, "a number with a unit"),
        ({"among": ["small", "large"]}, "no 'by'"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(load, router, said):
    with pytest.raises(ChainFileError) as caught:
        load(router)
    assert said in str(caught.value)
    assert "line" in str(caught.value)


def test_examples_that_cannot_be_fitted_are_an_error_when_the_chain_is_loaded(load, tmp_path):
    routes = {"a": "small", "b": "large"}
    with pytest.raises(chainops.ChainopsError, match="both 'a' and 'b'"):
        load({"by": "meaning", "examples": {"a": ["same"], "b": ["same"]}, "routes": routes})
    with pytest.raises(chainops.ChainopsError, match="no such file"):
        load({"by": "meaning", "examples": "nothing.jsonl", "routes": routes})
    (tmp_path / "r.csv").write_text("route,text\na,x\nc,y\n")
    with pytest.raises(chainops.ChainopsError, match="`b`, `c`"):
        load({"by": "meaning", "examples": "r.csv", "routes": routes})


def test_an_unknown_word_is_refused():
    with pytest.raises(ValidationError):
        RouteSettings.model_validate({"by": "weight", "weights": {"a": 1}, "wait": 3})
