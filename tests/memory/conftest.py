from collections.abc import Iterator

import pytest

from chainops.stores.sql import SqlStore
from chainops.testing.servers import postgres_database, postgres_server


@pytest.fixture(scope="session")
def sqlite_store(tmp_path_factory) -> Iterator[SqlStore]:
    store = SqlStore(tmp_path_factory.mktemp("memory") / "chainops.db")
    yield store
    store.close()


@pytest.fixture(scope="session")
def postgres_store() -> Iterator[SqlStore]:
    with postgres_server() as server, postgres_database(server) as url:
        store = SqlStore(url)
        yield store
        store.close()


@pytest.fixture(scope="session", params=["sqlite", "postgres"])
def store(request) -> SqlStore:
    """Shared by all tests: each takes names of its own, as real tenants do."""
    return request.getfixturevalue(f"{request.param}_store")
