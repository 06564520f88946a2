from collections.abc import Iterator

import pytest

from chainops.resilience.breaker.redis_circuits import RedisCircuits
from chainops.resilience.breaker.sql_circuits import SqlCircuits
from chainops.stores.redis import redis_store
from chainops.stores.sql import SqlStore
from chainops.testing.servers import postgres_database, postgres_server, redis_server


@pytest.fixture(scope="session")
def redis() -> Iterator[object]:
    with redis_server() as server:
        yield server


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    with postgres_server() as url:
        yield url


@pytest.fixture(params=["sqlite", "redis"])
def url(request, tmp_path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/circuits.db"
    server = request.getfixturevalue("redis")
    with redis_store(server.url, timeout_s=30).client() as client:
        client.flushall()
    return server.url


@pytest.fixture
def open_circuits():
    """As another process would open them."""

    def circuits(url):
        return RedisCircuits(redis_store(url, timeout_s=30)) if url.startswith("redis") else SqlCircuits(SqlStore(url))

    return circuits


@pytest.fixture(params=["sqlite", "postgresql", "redis"])
def circuits(request, tmp_path, open_circuits):
    if request.param == "postgresql":
        with postgres_database(request.getfixturevalue("postgres")) as url:
            yield open_circuits(url)
    elif request.param == "redis":
        server = request.getfixturevalue("redis")
        with redis_store(server.url, timeout_s=30).client() as client:
            client.flushall()
        yield open_circuits(server.url)
    else:
        yield open_circuits(f"sqlite:///{tmp_path}/circuits.db")
