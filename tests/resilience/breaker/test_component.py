from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor, wait
from types import SimpleNamespace

import pytest
from langchain_core.messages import AIMessageChunk
from langchain_core.runnables import RunnableGenerator, RunnableLambda

import chainops
from chainops.core.clock import use_clock
from chainops.core.errors import CallRefused, DeadlineExceeded, InvalidInput, StoreUnavailable
from chainops.core.steps import Cancelled
from chainops.models.failures import Failure, ModelFailed, ModelUnavailable
from chainops.models.model import Model
from chainops.resilience.breaker import policy
from chainops.resilience.breaker.circuit import BACKGROUND, Circuit
from chainops.resilience.breaker.component import Breaker
from chainops.resilience.breaker.policy import CLOSED, BreakerSettings, Opening, Route
from chainops.resilience.breaker.records import (
    CircuitAlone,
    CircuitClosed,
    CircuitOpen,
    CircuitOpened,
    CircuitProbing,
)
from chainops.resilience.breaker.sql_circuits import SqlCircuits
from chainops.resilience.component import Fallback, Sentence
from chainops.stores.sql import SqlStore
from chainops.testing.chat import Reply, ScriptedChatModel
from chainops.testing.listening import ManualClock, capture_events

SETTINGS = BreakerSettings(failures=3, within_s=10, open_s=8, most_open_s=60, probe_s=20)


class Server:
    """What stands behind a route: raises `error` while there is one, and counts its calls."""

    def __init__(self, error=None):
        self.error, self.calls = error, 0

    def __call__(self, _value):
        self.calls += 1
        if self.error is not None:
            raise self.error
        return "fine"


def overloaded():
    return ModelUnavailable("m", Failure("retryable", "overloaded", status=529), next_move="wait")


def breaker(server, **more):
    return Breaker(**({"inner": RunnableLambda(server), "settings": SETTINGS, "name": "route"} | more))


def opened(server, **more):
    made = breaker(server, **more)
    for _ in range(SETTINGS.failures):
        with pytest.raises(ModelUnavailable):
            made.invoke("x")
    return made


@pytest.fixture
def clock():
    with use_clock(ManualClock()) as clock:
        yield clock


def outcomes(runnable, value="x"):
    """What each of the four drivers raises."""

    async def astreamed():
        return [each async for each in runnable.astream(value)]

    for call in (
        lambda: runnable.invoke(value),
        lambda: asyncio.run(runnable.ainvoke(value)),
        lambda: list(runnable.stream(value)),
        lambda: asyncio.run(astreamed()),
    ):
        try:
            yield call()
        except Exception as error:
            yield error


def test_an_open_circuit_refuses_at_once_in_every_driver_and_says_why(clock):
    server = Server(overloaded())
    with capture_events() as events:
        made = opened(server)
    (told,) = events.of(CircuitOpened)
    assert (told.route, told.failure, told.reason, told.open_s) == ("route", "server", "overloaded", 8)
    since = clock.now
    clock.advance(3)
    for refusal in outcomes(made):
        assert isinstance(refusal, CircuitOpen)
        assert isinstance(refusal, CallRefused)
        assert (refusal.reason, refusal.failure, refusal.because) == ("circuit open", "server", "overloaded")
        assert refusal.since == since
        assert refusal.retry_after_s == pytest.approx(5)
        assert refusal.report["stages"][0]["facts"] == {"circuit": "open", "because": "server: overloaded"}
    assert server.calls == 3


@pytest.mark.parametrize("driver", range(4))
def test_failures_are_counted_and_probes_made_in_every_driver(clock, driver):
    server = Server(overloaded())
    made = breaker(server)
    calls = (
        lambda: made.invoke("x"),
        lambda: asyncio.run(made.ainvoke("x")),
        lambda: list(made.stream("x")),
        lambda: asyncio.run(_astream(made)),
    )
    for _ in range(3):
        with pytest.raises(ModelUnavailable):
            calls[driver]()
    with pytest.raises(CircuitOpen):
        calls[driver]()
    clock.advance(8.1)
    server.error = None
    with capture_events() as events:
        calls[driver]()
        calls[driver]()
    assert [type(each) for each in events.of(CircuitProbing, CircuitClosed)] == [CircuitProbing, CircuitClosed]
    assert events.of(CircuitClosed)[0].open_s == pytest.approx(8.1)


async def _astream(runnable):
    return [each async for each in runnable.astream("x")]


