"""HTTP clients for OpenAI's SDK that keep a promise httpx does not make: time ends.

A read timeout counts from byte to byte, so an answer that drips never times out. Here the timeout
of a request bounds a plain answer as a whole, and the wait for each event of a stream. And one
asynchronous client may be used from many event loops: httpx's own breaks with "Event loop is
closed" in the second `asyncio.run`. Error bodies lose the key they may quote before anybody reads
them, so that no exception, callback or trace can hold it. All share one pool of connections; whoever wants to
hear the headers of a model's answers gets thin clients of its own before it (`listening_clients`).
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from functools import cache
from typing import Any, Protocol
from weakref import WeakKeyDictionary


class Listener(Protocol):
    """Hears what a server says beside its answers. Must not raise or block."""

    def sending(self) -> Any:
        """A request is about to be sent. What it gives comes back with the answer."""

    def heard(self, sent: Any, headers: Mapping[str, str]) -> None:
        """The headers of an answer, also of an error and at the beginning of a stream."""


class _Patience:
    """Counts the time of one answer."""

    def __init__(self, request: Any, response: Any, started: float) -> None:
        timeouts = request.extensions.get("timeout") or {}
        self._limit_s: float | None = timeouts.get("read")
        self._since = started
        self._is_stream = str(response.headers.get("content-type", "")).startswith("text/event-stream")
        self._tail = b""

    def is_over(self, data: bytes) -> bool:
        """Take note of bytes that came; whether the time has run out."""
        now = time.monotonic()
        if self._is_stream:
            # Comments such as ": keep-alive" are no progress, only events are.
            seen = self._tail + data
            self._tail = seen[-4:]
            if b"data:" in seen:
                self._since = now
        return self._limit_s is not None and now - self._since > self._limit_s


@cache
def sync_client() -> Any:
    """The one `httpx.Client` of this process for OpenAI-compatible servers. Thread-safe, honours proxies."""
    import openai

    httpx = _httpx()

    class Bounded(httpx.SyncByteStream):  # type: ignore[misc, name-defined, unused-ignore]
        def __init__(self, inner: Any, patience: _Patience, request: Any) -> None:
            self._inner, self._patience, self._request = inner, patience, request

        def __iter__(self) -> Iterator[bytes]:
            for data in self._inner:
                if self._patience.is_over(data):
                    raise httpx.ReadTimeout("the answer drips", request=self._request)
                yield data

        def close(self) -> None:
            self._inner.close()

    class Client(openai.DefaultHttpxClient):
        def send(self, request: Any, *, stream: bool = False, **options: Any) -> Any:
            started = time.monotonic()
            response = super().send(request, stream=True, **options)
            response.stream = Bounded(response.stream, _Patience(request, response, started), request)
            if response.status_code >= 400 or not stream:
                _read(response)
                response = _without_key(response, httpx)
            return response

    return Client(verify=_tls())


def _read(response: Any) -> None:
    try:
        response.read()
    except BaseException:
        response.close()
        raise


@cache
def async_client() -> Any:
    """The one `httpx.AsyncClient` of this process; inside, one per event loop."""
    import openai

    httpx = _httpx()

    class Bounded(httpx.AsyncByteStream):  # type: ignore[misc, name-defined, unused-ignore]
        def __init__(self, inner: Any, patience: _Patience, request: Any) -> None:
            self._inner, self._patience, self._request = inner, patience, request

        async def __aiter__(self) -> AsyncIterator[bytes]:
            async for data in self._inner:
                if self._patience.is_over(data):
                    raise httpx.ReadTimeout("the answer drips", request=self._request)
                yield data

        async def aclose(self) -> None:
            await self._inner.aclose()

    class Client(openai.DefaultAsyncHttpxClient):
        def __init__(self) -> None:
            super().__init__(verify=_tls())
            self._per_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, Any] = WeakKeyDictionary()
            self._lock = threading.Lock()

        def _of_this_loop(self) -> Any:
            loop = asyncio.get_running_loop()
            with self._lock:
                if loop not in self._per_loop:
                    # Open connections refer to their loop, so weak keys alone would keep dead loops alive.
                    for other in [other for other in self._per_loop if other.is_closed()]:
                        del self._per_loop[other]
                    self._per_loop[loop] = openai.DefaultAsyncHttpxClient(verify=_tls())
                return self._per_loop[loop]

        async def send(self, request: Any, *, stream: bool = False, **options: Any) -> Any:
            started = time.monotonic()
            response = await self._of_this_loop().send(request, stream=True, **options)
            response.stream = Bounded(response.stream, _Patience(request, response, started), request)
            if response.status_code >= 400 or not stream:
                await _aread(response)
                response = _without_key(response, httpx)
            return response

    return Client()


def listening_clients(listener: Listener) -> tuple[Any, Any]:
    """A sync and an async client that send through those of the process, and tell of the headers."""
    import openai

    httpx = _httpx()

    class Client(openai.DefaultHttpxClient):
        def send(self, request: Any, *, stream: bool = False, **options: Any) -> Any:
            sent = listener.sending()
            response = sync_client().send(request, stream=stream, **options)
            listener.heard(sent, response.headers)
            return response

    class AsyncClient(openai.DefaultAsyncHttpxClient):
        async def send(self, request: Any, *, stream: bool = False, **options: Any) -> Any:
            sent = listener.sending()
            response = await async_client().send(request, stream=stream, **options)
            listener.heard(sent, response.headers)
            return response

    # A transport that is never used: making a real one would open a pool of connections.
    return Client(transport=httpx.BaseTransport()), AsyncClient(transport=httpx.AsyncBaseTransport())


async def _aread(response: Any) -> None:
    try:
        await response.aread()
    except BaseException:
        await response.aclose()
        raise


def _without_key(response: Any, httpx: Any) -> Any:
    """The same response, read, without the key that its request carried."""
    key = response.request.headers.get("authorization", "").removeprefix("Bearer ").strip().encode()
    if len(key) < 6 or key not in response.content:
        return response
    headers = [(k, v) for k, v in response.headers.multi_items() if k not in {"content-encoding", "content-length"}]
    content = response.content.replace(key, b"[key]")
    return httpx.Response(response.status_code, headers=headers, content=content, request=response.request)


@cache
def _tls() -> Any:
    """One TLS context for all: making one takes tens of milliseconds."""
    return _httpx().create_ssl_context()


def _httpx() -> Any:
    """The httpx that the installed SDK is built on: `httpx2` since openai 3."""
    import sys

    import openai

    return sys.modules[openai.DefaultHttpxClient.__mro__[1].__module__.partition(".")[0]]
