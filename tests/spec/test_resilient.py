"""What keeps a declared chain answering: routes of every kind, retries, hedges, deadlines, from the chain file."""

from __future__ import annotations

import asyncio

import pytest

import chainops
from chainops.core.clock import use_clock
from chainops.review.records import Reviews
from chainops.spec.errors import ChainFileError
from chainops.spec.show import chain_text
from chainops.testing.faults import Cut, Hang, Status
from chainops.testing.listening import ManualClock
from chainops.testing.server import ModelServer


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")


@pytest.fixture
def servers():
    with ModelServer("the first") as first, ModelServer("the second") as second:
        yield first, second


def words(servers, *pipeline, **more):
    first, second = servers
    return {
        "name": "help",
        "kind": "chat",
        "traces": "off",
        "models": {
            "small": {"model": "openai:gpt-4o-mini", "base_url": first.url, "timeout_s": 30},
            "large": {"model": "openai:gpt-4o", "base_url": second.url, "timeout_s": 30},
        },
        "pipeline": list(pipeline),
        **more,
    }


def declared(tmp_path, servers, *pipeline, **more):
    return chainops.declare(words(servers, *pipeline, **more), base=tmp_path)


def test_a_retry_stands_before_the_next_route(tmp_path, servers):
    first, second = servers
    first.fail(Status(503), times=1)
    chain = declared(tmp_path, servers, {"fallback": ["small", "large"]}, {"retry": {"attempts": 2, "base_s": "10ms"}})
    answer = chain.invoke("hello")
    assert (answer.text, answer.status) == ("the first", "ok")
    assert (len(first.requests), len(second.requests)) == (2, 0)


def test_a_hedge_asks_the_second_model_when_the_first_is_slow(tmp_path, servers):
    servers[0].fail(Hang())
    chain = declared(tmp_path, servers, {"hedge": {"model": "large", "after": "200ms"}})
    assert asyncio.run(chain.ainvoke("hello")).text == "the second"


def test_a_deadline_may_be_said_as_a_time_alone(tmp_path, servers):
    servers[0].fail(Hang())
    servers[1].fail(Hang())
    chain = declared(tmp_path, servers, {"deadline": "400ms"}, {"fallback": ["small", {"say": "too late"}]})
    answer = chain.invoke("hello")
    assert (answer.text, answer.status) == ("too late", "degraded")


def test_the_way_of_a_cut_stream_may_be_declared(tmp_path, servers):
    first, _ = servers
    first.fail(Cut(after_chunks=1))
    chain = declared(tmp_path, servers, {"fallback": {"routes": ["small", "large"], "on_cut": "continue"}})
    chunks = list(chain.stream("hello"))
    total = chunks[0]
    for chunk in chunks[1:]:
        total += chunk
    assert chainops.Answer.of(total).status == "degraded"
    assert total.text.endswith("the second")


OTHER = """
chainops: 1
name: other
kind: chat
traces: off
models: {{only: {{model: "openai:gpt-4o", base_url: "{url}"}}}}
pipeline: [{{cache: {{ttl: 1h}}}}]
"""


def test_another_chain_file_is_a_route_with_a_cache_of_its_own(tmp_path, servers):
    first, second = servers
    first.fail(Status(503))
    (tmp_path / "other.yaml").write_text(OTHER.format(url=second.url))
    chain = declared(tmp_path, servers, {"fallback": ["small", {"chain": "other.yaml"}]})
    answers = [chain.invoke("hello") for _ in range(2)]
    assert [each.text for each in answers] == ["the second"] * 2
    assert [each.status for each in answers] == ["degraded"] * 2
    assert len(second.requests) == 1
    assert answers[0].report["chain"] == "help"


def test_a_chain_that_leads_back_to_itself_is_a_mistake_of_the_file(tmp_path):
    text = "chainops: 1\nname: a\nkind: chat\nmodels: {m: extractive}\npipeline: [{fallback: [m, {chain: %s}]}]\n"
    (tmp_path / "a.yaml").write_text(text % "b.yaml")
    (tmp_path / "b.yaml").write_text(text % "a.yaml")
    with pytest.raises(ChainFileError, match=r"b\.yaml:\n  line 5.*a\.yaml → b\.yaml → a\.yaml"):
        chainops.load(tmp_path / "a.yaml")


NAMING = {
    "fallback": "  - fallback: [m, {chain: %s}]\n",
    "router": "  - route: {by: complexity, simple: m, complex: {chain: %s}}\n",
    "none": "  - route: {by: meaning, examples: {a: [hi]}, routes: {a: m}, none: {chain: %s}}\n",
    "examples": "  - route: {by: meaning, routes: {a: m}, examples: %s}\n",
}


@pytest.mark.parametrize("word", NAMING)
def test_a_file_that_is_not_there_is_told_where_it_is_named(word, tmp_path):
    beginning = "chainops: 1\nname: a\nkind: chat\nmodels: {m: extractive}\npipeline:\n"
    (tmp_path / "other.yaml").write_text(beginning)
    (tmp_path / "c.yaml").write_text(beginning + NAMING[word] % "ohter.yaml")
    with pytest.raises(ChainFileError) as told:
        chainops.load(tmp_path / "c.yaml")
    (problem,) = told.value.problems
    assert told.value.place == str(tmp_path / "c.yaml")
    assert (problem.line, problem.nearest) == (6, "other.yaml")
    assert "no such file" in problem.found
    assert str(tmp_path) in problem.expected
    (tmp_path / "c.yaml").write_text(beginning + NAMING[word] % ".")
    with pytest.raises(ChainFileError, match=r"line 6.*'\.', a folder"):
        chainops.load(tmp_path / "c.yaml")


