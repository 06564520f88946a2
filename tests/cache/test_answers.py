"""LangChain's cache interface on the real thing: its suites, and the decisions behind it."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest
from langchain_core.messages import AIMessage
from langchain_tests.integration_tests.cache import AsyncCacheTestSuite, SyncCacheTestSuite

from chainops.cache import LLMCache
from chainops.cache.answers import StoredAnswers
from chainops.cache.compare import Auto
from chainops.cache.prose import Prose
from chainops.cache.settings import CacheSettings
from chainops.cache.stores.redis_records import RedisRecords
from chainops.stores.redis import redis_store
from chainops.testing.chat import ScriptedChatModel
from chainops.testing.servers import redis_server


@pytest.fixture
def make_answers(make_replica, embedder):
    def make(*, records=None, tenant=None, **settings):
        told = CacheSettings(**({"threshold": 0.8, "audit_rate": 0} | settings))
        replica = make_replica(records=records, owner=uuid4().hex, bound=told.bound)
        return StoredAnswers(replica, told, Auto(Prose(embedder.embed)), tenant=tenant)

    return make


class TestSync(SyncCacheTestSuite):
    @pytest.fixture
    def cache(self, make_answers):
        return LLMCache(make_answers())


class TestAsync(AsyncCacheTestSuite):
    @pytest.fixture
    def cache(self, make_answers):
        return LLMCache(make_answers())


class TestOnRedis(SyncCacheTestSuite):
    @pytest.fixture(scope="class")
    def server(self):
        with redis_server() as server:
            yield server

    @pytest.fixture
    def cache(self, make_answers, server):
        return LLMCache(make_answers(records=RedisRecords(redis_store(server.url, timeout_s=10))))


def test_a_model_with_this_cache_is_asked_once_for_equal_and_similar_questions(make_answers):
    chat = ScriptedChatModel(replies=["one", "two", "three"], cache=LLMCache(make_answers()))
    asked = "how do I write a good decorator"
    assert [chat.invoke(asked).text, chat.invoke(asked).text] == ["one", "one"]
    assert chat.invoke("how do I write a nice decorator").text == "one"
    assert asyncio.run(chat.ainvoke("who wrote moby dick")).text == "two"


def test_tenants_with_a_cache_each_share_nothing(make_answers):
    one, other = (LLMCache(make_answers(tenant=tenant)) for tenant in ("acme", "globex"))
    chat = ScriptedChatModel(replies=["one", "two"])
    assert chat.model_copy(update={"cache": one}).invoke("q").text == "one"
    assert chat.model_copy(update={"cache": other}).invoke("q").text == "two"


def test_a_hit_that_is_drawn_for_an_audit_is_asked_and_teaches(make_answers):
    answers = make_answers(audit_rate=1)
    chat = ScriptedChatModel(replies=["yes", "no"], cache=LLMCache(answers))
    assert chat.invoke("how do I write a good decorator").text == "yes"
    assert chat.invoke("how do I write a nice decorator").text == "no"
    answers._replica.learn()
    standing = answers._replica.judge.standing()
    assert (standing.audits, standing.wrong) == (1, 1)


def test_personal_data_is_not_kept(make_answers):
    chat = ScriptedChatModel(
        replies=[AIMessage("write to ann@lee-family.org"), "a stand-in"], cache=LLMCache(make_answers())
    )
    assert [chat.invoke("who").text, chat.invoke("who").text] == ["write to ann@lee-family.org", "a stand-in"]


def test_it_opens_where_state_is_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("CHAINOPS_HOME", str(tmp_path))
    cache = LLMCache.open(threshold=1)
    chat = ScriptedChatModel(replies=["one", "two"], cache=cache)
    assert [chat.invoke("q").text, chat.invoke("q").text] == ["one", "one"]
    again = ScriptedChatModel(replies=["other"], cache=LLMCache.open(threshold=1))
    assert again.invoke("q").text == "one"
    assert (tmp_path / "chainops.db").exists()
