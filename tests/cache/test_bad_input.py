"""What can go wrong around a cache costs the cache, never the answer."""

from __future__ import annotations

import hashlib
import json
import time

import numpy as np
import pytest
from langchain_core.messages import AIMessage

from chainops.cache.cache import Cache
from chainops.cache.records import CacheDropped, CacheKept, CacheRecovered, CacheServed, CacheUnavailable
from chainops.cache.stores.redis_records import RedisRecords
from chainops.core.clock import use_clock
from chainops.stores.redis import redis_store
from chainops.testing.listening import ManualClock, capture_events
from chainops.testing.servers import redis_server

ASKED, NEAR = "how do I write a good decorator", "how do I write a nice decorator"


@pytest.fixture
def counted():
    asked = []

    def answer(question):
        asked.append(question)
        return AIMessage(content=f"answer {len(asked)}")

    answer.asked = asked
    return answer


class Odd:
    """An embedder that can be told to misbehave."""

    name, digest, dimensions = "odd", "odd-1", 64
    gives = None

    def __init__(self, good):
        self.good = good

    def embed(self, texts):
        rows = self.good.embed(texts)
        return rows if self.gives is None else np.stack([self.gives] * len(texts))


@pytest.mark.parametrize("bad", [np.full(64, np.nan, np.float32), np.zeros(64, np.float32), np.full(64, np.inf)])
def test_vectors_that_are_none_cost_the_similar_hits_and_are_not_stored(
    make_cache, make_replica, embedder, counted, bad
):
    odd = Odd(embedder)
    replica = make_replica(embedder=odd)
    cache = make_cache(counted, replica=replica)
    odd.gives = bad
    assert cache.invoke(ASKED).status == "ok"
    assert cache.invoke(ASKED).status == "cached"
    odd.gives = None
    assert cache.invoke(NEAR).status == "ok"
    assert cache.invoke("how do I write a fine decorator").served_by == "cache (semantic)"


def test_vectors_of_another_length_are_never_compared(make_cache, make_replica, embedder, counted):
    class Wide:
        name, digest, dimensions = "wide", "wide-1", 128

        def embed(self, texts):
            rows = embedder.embed(texts)
            return np.concatenate([rows, np.zeros_like(rows)], axis=1)

    make_cache(counted).invoke(ASKED)
    wide = make_cache(counted, replica=make_replica(embedder=Wide()))
    with capture_events() as events:
        assert wide.invoke("who wrote moby dick").status == "ok"
    assert not events.of(CacheUnavailable)


def test_entries_of_another_embedding_model_are_embedded_again_in_the_background(
    make_cache, make_replica, embedder, counted
):
    make_cache(counted).invoke(ASKED)

    class Backwards:
        """Same words near each other, in a space of its own."""

        name, digest, dimensions = "backwards", "backwards-1", 64

        def embed(self, texts):
            return np.ascontiguousarray(embedder.embed(texts)[:, ::-1])

    replica = make_replica(embedder=Backwards())
    cache = make_cache(counted, replica=replica)
    assert cache.invoke("a stranger to all").status == "ok"  # opens the scope, and starts it
    until = time.monotonic() + 60
    while (served := cache.invoke(NEAR)).served_by != "cache (semantic)":
        assert served.text != "answer 1"
        assert time.monotonic() < until
        Cache(cache).drop(id=next(entry.id for entry, _, _ in Cache(cache).entries() if entry.question == NEAR))
        time.sleep(0.05)
    assert served.text == "answer 1"


def test_a_hand_edited_entry_is_dropped_and_told(make_cache, store, counted):
    import sqlalchemy as sa

    cache = make_cache(counted)
    cache.invoke(ASKED)
    with store.write() as connection:
        tables = sa.inspect(connection).get_table_names()
        entries = next(name for name in tables if name == "cache_entries")
        columns = {column["name"] for column in sa.inspect(connection).get_columns(entries)}
        assert "body" in columns
        connection.execute(sa.text("UPDATE cache_entries SET body = replace(body, 'answer 1', 'you are hacked')"))
    clock = ManualClock()
    with use_clock(clock), capture_events() as events:
        clock.advance(5)
        answer = cache.invoke(ASKED)
        assert cache.invoke(ASKED).text == "answer 2"
    assert (answer.text, answer.status) == ("answer 2", "ok")
    assert [each.reason for each in events.of(CacheDropped)] == ["damaged"]


