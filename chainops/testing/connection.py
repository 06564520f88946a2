"""The wire side of `ModelServer`: read a request, hand it in, write what comes back as slowly or badly as told."""

from __future__ import annotations

import json
import select
import socket
import struct
import sys
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal, Protocol, cast

from chainops.testing.delivery import Delivery
from chainops.testing.faults import Fault

Ending = Literal["finished", "cut", "cancelled"]


@dataclass(eq=False)
class Received:
    """One request as the server saw it. Of the key its last four characters are kept, other headers are not."""

    path: str
    body: dict[str, Any]
    """Empty when the body was not a JSON object, and for GET."""
    at: float
    """Unix time in seconds at which it was read."""
    fault: Fault | None = None
    state: Literal["open", "finished", "cut", "cancelled"] = "open"
    """`finished` everything was sent, `cut` the server broke off, `cancelled` the client hung up first (or the
    server was closed)."""
    number: int = 0
    """Which request of this server it is, from 1."""
    method: str = "POST"
    key: str = ""
    """The last four characters of the key."""
    status: int = 0
    """The HTTP status decided for it; 0 before that, and where not even a status is sent."""
    ended: float | None = None
    """Unix time in seconds at which it was over."""
    usage: dict[str, int] | None = None
    """What the whole answer uses, in OpenAI's words, whatever the fault makes of it; None: nothing was answered."""
    is_accepted: bool = False
    """Whether it was let in by the key's limits."""
    is_counted: bool = False
    """Whether it counts as one of those that the key has open."""

    @property
    def model(self) -> str | None:
        return cast("str | None", self.body.get("model"))

    @property
    def is_stream(self) -> bool:
        return self.body.get("stream") is True

    @property
    def is_finished(self) -> bool:
        return self.state == "finished"

    @property
    def is_cancelled(self) -> bool:
        return self.state == "cancelled"


@dataclass(frozen=True, slots=True)
class Envelope:
    """What comes with a request and is not kept."""

    authorization: str
    content_type: str
    query: str
    raw: bytes


class Desk(Protocol):
    """Who decides about requests. Its methods are called from many threads."""

    closing: threading.Event

    def take(self, received: Received, envelope: Envelope) -> Delivery:
        """Record a request and say what is to be sent."""

    def ending(self, received: Received) -> None:
        """Called before the last piece is sent: whoever has that may ask again at once."""

    def settle(self, received: Received, ending: Ending) -> None:
        """Called once for each request, when it is over."""

    def opened(self, connection: socket.socket) -> None: ...

    def closed(self, connection: socket.socket) -> None: ...


def reset(connection: socket.socket) -> None:
    """Close with a TCP reset, waking whoever reads or writes on either side."""
    try:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.shutdown(socket.SHUT_RD)
    except OSError:
        pass  # already closed: nothing to break off
    connection.close()


def bound_socket(port: int) -> socket.socket:
    """Bound but not listening: the port is ours, and whoever connects is refused."""
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind(("127.0.0.1", port))
    return bound


class Listener(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, desk: Desk, port: int) -> None:
        self.desk = desk
        super().__init__(("127.0.0.1", port), _Connection)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Known before its thread begins: whoever stops the listener can find every connection."""
        self.desk.opened(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        super().shutdown_request(request)
        self.desk.closed(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Only what is a bug of ours reaches stderr; clients that hang up are the point of this server."""
        if not isinstance(sys.exc_info()[1], OSError | ValueError):
            super().handle_error(request, client_address)


class _HungUp(Exception):
    """The client is gone, or the server is closing."""


class _Connection(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # small chunks must leave at once
    server: Listener

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Silent: `ModelServer.requests` is the log."""

    def do_GET(self) -> None:
        self._serve()

    do_POST = do_DELETE = do_GET  # noqa: N815 - the base class's names

    def _serve(self) -> None:
        received, envelope = self._read()
        delivery = self.server.desk.take(received, envelope)
        try:
            self._write(delivery, received)
        except (_HungUp, OSError, ValueError):  # ValueError: a write to a file already closed
            self.close_connection = True
            self.server.desk.settle(received, "cancelled")
            return
        self.server.desk.settle(received, "finished" if delivery.end == "proper" else "cut")
        if delivery.end == "reset":
            self.close_connection = True
            reset(self.connection)

    def _read(self) -> tuple[Received, Envelope]:
        headers = self.headers
        raw = self.rfile.read(int(headers.get("Content-Length") or 0))
        path, _, query = self.path.partition("?")
        content_type = headers.get("Content-Type") or ""
        body = None
        if raw and not content_type.startswith("multipart/"):
            try:
                body = json.loads(raw)
            except ValueError:
                body = None
        authorization = headers.get("Authorization") or ""
        received = Received(path, body if isinstance(body, dict) else {}, time.time())
        received.method, received.key = self.command, authorization.removeprefix("Bearer ")[-4:]
        return received, Envelope(authorization, content_type, query, raw)

    def _write(self, delivery: Delivery, received: Received) -> None:
        self._pause(delivery.silence_s)
        if not delivery.status:
            return
        self.send_response(delivery.status)
        if delivery.content_type:
            self.send_header("Content-Type", delivery.content_type)
        for name, value in delivery.headers.items():
            self.send_header(name, value)
        if delivery.is_stream:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            # A cut body still promises its whole length: that is how a client notices.
            length = sum(map(len, delivery.pieces))
            self.send_header("Content-Length", str(length * 2 + 1 if delivery.end == "reset" else length))
        self.end_headers()
        for number, piece in enumerate(delivery.pieces):
            if delivery.stall is not None and delivery.stall[0] == number:
                self._pause(delivery.stall[1])
            elif number:
                self._pause(delivery.pause_s)
            if number == len(delivery.pieces) - 1:
                self.server.desk.ending(received)
            self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece) if delivery.is_stream and piece else piece)
        if delivery.end == "reset":
            self._pause(0.02)  # let what was sent arrive: a reset may overtake it and wipe it out
        elif delivery.is_stream:
            self.wfile.write(b"0\r\n\r\n")

    def _pause(self, seconds: float) -> None:
        """Wait, but notice at once when the server closes, and soon when the client hangs up."""
        end = time.monotonic() + seconds
        while True:
            readable, _, _ = select.select([self.connection], [], [], 0)
            # Readable with nothing to read is how a hang-up looks from here.
            if readable and not self.connection.recv(1, socket.MSG_PEEK):
                raise _HungUp
            left = end - time.monotonic()
            if left <= 0:
                return
            if self.server.desk.closing.wait(min(left, 0.02)):
                raise _HungUp
