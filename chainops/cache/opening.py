"""Open what a cache is made of, from words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from chainops.cache.settings import CacheSettings
from chainops.core.settings import home

if TYPE_CHECKING:
    from chainops.cache.compare import Comparer
    from chainops.cache.records import CacheStore
    from chainops.cache.replica import Replica
    from chainops.models.embeddings import Embedder

WAIT_S = 0.25
"""How long the cache waits for its database: a cache that has to wait is no help."""
_REDIS = ("redis", "rediss", "unix")


def open_records(place: str | Path | None) -> CacheStore:
    """The store at a URL (`redis://`, `sqlite:///`, `postgresql://`), or in a file or folder; None: where state is
    kept. Nothing is connected to before it is used.

    Raises:
        InvalidInput: A URL that is none of those.
    """
    if isinstance(place, str) and place.partition("://")[0] in _REDIS:
        from chainops.cache.stores.redis_records import RedisRecords
        from chainops.stores.redis import redis_store

        return RedisRecords(redis_store(place))
    from chainops.cache.stores.sql_records import SqlRecords
    from chainops.stores.sql import SqlStore, open_store

    return SqlRecords(SqlStore(open_store(place).url, wait_s=WAIT_S))


def open_replica(
    settings: CacheSettings,
    embedder: Callable[[], Embedder],
    *,
    owner: str,
    place: str | Path | None = None,
    folder: Path | None = None,
) -> Replica:
    """What this process holds of a cache.

    Args:
        place: Of the store, where the settings name none.
        folder: For snapshots; None: `cache/` where state is kept.
    """
    from chainops.cache.judge import Judge
    from chainops.cache.replica import Replica

    return Replica(
        open_records(settings.store or place),
        embedder,
        owner=owner,
        judge=Judge(settings.bound, audit_rate=settings.audit_rate),
        folder=folder or home() / "cache",
    )


def open_comparer(settings: CacheSettings, embedder: Callable[[], Embedder]) -> Comparer:
    """What decides whether two answers say the same, where no model is asked."""
    from chainops.cache.compare import Auto, Exact
    from chainops.cache.prose import Prose

    return Exact() if settings.compare == "exact" else Auto(Prose(lambda texts: embedder().embed(texts)))
