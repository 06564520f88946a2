import asyncio
import pickle
import ssl

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk

from chainops.core.errors import ChainopsError, DeadlineExceeded, StoreUnavailable
from chainops.models.failures import (
    EmptyAnswer,
    MissingKey,
    MissingProvider,
    ModelFailed,
    ModelUnavailable,
    classify,
    cut_short,
    empty_answer,
    wrap,
)
from chainops.models.providers import ModelSettings, chat_model
from chainops.testing import Cut, Drip, Hang, ModelServer, Nonsense, Refuse, Status

QUESTION = "hello there my good friend"
LONG = "This model's maximum context length is 8192 tokens."


@pytest.fixture(scope="module")
def server():
    with ModelServer() as running:
        yield running


@pytest.fixture
def model_waiting(server, monkeypatch):
    """A model that gives up after so many seconds."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-none-but-long-enough")
    server.heal()
    yield lambda timeout_s: chat_model(ModelSettings(model="openai:m", base_url=server.url, timeout_s=timeout_s))
    server.heal()


@pytest.fixture
def model(model_waiting):
    return model_waiting(60)


def _stream(model):
    total = None
    for chunk in model.stream(QUESTION):
        total = chunk if total is None else total + chunk
    return total


async def _astream(model):
    total = None
    async for chunk in model.astream(QUESTION):
        total = chunk if total is None else total + chunk
    return total


WAYS = {
    "invoke": lambda model: model.invoke(QUESTION),
    "stream": _stream,
    "ainvoke": lambda model: asyncio.run(model.ainvoke(QUESTION)),
    "astream": lambda model: asyncio.run(_astream(model)),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("fault", "kind", "reason"),
    [
        (Refuse(), "retryable", "unreachable"),
        (Hang(), "retryable", "timeout"),
        (Drip(0.05), "retryable", "timeout"),
        (Cut(), "retryable", "connection cut"),
        (Status(400), "caller", "invalid request"),
        (Status(400, message=LONG, code_name="context_length_exceeded"), "next_route", "context length"),
        (Status(400, message=LONG), "next_route", "context length"),
        (Status(400, code_name="content_filter"), "next_route", "content filter"),
        (Status(400, code_name="unsupported_value"), "next_route", "unsupported"),
        (Status(401), "next_route", "key refused"),
        (Status(402), "next_route", "quota"),
        (Status(403), "next_route", "not allowed"),
        (Status(404), "next_route", "model not found"),
        (Status(408), "retryable", "timeout"),
        (Status(409), "retryable", "conflict"),
        (Status(413), "next_route", "too large"),
        (Status(418), "caller", "invalid request"),
        (Status(422), "caller", "invalid request"),
        (Status(429), "retryable", "rate limit"),
        (Status(429, code_name="insufficient_quota"), "next_route", "quota"),
        (Status(500), "retryable", "server error"),
        (Status(501), "next_route", "unsupported"),
        (Status(503), "retryable", "overloaded"),
        (Status(529), "retryable", "overloaded"),
        (Nonsense("broken_json"), "next_route", "nonsense answer"),
        (Nonsense("html"), "next_route", "nonsense answer"),
        (Nonsense("empty"), "next_route", "nonsense answer"),
        (Nonsense("sse"), "next_route", "nonsense answer"),
    ],
    ids=str,
)
def test_every_fault_of_a_server_is_judged_the_same_in_all_four_ways(server, model_waiting, way, fault, kind, reason):
    server.fail(fault)
    model = model_waiting(0.4 if isinstance(fault, Hang | Drip) else 60)
    with pytest.raises(Exception) as caught:
        WAYS[way](model)
    failure = classify(caught.value)
    assert (failure.kind, failure.reason) == (kind, reason)
    assert failure.status == (fault.code if isinstance(fault, Status) else None)
    told = wrap(caught.value, "openai:m")
    assert isinstance(told, ModelFailed)
    assert told.retryable == (kind == "retryable")
    assert str(told).startswith(f"openai:m: {reason}")


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
@pytest.mark.parametrize("kind", ["json", "no_choices"])
def test_json_that_is_no_answer_is_a_failure_of_the_model_and_not_of_the_code(server, model, way, kind):
    server.fail(Nonsense(kind))
    with pytest.raises((TypeError, IndexError)) as caught:
        WAYS[way](model)
    assert classify(caught.value).kind == "next_route"
    assert "nonsense answer" in str(wrap(caught.value, "openai:m"))


@pytest.mark.parametrize("way", ["stream", "astream"])
@pytest.mark.parametrize("kind", ["json", "no_choices"])
def test_a_stream_of_nonsense_is_an_empty_answer(server, model, way, kind):
    server.fail(Nonsense(kind))
    assert empty_answer(WAYS[way](model))


@pytest.mark.parametrize("way", WAYS)
def test_a_blank_answer_is_an_empty_answer(server, model, way):
    server.fail(Nonsense("blank"))
    assert empty_answer(WAYS[way](model))


@pytest.mark.parametrize("way", ["stream", "astream"])
def test_a_stream_that_ends_without_a_reason_was_cut_short(server, model, way):
    assert not cut_short(WAYS[way](model))
    server.fail(Cut(how="end"))
    assert cut_short(WAYS[way](model))


@pytest.mark.parametrize("way", ["stream", "astream"])
def test_an_error_event_inside_a_stream_is_a_server_error(server, model, way):
    server.fail(Cut(how="error"))
    with pytest.raises(Exception) as caught:
        WAYS[way](model)
    assert classify(caught.value).reason == "server error"
    assert classify(caught.value).kind == "retryable"


def test_the_wait_a_server_asks_for_is_told(server, model):
    server.fail(Status(429, retry_after_s=2.5))
    with pytest.raises(Exception) as caught:
        model.invoke(QUESTION)
    assert classify(caught.value).retry_after_s == 2.5
    assert "try again in 2.5 s" in str(wrap(caught.value, "openai:m"))


def test_a_message_names_the_model_the_server_and_the_next_move(server, model):
    server.fail(Refuse())
    with pytest.raises(Exception) as caught:
        model.invoke(QUESTION)
    origin = server.url.removesuffix("/v1")
    assert str(wrap(caught.value, "openai:m")) == (
        f"openai:m: unreachable: Connection error; is {origin} running and reachable?"
    )


def test_a_refused_key_is_asked_for_by_the_name_of_its_variable(server, model):
    server.fail(Status(401))
    with pytest.raises(Exception) as caught:
        model.invoke(QUESTION)
    assert "set OPENAI_API_KEY to a valid key" in str(wrap(caught.value, "openai:m"))
    assert "set MY_KEY to a valid key" in str(wrap(caught.value, "openai:m", key_env="MY_KEY"))


def test_no_page_is_dumped_into_a_message(server, model):
    server.fail(Nonsense("html"))
    with pytest.raises(ValueError) as caught:
        model.invoke(QUESTION)
    assert "<" not in str(wrap(caught.value, "openai:m"))


class RateLimited(Exception):
    status_code = 429


class ResourceExhausted(Exception):
    code = 429


class Throttled(Exception):
    def __init__(self):
        self.response = {"ResponseMetadata": {"HTTPStatusCode": 400}, "Error": {"Code": "ThrottlingException"}}


class ContextOverflowError(Exception):
    pass


@pytest.mark.parametrize(
    ("error", "kind", "reason"),
    [
        (ConnectionRefusedError("no"), "retryable", "unreachable"),
        (ConnectionResetError("cut"), "retryable", "connection cut"),
        (TimeoutError(), "retryable", "timeout"),
        (OSError(101, "Network is unreachable"), "retryable", "unreachable"),
        (ssl.SSLCertVerificationError("self-signed"), "next_route", "unusable address"),
        (RateLimited(), "retryable", "rate limit"),
        (ResourceExhausted(), "retryable", "rate limit"),
        (Throttled(), "retryable", "rate limit"),
        (ContextOverflowError(), "next_route", "context length"),
        (MissingKey("openai:m", "OPENAI_API_KEY"), "next_route", "no key"),
        (MissingProvider("groq:m", "langchain-groq"), "next_route", "no package"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_other_clients_are_judged_by_the_same_facts(error, kind, reason):
    failure = classify(error)
    assert (failure.kind, failure.reason) == (kind, reason)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("x"),
        KeyError("x"),
        AttributeError("x"),
        ZeroDivisionError(),
        FileNotFoundError("x"),
        PermissionError("x"),
        ImportError("x"),
        AssertionError(),
        KeyboardInterrupt(),
        GeneratorExit(),
        asyncio.CancelledError(),
        DeadlineExceeded("model", 3),
        StoreUnavailable("db", "locked", "wait"),
    ],
    ids=repr,
)
def test_what_no_rule_knows_is_a_bug_and_comes_back_as_it_is(error):
    assert classify(error).kind == "bug"
    assert wrap(error, "openai:m") is error


def test_an_error_that_is_its_own_cause_is_judged_too():
    error = ConnectionError("no")
    error.__cause__ = error
    assert classify(error).reason == "unreachable"


def test_a_failure_is_judged_again_as_it_was_judged_before():
    first = wrap(RateLimited(), "openai:m")
    assert isinstance(first, ModelUnavailable)
    assert wrap(first, "other") is first
    assert classify(first).reason == "rate limit"
    assert classify(EmptyAnswer("openai:m")).kind == "next_route"


@pytest.mark.parametrize(
    "error",
    [
        wrap(RateLimited("slow"), "openai:m"),
        EmptyAnswer("m"),
        MissingKey("m", "KEY", "http://x"),
        MissingProvider("m", "p"),
    ],
    ids=lambda e: type(e).__name__,
)
def test_errors_survive_the_way_home_from_a_worker(error):
    back = pickle.loads(pickle.dumps(error))
    assert isinstance(back, ChainopsError)
    assert (type(back), str(back), vars(back)) == (type(error), str(error), vars(error))


def test_words_or_a_tool_call_make_an_answer():
    call = {"name": "f", "args": {}, "id": "1"}
    assert not empty_answer(AIMessage("x"))
    assert not empty_answer(AIMessage("", tool_calls=[call]))
    assert not empty_answer(AIMessage([{"type": "image_url", "image_url": {"url": "x"}}]))
    assert not empty_answer(AIMessage([{"type": "text", "text": "x"}]))
    assert empty_answer(AIMessage(" \n"))
    assert empty_answer(AIMessage([]))
    assert empty_answer(AIMessageChunk([{"type": "text", "text": " "}, ""]))


def test_only_servers_that_give_a_reason_can_be_missed_one():
    assert not cut_short(AIMessage("from some other model"))
