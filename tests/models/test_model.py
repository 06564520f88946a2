"""A model as a component: which ends count as answers, and what each of them cost."""

from __future__ import annotations

import pytest
from langchain_core.messages import AIMessage

from chainops.models.failures import EmptyAnswer, ModelFailed
from chainops.models.model import Model
from chainops.models.prices import Price
from chainops.models.providers import ModelSettings, chat_model
from chainops.testing.chat import ScriptedChatModel
from chainops.testing.faults import Finish, Nonsense, Usage
from chainops.testing.listening import capture_events
from chainops.testing.server import ModelServer

PRICE = Price(input_usd_per_million_tokens=1, output_usd_per_million_tokens=10)


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    with ModelServer("one two three four") as server:
        yield server


def model_of(server):
    settings = ModelSettings(model="openai:m", base_url=server.url)
    return Model(chat=lambda: chat_model(settings), model="openai:m", price=PRICE, name="m")


def attempts(events):
    return [each for each in events if type(each).__name__ == "Attempted"]


def test_an_answer_that_a_filter_cut_is_a_failure_that_another_model_may_mend(server):
    server.fail(Finish("content_filter", after_chunks=2))
    with capture_events() as events, pytest.raises(ModelFailed, match="content filter") as caught:
        model_of(server).invoke("hello")
    assert caught.value.kind == "next_route"
    (attempt,) = attempts(events)
    assert attempt.outcome == "failed"
    assert attempt.cost_usd > 0


def test_an_empty_answer_was_read_all_the_same_and_is_charged(server):
    server.fail(Nonsense("blank"))
    with capture_events() as events, pytest.raises(EmptyAnswer):
        model_of(server).invoke("hello, is anybody there?")
    (attempt,) = attempts(events)
    assert (attempt.outcome, attempt.output_tokens) == ("failed", 0)
    assert attempt.input_tokens > 0
    assert attempt.cost_usd > 0


@pytest.mark.parametrize("kind", ["absent", "negative", "zero"])
def test_counts_that_cannot_be_are_replaced_by_an_estimate(server, kind):
    server.fail(Usage(kind))
    with capture_events() as events:
        model_of(server).invoke("hello")
    (attempt,) = attempts(events)
    assert attempt.output_tokens > 0
    assert attempt.cost_usd > 0


def test_messages_that_are_handed_over_to_be_finished_need_a_model_that_can():
    from dataclasses import replace

    from chainops.core.component import AnyRunnable, Component
    from chainops.core.steps import Forward

    class Continuing(Component):
        inner: AnyRunnable

        def plan(self, value, run):
            run.terms = replace(run.terms, continues="Once upon")
            return (yield Forward(self.inner, value))

    chat = ScriptedChatModel(replies=[AIMessage(content="a time")])
    assert Continuing(inner=Model(chat=lambda: chat, model="openai:m", name="m")).invoke("hi").text == "a time"
    assert [each.type for each in chat.asked[-1]] == ["human", "ai", "human"]
    with pytest.raises(ModelFailed, match="cannot continue"):
        Continuing(inner=Model(chat=lambda: chat, model="extractive", name="e")).invoke("hi")
