from __future__ import annotations

import asyncio

import pytest
from langchain_core.messages import AIMessage

import chainops
from chainops.core.clock import use_clock
from chainops.core.errors import AllRoutesFailed, DeadlineExceeded
from chainops.models.model import Model
from chainops.models.providers import ModelSettings, chat_model
from chainops.resilience.component import Fallback, Sentence
from chainops.resilience.records import FellBack, Truncated
from chainops.testing.chat import ScriptedChatModel
from chainops.testing.faults import Cut, Drip, Hang, Nonsense, Refuse, Status
from chainops.testing.listening import ManualClock, capture_events
from chainops.testing.server import ModelServer

SORRY = Sentence(text="sorry", name="say")


def scripted(*replies, name="scripted") -> Model:
    chat = ScriptedChatModel(replies=list(replies))
    return Model(chat=lambda: chat, model=f"openai:{name}", name=name)


def served(server: ModelServer, name="gpt-4o-mini", timeout_s=30.0) -> Model:
    settings = ModelSettings(model=f"openai:{name}", base_url=server.url, timeout_s=timeout_s)
    return Model(chat=lambda: chat_model(settings), model=settings.model, timeout_s=timeout_s, name=name)


@pytest.fixture
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")


def everywhere(runnable, value):
    """The answer of each driver, from the same component."""
    yield runnable.invoke(value)
    yield asyncio.run(runnable.ainvoke(value))
    yield _sum(list(runnable.stream(value)))

    async def astream():
        return [chunk async for chunk in runnable.astream(value)]

    yield _sum(asyncio.run(astream()))


def _sum(chunks):
    total = chunks[0]
    for chunk in chunks[1:]:
        total += chunk
    return chainops.Answer.of(total)


@pytest.mark.parametrize(
    "fault",
    [
        Refuse(),
        Status(503),
        Status(429, retry_after_s=9),
        Status(401),
        Hang(),
        Nonsense("html"),
        Nonsense("json"),
        Nonsense("empty"),
    ],
    ids=str,
)
def test_another_model_answers_when_the_first_fails_in_every_driver(key, fault):
    with ModelServer("the first") as first, ModelServer("the second") as second:
        first.fail(fault)
        fallback = Fallback(routes=(served(first, timeout_s=0.5), served(second), SORRY))
        for answer in everywhere(fallback, "hello"):
            assert (answer.text, answer.status) == ("the second", "degraded")
            assert "gpt-4o-mini" in answer.reasons[0]
            kinds = [event["kind"] for event in answer.report["events"]]
            assert kinds.count("FellBack") == 1
            assert [each["outcome"] for each in answer.report["events"] if each["kind"] == "Attempted"] == [
                "failed",
                "ok",
            ]


def test_a_request_that_is_wrong_everywhere_is_not_tried_elsewhere(key):
    with ModelServer("first") as first, ModelServer("second") as second:
        first.fail(Status(400))
        with pytest.raises(Exception, match="HTTP 400"):
            Fallback(routes=(served(first), served(second))).invoke("hello")
        assert not second.requests


def test_a_bug_is_not_recovered_from():
    def broken(_):
        raise TypeError("a bug")

    with pytest.raises(TypeError, match="a bug"):
        Fallback(routes=(broken, SORRY)).invoke("hello")


def test_all_failures_are_told_when_nothing_answers(key):
    with ModelServer() as server:
        server.fail(Status(503))
        with pytest.raises(AllRoutesFailed) as caught:
            Fallback(routes=(served(server, "a"), served(server, "b"))).invoke("hello")
    assert [name for name, _ in caught.value.failures] == ["a", "b"]
    assert "say" in str(caught.value)


@pytest.mark.parametrize("fault", [Cut(after_chunks=3), Drip(interval_s=30)], ids=str)
def test_portkey_1797_a_stream_that_breaks_off_ends_marked_truncated_and_is_not_restarted(key, fault):
    with ModelServer("one two three four five six seven") as server:
        server.fail(Cut(after_chunks=3))
        with capture_events() as events:
            chunks = list(Fallback(routes=(served(server), SORRY)).stream("hello"))
    answer = _sum(chunks)
    assert answer.status == "truncated"
    assert answer.text
    assert "one two three four five six seven".startswith(answer.text.strip())
    assert len(events.of(Truncated)) == 1
    assert not events.of(FellBack)
    assert [each["outcome"] for each in answer.report["events"] if each["kind"] == "Attempted"] == ["failed"]


def test_a_missing_key_is_one_more_reason_to_fall_back(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    settings = ModelSettings(model="openai:gpt-4o-mini")
    without = Model(chat=lambda: chat_model(settings), model=settings.model, name="main")
    answer = Fallback(routes=(without, SORRY)).invoke("hello")
    assert (answer.text, answer.status) == ("sorry", "degraded")
    assert "no key" in answer.reasons[0]
    with pytest.raises(chainops.ChainopsError, match="OPENAI_API_KEY"):
        without.invoke("hello")


def test_after_the_deadline_no_model_is_tried_but_a_fixed_sentence_still_answers():
    clock = ManualClock()
    tried = []

    def slow(value):
        clock.advance(10)
        raise TimeoutError("slow")

    def second(value):
        tried.append(value)
        return AIMessage(content="late")

    with use_clock(clock):
        config = chainops.caller(deadline_s=5)
        answer = Fallback(routes=(slow, second, SORRY)).invoke("hello", config)
        assert (answer.text, tried) == ("sorry", [])
        with pytest.raises(DeadlineExceeded):
            Fallback(routes=(slow, second)).invoke("hello", config)


def test_the_first_route_alone_leaves_the_answer_ok_and_costs_one_call():
    answer = Fallback(routes=(scripted("fine", name="gpt-4o-mini"), SORRY)).invoke("hello")
    assert (answer.status, answer.served_by) == ("ok", "openai:gpt-4o-mini")
    assert len(answer.report.to_dict()["events"]) == 1


def test_tool_calls_pass_through():
    call = {"name": "search", "args": {"q": "x"}, "id": "1", "type": "tool_call"}
    fallback = Fallback(routes=(scripted(AIMessage(content="", tool_calls=[call])), SORRY))
    for answer in (fallback.invoke("hello"),):
        assert answer.tool_calls == [call]
