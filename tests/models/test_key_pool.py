"""Which key is used next, and what the provider's headers let it do."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter

import pytest

from chainops.core.clock import use_clock
from chainops.core.errors import CallRefused
from chainops.core.events import RequestEnded
from chainops.models.clients import sync_client
from chainops.models.failures import Failure, ModelFailed, ModelUnavailable
from chainops.models.key_pool import COOL_DOWN_S, REFUSED_S, Allowance, KeyPool, ModelKey, read_allowances
from chainops.models.model import Model
from chainops.models.providers import ModelSettings, chat_model, key_pool
from chainops.testing.limits import Limits
from chainops.testing.listening import ManualClock, capture_events
from chainops.testing.server import ModelServer

NOW = 1_700_000_000.0
ONE, TWO = "sk-first-key-long-0001", "sk-second-key-long-0002"


def headers(left="59", reset="1s", limit="60", name="requests"):
    told = {
        f"x-ratelimit-limit-{name}": limit,
        f"x-ratelimit-remaining-{name}": left,
        f"x-ratelimit-reset-{name}": reset,
    }
    return {word: value for word, value in told.items() if value is not None}


@pytest.mark.parametrize(
    ("reset", "seconds"),
    [("1s", 1), ("6m0s", 360), ("120ms", 0.12), ("1h0m1.5s", 3601.5), ("2d", 172_800), ("0.25", 0.25), ("60", 60),
     ("2023-11-14T22:13:30Z", 10), ("2023-11-14T22:13:10+00:00", 0), ("900d", 604_800)],
)  # fmt: skip
def test_resets_are_read_in_the_forms_that_providers_use(reset, seconds):
    assert read_allowances(headers(reset=reset), now=NOW)["requests"] == Allowance(60, 59, pytest.approx(seconds))


@pytest.mark.parametrize(
    "bad",
    [{"reset": "soon"}, {"reset": ""}, {"reset": None}, {"left": "-1"}, {"left": "many"}, {"left": None},
     {"reset": "9999-99-99T00:00:00Z"}, {"reset": "1s2"}, {"reset": "1e400"}, {"left": "9" * 400}],
)  # fmt: skip
def test_nonsense_in_headers_is_left_out(bad):
    assert read_allowances(headers(**bad), now=NOW) == {}


def test_anthropics_dates_are_read_by_the_servers_own_clock():
    told = {
        "anthropic-ratelimit-requests-limit": "50",
        "anthropic-ratelimit-requests-remaining": "49",
        "anthropic-ratelimit-requests-reset": "2026-01-01T00:00:30Z",
        "anthropic-ratelimit-input-tokens-remaining": "1000",
        "anthropic-ratelimit-input-tokens-reset": "2026-01-01T00:01:00Z",
        "date": "Thu, 01 Jan 2026 00:00:00 GMT",
    }
    assert read_allowances(told, now=NOW) == {
        "requests": Allowance(50, 49, 30.0),
        "tokens": Allowance(None, 1000, 60.0),
    }


@pytest.fixture
def clock():
    clock = ManualClock()
    with use_clock(clock):
        yield clock


@pytest.fixture
def key():
    return ModelKey("K", lambda: None)


def test_an_allowance_lowers_what_may_be_done_fills_up_evenly_and_lapses(clock, key):
    key.heard(None, headers(left="0", reset="60s"))
    assert key.wait_s({"requests": 1}, clock.now) == pytest.approx(1.0)
    clock.advance(10)
    assert key.wait_s({"requests": 10}, clock.now) == 0
    assert key.wait_s({"requests": 60}, clock.now) == pytest.approx(50)
    clock.advance(50)
    assert key.wait_s({"requests": 1000}, clock.now) == 0, "after its reset it says nothing"


def test_an_allowance_without_a_limit_comes_back_all_at_once(clock, key):
    key.heard(None, headers(left="1", reset="60s", limit=None))
    assert key.wait_s({"requests": 1}, clock.now) == 0
    clock.advance(59)
    assert key.wait_s({"requests": 2}, clock.now) == pytest.approx(1)


def test_calls_that_began_after_the_request_are_not_in_what_its_answer_tells(clock, key):
    key.took({"requests": 1}, clock.now)
    sent = key.sending()
    for _ in range(3):
        key.took({"requests": 1}, clock.now)
    key.heard(sent, headers(left="5", reset="60s", limit=None))
    assert key.wait_s({"requests": 2}, clock.now) == 0
    assert key.wait_s({"requests": 3}, clock.now) > 0
    key.took({"requests": 2}, clock.now)
    assert key.wait_s({"requests": 1}, clock.now) > 0


def failed(reason, retry_after_s=None):
    return ModelFailed("m", Failure("retryable", reason, retry_after_s), next_move="wait")


def test_the_later_end_of_a_rest_holds_litellm_40130(key):
    key.failed(failed("rate limit", 10.0), 100.0)
    key.failed(failed("rate limit", 1.0), 101.0)
    assert key.closed(105.0) is not None
    key.failed(failed("rate limit", 30.0), 105.0)
    assert key.closed(134.0) is not None
    assert key.closed(135.1) is None


def test_each_failures_own_wait_counts_litellm_20722_34399():
    one, two = ModelKey("A", lambda: None), ModelKey("B", lambda: None)
    pool = KeyPool((one, two))
    one.failed(failed("rate limit", 2.0), 0.0)
    two.failed(failed("rate limit", 20.0), 0.0)
    assert pool.choose(1.0) is one, "both rest: the one that is sooner free"
    assert pool.another(two, 1.0) is None
    assert pool.another(two, 2.1) is one
    assert two.closed(19.0) is not None


def test_a_key_that_is_refused_rests_long_and_an_only_key_never_does(key):
    KeyPool((key,))
    for reason in ("key refused", "quota", "not allowed"):
        key.failed(failed(reason), 0.0)
    key.failed(failed("rate limit"), 0.0)
    assert key.closed(0.1) is None
    one, two = ModelKey("A", lambda: None), ModelKey("B", lambda: None)
    KeyPool((one, two))
    one.failed(failed("key refused"), 0.0)
    two.failed(failed("rate limit"), 0.0)
    assert one.closed(REFUSED_S - 1) is not None
    assert two.closed(COOL_DOWN_S - 1) is not None
    assert two.closed(COOL_DOWN_S + 1) is None


@pytest.mark.parametrize("reason", ["server error", "timeout", "overloaded", "context length", "content filter"])
def test_what_is_no_fault_of_the_key_does_not_close_it(reason):
    one = ModelKey("A", lambda: None)
    KeyPool((one, ModelKey("B", lambda: None)))
    one.failed(failed(reason, 5.0), 0.0)
    assert one.closed(0.1) is None


def test_the_least_loaded_key_is_chosen_and_equal_ones_take_turns():
    keys = tuple(ModelKey(name, lambda: None) for name in "ABC")
    pool = KeyPool(keys)
    assert Counter(pool.choose(0.0).name for _ in range(9)) == {"A": 3, "B": 3, "C": 3}
    keys[0].in_flight, keys[1].in_flight, keys[2].in_flight = 2, 1, 2
    assert pool.choose(0.0).name == "B"
    keys[1].in_flight = 2
    for key, share in zip(keys, (0.9, 0.5, 0.1), strict=True):
        key.load = lambda _, share=share: (0.0, 0, share)
    assert pool.choose(0.0).name == "C"


# Over real HTTP


@pytest.fixture
def environment(monkeypatch):
    monkeypatch.setenv("KEY_ONE", ONE)
    monkeypatch.setenv("KEY_TWO", TWO)


def served(server, *keys, **more):
    settings = ModelSettings(model="openai:gpt-4o-mini", base_url=server.url, keys=keys, timeout_s=30, **more)
    pool = key_pool(settings)
    return Model(chat=lambda: chat_model(settings), model=settings.model, timeout_s=30, keys=pool, name="m"), pool


async def _all(chunks):
    return [chunk async for chunk in chunks]


WAYS = {
    "invoke": lambda model: model.invoke("q"),
    "stream": lambda model: list(model.stream("q")),
    "ainvoke": lambda model: asyncio.run(model.ainvoke("q")),
    "astream": lambda model: asyncio.run(_all(model.astream("q"))),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.usefixtures("environment")
def test_headers_are_heard_in_every_driver_also_of_errors(way):
    with ModelServer("one two three", limits=Limits(requests_per_minute=3, is_enforced=False)) as server:
        model, pool = served(server, "KEY_ONE")
        WAYS[way](model)
        assert pool.stats()["KEY_ONE"]["provider_allows"]["requests"] == 2  # for twenty seconds
    with ModelServer("one", limits=Limits(requests_per_minute=1)) as server:
        model, pool = served(server, "KEY_ONE")
        WAYS[way](model)
        with pytest.raises(ModelUnavailable):
            WAYS[way](model)
        told = pool.stats()["KEY_ONE"]
        assert told["provider_allows"]["requests"] <= 0
        assert told["why"] == "rate limit"
        assert 50 < told["rests_s"] <= 61


@pytest.mark.usefixtures("environment")
def test_listening_changes_nothing_of_an_answer_and_shares_the_connections():
    with ModelServer("one two three", limits=Limits(requests_per_minute=60)) as server:
        settings = ModelSettings(model="openai:gpt-4o-mini", base_url=server.url, key_env="KEY_ONE")
        plain, heard = chat_model(settings), key_pool(settings).keys[0].chat()
        answers = [model.invoke("q").response_metadata for model in (plain, heard)]
        assert answers[0].keys() == answers[1].keys()
        before = len(sync_client()._transport._pool.connections)
        for _ in range(3):
            heard.invoke("q")
        assert len(sync_client()._transport._pool.connections) == before


@pytest.mark.usefixtures("environment")
def test_keys_are_never_shown():
    with ModelServer("one", key="sk-another-key-altogether") as server:
        model, pool = served(server, "KEY_ONE", "KEY_TWO")
        with pytest.raises(ModelFailed) as caught:
            model.invoke("q")
        told = f"{caught.value} {caught.value!r} {pool.stats()} {pool.keys} {pool.keys[0].chat()!r} {model!r}"
        assert ONE not in told
        assert TWO not in told
        assert "KEY_TWO" in str(caught.value)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.usefixtures("environment")
def test_a_refused_key_is_one_attempt_and_another_may_be_tried_at_once(way):
    with ModelServer("hello", key=TWO) as server:
        model, pool = served(server, "KEY_ONE", "KEY_TWO")
        with pytest.raises(ModelUnavailable) as caught:
            WAYS[way](model)
        assert (caught.value.reason, caught.value.retry_after_s) == ("key refused", 0.0)
        WAYS[way](model)
        WAYS[way](model)
        assert len(server.requests) == 3
        assert pool.stats()["KEY_ONE"]["why"] == "key refused"
        assert pool.stats()["KEY_TWO"]["in_flight"] == 0


@pytest.mark.usefixtures("environment")
def test_when_every_key_is_refused_the_failure_is_the_keys_own():
    with ModelServer("hello", key="sk-a-third-key-nobody-has") as server:
        model, _ = served(server, "KEY_ONE", "KEY_TWO")
        with pytest.raises(ModelUnavailable):
            model.invoke("q")
        with pytest.raises(ModelFailed) as last:
            model.invoke("q")
        assert not isinstance(last.value, ModelUnavailable)
        with pytest.raises(CallRefused) as refused:
            model.invoke("q")
        assert refused.value.reason == "key refused"
        assert len(server.requests) == 2


def test_a_key_that_is_not_set_lets_the_others_answer(monkeypatch):
    monkeypatch.setenv("KEY_TWO", TWO)
    monkeypatch.delenv("KEY_ONE", raising=False)
    with ModelServer("hello") as server:
        model, pool = served(server, "KEY_ONE", "KEY_TWO")
        with pytest.raises(ModelUnavailable) as caught:
            model.invoke("q")
        assert (caught.value.reason, caught.value.retry_after_s) == ("no key", 0.0)
        assert model.invoke("q").content == "hello"
        assert pool.stats()["KEY_ONE"]["why"] == "no key"


@pytest.mark.usefixtures("environment")
def test_the_ledger_says_which_key_was_used():
    with ModelServer("hello") as server:
        model, _ = served(server, "KEY_ONE", "KEY_TWO")
        with capture_events() as events:
            model.invoke("q")
            model.invoke("q")
        used = [attempt.key for event in events.of(RequestEnded) for attempt in event.request.attempts.all]
        assert used == ["KEY_ONE", "KEY_TWO"]


@pytest.mark.usefixtures("environment")
def test_many_threads_spread_over_the_keys_and_all_are_counted_back():
    with ModelServer("hello") as server:
        model, pool = served(server, "KEY_ONE", "KEY_TWO")
        threads = [threading.Thread(target=model.invoke, args=("q",)) for _ in range(64)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        counts = [tally.accepted for tally in server.tally.values()]
        assert sum(counts) == 64
        assert min(counts) >= 16
        assert {stats["in_flight"] for stats in pool.stats().values()} == {0}


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"keys": ("sk-abcdefghijklmnop",)}, "not a key"),
        ({"keys": ("A", "A")}, "twice"),
        ({"keys": ("A", "B"), "key_env": "C"}, "either key_env"),
        ({"limits": {"requests_per_minute": 0}}, "greater than 0"),
        ({"limits": {"tokens_per_minute": -5}}, "greater than 0"),
        ({"limits": {"concurrency": 1, "store": "somewhere"}}, "expected 'process'"),
        ({"limits": {"queue": {"wait_s": 0}}}, "greater than 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, says):
    with pytest.raises(ValueError, match=says):
        ModelSettings(model="openai:m", **settings)


def test_the_extractive_model_has_neither_keys_nor_limits():
    assert key_pool(ModelSettings(model="extractive")) is None
    with pytest.raises(ValueError, match="does not apply"):
        ModelSettings(model="extractive", limits={"concurrency": 1})


def test_retry_after_zero_from_a_server_is_not_a_rest(key):
    KeyPool((key,))
    key.failed(failed("rate limit", 0.0), 0.0)
    assert key.closed(0.0) is None
