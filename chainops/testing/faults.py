"""What can go wrong between a client and a model server, as values.

`plan_delivery` turns a good reply and a fault into what is really sent. It opens no socket and
waits for nothing, so what a fault means can be read, and tested, without a server.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Literal

from chainops.testing.delivery import Delivery, event
from chainops.testing.edits import NonsenseKind, UsageKind, duplicated, finished, misreported, nonsense
from chainops.testing.error_bodies import (
    USUAL_DIALECTS,
    USUAL_ERRORS,
    Dialect,
    RetryAfterAs,
    http_error,
    retry_after,
)


@dataclass(frozen=True, slots=True)
class Refuse:
    """Nobody listens: connections are refused until the server heals, then the port is the same."""


@dataclass(frozen=True, slots=True)
class Reset:
    """Read the request, then break the connection without a byte."""


@dataclass(frozen=True, slots=True)
class Status:
    """An HTTP error, with the body that servers really send with it.

    Args:
        code: HTTP status, 400..599.
        retry_after_s: The wait it asks for, in seconds; None: no such header.
        message: None means what is usual with this status or code.
        code_name: OpenAI's own code, such as "context_length_exceeded"; None means the usual one.
        like: Whose shape the body has; None means the usual one: OpenAI's JSON, a proxy's HTML page for 413,
            502 and 504, Anthropic's for 529.
        retry_after_as: How the wait is told.
        retry_after_growth: Each time this fault is played the wait is so many times longer than before.
    """

    code: int
    retry_after_s: float | None = None
    message: str | None = None
    code_name: str | None = None
    like: Dialect | None = None
    retry_after_as: RetryAfterAs = "seconds"
    retry_after_growth: float = 1.0

    def __post_init__(self) -> None:
        if not 400 <= self.code <= 599:
            raise ValueError(f"Status({self.code}): an HTTP error is 400..599")


@dataclass(frozen=True, slots=True)
class Hang:
    """Accept, then say nothing: for `seconds` (and then answer), or None: until someone hangs up."""

    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Slow:
    """Answer properly after a while that differs from request to request: lognormal, as real latencies are.

    Args:
        p50_s: Half of the requests wait less than this before the first byte, in seconds.
        p95_s: 19 of 20 wait less than this.
        seed: Another seed, other waits. The wait depends on it and on the number of the request alone.
    """

    p50_s: float
    p95_s: float
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.p50_s <= self.p95_s:
            raise ValueError(f"Slow(p50_s={self.p50_s}, p95_s={self.p95_s}): 0 < p50_s <= p95_s is needed")

    def seconds(self, number: int) -> float:
        """The wait of the request with this number."""
        sigma = math.log(self.p95_s / self.p50_s) / NormalDist().inv_cdf(0.95)
        return self.p50_s * math.exp(random.Random(f"{self.seed} {number}").gauss(0, sigma))


@dataclass(frozen=True, slots=True)
class Drip:
    """Send the answer `step_bytes` at a time, `interval_s` seconds apart: each read succeeds, the whole never ends."""

    interval_s: float
    step_bytes: int = 1


@dataclass(frozen=True, slots=True)
class Stall:
    """Pause in the middle with the connection open: a stream after some chunks, anything else after half the body.

    Args:
        after_chunks: Chunks with text that come first. 0 is a slow first token: headers come at once.
        seconds: Then the rest follows; None: never.
    """

    after_chunks: int = 2
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Nonsense:
    """Status 200 and a body that is no answer.

    Args:
        kind: "json" `{}`, "broken_json" a body that stops early, "no_choices" an empty list of choices,
            "html" a proxy's page, "empty" no byte at all, "blank" a well-formed answer without text,
            "sse" a stream whose data is not JSON, "wrong_type" the good answer under `text/plain`,
            "error_200" an error object under status 200, as OpenRouter sends it.
    """

    kind: NonsenseKind = "json"


@dataclass(frozen=True, slots=True)
class Cut:
    """Break off: a stream after `after_chunks` of its chunks, anything else after half the body.

    Args:
        after_chunks: Chunks with text that still arrive whole.
        how: "reset" (TCP reset); "end": the stream ends as if it were complete, without finish reason
            and `[DONE]`, as some proxies do; "error": the stream ends with an error event. Anything but a
            stream is always reset.
    """

    after_chunks: int = 2
    how: Literal["reset", "end", "error"] = "reset"


@dataclass(frozen=True, slots=True)
class Finish:
    """End properly, for a reason that is no good: "content_filter", or "length".

    Args:
        after_chunks: Chunks of the text (words) that are still said; None: all.
    """

    reason: str = "content_filter"
    after_chunks: int | None = 0


@dataclass(frozen=True, slots=True)
class Usage:
    """A good answer whose token counts are absent, negative, zero, or doubled."""

    kind: UsageKind = "absent"


@dataclass(frozen=True, slots=True)
class Duplicate:
    """Each chunk of a stream that has text comes twice."""


@dataclass(frozen=True, slots=True)
class Together:
    """Several faults of one answer, such as `Together((Slow(0.2, 0.9), Status(503)))`; applied in this order."""

    faults: tuple[Fault, ...]


Fault = (
    Refuse | Reset | Status | Hang | Slow | Drip | Stall | Nonsense | Cut | Finish | Usage | Duplicate | Together
)  # fmt: skip


def plan_delivery(
    good: Delivery, fault: Fault | None, *, number: int = 1, repeats: int = 0, at: float = 0.0
) -> Delivery:
    """What is sent in place of `good` under `fault`. `Refuse` never gets here: nobody connects.

    Args:
        number: Which request of the server this is, from 1.
        repeats: How often this fault has been played before.
        at: Unix time in seconds, for waits told as a date.
    """
    match fault:
        case None | Refuse():
            return good
        case Reset():
            return Delivery(0, "", (), end="reset")
        case Status():
            return _error_delivery(fault, repeats, at)
        case Together(faults):
            for each in faults:
                planned = plan_delivery(good, each, number=number, repeats=repeats, at=at)
                good = replace(planned, silence_s=max(good.silence_s, planned.silence_s))
            return good
        case Hang(seconds):
            return replace(good, silence_s=math.inf if seconds is None else seconds)
        case Slow():
            return replace(good, silence_s=fault.seconds(number))
        case Drip(interval_s, step):
            return replace(good, pieces=_in_steps(good, step), pause_s=interval_s)
        case Nonsense(kind):
            return nonsense(good, kind)
        case Stall() | Cut():
            return _interrupted(good, fault)
        case _:
            # What changes the answer itself needs one: a rejected request stays rejected.
            return _changed(good, fault) if good.status == 200 and _is_chat(good) else good


def _is_chat(good: Delivery) -> bool:
    return good.is_stream or b'"choices"' in good.pieces[0]


def _changed(good: Delivery, fault: Finish | Usage | Duplicate) -> Delivery:
    match fault:
        case Finish(reason, after_chunks):
            return finished(good, reason, after_chunks)
        case Usage(kind):
            return misreported(good, kind)
        case Duplicate():
            return duplicated(good)


def _interrupted(good: Delivery, fault: Stall | Cut) -> Delivery:
    if not good.is_stream:
        whole = b"".join(good.pieces)
        half = len(whole) // 2
        if isinstance(fault, Cut):
            return replace(good, pieces=(whole[:half],), end="reset")
        return replace(good, pieces=(whole[:half], whole[half:]), stall=(1, _for_ever(fault.seconds)))
    # One more than asked for, since the first piece only announces the role; never the last, `[DONE]`.
    count = min(fault.after_chunks + 1, len(good.pieces) - 1)
    if isinstance(fault, Stall):
        return replace(good, stall=(count, _for_ever(fault.seconds)))
    kept = good.pieces[:count]
    if fault.how == "error":
        failed = {"message": USUAL_ERRORS[500][2], "type": "server_error", "param": None, "code": None}
        kept += (event({"error": failed}),)
    return replace(good, pieces=kept, end="reset" if fault.how == "reset" else "early")


def _for_ever(seconds: float | None) -> float:
    return math.inf if seconds is None else seconds


def _in_steps(good: Delivery, step: int) -> tuple[bytes, ...]:
    whole = b"".join(good.pieces)
    return tuple(whole[at : at + step] for at in range(0, len(whole), step))


def _error_delivery(fault: Status, repeats: int, at: float) -> Delivery:
    is_told = fault.message is not None or fault.code_name is not None
    dialect = fault.like or ("openai" if is_told else USUAL_DIALECTS.get(fault.code, "openai"))
    content_type, body = http_error(fault.code, dialect, fault.code_name, fault.message)
    headers: dict[str, str] = {}
    if fault.retry_after_s is not None:
        wait_s = fault.retry_after_s * fault.retry_after_growth**repeats
        headers = retry_after(wait_s, fault.retry_after_as, at=at)
    return Delivery(fault.code, content_type, (body,), headers)
