from collections.abc import Iterator

import pytest

from chainops.testing.servers import postgres_database, postgres_server


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    with postgres_server() as url:
        yield url


@pytest.fixture
def postgres_url(postgres) -> Iterator[str]:
    with postgres_database(postgres) as url:
        yield url