def test_a_failed_probe_opens_it_for_twice_as_long(clock):
    server = Server(overloaded())
    made = opened(server)
    for expected in (16, 32, 60, 60):
        clock.advance(60.1)
        with capture_events() as events, pytest.raises(ModelUnavailable):
            made.invoke("x")
        assert events.of(CircuitOpened)[0].open_s == expected
        with pytest.raises(CircuitOpen):
            made.invoke("x")


def test_after_it_closed_it_starts_from_the_beginning(clock):
    server = Server(overloaded())
    made = opened(server)
    clock.advance(9)
    server.error = None
    made.invoke("x")
    server.error = overloaded()
    for _ in range(3):
        with pytest.raises(ModelUnavailable):
            made.invoke("x")
    with pytest.raises(CircuitOpen) as caught:
        made.invoke("x")
    assert caught.value.retry_after_s == 8


def test_what_says_nothing_about_the_route_is_neither_failure_nor_success(clock):
    neutral = [
        ModelFailed("m", Failure("caller", "invalid request"), next_move="-"),
        ModelFailed("m", Failure("next_route", "context length"), next_move="-"),
        InvalidInput("question", "''", "text"),
        KeyError("bug"),
        CallRefused("m", "over budget", "there is no money left"),
    ]
    server = Server()
    made = breaker(server)
    for error in neutral * 5:
        server.error = error
        with pytest.raises(type(error)):
            made.invoke("x")
    server.error = overloaded()
    made = opened(server)
    clock.advance(9)
    for error in neutral:  # each is a probe, and gives its turn back
        server.error = error
        with pytest.raises(type(error)):
            made.invoke("x")
    server.error = None
    with capture_events() as events:
        made.invoke("x")
    assert events.of(CircuitClosed)


def test_a_route_that_hangs_until_the_deadline_is_a_timeout_if_it_had_time_enough(clock):
    def hangs(_value):
        clock.advance(waits)
        raise DeadlineExceeded("model", waits)

    waits, made = 9.0, breaker(hangs, settings=SETTINGS.model_copy(update={"within_s": 100.0}))
    for _ in range(5):
        with pytest.raises(DeadlineExceeded):
            made.invoke("x")
    waits = 10.0
    for _ in range(3):
        with pytest.raises(DeadlineExceeded):
            made.invoke("x")
    with pytest.raises(CircuitOpen) as caught:
        made.invoke("x")
    assert caught.value.failure == "timeout"


def test_a_rate_limit_closes_the_route_for_as_long_as_it_says(clock):
    server = Server(
        ModelUnavailable("m", Failure("retryable", "rate limit", retry_after_s=25.0, status=429), next_move="-")
    )
    made = breaker(server)
    with pytest.raises(ModelUnavailable):
        made.invoke("x")
    with pytest.raises(CircuitOpen) as caught:
        made.invoke("x")
    assert caught.value.retry_after_s == 25
    assert caught.value.failure == "rate limit"


def under_way(made_of, errors):
    """A breaker, and one stream through it for each error, which the stream raises when it is read on."""
    raising = iter(errors)

    def says(_inputs):
        error = next(raising)
        yield "first words"
        raise error

    breaker = Breaker(inner=RunnableGenerator(says), settings=made_of, name="route")
    streams = [breaker.stream("x") for _ in errors]
    for stream in streams:
        next(stream)
    return breaker, streams


def limited(retry_after_s):
    failure = Failure("retryable", "rate limit", retry_after_s=retry_after_s, status=429)
    return ModelUnavailable("m", failure, next_move="-")


def test_a_later_deadline_of_a_call_under_way_wins_litellm_40130(clock):
    made, streams = under_way(SETTINGS, [limited(10.0), limited(40.0), limited(5.0)])
    for stream in streams:
        with pytest.raises(ModelUnavailable):
            list(stream)
    with pytest.raises(CircuitOpen) as caught:
        made.invoke("x")
    assert caught.value.retry_after_s == 40


def test_what_was_under_way_when_it_opened_does_not_keep_it_open_for_longer(clock):
    with capture_events() as events:
        made, streams = under_way(SETTINGS, [overloaded() for _ in range(6)])
        for stream in streams:
            with pytest.raises(ModelUnavailable):
                list(stream)
            clock.advance(1)
    with pytest.raises(CircuitOpen) as caught:
        made.invoke("x")
    assert caught.value.retry_after_s == 8 - 4  # it opened with the third, four seconds ago
    assert len(events.of(CircuitOpened)) == 1


