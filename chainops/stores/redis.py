"""Connections to a Redis server (6.2 or newer), with its errors told as store errors."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from chainops.core.errors import InvalidInput, StoreError, StoreUnavailable

if TYPE_CHECKING:
    from redis import Redis
    from redis.commands.core import Script

_EXPECTED = "redis://user:password@host:6379/0, rediss://... or unix:///path/to/socket"
_CONNECTIONS = 32
_BROKEN = "repeat the request, or check that the server is up and the URL is right"

# First words of what the server says (https://redis.io/docs, "error replies") -> (error, problem, next move).
# Errors inside scripts carry the word further back.
_REPLIES: dict[str, tuple[type[StoreError], str, str]] = {
    "NOAUTH": (StoreUnavailable, "the server wants a password", "set REDIS_PASSWORD, or put it into the URL"),
    "WRONGPASS": (StoreUnavailable, "the server refused the login", "check the URL, or REDIS_USERNAME and _PASSWORD"),
    "NOPERM": (StoreUnavailable, "the user lacks a permission", "grant it (ACL SETUSER), or connect as another user"),
    "LOADING": (StoreUnavailable, "the server is loading its data", "repeat the request in a moment"),
    "READONLY": (StoreUnavailable, "the server is a replica that only reads", "connect to the primary"),
    "OOM": (StoreUnavailable, "the server's memory limit is reached", "raise maxmemory, or lower the limits"),
    "MISCONF": (StoreUnavailable, "the server cannot save to its disk", "free some space, or see the server's log"),
    "BUSY": (StoreUnavailable, "the server is busy with a script", "repeat the request"),
    "MASTERDOWN": (StoreUnavailable, "the replica has lost its primary", "repeat the request, or use the primary"),
    "CLUSTERDOWN": (StoreUnavailable, "the cluster is down", "see the state of its nodes"),
    "NOREPLICAS": (StoreUnavailable, "too few replicas take part", "repeat the request, or start them"),
    "MOVED": (StoreError, "this node of a cluster does not hold our keys", "connect to the one that it names"),
    "CROSSSLOT": (StoreError, "this is a cluster and the keys lie apart", "report it: keys should share a hash tag"),
    "WRONGTYPE": (StoreError, "a key holds something of another kind", "use another database number, or remove it"),
}
_REPLY = re.compile(r"(?:^|-|\s)(" + "|".join(_REPLIES) + r")\b")


class RedisStore:
    """A pool of connections to one server, for many threads. Nothing is opened before it is first used.

    Nothing is tried twice: who calls knows whether that is worth the time. A server that comes back is used again.

    Args:
        url: `redis://`, `rediss://` (TLS) or `unix://`. Without a password in it, REDIS_USERNAME and REDIS_PASSWORD
            are read from the environment.
        timeout_s: How long a connection, an answer, or a free connection is waited for, in seconds.

    Raises:
        InvalidInput: The URL is not one of those. The message never shows it, for it may hold a password.
    """

    def __init__(self, url: str, *, timeout_s: float = 0.25) -> None:
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        self.place = _place(url)
        """Server and database, without user and password: for messages."""
        self.url = url
        """With its password: for opening the same store elsewhere, never for showing."""
        self.timeout_s = timeout_s
        try:
            pool = redis.BlockingConnectionPool.from_url(
                url,
                max_connections=_CONNECTIONS,
                timeout=timeout_s,
                socket_timeout=timeout_s,
                socket_connect_timeout=timeout_s,
                retry=Retry(NoBackoff(), 0),
                protocol=2,
                username=os.environ.get("REDIS_USERNAME"),
                password=os.environ.get("REDIS_PASSWORD"),
            )
        except (ValueError, TypeError):
            raise InvalidInput("store URL", "something that is no Redis URL", _EXPECTED) from None
        self._client = redis.Redis(connection_pool=pool)
        self._failures = (redis.RedisError, OSError)

    def __repr__(self) -> str:
        return f"RedisStore({self.place!r})"

    @contextmanager
    def client(self) -> Iterator[Redis]:
        """The client, inside a block whose failures are told as store errors. Replies are bytes.

        Raises:
            StoreUnavailable: No server, no answer in time, no login, no memory, loading or read-only.
            StoreError: The server refused what was asked.
        """
        try:
            yield self._client
        except self._failures as error:
            raise self._told(error) from error

    def script(self, source: str) -> Script:
        """A script to call with `run`. The server gets its text only where it does not know it yet."""
        return self._client.register_script(source)

    def run(self, script: Script, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        """Run a script: all of it happens, or nothing.

        Raises:
            StoreUnavailable: As for `client`. When an answer did not come in time, it may have happened.
            StoreError: The script failed.
        """
        try:
            return script(keys, arguments)
        except self._failures as error:
            raise self._told(error) from error

    def close(self) -> None:
        """Close all connections. The store opens new ones if it is used again."""
        self._client.connection_pool.disconnect()

    def _told(self, error: BaseException) -> StoreError:
        import redis

        said = str(error).strip().partition("\n")[0][:200] or type(error).__name__
        if isinstance(error, redis.exceptions.MaxConnectionsError) or "No connection available" in said:
            return StoreUnavailable(
                self.place, "all connections are in use", "repeat the request, or send fewer at once"
            )
        if "Authentication required" in said:
            return self._named("NOAUTH", said)
        for kind, reply in (
            (redis.exceptions.AuthenticationError, "WRONGPASS"),
            (redis.exceptions.NoPermissionError, "NOPERM"),
            (redis.exceptions.BusyLoadingError, "LOADING"),
            (redis.exceptions.ReadOnlyError, "READONLY"),
            (redis.exceptions.OutOfMemoryError, "OOM"),
        ):
            if isinstance(error, kind):
                return self._named(reply, said)
        if isinstance(error, redis.exceptions.TimeoutError | TimeoutError):
            return StoreUnavailable(self.place, f"no answer within {self.timeout_s:g} s", _BROKEN)
        if isinstance(error, redis.exceptions.ConnectionError | OSError):
            return StoreUnavailable(self.place, f"it cannot be reached ({said})", _BROKEN)
        found = _REPLY.search(said)
        if found is not None:
            return self._named(found[1], said)
        return StoreError(self.place, f"the server refused it ({said})", "see the server's log")

    def _named(self, reply: str, said: str) -> StoreError:
        kind, problem, next_move = _REPLIES[reply]
        return kind(self.place, f"{problem} ({said})", next_move)


def redis_store(url: str, *, timeout_s: float = 0.25) -> RedisStore:
    """The store at a URL. See `RedisStore`."""
    return RedisStore(url, timeout_s=timeout_s)


def _place(url: str) -> str:
    try:
        parts = urlsplit(url)
        port = parts.port or 6379
    except (ValueError, AttributeError):
        raise InvalidInput("store URL", "something that is no Redis URL", _EXPECTED) from None
    if parts.scheme == "unix":
        return f"unix://{parts.path}"
    if parts.scheme not in {"redis", "rediss"}:
        raise InvalidInput("store URL", f"{parts.scheme or 'no scheme'}://", _EXPECTED)
    return f"{parts.scheme}://{parts.hostname or 'localhost'}:{port}/{parts.path.strip('/') or '0'}"
