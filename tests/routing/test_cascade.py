from __future__ import annotations

import asyncio

import pytest
from langchain_core.messages import AIMessage
from pydantic import ValidationError

from chainops.core.component import Component
from chainops.core.steps import Say
from chainops.models.failures import ModelFailed
from chainops.routing.cascade import Cascade
from chainops.routing.records import RouteChosen
from chainops.testing.listening import capture_events

QUESTION = "A pen costs $2 and paper costs $5. What is the change from $10?"
GOOD = "Together that is $2 + $5 = $7. The change is $10 - $7 = $3.\n#### 3"
BAD = "Together that is $2 + $5 = $9. The change is $10 - $9 = $0.5 or so, wait.\n#### 0.5"


class Cited(Component[object, AIMessage]):
    """Answers with a source, as a rag chain does."""

    text: str
    quote: str | None = None
    status: str = "ok"

    def plan(self, value, run):
        run.report.sources = [] if self.quote is None else [{"n": 1, "quote": self.quote}]
        run.report.is_unknown = self.quote is None
        run.report.served_by = "cheap"
        run.report.used("document", "zoo.txt", "d1")
        if self.status != "ok":
            run.report.mark(self.status, "a reason of its own")
        for piece in self.text.split(" "):
            yield Say(AIMessage(content=piece + " "))
        return AIMessage(content="".join(piece + " " for piece in self.text.split(" ")))


def test_an_answer_that_can_be_relied_on_is_said_in_every_driver(scripted, everywhere):
    cascade = Cascade(first=scripted(GOOD), then=scripted("strong"), names=("small", "large"), at_least=0.6)
    with capture_events() as events:
        answers = everywhere(cascade, QUESTION)
    for driver, answer in answers.items():
        assert answer.text == GOOD, driver
        assert answer.status == "ok", driver
        assert answer.report.to_dict()["stages"][0]["facts"]["route"] == "small", driver
    chosen = events.of(RouteChosen)
    assert [(each.route, each.by) for each in chosen] == [("small", "confidence")] * 4
    assert "by arithmetic" in chosen[0].why


def test_an_answer_that_cannot_is_never_seen_and_the_strong_route_answers(scripted, everywhere):
    cascade = Cascade(first=scripted(BAD), then=scripted("the strong one"), names=("small", "large"))
    for driver, answer in everywhere(cascade, QUESTION).items():
        assert answer.text == "the strong one", driver
        facts = answer.report.to_dict()["stages"][0]["facts"]
        assert facts["route"] == "large", driver
        assert "below 0.7" in facts["why"], driver
        attempts = [each for each in answer.report["events"] if each["kind"] == "Attempted"]
        assert len(attempts) == 2, driver  # both calls are counted


def test_a_stream_says_nothing_before_the_first_answer_is_judged(scripted):
    chunks = [each.text for each in Cascade(first=scripted(BAD), then=scripted("one two three")).stream(QUESTION)]
    assert "".join(chunks) == "one two three"
    assert not any("$" in each for each in chunks)


def test_sources_and_what_a_cache_must_know_come_with_the_first_answer(everywhere):
    first = Cited(text="The zoo has three elephants.", quote="The zoo has three elephants.")
    for answer in everywhere(Cascade(first=first, then=lambda _: AIMessage(content="no")), "how many?").values():
        assert answer.text.strip() == "The zoo has three elephants."
        assert answer.sources == [{"n": 1, "quote": "The zoo has three elephants."}]
        assert answer.served_by == "cheap"
        assert "grounding" in answer.report.to_dict()["stages"][0]["facts"]["why"]


