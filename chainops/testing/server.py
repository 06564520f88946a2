"""A small OpenAI-compatible server on this machine, which fails on demand.

One path for every request: it is recorded, the fault of the moment is decided, the delivery is
planned (`faults.plan_delivery`), and one writer sends it.
"""

from __future__ import annotations

import hmac
import json
import socket
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

from chainops.testing.connection import Ending, Listener, Received, reset
from chainops.testing.faults import Delivery, Fault, Refuse, Status, error_body, plan_delivery
from chainops.testing.wire import (
    Message,
    chat_delivery,
    count_tokens,
    embeddings_delivery,
    hashed_vector,
    text_of,
)

Answerer = Callable[[list[Message]], str | Message]
"""From the request's messages to the answer's text, or to a whole assistant message (with "tool_calls", say)."""

Embedder = Callable[[list[str]], Sequence[Sequence[float]]]
"""From n texts to n vectors."""


def echo(messages: list[Message]) -> str:
    """The last thing said by the user, or by anybody."""
    spoken = [message for message in messages if message.get("role") == "user"] or messages
    return text_of(spoken[-1]) if spoken else ""


class ModelServer:
    """An OpenAI-compatible server: chat (plain and streamed), embeddings, the list of models.

        with ModelServer("Forty-two.") as server:
            model = ChatOpenAI(model="test", base_url=server.url, api_key="none", max_retries=0)
            server.fail(Status(503), times=1)

    Args:
        answer: What every chat is answered with: a text, or a function of the messages. By default
            the last user message. An exception it raises is answered with status 500.
        models: Names that exist; others get 404. Empty: every name exists.
        key: Where given, requests need `Authorization: Bearer KEY`; others get 401.
        chunk_delay_s: Pause between the chunks of a stream, in seconds.
        embed: Real vectors, where hashed ones will not do.

    It listens on 127.0.0.1 at a port the system chooses, from `__enter__` to `__exit__`, or from
    `start()` to `close()`. `requests` holds what came, in order.
    """

    def __init__(
        self,
        answer: str | Answerer = echo,
        *,
        models: Sequence[str] = (),
        key: str | None = None,
        chunk_delay_s: float = 0.0,
        embed: Embedder | None = None,
    ) -> None:
        self.models = tuple(models)
        self.chunk_delay_s = chunk_delay_s
        self.requests: list[Received] = []
        self._answer: Answerer = (lambda _: answer) if isinstance(answer, str) else answer
        self._embed = embed
        self._key = key
        self._fault: Fault | None = None
        self._times: int | None = None
        self._changed = threading.Condition()
        self.closing = threading.Event()
        self._connections: set[socket.socket] = set()
        self._listener: Listener | None = None
        self._placeholder: socket.socket | None = None
        self._port = 0

    def __repr__(self) -> str:
        return f"ModelServer(url={self.url!r}, fault={self._fault!r}, requests={len(self.requests)})"

    @property
    def url(self) -> str:
        """The base URL for a client, such as `http://127.0.0.1:40123/v1`. It outlives `Refuse`."""
        return f"http://127.0.0.1:{self._port}/v1"

    def start(self) -> Self:
        if self._listener is None:
            self.closing.clear()
            self._listen()
        return self

    def close(self) -> None:
        """Stop. Requests still open are broken off."""
        self.closing.set()
        self._stop_listening()
        self._release_port()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def fail(self, fault: Fault, *, times: int | None = None) -> None:
        """From the next request on, fail like this: `times` requests, or until `heal()`. Replaces the fault before."""
        if isinstance(fault, Refuse) and times is not None:
            raise ValueError(f"fail(Refuse(), times={times}): refused connections cannot be counted; call heal()")
        self.heal()
        with self._changed:
            self._fault, self._times = fault, times
        if isinstance(fault, Refuse):
            self._stop_listening()
            # Bound but not listening: the port stays ours, and whoever connects is refused.
            self._placeholder = _bound_socket(self._port)

    def heal(self) -> None:
        """Answer properly from the next request on. What hangs or drips by now goes on doing so."""
        with self._changed:
            self._fault = self._times = None
        if self._placeholder is not None:
            self._listen()
            self._release_port()

    def wait_idle(self, timeout_s: float = 5.0) -> bool:
        """Wait until no request is open, so that every `state` is final. False when time ran out first."""
        with self._changed:
            return self._changed.wait_for(lambda: all(r.state != "open" for r in self.requests), timeout_s)

    def _listen(self) -> None:
        self._listener = Listener(self, self._port)
        self._port = self._listener.server_address[1]
        serve = self._listener.serve_forever
        threading.Thread(target=serve, args=(0.02,), name=f"model-server-{self._port}", daemon=True).start()

    def _stop_listening(self) -> None:
        if self._listener is not None:
            self._listener.shutdown()
            self._listener.server_close()
            self._listener = None
        with self._changed:
            connections = list(self._connections)
        for connection in connections:  # kept-alive ones would go on answering
            reset(connection)
        with self._changed:  # their threads close them; an answer function may keep one busy for longer
            self._changed.wait_for(lambda: not self._connections, timeout=2.0)

    def _release_port(self) -> None:
        if self._placeholder is not None:
            self._placeholder.close()
            self._placeholder = None

    def take(self, path: str, body: dict[str, Any], authorization: str) -> tuple[Received, Delivery]:
        """Called with each request: write it down, decide its fault, plan what is sent."""
        with self._changed:
            received = Received(path, body, time.time(), self._fault)
            self.requests.append(received)
            if self._times is not None:
                self._times -= 1
                if self._times <= 0:
                    self._fault = self._times = None
        is_needed = not isinstance(received.fault, Status)  # an error does not run the answer function
        good = self._reply(received, authorization) if is_needed else _NOTHING
        return received, plan_delivery(good, received.fault)

    def settle(self, received: Received, ending: Ending) -> None:
        """Called when a request is over."""
        with self._changed:
            received.state = ending
            self._changed.notify_all()

    def opened(self, connection: socket.socket) -> None:
        """Called with each new connection."""
        with self._changed:
            self._connections.add(connection)

    def closed(self, connection: socket.socket) -> None:
        """Called when a connection ends."""
        with self._changed:
            self._connections.discard(connection)
            self._changed.notify_all()

    def _reply(self, received: Received, authorization: str) -> Delivery:
        """The good answer to a request, or the error a real server would give to a bad one."""
        body = received.body
        if self._key is not None and not hmac.compare_digest(authorization, f"Bearer {self._key}"):
            return plan_delivery(_NOTHING, Status(401))
        if received.path == "/v1/models":
            names = [{"id": name, "object": "model", "created": 0, "owned_by": "chainops"} for name in self.models]
            return Delivery(200, "application/json", (json.dumps({"object": "list", "data": names}).encode(),))
        field = {"/v1/chat/completions": "messages", "/v1/embeddings": "input"}.get(received.path)
        if field is None:
            return _rejection(404, f"Unknown request URL: {received.path}.", "unknown_url")
        if not isinstance(body.get("model"), str):
            return _rejection(400, "you must provide a model parameter", None, param="model")
        if self.models and received.model not in self.models:
            return _rejection(404, f"The model `{received.model}` does not exist.", "model_not_found")
        if not body.get(field) or not isinstance(body[field], list if field == "messages" else list | str):
            return _rejection(400, f"Missing required parameter: '{field}'.", "missing_required_parameter", param=field)
        try:
            return self._embeddings(body) if field == "input" else self._chat(received)
        except Exception as error:  # noqa: BLE001 - the answer function is anyone's; a server reports, it does not die
            return _rejection(500, f"the answer function raised {error!r}", "answer_failed")

    def _chat(self, received: Received) -> Delivery:
        answer = self._answer(received.body["messages"])
        reply: Message = {"content": answer} if isinstance(answer, str) else answer
        number = len(self.requests)
        return chat_delivery(received.body, reply, number=number, at=received.at, chunk_delay_s=self.chunk_delay_s)

    def _embeddings(self, body: dict[str, Any]) -> Delivery:
        given = body["input"]
        # Clients that tokenize first send lists of token numbers; those are words like any other here.
        if isinstance(given, str) or isinstance(given[0], int):
            given = [given]
        texts = [item if isinstance(item, str) else " ".join(map(str, item)) for item in given]
        dimensions = int(body.get("dimensions") or 64)
        vectors = self._embed(texts) if self._embed else [hashed_vector(t, dimensions=dimensions) for t in texts]
        return embeddings_delivery(body, vectors, sum(map(count_tokens, texts)))


_NOTHING = Delivery(200, "application/json", ())


def _rejection(status: int, message: str, code: str | None, *, param: str | None = None) -> Delivery:
    kind = "server_error" if status >= 500 else "invalid_request_error"
    return Delivery(status, "application/json", (error_body(message, kind=kind, code=code, param=param),))


def _bound_socket(port: int) -> socket.socket:
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind(("127.0.0.1", port))
    return bound
