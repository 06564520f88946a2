"""Cache entries on SQLite and on PostgreSQL."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from langchain_core.messages import AIMessage

import chainops
from chainops.cache.component import SemanticCache
from chainops.cache.records import CacheRecords, Entry
from chainops.cache.replica import Replica
from chainops.core.component import Component
from chainops.core.steps import Say
from chainops.stores.sql import SqlStore
from chainops.testing.servers import postgres_database, postgres_server


@pytest.fixture(scope="module")
def postgres():
    with postgres_server() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def records(request, tmp_path):
    if request.param == "sqlite":
        store = SqlStore(tmp_path / "cache.db")
        yield CacheRecords(store)
        store.close()
        return
    with postgres_database(request.getfixturevalue("postgres")) as url:
        store = SqlStore(url)
        yield CacheRecords(store)
        store.close()


def entry(name, *, scope="s", at=1000.0, text="answer"):
    return Entry(
        id=name, scope=scope, exact=name, question=name, message={"text": text}, facts={}, cost_usd=0.5, created_at=at
    )


def put(records, what, *, owner="o", keep=None, alive_since=None, vector=None):
    records.put(what, vector, owner=owner, keep=keep, alive_since=alive_since)


def test_what_is_put_is_found_whole(records):
    odd = entry("q", text="half a pair \ud800, nothing \x00, and \U0001f600")
    put(records, odd)
    assert records.get("q") == odd
    assert records.exact("s", "q") == odd
    assert records.exact("other", "q") is None


def test_vectors_come_back_in_order_after_a_number(records):
    for name in "abc":
        put(records, entry(name), vector=np.full(3, ord(name), dtype=np.float32))
    put(records, entry("no vector"))
    rows = records.vectors_after("s", 0)
    assert [row[1] for row in rows] == ["a", "b", "c"]
    assert np.frombuffer(rows[2][2], dtype="<f4").tolist() == [99.0, 99.0, 99.0]
    assert [row[1] for row in records.vectors_after("s", rows[1][0])] == ["c"]


def test_limits_count_per_owner_and_the_oldest_go(records):
    for number in range(5):
        put(records, entry(f"a{number}"), owner="a", keep=3)
        put(records, entry(f"b{number}"), owner="b", keep=None)
    assert [name for name in ("a0", "a1", "a2", "a3", "a4") if records.get(name)] == ["a2", "a3", "a4"]
    assert all(records.get(f"b{number}") for number in range(5))


def test_what_is_too_old_goes_when_something_is_kept(records):
    for name, at in (("old", 10.0), ("young", 30.0)):
        put(records, entry(name, at=at))
    put(records, entry("elsewhere", scope="t", at=10.0))
    put(records, entry("new", at=40.0), alive_since=20.0)
    assert [name for name in ("old", "young", "elsewhere", "new") if records.get(name)] == ["young", "elsewhere", "new"]


class Inner(Component[str, AIMessage]):
    def plan(self, value, run):
        message = AIMessage(content=f"about {value}")
        yield Say(message)
        return message


def test_many_who_miss_the_same_question_at_once_are_all_answered(records, embedder):
    replica = Replica(records, lambda: embedder)
    cache = SemanticCache(inner=Inner(), replica=lambda: replica, answered_by=str)
    questions = [f"question {number}" for number in range(6)] * 6
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda question: cache.invoke(question, chainops.caller(tenant="t")), questions))
    assert all(answer.status in ("ok", "cached") for answer in answers)
    assert records.count() == 6
