"""The requests being answered in this process right now, so that equal ones make one call.

The first to join a flight leads it: it asks the chain inside and tells what it hears. The others follow, each at its
own pace and until its own deadline. A leader that is lost (failed, cancelled, closed, stalled) is replaced by whichever
follower joins again first. An error is never handed to followers: it may be the leader's own (its deadline, its
budget, its key). They take over one after another, so a model in trouble is not asked by all of them at once.

Nobody waits for itself. A request does not follow a flight that, perhaps through others, waits for that very request
(a tool that asks the chain it was called from), nor one whose leader needs the follower's own thread or task to go
on (two streams read in turn). It then asks alone, which costs a call and never an answer. What cannot be seen is a
request that asks again from a thread without LangChain's context: the patience of `follow` ends that one.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from chainops.core.errors import PlanError
from chainops.core.forking import reset_in_child
from chainops.core.signal import Signal

State = Literal["flying", "landed", "private", "failed", "abandoned"]
"""`private`: answered, but the answer is for the leader alone; every follower asks for itself."""


@dataclass(frozen=True, slots=True)
class Landed:
    """What a flight came to."""

    answer: Any
    facts: dict[str, Any] = field(default_factory=dict)
    """What the leader's report said of its answer, as plain JSON."""
    cost_usd: float | None = None
    """What the answer cost its leader; None when a price is not known."""


Place = tuple[int, asyncio.Task[Any] | None]
"""A thread, and the task its running event loop is at."""


def _here() -> Place:
    try:
        return threading.get_ident(), asyncio.current_task()
    except RuntimeError:  # no loop is running in this thread
        return threading.get_ident(), None


@dataclass(slots=True, eq=False)
class Flight:
    """One question being answered. Followers read it; only its leader's `Seat` changes it."""

    scope: str
    exact: str
    request: str
    """The leader's."""
    question: str
    vector: Any
    signal: Signal = field(default_factory=Signal)
    """Told after each chunk, and at the end."""
    chunks: list[Any] = field(default_factory=list)
    """What the leader's caller has heard, from the start. Dropped when the last one has left."""
    state: State = "flying"
    landed: Landed | None = None
    error: Exception | None = None
    """Why it failed."""
    on_board: int = 0
    """The leader and all followers that have not left."""
    successors: dict[str, Flight] = field(default_factory=dict)
    """Who took over when this was lost, by question. A follower that wakes up late finds the answer there."""
    place: Place = field(default_factory=_here)
    """Where the leader was last seen at work."""


class Seat:
    """A place in a flight. Leave it in the end: `run.on_close(seat.leave)`."""

    __slots__ = ("_flights", "_has_left", "flight", "is_leader", "may_block", "request")

    def __init__(self, flights: Flights, flight: Flight, request: str, *, is_leader: bool) -> None:
        self._flights, self.flight, self.request, self.is_leader = flights, flight, request, is_leader
        self.may_block = is_leader or flight.place[0] != threading.get_ident()
        """Whether a sync follower may hold up its thread until the leader has news (see `steps.Hear`)."""
        self._has_left = False

    def say(self, chunk: Any) -> None:
        """Tell the followers the next piece. It must be nobody else's to change (see `following.own`)."""
        self._must_lead()
        flight = self.flight
        flight.place = _here()  # a stream may be read in another thread each time
        flight.chunks.append(chunk)
        flight.signal.tell()

    def land(self, answer: Any, *, facts: dict[str, Any] | None = None, cost_usd: float | None = None) -> None:
        """Give the answer. Those who join from now until the leader leaves get it too."""
        self._end("landed", landed=Landed(answer, facts or {}, cost_usd))

    def keep_private(self) -> None:
        """Answered, but not for others: the followers ask for themselves, all at once."""
        self._end("private")

    def fail(self, error: Exception) -> None:
        self._end("failed", error=error)

    def abandon(self) -> None:
        """Give up without an answer; the next who joins leads."""
        self._end("abandoned")

    def overtake(self) -> None:
        """For a follower that has lost patience: nobody joins this flight any more, the next who joins leads."""
        self._flights._close(self.flight)

    def leave(self) -> None:
        """Get off, once; a leader that has given no answer abandons its flight."""
        if self.is_leader:
            self.abandon()
        self._flights._get_off(self)

    def _end(self, state: State, *, landed: Landed | None = None, error: Exception | None = None) -> None:
        self._must_lead()
        self._flights._end(self.flight, state, landed, error)

    def _must_lead(self) -> None:
        if not self.is_leader:
            raise PlanError("a follower cannot speak for its flight; only the seat with is_leader can")


