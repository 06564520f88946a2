"""Each fault over real HTTP, as LangChain's ChatOpenAI meets it, and judged as a person would judge it."""

import pytest
from langchain_openai import ChatOpenAI

from chainops.models.failures import classify, cut_short, empty_answer
from chainops.testing import ModelServer
from chainops.testing.faults import (
    Cut,
    Drip,
    Duplicate,
    Finish,
    Hang,
    Nonsense,
    Refuse,
    Reset,
    Slow,
    Stall,
    Status,
    Together,
    Usage,
)

TEXT = "one two three four five six"


@pytest.fixture(scope="module")
def server():
    with ModelServer(TEXT) as running:
        yield running


@pytest.fixture
def model_waiting(server):
    """A model that gives up after so many seconds."""
    server.heal()
    settings = {"model": "m", "base_url": server.url, "api_key": "sk-test", "max_retries": 0, "stream_usage": True}
    return lambda timeout_s: ChatOpenAI(**settings, timeout=timeout_s)


@pytest.fixture
def model(model_waiting):
    return model_waiting(60)


def whole(model):
    return model.invoke("hello")


def streamed(model):
    total = None
    for chunk in model.stream("hello"):
        total = chunk if total is None else total + chunk
    return total


both = pytest.mark.parametrize("ask", [whole, streamed])


def judged(server, model, ask, fault):
    server.fail(fault)
    with pytest.raises(Exception) as caught:
        ask(model)
    return classify(caught.value)


STATUSES = {
    400: ("caller", "invalid request"),
    401: ("next_route", "key refused"),
    403: ("next_route", "not allowed"),
    404: ("next_route", "model not found"),
    408: ("retryable", "timeout"),
    409: ("retryable", "conflict"),
    413: ("next_route", "too large"),
    429: ("retryable", "rate limit"),
    500: ("retryable", "server error"),
    502: ("retryable", "server error"),
    503: ("retryable", "overloaded"),
    529: ("retryable", "overloaded"),
}


@both
@pytest.mark.parametrize("code", STATUSES)
def test_statuses(server, model, ask, code):
    failure = judged(server, model, ask, Status(code))
    assert (failure.kind, failure.reason, failure.status) == (*STATUSES[code], code)
    assert failure.detail
    assert "<html" not in failure.detail


DIALECTS = ["openai", "azure", "openrouter", "groq", "google", "anthropic", "vllm", "detail", "text"]


@pytest.mark.parametrize("like", DIALECTS)
def test_what_is_wrong_is_found_in_every_providers_words(server, model, like):
    def told(code, name=None):
        failure = judged(server, model, whole, Status(code, code_name=name, like=like))
        return failure.kind, failure.reason

    assert told(400, "context_length_exceeded") == ("next_route", "context length")
    assert told(400, "content_filter") == ("next_route", "content filter")
    assert told(400) == ("caller", "invalid request")
    assert told(429) == ("retryable", "rate limit")
    assert told(503) == ("retryable", "overloaded")
    assert judged(server, model, whole, Status(400, message="odd", like=like)).detail.endswith("odd")


@pytest.mark.parametrize("like", ["html", "nothing"])
def test_an_error_without_words_is_judged_by_its_status(server, model, like):
    assert judged(server, model, whole, Status(429, like=like)).reason == "rate limit"
    assert judged(server, model, whole, Status(502, like=like)).reason == "server error"


@both
@pytest.mark.parametrize(
    ("fault", "kind", "reason"),
    [
        (Reset(), "retryable", "connection cut"),
        (Refuse(), "retryable", "unreachable"),
        (Hang(), "retryable", "timeout"),
        (Stall(0), "retryable", "timeout"),
        (Stall(3), "retryable", "timeout"),
        (Cut(), "retryable", "connection cut"),
        (Nonsense("broken_json"), "next_route", "nonsense answer"),
        (Nonsense("html"), "next_route", "nonsense answer"),
        (Nonsense("sse"), "next_route", "nonsense answer"),
        (Nonsense("error_200"), "retryable", "server error"),
        (Together((Slow(0.01, 0.02), Status(503))), "retryable", "overloaded"),
    ],
    ids=str,
)
def test_faults(server, model_waiting, ask, fault, kind, reason):
    failure = judged(server, model_waiting(0.4 if isinstance(fault, Hang | Stall) else 60), ask, fault)
    assert (failure.kind, failure.reason) == (kind, reason)