def test_an_earlier_deadline_is_no_news(clock):
    with capture_events() as events:
        _, streams = under_way(SETTINGS, [limited(40.0), limited(5.0)])
        for stream in streams:
            with pytest.raises(ModelUnavailable):
                list(stream)
    assert [each.open_s for each in events.of(CircuitOpened)] == [40]


def test_a_stream_that_is_cut_after_its_first_words_is_a_failure(clock):
    def says(_inputs):
        yield AIMessageChunk(content="The answer")
        raise ConnectionError("cut")

    made = Breaker(inner=RunnableGenerator(says), settings=SETTINGS, name="route")
    for _ in range(3):
        with pytest.raises(ConnectionError):
            list(made.stream("x"))
    with pytest.raises(CircuitOpen):
        list(made.stream("x"))


def test_a_model_that_breaks_off_is_replaced_and_then_no_longer_asked(clock):
    chat = ScriptedChatModel(replies=[Reply("one two three", fail_after_chunks=1)], loop=True)
    model = Model(chat=lambda: chat, model="openai:small", name="small")
    chain = Fallback(
        routes=(Breaker(inner=model, settings=SETTINGS, name="small"), Sentence(text="sorry")), names=("small", "say")
    )
    for _ in range(3):
        assert "".join(each.content for each in chain.stream("x")).startswith("one")
    answer = chain.invoke("x")
    assert answer.content == "sorry"
    assert answer.response_metadata["chainops"]["status"] == "degraded"
    assert "circuit open" in answer.response_metadata["chainops"]["reasons"][0]


def test_a_caller_who_hangs_up_gives_the_probe_back(clock):
    server = Server(overloaded())
    held = Circuit("route", SETTINGS)
    opened(server, circuit=held)

    def says(_inputs):
        yield "a"
        yield "b"

    streaming = Breaker(inner=RunnableGenerator(says), circuit=held, name="route")
    clock.advance(9)
    stream = streaming.stream("x")
    next(stream)
    with pytest.raises(CircuitOpen, match="another call is trying it now"):
        streaming.invoke("x")
    stream.close()
    with capture_events() as events:
        streaming.invoke("x")
    assert events.of(CircuitClosed)


def test_a_probe_that_never_ends_frees_its_claim(clock):
    server = Server(overloaded())
    held = Circuit("route", SETTINGS)
    made = opened(server, circuit=held)

    def forever(_inputs):
        yield "a"
        yield "b"

    clock.advance(9)
    stuck = Breaker(inner=RunnableGenerator(forever), circuit=held, name="route").stream("x")
    next(stuck)
    clock.advance(19.9)
    with pytest.raises(CircuitOpen):
        made.invoke("x")
    clock.advance(0.2)
    server.error = None
    assert made.invoke("x") == "fine"
    stuck.close()
    assert made.invoke("x") == "fine"


def test_half_open_lets_one_of_64_callers_through_purgatory(clock):
    server = Server(overloaded())
    made = opened(server)
    calls_before = server.calls
    clock.advance(9)
    entered, leave = threading.Event(), threading.Event()

    def slow(value):
        entered.set()
        leave.wait(60)
        return Server.__call__(server, value)

    server.error = None
    held = Breaker(inner=RunnableLambda(slow), circuit=made._circuit, name="route")

    def call(_):
        with use_clock(clock):
            try:
                return held.invoke("x")
            except CircuitOpen:
                return "refused"

    with ThreadPoolExecutor(64) as threads:
        results = [threads.submit(call, n) for n in range(64)]
        assert entered.wait(60)
        while sum(each.done() for each in results) < 63:
            time.sleep(0.002)
        leave.set()
        said = [each.result() for each in results]
    assert server.calls - calls_before == 1
    assert sorted(set(said)) == ["fine", "refused"]
    assert said.count("fine") == 1


def test_no_lock_is_held_during_a_call_pybreaker_24(clock):
    """All of 64 calls are inside at the same moment; afterwards the circuit's time of opening stays the first one's."""
    inside = threading.Barrier(64)

    def call_inside(_value):
        inside.wait(60)
        raise overloaded()

    made = breaker(call_inside)

    def call(_):
        with use_clock(clock), pytest.raises(ModelUnavailable):
            made.invoke("x")

    with ThreadPoolExecutor(64) as threads:
        list(threads.map(call, range(64)))
    since = clock.now
    clock.advance(2)
    with pytest.raises(CircuitOpen) as caught:
        made.invoke("x")
    assert caught.value.since == since


