"""Circuits in Redis: one key for each route that was opened of late."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from chainops.core.errors import StoreUnavailable
from chainops.resilience.breaker.policy import Route
from chainops.resilience.breaker.records import of_text, to_text

if TYPE_CHECKING:
    from chainops.stores.redis import RedisStore

PREFIX = "{chainops-breaker}:"
_KEPT_S = 7 * 86_400
_TRIES = 50


class RedisCircuits:
    """`Circuits` on a server. A change is made only if nobody made another since what it rests on was read."""

    def __init__(self, store: RedisStore) -> None:
        self.place = store.place
        self._store = store

    def look(self, route: str) -> Route:
        with self._store.client() as client:
            told: Any = client.get(PREFIX + route)
        return of_text(told)

    def change(self, route: str, change: Callable[[Route], Route]) -> Route:
        from redis import WatchError

        key = PREFIX + route
        with self._store.client() as client, client.pipeline() as pipe:
            for _ in range(_TRIES):
                try:
                    pipe.watch(key)  # type: ignore[no-untyped-call]
                    told: Any = pipe.get(key)  # while watching it answers at once
                    before = of_text(told)
                    after = change(before)
                    if after == before:
                        pipe.unwatch()
                        return after
                    pipe.multi()
                    pipe.set(key, to_text(after), ex=_KEPT_S)
                    pipe.execute()
                except WatchError:
                    continue
                return after
        raise StoreUnavailable(self.place, f"{route} is being changed all the time", "repeat the request")