class Flights:
    """All flights of a process, in scopes that never meet. Safe in threads and on event loops.

    Use one for all caches of a process (`FLIGHTS`): who waits for whom is seen only within one.
    After a fork the child has none: the leaders are in the parent.
    """

    def __init__(self) -> None:
        self.reset()
        reset_in_child(self)

    def reset(self) -> None:
        """Forget all flights. For a forked child: their leaders are in the parent."""
        for flight in getattr(self, "_boarded", ()):
            flight.signal, flight.state = Signal(), "abandoned"
        # Re-entrant: the garbage collector may close a leader's forgotten stream in the middle of a method here.
        self._lock = threading.RLock()
        self._open: dict[str, dict[str, Flight]] = {}
        self._boarded: set[Flight] = set()
        self._followed: dict[str, list[Flight]] = {}

    def __len__(self) -> int:
        """Flights with somebody on board."""
        return len(self._boarded)

    def join(
        self,
        scope: str,
        exact: str,
        *,
        request: str,
        question: str = "",
        vector: Any = None,
        near: Callable[[Sequence[Flight]], Flight | None] | None = None,
        after: Flight | None = None,
    ) -> Seat:
        """Follow the flight of this question, or lead a new one. Of all who join, exactly one leads.

        Args:
            scope: Only those of the same scope share an answer.
            exact: Digest of the question.
            request: `run.request.id`, to see who waits for whom.
            near: Picks one of the flights under way in the scope that would answer this question as well, or
                None. It is called without a lock, and again for flights that took off meanwhile: no two
                near-equal questions that come together both lead.
            after: The flight that this request followed until it was lost. Of its followers with the same question
                one leads, and the others get what that comes to, however late they wake up.
        """
        looked: set[Flight] = set()
        while True:
            with self._lock:
                under_way = self._open.get(scope, {})
                if (same := under_way.get(exact) or _answered_since(after, exact)) is not None:
                    seat = self.follow(same, request=request)
                    return seat or self.alone(scope, exact, request=request, question=question, vector=vector)
                unseen = [] if near is None else [flight for flight in under_way.values() if flight not in looked]
                if near is None or not unseen:
                    seat = self.alone(scope, exact, request=request, question=question, vector=vector)
                    self._open.setdefault(scope, {})[exact] = seat.flight
                    if after is not None:
                        _last_since(after, exact).successors[exact] = seat.flight
                    return seat
            found = near(unseen)
            if found is None:
                looked.update(unseen)
            elif (seat := self.follow(found, request=request)) is not None:
                return seat
            else:
                looked.add(found)

    def alone(self, scope: str, exact: str, *, request: str, question: str = "", vector: Any = None) -> Seat:
        """Lead a flight that nobody can follow."""
        flight = Flight(scope, exact, request, question, vector)
        return self._board(Seat(self, flight, request, is_leader=True))

    def under_way(self, scope: str) -> list[Flight]:
        """The flights of a scope that can be followed now."""
        with self._lock:
            return list(self._open.get(scope, {}).values())

    def follow(self, flight: Flight, *, request: str) -> Seat | None:
        """Follow a flight; None when it was lost, or would have to wait for this request."""
        with self._lock:
            is_open = self._open.get(flight.scope, {}).get(flight.exact) is flight
            if not is_open and flight.state != "landed":
                return None
            if flight.state == "flying" and (_needs_this_thread(flight) or self._waits_for(flight, request)):
                return None
            return self._board(Seat(self, flight, request, is_leader=False))

    def _waits_for(self, flight: Flight, request: str) -> bool:
        """Whether the flight's leader is, or waits for, this request."""
        asked, seen = [flight.request], set[str]()
        while asked:
            one = asked.pop()
            if one == request:
                return True
            if one not in seen:
                seen.add(one)
                asked.extend(followed.request for followed in self._followed.get(one, ()))
        return False

    def _board(self, seat: Seat) -> Seat:
        with self._lock:
            seat.flight.on_board += 1
            self._boarded.add(seat.flight)
            if not seat.is_leader:
                self._followed.setdefault(seat.request, []).append(seat.flight)
        return seat

    def _get_off(self, seat: Seat) -> None:
        flight = seat.flight
        with self._lock:
            if seat._has_left:
                return
            seat._has_left = True
            flight.on_board -= 1
            if seat.is_leader:
                self._close(flight)
            elif flight in (followed := self._followed.get(seat.request, [])):
                followed.remove(flight)
                if not followed:
                    del self._followed[seat.request]
            if not flight.on_board:
                flight.chunks = []
                self._boarded.discard(flight)

    def _end(self, flight: Flight, state: State, landed: Landed | None, error: Exception | None) -> None:
        with self._lock:
            if flight.state != "flying":
                return
            flight.landed, flight.error, flight.state = landed, error, state
            flight.place = flight.place[0], None  # a task is not kept longer than it is needed
            if state != "landed":
                self._close(flight)  # before anybody wakes up and joins again
        flight.signal.tell()

    def _close(self, flight: Flight) -> None:
        with self._lock:
            flights = self._open.get(flight.scope, {})
            if flights.get(flight.exact) is flight:
                del flights[flight.exact]
                if not flights:
                    del self._open[flight.scope]


def _answered_since(lost: Flight | None, exact: str) -> Flight | None:
    """What came of the question since this flight was lost, if it was answered."""
    while lost is not None and lost.state != "landed":
        lost = lost.successors.get(exact)
    return lost


def _last_since(lost: Flight, exact: str) -> Flight:
    """Of those who took over one after another, the last: whoever was lost with any of them finds who comes next."""
    while (after := lost.successors.get(exact)) is not None:
        lost = after
    return lost


def _needs_this_thread(flight: Flight) -> bool:
    """Whether the leader cannot go on before whoever runs this does: it was left half-way in the same thread.

    Tasks of one event loop let each other go on; a sync call on the loop's thread does not, and `Seat.may_block`
    sees to that one.
    """
    (thread, task), (leaders_thread, leaders_task) = _here(), flight.place
    return leaders_thread == thread and (task is None or leaders_task is None or task is leaders_task)


FLIGHTS = Flights()
"""Those of this process."""