def test_64_tasks_probe_once(clock):
    server = Server(overloaded())
    made = opened(server)
    clock.advance(9)
    calls, refused = 0, 0

    async def slow(_value):
        nonlocal calls
        calls += 1
        while refused < 63:
            await asyncio.sleep(0.001)
        return "fine"

    held = Breaker(inner=RunnableLambda(slow), circuit=made._circuit, name="route")

    async def ask():
        nonlocal refused
        try:
            return await held.ainvoke("x")
        except CircuitOpen as refusal:
            refused += 1
            return refusal

    async def all_at_once():
        async with asyncio.timeout(60):
            return await asyncio.gather(*(ask() for _ in range(64)))

    said = asyncio.run(all_at_once())
    assert calls == 1
    assert said.count("fine") == 1
    assert sum(isinstance(each, CircuitOpen) for each in said) == 63


def test_an_answer_from_a_cache_proves_nothing(clock):
    server = Server(overloaded())
    made = opened(server)
    clock.advance(9)

    class Cached(chainops.core.component.Component):
        def plan(self, value, run):
            run.report.status = "cached"
            return value
            yield

    with capture_events() as events:
        Breaker(inner=Cached(), circuit=made._circuit, name="route").invoke("x")
    assert not events.of(CircuitClosed)


class Gone:
    """A store that cannot be reached."""

    place = "redis://gone"

    def look(self, _route):
        raise StoreUnavailable(self.place, "gone", "wait")

    def change(self, _route, _change):
        raise StoreUnavailable(self.place, "gone", "wait")


class Outdated:
    """A store that answers what was true before something happened here."""

    place = "slow"

    def __init__(self):
        self.meanwhile = lambda: None

    def look(self, _route):
        self.meanwhile()
        return Route()

    def change(self, _route, change):
        raise StoreUnavailable(self.place, "slow", "wait")


def test_what_was_read_before_a_change_does_not_undo_it(clock):
    store = Outdated()
    held = Circuit("route", SETTINGS, lambda: store)
    store.meanwhile = lambda: held._change(
        lambda route: policy.opened(route, Opening("server", "r", clock.now, clock.now + 9))
    )
    held.refresh()
    assert held.route.openings


def test_without_its_store_it_goes_on_alone_and_says_so_once(clock):
    server = Server(overloaded())
    with capture_events() as events:
        made = opened(server, store=Gone)
        assert BACKGROUND.drain(60)
        with pytest.raises(CircuitOpen):
            made.invoke("x")
        clock.advance(9)
        server.error = None
        assert made.invoke("x") == "fine"
    assert len(events.of(CircuitAlone)) == 1
    assert events.of(CircuitClosed)


def test_what_was_found_while_alone_is_told_when_the_store_is_back(clock, open_circuits, tmp_path):
    reachable = open_circuits(f"sqlite:///{tmp_path}/c.db")
    place = [Gone()]
    server = Server(overloaded())
    made = opened(server, store=lambda: place[0])
    assert BACKGROUND.drain(60)
    place[0] = reachable
    clock.advance(1)
    with pytest.raises(CircuitOpen):
        made.invoke("x")
    assert BACKGROUND.drain(60)
    assert reachable.look("route").openings


class BusyCircuits(SqlCircuits):
    """A real store in which each change waits until `room` is made for it, and a look until `shown`."""

    def __init__(self, store):
        super().__init__(store)
        self.room, self.shown = threading.Semaphore(0), threading.Event()
        self.shown.set()
        self.looked = threading.Event()

    def look(self, route):
        found = super().look(route)
        self.looked.set()
        assert self.shown.wait(60)
        return found

    def change(self, route, how):
        assert self.room.acquire(timeout=60)
        return super().change(route, how)


@pytest.fixture
def busy(clock, tmp_path):
    """A breaker that one failure opens, on such a store; the opening is still on its way there."""
    circuits = BusyCircuits(SqlStore(tmp_path / "busy.db"))
    server = Server(ConnectionError("gone"))
    settings = BreakerSettings(failures=1, open_s=1)
    made = Breaker(inner=RunnableLambda(server), settings=settings, store=lambda: circuits, name="busy")
    with pytest.raises(ConnectionError):
        made.invoke("x")
    clock.advance(2)  # the copy is old, and the store does not know yet: it is due for a probe all the same
    server.error = None
    yield made, circuits
    for _ in range(50):
        circuits.room.release()
    assert BACKGROUND.drain(60)