@pytest.mark.parametrize(
    ("fault", "wait_s"),
    [
        (Status(429, retry_after_s=7), 7),
        (Status(429, retry_after_s=0.25, retry_after_as="ms"), 0.25),
        (Status(429, retry_after_s=2.5, retry_after_as="both"), 2.5),
        (Status(429, message="Rate limit reached. Please try again in 1m2.5s."), 62.5),
        (Status(429, message="Requests have exceeded the rate limit. Please retry after 9 seconds.", like="azure"), 9),
        (Status(429, message="You exceeded your current quota. Please retry in 33.2s.", like="google"), 33.2),
        (Status(429, message="Please try again in 120ms."), 0.12),
        (Status(503), None),
    ],
    ids=str,
)
def test_the_wait_asked_for_is_understood_and_a_wait_of_seconds_is_no_lack_of_money(server, model, fault, wait_s):
    failure = judged(server, model, whole, fault)
    assert failure.retry_after_s == (None if wait_s is None else pytest.approx(wait_s))
    assert failure.kind == "retryable"


def test_an_account_without_money_stays_so_whatever_wait_a_proxy_adds(server, model):
    fault = Status(429, code_name="insufficient_quota", retry_after_s=60)
    failure = judged(server, model, whole, fault)
    assert (failure.kind, failure.reason) == ("next_route", "quota")


def test_a_wait_told_as_a_date_is_understood_to_the_second(server, model):
    wait_s = judged(server, model, whole, Status(429, retry_after_s=30, retry_after_as="date")).retry_after_s
    assert 20 <= wait_s <= 32  # on a busy machine a part of the wait is over when it is read


def test_litellm_20722_each_failure_tells_its_own_wait(server, model):
    server.fail(Status(429, retry_after_s=1, retry_after_growth=3))
    waits = []
    for _ in range(4):
        with pytest.raises(Exception) as caught:
            model.invoke("hello")
        waits.append(classify(caught.value).retry_after_s)
    assert waits == [1, 3, 9, 27]


def test_a_provider_that_fails_behind_openrouter_is_judged_by_the_code_it_tells(server, model):
    server.fail(Nonsense("error_200"))
    with pytest.raises(ValueError, match="Provider") as caught:
        model.invoke("hello")
    caught.value.args[0]["code"] = 401
    assert classify(caught.value).reason == "key refused"


@both
@pytest.mark.parametrize("fault", [Hang(0.05), Stall(0, 0.05), Slow(0.05, 0.05), Stall(3, 0.05)], ids=str)
def test_what_is_only_slow_is_a_whole_answer(server, model, ask, fault):
    server.fail(fault)
    assert ask(model).content == TEXT


def test_a_slow_first_token_comes_after_the_headers_and_a_stall_after_its_chunks(server, model_waiting):
    said, model = [], model_waiting(3)  # time enough for the chunks before the stall
    server.fail(Stall(2))
    with pytest.raises(Exception, match="timed out"):  # noqa: PT012 - what came before the stall matters
        for chunk in model.stream("hello"):
            said.append(chunk.content)
    assert "".join(said) == "one two "


def test_a_drip_keeps_each_read_alive(server, model):
    server.fail(Drip(0.001, step_bytes=20))
    assert whole(model).content == TEXT


@both
def test_the_right_answer_under_the_wrong_content_type_is_read(server, model, ask):
    server.fail(Nonsense("wrong_type"))
    assert ask(model).content == TEXT


@both
def test_a_filtered_answer_says_why_it_is_empty(server, model, ask):
    server.fail(Finish("content_filter"))
    answer = ask(model)
    assert empty_answer(answer)
    assert answer.response_metadata["finish_reason"] == "content_filter"


@both
def test_an_answer_may_end_at_its_limit(server, model, ask):
    server.fail(Finish("length", after_chunks=2))
    answer = ask(model)
    assert (answer.content, answer.response_metadata["finish_reason"]) == ("one two ", "length")


def test_a_stream_that_ends_too_early_has_no_finish_reason(server, model):
    server.fail(Cut(how="end"))
    assert cut_short(streamed(model))


@both
@pytest.mark.parametrize(("kind", "tokens"), [("negative", -6), ("doubled", 12), ("zero", 0)])
def test_usage_may_be_wrong(server, model, ask, kind, tokens):
    server.fail(Usage(kind))
    answer = ask(model)
    assert (answer.content, answer.usage_metadata["output_tokens"]) == (TEXT, tokens)
    assert server.requests[-1].usage["completion_tokens"] == 6  # the truth


@both
def test_usage_may_be_absent(server, model, ask):
    server.fail(Usage("absent"))
    answer = ask(model)
    assert (answer.content, answer.usage_metadata) == (TEXT, None)


def test_chunks_may_come_twice(server, model):
    server.fail(Duplicate())
    assert streamed(model).content.startswith("one one two two ")
    assert whole(model).content == TEXT
