"""How a plan takes part in a flight: lead it, follow it, take over where a lost leader stopped.

A component that shares its calls reads:

    said: list[Any] = []
    came: Any = None
    while not isinstance(came, Landed | Cut):
        if goes_alone(came):
            seat = flights.alone(scope, exact, request=run.request.id)
        else:
            seat = flights.join(scope, exact, request=run.request.id, after=came and came.flight)
        run.on_close(seat.leave)
        if seat.is_leader:
            answer = yield from lead(seat, self.inner, value, run, said)
            ...  # store seat.flight.landed: those who come meanwhile still get it from the flight
            seat.leave()
            return answer
        came = yield from follow(seat, run, said)
    return came.answer
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from langchain_core.runnables import Runnable

from chainops.cache.sharing.flight import Flight, Landed, Seat
from chainops.cache.sharing.pieces import Resume, Tap, Through, is_text, own
from chainops.core.chunks import as_chunk, merge
from chainops.core.events import Event
from chainops.core.run import Run
from chainops.core.steps import Filter, Forward, Hear, Plan, Say

FIRST_S = 120.0
"""How long a follower waits for a leader's first words. A leader that is invoked says all of it in the end."""
STALL_S = 15.0
"""How long it waits for the next words: a leader goes no faster than its own caller reads."""

How = Literal["failed", "abandoned", "private", "stalled", "unreachable"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CallShared(Event):
    """Another request made the call that answered here."""

    chunks: int
    waited_s: float
    saved_usd: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaderLost(Event):
    """The request that made the call for this one is gone; this one asks, or follows the one that does."""

    how: How
    said: int
    """Pieces of the answer that this request's caller has heard already."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedCallCut(Event):
    """The call was lost half-way, and the next answer did not begin with the same words."""

    reason: str


@dataclass(frozen=True, slots=True)
class Lost:
    """The leader is gone: join again."""

    how: How
    flight: Flight


@dataclass(frozen=True, slots=True)
class Cut:
    """The answer ends here: what was said cannot be continued. The report is marked `truncated`."""

    answer: Any


def goes_alone(came: Lost | None) -> bool:
    """Whether a request asks without anybody following, because following would not help either."""
    return came is not None and came.how in ("private", "unreachable")


def lead(
    seat: Seat,
    runnable: Runnable[Any, Any],
    value: Any,
    run: Run,
    said: Sequence[Any] = (),
    *,
    may_share: Callable[[Any], bool] | None = None,
) -> Plan[Any]:
    """Ask, and let the followers hear; the answer lands. Errors are raised when the flight has been told.

    Args:
        said: What this request's caller has heard from leaders that were lost. The new answer goes on from
            there, or the caller's ends as `truncated`; the flight lands with the whole in either case.
        may_share: Asked at the end, and before each piece with its words and those just before it. False: the answer
            is the leader's alone, and followers ask for themselves.

    Returns:
        What this caller was told. What the others get is `seat.flight.landed`, None when it is not shared.
    """
    resume = Resume(said) if said else None
    tap = Tap(seat, may_share)
    through: Filter = tap if resume is None else Through(tap, resume)
    try:
        reply = yield Forward(runnable, value, filter=through, kwargs=run.kwargs)
    except Exception as error:
        seat.fail(error)
        raise
    except BaseException:
        seat.abandon()
        raise
    whole = reply if resume is None else merge(seat.flight.chunks)
    if may_share is None or may_share(whole):
        seat.land(own(whole), facts=copy.deepcopy(run.report.facts()), cost_usd=run.attempts.cost_usd)
    else:
        seat.keep_private()
    if resume is None:
        return reply
    if resume.has_diverged:
        return cut_off(run, [*said, as_chunk(reply)], _OTHER_WORDS)
    return merge([*said, as_chunk(reply)])


def follow(
    seat: Seat, run: Run, said: list[Any], *, first_s: float = FIRST_S, stall_s: float = STALL_S
) -> Plan[Landed | Lost | Cut]:
    """Say what the leader's caller hears, from the start, and learn what it came to.

    Args:
        said: What this request's caller has heard; this adds to it. Not empty when an earlier leader was lost:
            then only what goes beyond is said.

    Returns:
        Landed: Copies of the leader's answer and facts, without its usage and id.
        Lost: Join again.
        Cut: The end.

    Raises:
        DeadlineExceeded: This request's own deadline passed first.
    """
    flight, started, resume = seat.flight, run.clock.monotonic(), Resume(said)
    position = 0
    try:
        while True:
            seen, state = flight.signal.seen, flight.state  # in this order: what comes later is news
            # The words of a leader that is known to be lost would only bind the answer that comes instead.
            for chunk in flight.chunks[position:] if state in ("flying", "landed") else ():
                position += 1
                for piece in resume.feed(own(chunk)):
                    said.append(piece)
                    yield Say(piece)
            if state != "flying":
                break
            patience_s = stall_s if position else first_s
            has_news = yield Hear(flight.signal, seen, patience_s, may_block=seat.may_block)
            if not has_news:
                if has_news is not None:
                    seat.overtake()
                return _lost("unreachable" if has_news is None else "stalled", flight, run, said)
        if state != "landed":
            return _lost(cast("How", state), flight, run, said)
        waited_s = run.clock.monotonic() - started
        return (yield from _arrive(flight, run, said, resume, waited_s, has_heard=position > 0))
    finally:
        seat.leave()


def _arrive(
    flight: Flight, run: Run, said: list[Any], resume: Resume, waited_s: float, *, has_heard: bool
) -> Plan[Landed | Cut]:
    landed = cast("Landed", flight.landed)
    answer = own(landed.answer)
    if not has_heard:  # it came without chunks, or all had left before this one woke up
        if not said:
            said.append(answer)
            yield Say(answer)
        else:
            for piece in resume.feed(as_chunk(answer)):
                said.append(piece)
                yield Say(piece)
    resume.finish()
    if resume.has_diverged:
        return Cut(cut_off(run, said, _OTHER_WORDS))
    run.emit(CallShared(chunks=len(said), waited_s=round(waited_s, 6), saved_usd=landed.cost_usd))
    return Landed(answer, copy.deepcopy(landed.facts), landed.cost_usd)


def _lost(how: How, flight: Flight, run: Run, said: list[Any]) -> Lost | Cut:
    run.emit(LeaderLost(how=how, said=len(said)))
    if not all(map(is_text, said)):
        return Cut(cut_off(run, said, "the shared call was lost after more than plain text had been said"))
    return Lost(how, flight)


_OTHER_WORDS = "the shared call was lost half-way, and asked again the answer began with other words"


def cut_off(run: Run, said: Sequence[Any], reason: str) -> Any:
    """End an answer after its first words: what was said stands, and is marked `truncated`."""
    run.emit(SharedCallCut(reason=reason))
    run.report.mark("truncated", reason)
    return merge([as_chunk(each) for each in said])