def test_an_opening_that_is_still_on_its_way_to_a_busy_store_is_not_forgotten(busy):
    made, circuits = busy
    with capture_events() as events:
        threading.Timer(0.1, circuits.room.release, [10]).start()
        made.invoke("x")
    assert len(events.of(CircuitProbing)) == len(events.of(CircuitClosed)) == 1


def test_a_claim_that_overtakes_the_opening_is_a_probe_all_the_same(busy):
    made, circuits = busy
    circuit = made._circuit
    claim = threading.Thread(
        target=lambda: found.append(circuit._claim("token", made._circuit._route.openings[0].until))
    )
    found: list[Route] = []
    # Only the order in which the two ask the store matters, so the claim asks it by itself here.
    circuits.change, waits = super(BusyCircuits, circuits).change, circuits.change
    claim.start()
    claim.join()
    circuits.change = waits
    assert found[0].probe == "token"
    assert found[0].openings


def test_what_was_read_while_a_change_was_on_its_way_does_not_undo_it(busy):
    made, circuits = busy
    circuits.shown.clear()
    reading = threading.Thread(target=made._circuit.refresh)
    reading.start()  # reads that nothing is open
    assert circuits.looked.wait(60)
    circuits.room.release()  # only now the store is told
    assert BACKGROUND.drain(60)
    circuits.shown.set()
    reading.join()
    assert made._circuit.route.openings


def test_a_circuit_that_was_closed_while_a_claim_waited_for_a_store_that_then_failed_stays_closed(busy):
    made, circuits = busy
    circuit, now = made._circuit, made._circuit.route.openings[0].until
    asked, go_on, change = threading.Event(), threading.Event(), circuits.change

    def fail(*_):
        asked.set()
        assert go_on.wait(60)
        raise StoreUnavailable("busy", "gone", "wait")

    circuits.change = fail
    with ThreadPoolExecutor(1) as threads:
        claim = threads.submit(circuit._claim, "token", now)
        assert asked.wait(60)
        circuits.change = change
        circuit._change(lambda route: policy.proven(route, now, circuit.settings))  # another call's probe
        go_on.set()
        assert claim.result(60) == CLOSED
    assert circuit.route == CLOSED


def test_a_probe_that_fails_while_the_store_is_being_read_opens_the_circuit_again(busy, clock):
    """What was read before the claim does not know of it."""
    made, circuits = busy
    circuits.room.release(10)
    assert BACKGROUND.drain(60)
    circuits.shown.clear()
    circuits.looked.clear()
    reading = threading.Thread(target=made._circuit.refresh)
    reading.start()
    assert circuits.looked.wait(60)

    def fail(_value):
        circuits.shown.set()
        reading.join()
        raise ConnectionError("gone")

    made._circuit._looked = clock.now  # the copy is fresh enough
    probing = Breaker(inner=RunnableLambda(fail), circuit=made._circuit, name="busy")
    with capture_events() as events, pytest.raises(ConnectionError):
        probing.invoke("x")
    assert [each.times for each in events.of(CircuitOpened)] == [2]
    with pytest.raises(CircuitOpen):
        made.invoke("x")


def test_a_probe_that_was_given_back_is_free_at_once_though_the_store_is_told_later(busy, clock):
    made, circuits = busy
    circuit, now = made._circuit, clock.now
    circuits.room.release()
    assert BACKGROUND.drain(60)
    circuits.room.release()
    assert circuit._claim("first", now).probe == "first"
    circuit.released("first")  # on its way to the store, which makes no room for it
    circuits.change, waits = super(BusyCircuits, circuits).change, circuits.change
    try:
        assert circuit._claim("second", now).probe == "second"
    finally:
        circuits.change = waits


class FailsOnce(SqlCircuits):
    """A real store that does not take the first change."""

    fails, meanwhile = True, staticmethod(lambda: None)

    def look(self, route):
        found = super().look(route)
        self.meanwhile()
        return found

    def change(self, route, how):
        if self.fails:
            self.fails = False
            raise StoreUnavailable(self.place, "locked", "repeat")
        return super().change(route, how)


