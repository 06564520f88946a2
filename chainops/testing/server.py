"""A small OpenAI-compatible server on this machine, which fails on demand.

One path for every request: it is recorded, the fault of the moment is decided (`script`), the good
reply is made (`replies`, `batches`) within the key's limits (`limits`), the delivery is planned
(`faults.plan_delivery`), and one writer sends it (`connection`).
"""

from __future__ import annotations

import hmac
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

from chainops.core.clock import Clock
from chainops.testing.batches import Answered, Batches, BatchRequest, End
from chainops.testing.connection import Ending, Envelope, Listener, Received, bound_socket, reset
from chainops.testing.delivery import Delivery
from chainops.testing.error_bodies import retry_after
from chainops.testing.faults import Fault, Refuse, Reset, Status, plan_delivery
from chainops.testing.limits import Limiter, Limits, Tally
from chainops.testing.replies import NOTHING, Answerer, Embedder, Replies, asked_tokens, echo, rejection
from chainops.testing.script import Rule, Segment, When, always, in_turn, where
from chainops.testing.wire import uploaded


class ModelServer:
    """An OpenAI-compatible server: chat (plain and streamed), embeddings, the list of models, files and batches.

        with ModelServer("Forty-two.") as server:
            model = ChatOpenAI(model="test", base_url=server.url, api_key="none", max_retries=0)
            server.fail(Status(503), times=1)
            server.rule(lambda request: request.model == "small", Hang())
            server.script([(20, None), (30, Status(503)), (10, sometimes(0.5, Cut()))])

    Args:
        answer: What every chat is answered with: a text, or a function of the messages. By default
            the last user message. An exception it raises is answered with status 500.
        models: Names that exist; others get 404. Empty: every name exists.
        key, keys: Where given, requests need `Authorization: Bearer KEY` with one of them; others get 401.
        limits: What each key may do in a minute; more gets 429, with the headers that OpenAI sends. See `tally`.
        chunk_delay_s: Pause between the chunks of a stream, in seconds.
        embed: Real vectors, where hashed ones will not do.
        batch_delay_s: From the submission of a batch to its end; None: until `finish_batches` is called.
        state_dir: Where files and batches are kept, so that another server finds them; None: in memory.
        clock: Measures limits and batches; by default the machine's.

    It listens on 127.0.0.1 at a port the system chooses, from `__enter__` to `__exit__`, or from
    `start()` to `close()`. `requests` holds what came, in order.
    """

    def __init__(
        self,
        answer: str | Answerer = echo,
        *,
        models: Sequence[str] = (),
        key: str | None = None,
        keys: Sequence[str] = (),
        limits: Limits | None = None,
        chunk_delay_s: float = 0.0,
        embed: Embedder | None = None,
        batch_delay_s: float | None = 0.0,
        state_dir: Path | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.requests: list[Received] = []
        self.closing = threading.Event()
        self._replies = Replies(answer, tuple(models), embed, chunk_delay_s)
        self._keys = (*keys, key) if key is not None else tuple(keys)
        self._clock = clock or Clock()
        self._limiter = Limiter(limits, self._clock)
        self._batches = Batches(self._answer_line, clock=self._clock, delay_s=batch_delay_s, folder=state_dir)
        self._rules: list[Rule] = []
        self._line_rules: list[Rule] = []
        self._played: Counter[Fault] = Counter()
        self._changed = threading.Condition()
        self._connections: set[socket.socket] = set()
        self._listener: Listener | None = None
        self._placeholder: socket.socket | None = None
        self._port = 0

    def __repr__(self) -> str:
        return f"ModelServer(url={self.url!r}, rules={len(self._rules)}, requests={len(self.requests)})"

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

    # What goes wrong

    def fail(self, fault: Fault | Rule, *, times: int | None = None) -> None:
        """From the next request on, fail like this, `times` requests or until `heal()`; what was said before ends."""
        if isinstance(fault, Refuse) and times is not None:
            raise ValueError(f"fail(Refuse(), times={times}): refused connections cannot be counted; call heal()")
        if not isinstance(fault, Refuse):
            self._play(always(fault, times=times))
            return
        if self._placeholder is None:
            self._stop_listening()
            self._placeholder = bound_socket(self._port)
        self._forget()

    def rule(self, when: When, fault: Fault | Rule) -> None:
        """Fail the requests that `when` says yes to. Joins what was said before; the first that applies is played."""
        self._add(where(when, fault))

    def script(self, segments: Sequence[Segment], *, clock: Clock | None = None) -> None:
        """Play faults one after the other, then answer properly. Replaces what was said before.

        Args:
            segments: Such as `[(20, None), (30, Status(503)), (10, sometimes(0.3, Cut()))]`.
            clock: Amounts are seconds on this clock, from now on; without one they are numbers of requests.
        """
        self._play(in_turn(segments, clock))

    def heal(self) -> None:
        """Answer properly from the next request on. What hangs or drips by now goes on doing so."""
        self._play()

    def fail_lines(self, when: Callable[[str], bool], fault: Status) -> None:
        """Fail the lines of batches whose custom id `when` says yes to; until `heal()`."""
        with self._changed:
            self._line_rules.append(where(lambda line: when(line.body["custom_id"]), fault))

    def finish_batches(self, batch_id: str | None = None, *, end: End = "completed", share: float = 1.0) -> None:
        """End one batch, or all open ones, now; `share` of the lines (the first) are answered before it ends."""
        self._batches.finish(batch_id, end, share)

    # What came

    def calls(
        self,
        *,
        model: str | None = None,
        path: str | None = None,
        key: str | None = None,
        status: int | None = None,
        state: str | None = None,
    ) -> list[Received]:
        """The requests so far, in order; those that have all the values given. Of a key the end will do."""
        with self._changed:
            found = list(self.requests)
        given = {"model": model, "path": path, "status": status, "state": state}
        if key is not None:
            given["key"] = key[-4:]
        return [r for r in found if all(v is None or getattr(r, name) == v for name, v in given.items())]

    @property
    def tally(self) -> dict[str, Tally]:
        """The last four characters of each key to what its limits let in and refused."""
        return self._limiter.tallies()

    def wait_idle(self, timeout_s: float = 30.0) -> bool:
        """Wait until no request is open, so that every `state` is final. False when time ran out first."""
        with self._changed:
            return self._changed.wait_for(lambda: all(r.state != "open" for r in self.requests), timeout_s)

    # Called by connections

    def take(self, received: Received, envelope: Envelope) -> Delivery:
        """Called with each request: write it down, decide its fault, plan what is sent."""
        with self._changed:
            self.requests.append(received)
            received.number = len(self.requests)
            try:
                received.fault = fault = self._fault_of(received)
            except Exception as error:  # noqa: BLE001 - rules are anyone's; a server reports, it does not die
                received.status = 500
                return rejection(500, f"a rule raised {error!r}", "rule_failed")
            repeats = self._played[fault] if fault is not None else 0
            if fault is not None:
                self._played[fault] += 1
        is_needed = not isinstance(fault, Status | Reset)  # an error does not run the answer function
        good = self._reply(received, envelope) if is_needed else NOTHING
        delivery = plan_delivery(good, fault, number=received.number, repeats=repeats, at=received.at)
        received.status = delivery.status
        return delivery

    def ending(self, received: Received) -> None:
        """Called before the last piece of an answer is sent, if it comes to that."""
        if received.is_counted:
            received.is_counted = False
            self._limiter.release(received.key)

    def settle(self, received: Received, ending: Ending) -> None:
        """Called when a request is over."""
        self.ending(received)
        with self._changed:
            received.state, received.ended = ending, time.time()
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

    # Inside

    def _play(self, *rules: Rule) -> None:
        """Only these from the next request on; none sees the moment between the old ones and them."""
        self._forget(*rules)
        if self._placeholder is not None:
            self._listen()
            self._release_port()

    def _forget(self, *but: Rule) -> None:
        with self._changed:
            self._rules.clear()
            self._rules.extend(but)
            self._line_rules.clear()
            self._played.clear()

    def _add(self, rule: Rule) -> None:
        with self._changed:
            self._rules.append(rule)

    def _fault_of(self, received: Received) -> Fault | None:
        return next((fault for rule in self._rules if (fault := rule(received)) is not None), None)

    def _reply(self, received: Received, envelope: Envelope) -> Delivery:
        """What a healthy server would say to a good request, or to a bad one."""
        if not self._is_known(envelope.authorization):
            return plan_delivery(NOTHING, Status(401))
        if received.path.startswith(("/v1/files", "/v1/batches")):
            upload = uploaded(envelope.content_type, envelope.raw)
            return self._batches.serve(received.method, received.path, envelope.query, received.body, upload)
        if received.path == "/v1/models":
            return self._replies.listing()
        problem = self._replies.problem(received)
        return self._within_limits(received) if problem is None else problem

    def _is_known(self, authorization: str) -> bool:
        # Every key is compared: the time taken tells nothing.
        known = [hmac.compare_digest(authorization.encode(), f"Bearer {key}".encode()) for key in self._keys]
        return not known or any(known)

    def _within_limits(self, received: Received) -> Delivery:
        refusal = self._limiter.admit(received.key, asked_tokens(received))
        if refusal is not None:
            refused = rejection(429, refusal.message, "rate_limit_exceeded", kind=refusal.kind)
            headers = retry_after(refusal.wait_s, "both", at=received.at)
            return replace(refused, headers=headers | self._limiter.headers(received.key))
        received.is_accepted = received.is_counted = True
        good = self._replies.answer(received)
        used = received.usage["total_tokens"] if received.usage else 0
        return replace(good, headers=self._limiter.charge(received.key, used))

    def _answer_line(self, endpoint: str, request: BatchRequest) -> Answered:
        """Answer one line of a batch; limits and the faults of ordinary requests do not apply to it."""
        line = Received(endpoint, request.body, time.time(), number=len(self.requests))
        asked = Received(endpoint, {"custom_id": request.custom_id}, line.at)
        fault = next((f for rule in self._line_rules if (f := rule(asked)) is not None), None)
        good = self._replies.problem(line) or self._replies.answer(line)
        sent = plan_delivery(good, fault, at=line.at)
        return sent.status, json.loads(b"".join(sent.pieces))

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
