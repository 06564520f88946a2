"""Limits around a chain: in every driver, once per request, and exactly once per attempt."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from types import SimpleNamespace

import pytest
from langchain_core.runnables import RunnableLambda

import chainops
from chainops.core.clock import use_clock
from chainops.core.component import AnyRunnable, Component
from chainops.core.errors import CallRefused
from chainops.core.steps import Forward
from chainops.models.providers import ModelSettings
from chainops.resilience.component import Fallback, Sentence
from chainops.resilience.limits.component import LimitsSettings, limits
from chainops.resilience.limits.records import LimitWaited, Overloaded, TooLarge
from chainops.spec.limiting import limit, limited_keys
from chainops.testing.chat import Reply
from chainops.testing.limits import Limits as ServerLimits
from chainops.testing.listening import ManualClock, capture_events
from chainops.testing.server import ModelServer


async def _all(chunks):
    return [chunk async for chunk in chunks]


DRIVERS = {
    "invoke": lambda chain, config=None: chain.invoke("q", config),
    "ainvoke": lambda chain, config=None: asyncio.run(chain.ainvoke("q", config)),
    "stream": lambda chain, config=None: list(chain.stream("q", config)),
    "astream": lambda chain, config=None: asyncio.run(_all(chain.astream("q", config))),
}


@pytest.fixture(params=DRIVERS)
def drive(request):
    return DRIVERS[request.param]


def limited(inner, **settings):
    return limits(inner, LimitsSettings(**settings))


def used(chain, key=""):
    return chain.stats()[key]["used"]


def test_tokens_are_reserved_by_estimate_and_settled_by_truth(model, drive):
    chain = limited(model(tokens=100, expected=400), tokens_per_minute=1000, concurrency=2, requests_per_minute=5)
    for times in (1, 2, 3):
        drive(chain)
        assert used(chain) == {"requests_per_minute": times, "concurrency": 0, "tokens_per_minute": 100 * times}
    for _ in range(2):
        drive(chain)
    with pytest.raises(Overloaded):  # five requests were made
        drive(chain)


def test_the_report_says_what_was_waited_and_what_is_left(model, drive):
    clock = ManualClock()
    with use_clock(clock), capture_events() as events:
        chain = limited(model(tokens=100, expected=400), tokens_per_minute=500, queue={"wait_s": 100})
        drive(chain)
        drive(chain)
    waited = events.of(LimitWaited)
    assert [event.limit for event in waited] == ["chain"]
    assert waited[0].waited_s == pytest.approx(sum(clock.slept))


def test_stages_carry_the_facts(model):
    chain = limited(model(), tokens_per_minute=5000, requests_per_minute=9, per="tenant")
    answer = chain.invoke("q", chainops.caller(tenant="acme"))
    stages = {stage["kind"]: stage for stage in answer.report["stages"]}
    assert stages["limits"]["facts"]["remaining"] == {"requests_per_minute": 8}
    assert stages["model"]["facts"]["limit"] == "tenant"
    assert stages["model"]["facts"]["remaining"]["tokens_per_minute"] < 5000


def test_each_user_has_limits_of_their_own(model, drive):
    chain = limited(model(), requests_per_minute=1, per="user")
    drive(chain, chainops.caller(user="ann"))
    drive(chain, chainops.caller(user="bob"))
    with pytest.raises(Overloaded, match="per user"):
        drive(chain, chainops.caller(user="ann"))
    drive(chain)
    assert set(chain.stats()) == {"ann", "bob", ""}


def test_a_refusal_is_a_route_that_did_not_answer(model, drive):
    chain = limited(model(), requests_per_minute=1)
    fallback = Fallback(routes=(chain, Sentence(text="busy", name="say")), name="f")
    drive(fallback)
    last = drive(fallback)
    text = last.text if hasattr(last, "text") else "".join(chunk.text for chunk in last)
    assert text == "busy"


def test_a_call_larger_than_the_whole_limit_is_refused_and_not_made(model, drive):
    small = model(expected=5000)
    chain = limited(small, tokens_per_minute=1000)
    with pytest.raises(TooLarge, match="lower max_tokens"):
        drive(chain)
    assert small.chat().calls == 0
    assert used(chain) == {"tokens_per_minute": 0}


class Twice(Component):
    """Asks inside the limits twice, as a retry does."""

    inner: AnyRunnable

    def plan(self, value, run):
        try:
            yield Forward(self.inner, value)
        except Exception:
            return (yield Forward(self.inner, value))


def test_a_retry_counts_tokens_again_and_the_request_once(model, drive):
    replies = (
        ConnectionError("down"),
        Reply("one two", usage={"input_tokens": 60, "output_tokens": 10, "total_tokens": 70}),
    )
    chain = limited(Twice(inner=model(*replies)), tokens_per_minute=1000, requests_per_minute=10)
    drive(chain)
    assert used(chain) == {"requests_per_minute": 1, "tokens_per_minute": 70}


# litellm#35568, #35569: reservations lost, or counted twice, after streams that failed


@pytest.mark.parametrize("way", ["stream", "astream"])
def test_a_stream_that_fails_is_settled_once_litellm_35568_35569(model, way):
    cut = Reply("one two three", chunks=("one ", "two ", "three"), fail_after_chunks=2)
    chain = limited(model(cut), tokens_per_minute=1000, concurrency=1)
    for _ in range(3):
        with pytest.raises(Exception, match=r"cut|unreachable"):
            DRIVERS[way](chain)
    now = used(chain)
    assert now["concurrency"] == 0
    assert 0 < now["tokens_per_minute"] < 60, "what came was consumed: some ten tokens each time, not the reservation"


def test_a_call_that_fails_before_it_is_answered_gives_its_tokens_back(model, drive):
    chain = limited(model(ConnectionError("down")), tokens_per_minute=1000, concurrency=1)
    for _ in range(8):
        with pytest.raises(Exception, match=r"down|unreachable"):
            drive(chain)
    assert used(chain) == {"tokens_per_minute": 0, "concurrency": 0}


def test_a_stream_that_is_closed_or_forgotten_gives_its_place_back(model):
    slow = Reply("one two three", chunks=("one ", "two ", "three"))
    chain = limited(model(slow), concurrency=1, tokens_per_minute=10_000)
    for _ in range(3):
        stream = chain.stream("q")
        next(stream)
        assert used(chain)["concurrency"] == 1
        stream.close()
        assert used(chain)["concurrency"] == 0
    stream = chain.stream("q")
    next(stream)
    del stream
    assert used(chain)["concurrency"] == 0

    async def leave():
        async with contextlib.aclosing(chain.astream("q")) as chunks:
            await anext(chunks)
            assert used(chain)["concurrency"] == 1

    asyncio.run(leave())
    assert used(chain)["concurrency"] == 0


def test_a_task_that_is_cancelled_while_it_waits_leaves_the_queue(model):
    release = threading.Event()
    chain = limited(RunnableLambda(lambda _: release.wait(60)), concurrency=1)

    async def scene():
        first = asyncio.create_task(chain.ainvoke("q"))
        while not used_now(chain):
            await asyncio.sleep(0.005)
        waiting = [asyncio.create_task(chain.ainvoke("q")) for _ in range(3)]
        while chain.stats()[""]["waiting"] < 3:
            await asyncio.sleep(0.005)
        waiting[0].cancel()
        await asyncio.gather(waiting[0], return_exceptions=True)
        assert chain.stats()[""]["waiting"] == 2
        release.set()
        await asyncio.gather(first, *waiting[1:])

    def used_now(chain):
        return chain.stats().get("", {}).get("used", {}).get("concurrency")

    asyncio.run(scene())
    assert chain.stats()[""] == {"limit": {"concurrency": 1}, "used": {"concurrency": 0}, "waiting": 0}


@pytest.mark.parametrize("way", ["batch", "abatch"])
def test_concurrency_cannot_multiply_what_is_let_in_litellm_34732_40095(model, way):
    chain = limited(model(tokens=100, expected=90), tokens_per_minute=1000, queue={"most": 0})
    if way == "batch":
        out = chain.batch(["q"] * 64, {"max_concurrency": 64}, return_exceptions=True)
    else:
        out = asyncio.run(chain.abatch(["q"] * 64, {"max_concurrency": 64}, return_exceptions=True))
    answered = [each for each in out if not isinstance(each, Exception)]
    assert all(isinstance(each, CallRefused) for each in out if isinstance(each, Exception))
    # Reserved are 90 each and used 100: beyond the limit is only what calls in flight used beyond their estimates.
    assert 9 <= len(answered) <= 11
    assert used(chain)["tokens_per_minute"] == 100 * len(answered)


def test_waiting_in_the_queue_ends_with_the_requests_deadline(model, drive):
    release = threading.Event()
    chain = limited(RunnableLambda(lambda _: release.wait(60)), concurrency=1)
    holder = threading.Thread(target=chain.invoke, args=("q",))
    holder.start()
    while not chain.stats().get("", {}).get("used", {}).get("concurrency"):
        time.sleep(0.005)
    with pytest.raises((Overloaded, TimeoutError)):
        drive(chain, chainops.caller(deadline_s=0.1))
    assert chain.stats()[""]["waiting"] == 0
    release.set()
    holder.join()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({}, "at least one of requests_per_minute, tokens_per_minute, concurrency"),
        ({"requests_per_minute": 0}, "greater than 0"),
        ({"concurrency": -1}, "greater than 0"),
        ({"concurrency": 1, "store": "here"}, "expected 'process', 'chain'"),
        ({"concurrency": 1, "per": "planet"}, "per"),
        ({"concurrency": 1, "queue": {"most": -1}}, "most"),
        ({"requests_per_minutes": 1}, "requests_per_minutes"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, says):
    with pytest.raises(ValueError, match=says):
        LimitsSettings(**settings)


# As chain files declare them


class Site:
    def __init__(self, tmp_path):
        self.limits = {}
        self.declared = SimpleNamespace(name="help")
        self.store = lambda: SimpleNamespace(url=f"sqlite:///{tmp_path / 'chainops.db'}")


class Rest:
    position = 0

    def __init__(self, *routes):
        self.routes = iter(routes)

    def __call__(self):
        return next(self.routes)


def test_one_declaration_built_for_several_routes_is_one_limit(model, tmp_path):
    site, rest = Site(tmp_path), Rest(model(), model())
    settings = LimitsSettings(requests_per_minute=3)
    first, second = limit(settings, site, rest), limit(settings, site, rest)
    first.invoke("q")
    second.invoke("q")
    first.invoke("q")
    with pytest.raises(Overloaded):
        second.invoke("q")


def test_chains_of_two_sites_share_a_limit_through_the_chains_store(model, tmp_path, drive):
    settings = LimitsSettings(requests_per_minute=3, store="chain")
    chains = [limit(settings, Site(tmp_path), Rest(model())) for _ in range(2)]
    for chain in (*chains, chains[0]):
        drive(chain)
    for chain in chains:
        with pytest.raises(Overloaded):
            drive(chain)


def served(server, tmp_path, *keys, **declared):
    from chainops.models.model import Model

    settings = ModelSettings(model="openai:gpt-4o-mini", base_url=server.url, keys=keys, limits=declared or None)
    pool = limited_keys(settings, Site(tmp_path))
    return Model(chat=pool.keys[0].chat, model=settings.model, keys=pool, name="m", expected_output_tokens=20), pool


@pytest.fixture
def two_keys(monkeypatch):
    monkeypatch.setenv("KEY_ONE", "sk-first-key-long-0001")
    monkeypatch.setenv("KEY_TWO", "sk-second-key-long-0002")
    return "KEY_ONE", "KEY_TWO"


def test_each_key_has_the_declared_limits_for_itself(two_keys, tmp_path, drive):
    with ModelServer("hello") as server:
        model, _ = served(server, tmp_path, *two_keys, requests_per_minute=2)
        for _ in range(4):
            drive(model)
        with pytest.raises(Overloaded) as caught:
            drive(model)
        assert caught.value.retry_after_s > 30
        assert {tally.accepted for tally in server.tally.values()} == {2}


def test_the_providers_own_limits_are_kept_where_none_are_declared(two_keys, tmp_path, drive):
    with ModelServer("hello", limits=ServerLimits(requests_per_minute=3)) as server:
        model, _ = served(server, tmp_path, "KEY_ONE")
        for _ in range(3):
            drive(model)
        with pytest.raises(Overloaded) as caught:
            drive(chainops_deadline(model))
        assert caught.value.retry_after_s <= 21
        assert {(tally.accepted, tally.refused) for tally in server.tally.values()} == {(3, 0)}, "no 429 was provoked"


def chainops_deadline(model):
    return model.with_config(chainops.caller(deadline_s=10))


def test_a_waiting_call_goes_when_its_keys_rest_ends(two_keys, tmp_path):
    from chainops.testing.faults import Status

    with ModelServer("hello") as server:
        model, _ = served(server, tmp_path, "KEY_ONE")
        server.fail(Status(429, retry_after_s=1), times=1)
        started = time.monotonic()
        with pytest.raises(Exception, match="rate limit"):
            model.invoke("q")
        assert model.invoke("q").content == "hello"
        assert time.monotonic() - started > 0.9, "the server's wait was kept"
        assert len(server.requests) == 2