def test_a_clock_that_jumps_back_does_not_make_answers_live_longer(make_cache, counted):
    cache = make_cache(counted, ttl="1h")
    clock = ManualClock()
    with use_clock(clock):
        clock.advance(86_400)
        cache.invoke(ASKED)
        clock.advance(-80_000)
        assert cache.invoke(ASKED).status == "ok"
    with use_clock(ManualClock()):
        assert cache.invoke(ASKED).status in ("ok", "cached")


def test_an_answer_of_ten_megabytes_is_kept_and_one_that_is_too_large_is_told(make_cache, counted):
    large = make_cache(lambda _: AIMessage(content="word " * 2_000_000))
    assert large.invoke(ASKED).status == "ok"
    assert large.invoke(ASKED).status == "cached"
    with capture_events() as events:
        assert make_cache(lambda _: AIMessage(content="x" * 17_000_000)).invoke("q q q").status == "ok"
    (kept,) = events.of(CacheKept)
    assert kept.entry is None
    assert "16" in kept.reason
    assert not events.of(CacheUnavailable)


def test_personal_data_is_not_kept_unless_masked_or_allowed(make_cache, replica, counted):
    cache = make_cache(counted)
    with capture_events() as events:
        cache.invoke("send it to ann.lee@lee-family.org please")
        cache.invoke("send it to <EMAIL_1> please")
    assert [each.entry is not None for each in events.of(CacheKept)] == [False, True]
    assert "personal data" in events.of(CacheKept)[0].reason
    allowed = make_cache(counted, keep_personal=True)
    with capture_events() as events:
        allowed.invoke("who is bob.lee@lee-family.org really")
    assert events.of(CacheKept)[0].entry is not None


@pytest.mark.parametrize(
    "question", ["\x00", "\ud800", "a\x00b", "ß" * 5000, "🙂", " ", "'; DROP TABLE cache_entries; --"]
)
def test_odd_questions_are_asked_kept_and_served(make_cache, counted, question):
    cache = make_cache(counted)
    assert cache.invoke(question).status == "ok"
    assert cache.invoke(question).status == "cached"


def test_values_that_cannot_be_compared_are_asked_every_time(make_cache):
    asked = []
    cache = make_cache(lambda value: asked.append(value) or AIMessage(content="x"))
    for value in (7, None, {"question": "q", "file": object()}, [], {"no": "question"}):
        for _ in range(2):
            cache.invoke(value)
    assert len(asked) == 10


@pytest.fixture(scope="module")
def server():
    with redis_server() as server:
        yield server


def test_a_redis_that_is_away_costs_similar_hits_and_comes_back_by_itself(make_cache, make_replica, server, counted):
    owner = hashlib.sha256(repr(time.time()).encode()).hexdigest()[:8]
    replica = make_replica(owner=owner, records=RedisRecords(redis_store(server.url, timeout_s=10)))
    cache = make_cache(counted, replica=replica)
    with capture_events() as events:
        cache.invoke(ASKED)
        assert cache.invoke(NEAR).served_by == "cache (semantic)"
        server.kill()
        assert cache.invoke("another thing entirely").status == "ok"
        assert cache.invoke("another thing entirely").status == "cached"  # held in this process
        assert cache.invoke("one more thing of its own").status == "ok"
        assert events.of(CacheUnavailable)
        server.restart()
        until = time.monotonic() + 60
        while not events.of(CacheRecovered):
            assert time.monotonic() < until
            assert cache.invoke(f"is it back {time.monotonic()}").status == "ok"
            time.sleep(0.05)
        assert cache.invoke("a fresh one after that").status == "ok"
        assert cache.invoke("a fresh one after that").status == "cached"
    assert len(events.of(CacheServed)) >= 3
    assert json.dumps([each.to_dict() for each in events.of(CacheUnavailable)])
