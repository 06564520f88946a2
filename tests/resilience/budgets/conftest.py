from collections.abc import Iterator
from dataclasses import replace

import pytest

from chainops.resilience.budgets.books import Books
from chainops.resilience.budgets.policy import Amount, BudgetSettings, windows
from chainops.resilience.budgets.records import Hold, Spend
from chainops.resilience.budgets.redis_counters import RedisCounters
from chainops.resilience.budgets.sql_counters import SqlCounters
from chainops.resilience.budgets.sql_ledger import SqlLedger
from chainops.stores.redis import redis_store
from chainops.stores.sql import SqlStore
from chainops.testing.servers import postgres_database, postgres_server, redis_server

NOW = 1_700_000_000.0


@pytest.fixture(scope="session")
def redis() -> Iterator[object]:
    with redis_server() as server:
        yield server


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    with postgres_server() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql", "redis"])
def place(request, tmp_path) -> Iterator[tuple[str, str]]:
    """Where the totals are, and where the list of calls is."""
    sqlite = f"sqlite:///{tmp_path}/budgets.db"
    if request.param == "postgresql":
        with postgres_database(request.getfixturevalue("postgres")) as url:
            yield url, url
    elif request.param == "redis":
        server = request.getfixturevalue("redis")
        with redis_store(server.url, timeout_s=30).client() as client:
            client.flushall()
        yield server.url, sqlite
    else:
        yield sqlite, sqlite


@pytest.fixture
def open_counters():
    def counters(url):
        return RedisCounters(redis_store(url, timeout_s=30)) if url.startswith("redis") else SqlCounters(SqlStore(url))

    return counters


@pytest.fixture
def counters(place, open_counters):
    return open_counters(place[0])


@pytest.fixture
def store(tmp_path) -> Iterator[SqlStore]:
    store = SqlStore(tmp_path / "budgets.db")
    yield store
    store.close()


@pytest.fixture
def books(store) -> Books:
    return Books(SqlCounters(store), SqlLedger(store))


@pytest.fixture
def make_hold():
    """A call about to be made, in the windows of `settings`."""

    def make(name="h1", *, usd=0.0, tokens=0, settings=None, at=NOW, budget="b", key="k", **facts):
        concerned = windows(settings or BudgetSettings(usd_per_day=5), at)
        call = Spend(
            id=name,
            at=at,
            chain="help",
            user="ann",
            tenant="acme",
            feature=None,
            model="openai:m",
            key_name=None,
            purpose="answer",
            outcome="lost",
            input_tokens=tokens,
            output_tokens=0,
            cached_tokens=0,
            usd=usd,
            request="r1",
        )
        amount = Amount(round(usd * 1e9), tokens)
        return Hold(name, budget, key, tuple(each.id for each in concerned), amount, replace(call, **facts)), concerned

    return make
