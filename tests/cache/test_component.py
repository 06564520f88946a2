from __future__ import annotations

import asyncio
import json

import pytest
from langchain_core.messages import AIMessage
from langchain_core.output_parsers import StrOutputParser

import chainops
from chainops.cache.records import CacheKept, CacheMissed, CacheServed, CacheUnavailable
from chainops.cache.replica import FRESH_S
from chainops.cache.stores.sql_records import SqlRecords
from chainops.core.clock import use_clock
from chainops.core.component import Component
from chainops.core.steps import Say
from chainops.models.model import Model
from chainops.stores.sql import SqlStore
from chainops.testing.chat import ScriptedChatModel
from chainops.testing.listening import ManualClock, capture_events


class Inner(Component[object, AIMessage]):
    """Answers with how often it was asked, as the status it is told to."""

    asked: list
    status: str = "ok"

    def plan(self, value, run):
        self.asked.append(value)
        if self.status != "ok":
            run.report.mark(self.status, "told to")
        run.report.sources = [{"n": 1, "document": "d", "title": "t", "span": [0, 1], "quote": "q"}]
        message = AIMessage(content=f"answer {len(self.asked)}")
        yield Say(message)
        return message


@pytest.fixture
def inner():
    return Inner(asked=[])


@pytest.fixture
def cache(inner, make_cache):
    return make_cache(inner, ttl="1h")


def astream(runnable, value, config=None):
    async def gather():
        return [chunk async for chunk in runnable.astream(value, config)]

    return asyncio.run(gather())


def joined(chunks):
    total = chunks[0]
    for chunk in chunks[1:]:
        total += chunk
    return chainops.Answer.of(total)


def test_langchain_23701_a_repeat_is_served_whatever_driver_asked_first_and_asks_now(cache, inner):
    ways = (
        cache.invoke,
        lambda q: asyncio.run(cache.ainvoke(q)),
        lambda q: joined(list(cache.stream(q))),
        lambda q: joined(astream(cache, q)),
    )
    for number, first in enumerate(ways):
        question = " ".join([("apple", "zebra", "train", "cloud")[number]] * 3)
        made = first(question)
        assert made.status == "ok"
        for again in ways:
            served = again(question)
            assert (served.text, served.status) == (made.text, "cached")
            assert served.sources == made.sources
            assert served.served_by == "cache (exact)"
    assert len(inner.asked) == 4


def test_a_similar_question_is_served_and_a_different_one_is_not(cache, inner):
    cache.invoke("how do I write a good decorator")
    with capture_events() as events:
        near = cache.invoke("how do I write a nice decorator")
        far = cache.invoke("who wrote moby dick")
    assert (near.status, near.served_by) == ("cached", "cache (semantic)")
    assert far.status == "ok"
    served, missed = events.of(CacheServed)[0], events.of(CacheMissed)[0]
    assert 0.8 <= served.similarity < 1
    assert missed.nearest < 0.8


def test_a_threshold_of_one_serves_exact_repeats_only_and_embeds_nothing(make_cache, inner, embedder):
    cache = make_cache(inner, threshold=1)
    cache.invoke("how do I write a good decorator")
    embedder.embedded.clear()
    cache.invoke("how do I write a nice decorator")
    assert len(inner.asked) == 2
    assert embedder.embedded == []


def test_tenants_are_not_served_each_others_answers(cache, inner):
    for tenant in ("acme", "globex", None):
        assert cache.invoke("what is our secret plan", chainops.caller(tenant=tenant)).status == "ok"
    assert cache.invoke("what is our secret plan", chainops.caller(tenant="acme")).status == "cached"
    assert len(inner.asked) == 3


def test_bypass_neither_reads_nor_writes_and_refresh_replaces(cache, inner):
    cache.invoke("q")
    assert cache.invoke("q", chainops.caller(cache="bypass")).text == "answer 2"
    assert cache.invoke("q").text == "answer 1"
    assert cache.invoke("q", chainops.caller(cache="refresh")).text == "answer 3"
    assert cache.invoke("q").text == "answer 3"


@pytest.mark.parametrize("status", ["degraded", "truncated", "pending_review", "refused"])
def test_an_answer_that_is_not_whole_and_good_is_not_kept(make_cache, status):
    inner = Inner(asked=[], status=status)
    cache = make_cache(inner)
    with capture_events() as events:
        cache.invoke("q")
        cache.invoke("q")
    assert len(inner.asked) == 2
    assert status in events.of(CacheKept)[0].reason


def test_a_cache_that_cannot_be_opened_costs_nothing_but_itself(make_cache, inner):
    def broken():
        raise chainops.MissingExtra("psycopg", "postgres")

    with capture_events() as events:
        answer = make_cache(inner).model_copy(update={"replica": broken}).invoke("q")
    assert (answer.text, answer.status) == ("answer 1", "ok")
    assert len(events.of(CacheUnavailable)) == 1


