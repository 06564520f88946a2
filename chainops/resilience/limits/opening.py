"""Open the place where a limit is counted: one keeper per place and process."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from chainops.resilience.limits.keeper import Keeper

if TYPE_CHECKING:
    from pathlib import Path

_WAIT_S = 1.0
"""How long a lock of the database is waited for, until the process goes on alone."""

_keepers: dict[str, Keeper] = {}
_opening = threading.Lock()


def open_keeper(place: str | Path) -> Keeper:
    """Talks to the store at a URL or file; the same object for the same place, within this process.

    Args:
        place: `redis://…`, `rediss://…`, `unix://…`, `postgresql://…`, `sqlite:///…`, or a `.db` file.

    Raises:
        InvalidInput: The URL is none of those.
        MissingExtra: PostgreSQL without psycopg.
    """
    with _opening:
        keeper = _keepers.get(str(place))
        if keeper is None:
            keeper = _keepers[str(place)] = _open(place)
        return keeper


def _open(place: str | Path) -> Keeper:
    if str(place).startswith(("redis://", "rediss://", "unix://")):
        from chainops.resilience.limits.redis_bank import RedisBank
        from chainops.stores.redis import redis_store

        return Keeper(RedisBank(redis_store(str(place))))
    from chainops.resilience.limits.sql_bank import SqlBank
    from chainops.stores.sql import SqlStore

    return Keeper(SqlBank(SqlStore(place, wait_s=_WAIT_S)))