@pytest.mark.parametrize(
    "first",
    [
        Cited(text="Dolphins sing at noon.", quote="The zoo has three elephants."),
        Cited(text="I don't know."),
        Cited(text="The zoo has three elephants.", quote="The zoo has three elephants.", status="truncated"),
        Cited(text=" "),
    ],
    ids=["unsupported", "unknown", "truncated", "empty"],
)
def test_nothing_of_an_answer_that_was_dropped_stays_in_the_report(first, everywhere):
    def strong(_):
        return AIMessage(content="strong")

    for answer in everywhere(Cascade(first=first, then=strong), "how many?").values():
        assert (answer.text, answer.status, answer.sources, answer.reasons) == ("strong", "ok", [], [])
        assert answer.served_by is None


def test_prose_without_sources_is_asked_again_and_counts_when_the_answers_agree(scripted):
    same = Cascade(first=scripted("The zoo opens at nine."), then=scripted("strong"), samples=3)
    answer = same.invoke("when?")
    assert answer.text == "The zoo opens at nine."
    assert len([each for each in answer.report["events"] if each["kind"] == "Attempted"]) == 4
    differs = scripted("It opens at nine.", "Nobody was told.", "Perhaps on Monday?", loop=False)
    assert Cascade(first=differs, then=scripted("strong")).invoke("when?").text == "strong"


def test_agreement_is_no_verdict_when_nobody_answers_again(scripted):
    first = scripted("The zoo opens.", TimeoutError(), TimeoutError(), loop=False)
    answer = Cascade(first=first, then=scripted("strong"), judge="agreement").invoke("when?")
    assert answer.text == "strong"
    assert "could not be judged" in answer.report.to_dict()["stages"][0]["facts"]["why"]


def test_a_bug_in_a_sample_is_raised():
    calls = []

    def first(_):
        calls.append(1)
        if len(calls) > 1:
            raise TypeError("a bug")
        return AIMessage(content="The zoo opens.")

    with pytest.raises(TypeError, match="a bug"):
        Cascade(first=first, then=first, judge="agreement").invoke("when?")


def test_logprobs_decide_where_the_provider_gives_them():
    def says(logprob):
        metadata = {"logprobs": {"content": [{"logprob": logprob}]}}
        return lambda _: AIMessage(content="yes", response_metadata=metadata)

    def strong(_):
        return AIMessage(content="strong")

    assert Cascade(first=says(-0.01), then=strong).invoke("q").text == "yes"
    assert Cascade(first=says(-2.0), then=strong).invoke("q").text == "strong"
    without = Cascade(first=lambda _: AIMessage(content="yes"), then=strong, judge="logprobs")
    assert without.invoke("q").text == "strong"


def test_when_the_first_route_fails_the_second_answers_and_a_bug_is_raised(scripted, everywhere):
    def down(_):
        raise ConnectionError("no route to host")

    for answer in everywhere(Cascade(first=down, then=scripted("strong")), "q").values():
        assert answer.text == "strong"
        assert "first failed" in answer.report.to_dict()["stages"][0]["facts"]["why"]

    def broken(_):
        raise TypeError("a bug")

    with pytest.raises(TypeError, match="a bug"):
        Cascade(first=broken, then=scripted("strong")).invoke("q")


def test_a_failure_of_the_strong_route_is_raised_as_it_is(scripted):
    cascade = Cascade(first=scripted(BAD), then=scripted(TimeoutError()))
    with pytest.raises(ModelFailed):
        cascade.invoke(QUESTION)
    with pytest.raises(ModelFailed):
        asyncio.run(cascade.ainvoke(QUESTION))


def test_an_answer_with_tool_calls_passes(scripted):
    call = {"name": "search", "args": {"q": "x"}, "id": "1", "type": "tool_call"}
    first = scripted(AIMessage(content="", tool_calls=[call]))
    assert Cascade(first=first, then=scripted("strong")).invoke("q").tool_calls == [call]


@pytest.mark.parametrize("options", [{"at_least": 1.5}, {"judge": "mood"}, {"samples": 0}, {"threshhold": 1}])
def test_what_makes_no_sense_is_refused(options, scripted):
    with pytest.raises(ValidationError):
        Cascade(first=scripted("a"), then=scripted("b"), **options)