def test_reasons_belong_to_the_request_that_had_them(make_cache):
    class Noting(Component[str, AIMessage]):
        def plan(self, value, run):
            run.report.reasons.append("not read: bad.txt")
            message = AIMessage(content="answer")
            yield Say(message)
            return message

    cache = make_cache(Noting())
    assert cache.invoke("q").reasons == ["not read: bad.txt"]
    assert cache.invoke("q").reasons == ["the same question was answered before"]


def test_a_stream_that_is_closed_halfway_is_not_kept(cache, inner, replica):
    stream = cache.stream("q")
    next(stream)
    stream.close()
    assert replica.store.size("cache")[0] == 0
    assert cache.invoke("q").status == "ok"


def test_an_error_is_not_cached(make_cache, replica):
    def broken(_):
        raise ConnectionError("no")

    cache = make_cache(broken)
    for _ in range(2):
        with pytest.raises(ConnectionError):
            cache.invoke("q")
    assert replica.store.size("cache")[0] == 0


def test_redis_vl_603_a_popular_answer_dies_at_its_age_not_after_its_last_use(cache, inner):
    clock = ManualClock()
    with use_clock(clock):
        for _ in range(7):
            cache.invoke("a question asked often")
            clock.advance(600)
        assert len(inner.asked) == 2
        cache.invoke("a question asked very often")
        assert len(inner.asked) == 2


def test_an_entry_deleted_by_another_process_is_gone_within_a_second(cache, inner, make_replica):
    clock = ManualClock()
    with use_clock(clock):
        cache.invoke("how do I write a good decorator")
        assert cache.invoke("how do I write a good decorator").status == "cached"
        assert cache.invoke("how do I write a nice decorator").status == "cached"
        make_replica().clear()
        clock.advance(FRESH_S)
        assert cache.invoke("how do I write a good decorator").status == "ok"


def test_vcache_91_another_process_and_a_restart_see_what_was_stored(cache, inner, make_cache, make_replica):
    cache.invoke("how do I write a good decorator")
    restarted = make_cache(inner, replica=make_replica())
    assert restarted.invoke("how do I write a good decorator").status == "cached"
    assert restarted.invoke("how do I write a nice decorator").status == "cached"


def test_the_least_valuable_go_when_there_are_too_many(make_cache, replica, inner):
    cache = make_cache(inner, max_entries=3)
    for number in range(5):
        cache.invoke(f"{number} {number} {number}")
    assert replica.store.size("cache")[0] == 3
    replica._exact.clear()
    assert cache.invoke("0 0 0").status == "ok"
    assert cache.invoke("4 4 4").status == "cached"


def test_a_store_that_fails_costs_the_cache_and_nothing_else(tmp_path, inner, make_cache, make_replica):
    (tmp_path / "bad.db").write_bytes(b"this is no database" * 100)
    replica = make_replica(records=SqlRecords(SqlStore(tmp_path / "bad.db")))
    with capture_events() as events:
        answer = make_cache(inner, replica=replica).invoke("q")
    assert (answer.text, answer.status) == ("answer 1", "ok")
    assert len(events.of(CacheUnavailable)) == 1


def test_tool_calls_and_reasoning_survive_and_usage_is_not_counted_again(make_cache):
    call = {"name": "search", "args": {"q": "x"}, "id": "1", "type": "tool_call"}
    message = AIMessage(
        content="let me look",
        tool_calls=[call],
        additional_kwargs={"reasoning_content": "hm"},
        usage_metadata={"input_tokens": 5, "output_tokens": 3, "total_tokens": 8},
    )
    chat = ScriptedChatModel(replies=[message])
    cache = make_cache(Model(chat=lambda: chat, model="openai:gpt-4o-mini"))
    first, served = cache.invoke("q"), cache.invoke("q")
    assert first.usage_metadata["total_tokens"] == 8
    assert served.usage_metadata is None
    assert served.tool_calls == [call]
    assert served.additional_kwargs["reasoning_content"] == "hm"
    assert json.loads(json.dumps(served.report.to_dict()))["cost_usd"] == 0
    streamed = joined(list(cache.stream("q")))
    assert streamed.tool_calls == [call]
    assert served.report["events"][0]["saved_usd"] > 0


def test_a_chain_of_plain_strings_can_be_cached_too(make_cache):
    asked = []

    def shout(text):
        asked.append(text)
        return text.upper()

    cache = make_cache(shout)
    assert [cache.invoke("hi"), cache.invoke("hi"), *cache.stream("hi")] == ["HI"] * 3
    assert (cache | StrOutputParser()).invoke("hi") == "HI"
    assert asked == ["hi"]


def test_a_question_stored_by_many_threads_at_once_is_stored_once(cache, inner, replica):
    answers = cache.batch(["the same question"] * 16, {"max_concurrency": 16})
    assert all(answer.status in ("ok", "cached") for answer in answers)
    assert replica.store.size("cache")[0] == 1