def test_an_opening_that_the_store_did_not_take_while_it_was_being_read_is_told_it_again(clock, tmp_path):
    store = FailsOnce(SqlStore(tmp_path / "c.db"))
    held = Circuit("route", SETTINGS, lambda: store)

    def meanwhile():
        held._change(lambda route: policy.opened(route, Opening("server", "r", clock.now, clock.now + 9)))
        assert BACKGROUND.drain(60)

    store.meanwhile = meanwhile
    held.refresh()
    store.meanwhile = lambda: None
    held.refresh()
    assert held.route.openings
    assert store.look("route").openings


def test_what_was_read_earlier_does_not_come_after_what_was_read_later(clock, tmp_path):
    circuits = BusyCircuits(SqlStore(tmp_path / "c.db"))
    circuits.room.release(10)
    held = Circuit("route", SETTINGS, lambda: circuits)
    circuits.shown.clear()
    with ThreadPoolExecutor(2) as threads:
        earlier = threads.submit(held.refresh)
        assert circuits.looked.wait(60)
        circuits.change("route", lambda route: policy.opened(route, Opening("server", "r", clock.now, clock.now + 9)))
        circuits.look = super(BusyCircuits, circuits).look
        later = threads.submit(held.refresh)
        wait([later], timeout=0.2)  # it comes first, where nothing keeps it from that
        circuits.shown.set()
        earlier.result(60), later.result(60)
    assert held.route.openings


def test_of_calls_after_a_pause_none_is_let_through_before_the_store_was_read(clock, tmp_path):
    circuits = BusyCircuits(SqlStore(tmp_path / "c.db"))
    circuits.room.release(10)
    circuits.change("route", lambda route: policy.opened(route, Opening("server", "r", clock.now, clock.now + 9)))
    circuits.shown.clear()
    server = Server()
    made = breaker(server, store=lambda: circuits)

    def call():
        with use_clock(clock), pytest.raises(CircuitOpen):
            made.invoke("x")

    with ThreadPoolExecutor(2) as threads:
        calls = [threads.submit(call)]
        assert circuits.looked.wait(60)
        calls.append(threads.submit(call))
        wait(calls, timeout=0.2)  # it goes through now, where nothing keeps it from that
        circuits.shown.set()
        for each in calls:
            each.result(60)
    assert not server.calls


def test_of_failures_at_the_same_time_one_opens_the_circuit_and_is_told(clock):
    class Meanwhile(Circuit):
        """Before a change is made, another call fails."""

        another = True

        def _opening(self, *arguments):
            found = super()._opening(*arguments)
            if self.another:
                self.another = False
                threads.submit(self.failed, run, None, failure)
                wait_a_little.wait(0.2)
            return found

    told, wait_a_little = [], threading.Event()
    run = SimpleNamespace(clock=clock, emit=told.append)
    failure = Failure("retryable", "overloaded")
    with ThreadPoolExecutor(1) as threads:
        Meanwhile("route", BreakerSettings(failures=1)).failed(run, None, failure)
    assert [type(each) for each in told] == [CircuitOpened]


def test_a_probe_that_is_collected_while_a_failure_is_counted_is_given_back(clock):
    held = Circuit("route", SETTINGS)
    with pytest.raises(ModelUnavailable):
        breaker(Server(limited(5.0)), circuit=held).invoke("x")
    clock.advance(6)
    assert held._claim("forgotten", clock.now).probe == "forgotten"

    class Collects(policy.Recent):
        """As the garbage collector does, wherever something is made."""

        def failed(self, *arguments):
            held.released("forgotten")
            return super().failed(*arguments)

    held._recent = Collects(SETTINGS)
    run = SimpleNamespace(clock=clock, emit=lambda _: None)
    counting = threading.Thread(target=held.failed, args=(run, None, Failure("retryable", "overloaded")), daemon=True)
    counting.start()
    counting.join(30)
    assert not counting.is_alive()
    assert held.route.probe is None


def test_a_probe_that_is_granted_after_the_caller_left_is_given_back(busy, clock):
    """The store answers when nobody waits for it any more."""
    made, circuits = busy
    circuits.room.release(10)
    assert BACKGROUND.drain(60)
    made._circuit._looked = clock.now  # the copy is fresh enough
    steps = made._circuit.admit(SimpleNamespace(clock=clock, emit=lambda _: None))
    claim = next(steps)
    with pytest.raises(Cancelled):
        steps.throw(Cancelled())
    assert claim.work().probe is not None
    assert made._circuit.route.probe is None
    assert BACKGROUND.drain(60)
    assert circuits.look("busy").probe is None