def test_a_change_of_a_route_s_file_changes_what_an_outer_cache_serves(tmp_path, servers):
    first, second = servers
    (tmp_path / "other.yaml").write_text(OTHER.format(url=first.url))
    pipeline = ({"cache": {"ttl": "1h"}}, {"fallback": [{"chain": "other.yaml"}]})
    assert declared(tmp_path, servers, *pipeline).invoke("hello").text == "the first"
    (tmp_path / "other.yaml").write_text(OTHER.format(url=second.url).replace("name: other", "name: another"))
    assert declared(tmp_path, servers, *pipeline).invoke("hello").text == "the second"


@pytest.mark.parametrize("outside", [True, False])
def test_an_answer_that_is_out_of_date_is_better_than_none(tmp_path, servers, outside):
    clock = ManualClock()
    cache, fallback = {"cache": {"ttl": "1h"}}, {"fallback": ["small", {"stale_cache": True}, {"say": "sorry"}]}
    chain = declared(tmp_path, servers, *((cache, fallback) if outside else (fallback, cache)))
    with use_clock(clock):
        assert chain.invoke("hello").status == "ok"
        clock.advance(3 * 3600)
        servers[0].fail(Status(503))
        answer = chain.invoke("hello")
        assert (answer.text, answer.status) == ("the first", "degraded")
        assert any("3 hours ago" in each for each in answer.reasons)
        assert chain.invoke("something else").text == "sorry"
        servers[0].heal()
        assert chain.invoke("hello").status == "ok"


def test_stale_answers_stay_with_their_tenant(tmp_path, servers):
    clock = ManualClock()
    fallback = {"fallback": ["small", {"stale_cache": True}, {"say": "sorry"}]}
    chain = declared(tmp_path, servers, {"cache": {"ttl": "1h"}}, fallback)
    with use_clock(clock):
        chain.invoke("hello", chainops.caller(tenant="a"))
        clock.advance(2 * 3600)
        servers[0].fail(Status(503))
        assert chain.invoke("hello", chainops.caller(tenant="b")).text == "sorry"
        assert chain.invoke("hello", chainops.caller(tenant="a")).text == "the first"


def test_stale_answers_need_a_cache(tmp_path, servers):
    with pytest.raises(ChainFileError, match="`stale_cache` without a cache"):
        declared(tmp_path, servers, {"fallback": ["small", {"stale_cache": True}]})


def test_a_question_nobody_can_answer_is_kept_for_people_and_survives(tmp_path, servers):
    for server in servers:
        server.fail(Status(503))
    fallback = {"fallback": ["small", "large", {"review": "A colleague will answer."}]}
    chain = declared(tmp_path, servers, fallback)
    answer = chain.invoke("what now?", chainops.caller(tenant="acme", user="ann"))
    assert (answer.text, answer.status) == ("A colleague will answer.", "pending_review")
    again = declared(tmp_path, servers, fallback)
    (waiting,) = Reviews(again.site.store()).waiting("help")
    assert (waiting.question["question"], waiting.tenant, waiting.user) == ("what now?", "acme", "ann")
    assert "HTTP 503" in waiting.reason
    assert waiting.id in answer.reasons[0]


def test_the_words_of_routes_are_checked_with_their_place(tmp_path, servers):
    for wrong, told in (
        ({"stale_cache": False}, "stale_cache"),
        ({"chian": "a.yaml"}, "chian"),
        ({"review": ""}, "review"),
        ("smal", "small"),
    ):
        with pytest.raises(ChainFileError, match=told):
            declared(tmp_path, servers, {"fallback": ["small", wrong]})
    with pytest.raises(ChainFileError, match="on_cut"):
        declared(tmp_path, servers, {"fallback": {"routes": ["small"], "on_cut": "stop"}})
    with pytest.raises(ChainFileError, match="larg"):
        declared(tmp_path, servers, {"hedge": {"model": "larg"}})


def test_what_was_declared_can_be_written_and_read_again(tmp_path, servers):
    chain = declared(
        tmp_path,
        servers,
        {"deadline": {"within_s": "8s", "shares": {"attempt": 0.5}}},
        {"cache": {"ttl": "1h"}},
        {
            "fallback": {
                "routes": ["small", {"stale_cache": True}, {"review": "wait"}, {"say": "no"}],
                "on_cut": "restart",
            }
        },
        {"retry": {"attempts": 2}},
        {"hedge": {"model": "large", "after": 1.5}},
    )
    (tmp_path / "again.yaml").write_text(chain.to_yaml())
    assert chainops.load(tmp_path / "again.yaml").declared == chain.declared
    assert "small → stale_cache → review “wait” → say “no”, on_cut restart" in chain_text(chain)
    assert "deadline" in chain._repr_html_()
