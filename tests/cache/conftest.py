from __future__ import annotations

import inspect

import pytest
from langchain_tests.integration_tests import AsyncCacheTestSuite

from chainops.cache.compare import Auto
from chainops.cache.component import SemanticCache
from chainops.cache.judge import Judge
from chainops.cache.prose import Prose
from chainops.cache.replica import Replica
from chainops.cache.settings import CacheSettings
from chainops.cache.sharing.flight import Flights
from chainops.cache.stores.sql_records import SqlRecords
from chainops.core.background import Background
from chainops.stores.sql import SqlStore
from chainops.testing.embedding import WordVectors

for _name, _test in inspect.getmembers(AsyncCacheTestSuite, inspect.iscoroutinefunction):
    if _name.startswith("test_"):  # LangChain's suite leaves it to the plugin's mode
        pytest.mark.asyncio(_test)


@pytest.fixture
def embedder():
    return WordVectors()


@pytest.fixture
def store(tmp_path):
    store = SqlStore(tmp_path / "cache.db")
    yield store
    store.close()


@pytest.fixture
def make_replica(store, embedder):
    """A replica as another process would open it: its own memory, the same store."""

    def make(*, embedder=embedder, owner="cache", bound=0.01, folder=None, records=None):
        return Replica(records or SqlRecords(store), lambda: embedder, owner=owner, judge=Judge(bound), folder=folder)

    return make


@pytest.fixture
def replica(make_replica):
    return make_replica()


@pytest.fixture
def make_cache(replica, embedder):
    def make(inner, *, replica=replica, answered_by=str, flights=None, sources=None, **settings):
        return SemanticCache(
            inner=inner,
            replica=lambda: replica,
            answered_by=answered_by,
            settings=CacheSettings(**({"threshold": 0.8, "audit_rate": 0} | settings)),
            comparer=lambda: Auto(Prose(embedder.embed)),
            sources=sources,
            flights=Flights() if flights is None else flights,
            background=Background("audits", waiting_at_most=256),
        )

    return make
