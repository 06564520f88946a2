from __future__ import annotations

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from pydantic import ValidationError

from chainops.core.errors import InvalidInput
from chainops.models.failures import Failure, ModelUnavailable
from chainops.routing.component import Route
from chainops.routing.meaning import Meaning
from chainops.routing.moving import ByRecord
from chainops.routing.records import BadExamples, NoRouteFits, RouteChosen
from chainops.routing.weight import Weight
from chainops.testing.listening import capture_events


@pytest.fixture
def router(embedder, examples):
    def make(*, default="small", **options):
        def says(name):
            return lambda value: AIMessage(content=name)

        routes = {name: says(name) for name in ("billing", "tech", "small")}
        return Route(
            routes=routes, chooser=Meaning(lambda: embedder, examples, **options), default=default, name="route"
        )

    return make


def test_every_driver_takes_the_same_route_and_says_why(router, everywhere):
    with capture_events() as events:
        answers = everywhere(router(), "refund my payment please")
    for driver, answer in answers.items():
        assert answer.text == "billing", driver
        stage = answer.report.to_dict()["stages"][0]
        assert (stage["facts"]["route"], stage["facts"]["by"]) == ("billing", "meaning"), driver
        assert '"refund my payment"' in stage["facts"]["why"], driver
    chosen = events.of(RouteChosen)
    assert [(each.route, each.by) for each in chosen] == [("billing", "meaning")] * 4
    assert len({each.why for each in chosen}) == 1
    assert set(chosen[0].runners_up) == {"tech"}


def test_what_belongs_to_none_goes_to_the_default_or_is_an_error(router, everywhere):
    strange = "zebras graze quietly far away"
    for answer in everywhere(router(false_rejects=0.2), strange).values():
        assert answer.text == "small"
    with pytest.raises(NoRouteFits, match="nothing is near enough"):
        router(default=None, false_rejects=0.2).invoke(strange)


@pytest.mark.parametrize("value", ["", "  \n", {"question": ""}, {"other": 1}, []])
def test_without_a_question_the_default_answers(router, value):
    with capture_events() as events:
        assert router().invoke(value).text == "small"
    assert "no question" in events.of(RouteChosen)[0].why


def test_messages_and_mappings_are_routed_by_their_question(router):
    assert router().invoke({"question": "the app crashes", "history": []}).text == "tech"
    assert router().invoke([HumanMessage("hello"), HumanMessage("the app crashes")]).text == "tech"


def test_a_route_nobody_knows_is_refused_when_the_router_is_made(embedder, examples, scripted):
    with pytest.raises(ValidationError, match="no such route: tech; expected one of billing"):
        Route(routes={"billing": scripted("x")}, chooser=Meaning(lambda: embedder, examples))
    with pytest.raises(ValidationError, match="no such route: other"):
        Route(routes={"a": scripted("x")}, chooser=Weight({"a": 1}, experiment="e"), default="other")


def test_when_the_embedding_server_is_down_the_default_answers_and_the_report_says_so(router, embedder, monkeypatch):
    made = router()
    assert made.invoke("the app crashes").text == "tech"

    def down(texts):
        raise ModelUnavailable("openai:embed", Failure("retryable", "no connection"), next_move="try again")

    monkeypatch.setattr(embedder, "embed", down)
    answer = made.invoke("the app crashes")
    assert answer.text == "small"
    assert "not routed" in answer.reasons[0]
    with pytest.raises(ModelUnavailable):
        router(default=None).invoke("the app crashes")


def test_an_embedder_that_gives_other_sizes_is_no_reason_to_route_anywhere(router, embedder, monkeypatch):
    made = router()
    made.invoke("the app crashes")
    monkeypatch.setattr(embedder, "dimensions", 32)
    with pytest.raises(InvalidInput, match="256"):
        made.invoke("the app crashes")


def test_any_runnable_is_a_route(embedder, examples):
    routes = {"billing": lambda value: f"bill {value}", "tech": lambda value: f"fix {value}"}
    assert Route(routes=routes, chooser=Meaning(lambda: embedder, examples)).invoke("my invoice is wrong") == (
        "bill my invoice is wrong"
    )


def test_a_route_that_fails_is_learnt_from_and_a_request_that_is_wrong_is_not():
    def broken(_):
        raise TimeoutError

    def wrong(_):
        raise ValueError("a bug")

    chooser = ByRecord(["a", "b"], by="latency", explore=0)
    with pytest.raises(TimeoutError):
        Route(routes={"a": broken, "b": broken}, chooser=chooser).invoke("q")
    with pytest.raises(ValueError, match="a bug"):
        Route(routes={"a": wrong, "b": wrong}, chooser=chooser).invoke("q")
    assert sorted(len(each) for each in chooser.records.values()) == [0, 1]


def test_wrong_examples_are_said_where_the_router_is_made(embedder):
    with pytest.raises(BadExamples, match="only one route"):
        Meaning(lambda: embedder, {"a": ("x",)})
