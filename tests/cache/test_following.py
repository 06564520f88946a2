"""Equal requests at the same time make one call, in threads, tasks and streams, whatever becomes of its leader."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.runnables import RunnableGenerator, RunnableLambda
from pydantic import Field

from chainops.cache.sharing.flight import Flights, Landed
from chainops.cache.sharing.following import CallShared, Cut, LeaderLost, SharedCallCut, follow, goes_alone, lead
from chainops.core.caller import caller
from chainops.core.component import AnyRunnable, Component
from chainops.core.errors import DeadlineExceeded
from chainops.core.signal import Signal
from chainops.testing.chat import Reply, ScriptedChatModel
from chainops.testing.listening import capture_events


class Shared(Component[Any, Any]):
    """Uses flights the way the cache does."""

    inner: AnyRunnable
    flights: Flights
    stall_s: float = 15.0
    is_private: bool = False
    journal: list[Any] = Field(default_factory=list)
    """What each request has said as a follower, as far as it has come."""

    def plan(self, value, run):
        said: list[Any] = []
        self.journal.append(said)
        came: Any = None
        while not isinstance(came, Landed | Cut):
            if goes_alone(came):
                seat = self.flights.alone("s", value, request=run.request.id)
            else:
                seat = self.flights.join("s", value, request=run.request.id, after=came and came.flight)
            run.on_close(seat.leave)
            if seat.is_leader:
                answer = yield from lead(seat, self.inner, value, run, said, may_share=lambda _: not self.is_private)
                seat.leave()
                return answer
            came = yield from follow(seat, run, said, stall_s=self.stall_s)
        if isinstance(came, Landed):
            run.report.adopt(came.facts)
        return came.answer


class Teller:
    """A child that says a piece whenever it is allowed one more. Each call has its own script; the last one repeats.

    An exception in a script is raised in its place.
    """

    def __init__(self, *scripts: list[Any]) -> None:
        self.scripts, self.calls, self.taken = scripts, 0, 0
        self.lock, self.gate = threading.Lock(), Signal()

    def allow(self, pieces: int = 10_000) -> None:
        for _ in range(pieces):
            self.gate.tell()

    def _begin(self) -> list[Any]:
        with self.lock:
            self.calls += 1
            return self.scripts[min(self.calls, len(self.scripts)) - 1]

    def _ticket(self) -> int:
        with self.lock:
            self.taken += 1
            return self.taken - 1

    def transform(self, inputs: Any) -> Any:
        list(inputs)
        for piece in self._begin():
            assert self.gate.wait_beyond(self._ticket(), 60)
            yield self._said(piece)

    async def atransform(self, inputs: Any) -> Any:
        async for _ in inputs:
            pass
        for piece in self._begin():
            assert await self.gate.await_beyond(self._ticket(), 60)
            yield self._said(piece)

    @staticmethod
    def _said(piece: Any) -> Any:
        if isinstance(piece, Exception):
            raise piece
        return piece if isinstance(piece, AIMessageChunk) else AIMessageChunk(content=piece)

    @property
    def runnable(self) -> Any:
        return RunnableGenerator(self.transform, self.atransform, name="teller")


@pytest.fixture
def flights():
    flights = Flights()
    yield flights
    assert (len(flights), flights._open, flights._followed) == (0, {}, {})


@pytest.fixture
def pool():
    with ThreadPoolExecutor(40) as pool:
        yield pool


async def read(stream):
    return [piece async for piece in stream]


CALLS = {
    "invoke": lambda chain, config=None: [chain.invoke("q", config)],
    "stream": lambda chain, config=None: list(chain.stream("q", config)),
    "ainvoke": lambda chain, config=None: [asyncio.run(chain.ainvoke("q", config))],
    "astream": lambda chain, config=None: asyncio.run(read(chain.astream("q", config))),
}


def text(pieces):
    return "".join(piece.text for piece in pieces)


def eventually(is_so):
    for _ in range(60_000):
        if is_so():
            return
        time.sleep(0.001)
    pytest.fail("it never came to that")


def aboard(flights, count):
    """Wait until so many are on the one flight."""
    eventually(lambda: any(flight.on_board == count for flight in flights.under_way("s")))


def heard(flights, pieces):
    """Wait until so many pieces have been told."""
    eventually(lambda: any(len(flight.chunks) == pieces for flight in flights.under_way("s")))


def followed(chain, followers, pieces):
    """Wait until so many followers have said so many pieces each."""
    eventually(lambda: sum(len(said) == pieces for said in chain.journal) == followers)


# One call


@pytest.mark.parametrize("follower", CALLS)
@pytest.mark.parametrize("leader", CALLS)
def test_two_requests_of_any_kind_make_one_call_and_are_told_the_same(flights, pool, leader, follower):
    teller = Teller(["one ", "two ", "three"])
    chain = Shared(inner=teller.runnable, flights=flights)
    first = pool.submit(CALLS[leader], chain)
    aboard(flights, 1)
    second = pool.submit(CALLS[follower], chain)
    aboard(flights, 2)
    teller.allow()
    assert text(first.result(60)) == text(second.result(60)) == "one two three"
    assert teller.calls == 1


def test_32_threads_make_one_call(flights, pool):
    teller = Teller(["the ", "answer"])
    chain = Shared(inner=teller.runnable, flights=flights)
    with capture_events() as told:
        results = [pool.submit(copy_context().run, chain.invoke, "q") for _ in range(32)]
        aboard(flights, 32)
        teller.allow()
        answers = [each.result(60) for each in results]
    assert teller.calls == 1
    assert {answer.text for answer in answers} == {"the answer"}
    assert len({id(answer) for answer in answers}) == 32
    assert len(told.of(CallShared)) == 31


@pytest.mark.parametrize("streams", [False, True])
def test_64_tasks_make_one_call(flights, streams):
    teller = Teller(["a ", "b ", "c"])
    chain = Shared(inner=teller.runnable, flights=flights)

    async def one():
        return text(await read(chain.astream("q"))) if streams else (await chain.ainvoke("q")).text

    async def main():
        before = threading.active_count()
        tasks = [asyncio.create_task(one()) for _ in range(64)]
        while not flights.under_way("s") or flights.under_way("s")[0].on_board < 64:
            await asyncio.sleep(0)
        teller.allow()
        answers = await asyncio.gather(*tasks)
        assert threading.active_count() <= before, "followers occupy no thread"
        return answers

    assert asyncio.run(main()) == ["a b c"] * 64
    assert teller.calls == 1


def test_threads_and_several_loops_make_one_call_together(flights, pool):
    teller = Teller(["one ", "two ", "three"])
    chain = Shared(inner=teller.runnable, flights=flights)

    async def several():
        told = await asyncio.gather(*(read(chain.astream("q")) for _ in range(5)), chain.ainvoke("q"))
        return [text(each) if isinstance(each, list) else each.text for each in told]

    loops = [pool.submit(asyncio.run, several()) for _ in range(3)]
    threads = [pool.submit(CALLS[name], chain) for name in ("invoke", "stream") for _ in range(6)]
    aboard(flights, 3 * 6 + 12)
    teller.allow()
    assert [each.result(60) for each in loops] == [["one two three"] * 6] * 3
    assert {text(each.result(60)) for each in threads} == {"one two three"}
    assert teller.calls == 1


def test_every_follower_hears_every_piece_from_the_start_as_it_comes(flights, pool):
    teller = Teller(["one ", "two ", "three"])
    chain = Shared(inner=teller.runnable, flights=flights)
    leader = pool.submit(CALLS["stream"], chain)
    aboard(flights, 1)
    early = pool.submit(CALLS["stream"], chain)
    aboard(flights, 2)
    teller.allow(2)
    heard(flights, 2)
    late = chain.stream("q")
    assert [next(late).text, next(late).text] == ["one ", "two "], "while the leader has not ended"
    teller.allow()
    expected = ["one ", "two ", "three", ""]
    assert [piece.text for piece in late] == expected[2:]
    assert [[piece.text for piece in each.result(60)] for each in (leader, early)] == [expected, expected]
    assert teller.calls == 1


def test_a_leader_that_is_invoked_gives_a_stream_the_whole(flights, pool):
    gate = threading.Event()

    def answer(_):
        assert gate.wait(60)
        return AIMessage(content="all of it")

    chain = Shared(inner=RunnableLambda(answer), flights=flights)
    leader = pool.submit(chain.invoke, "q")
    aboard(flights, 1)
    follower = pool.submit(CALLS["stream"], chain)
    aboard(flights, 2)
    gate.set()
    assert [piece.text for piece in follower.result(60)] == ["all of it", ""]
    leader.result(60)


def test_a_slow_follower_does_not_slow_the_leader(flights, pool):
    teller = Teller([str(number) for number in range(50)])
    chain = Shared(inner=teller.runnable, flights=flights)
    leader = pool.submit(CALLS["stream"], chain)
    aboard(flights, 1)
    slow = chain.stream("q")
    teller.allow(1)
    assert next(slow).text == "0"
    teller.allow()
    assert len(leader.result(60)) == 51
    assert text(slow) == "".join(map(str, range(1, 50)))


def test_answers_are_copies_without_the_usage_and_id_of_the_call(flights, pool):
    usage = {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2}
    call = {"name": "find", "args": {"what": ["x"]}, "id": "1", "type": "tool_call"}
    message = AIMessage(content="", tool_calls=[call], additional_kwargs={"reasoning": ["a"]}, usage_metadata=usage)
    gate = threading.Event()

    def answer(_):
        assert gate.wait(60)
        return message

    chain = Shared(inner=RunnableLambda(answer), flights=flights)
    leader = pool.submit(chain.invoke, "q")
    aboard(flights, 1)
    follower, other = (pool.submit(chain.invoke, "q") for _ in range(2))
    aboard(flights, 3)
    gate.set()
    first, second, third = leader.result(60), follower.result(60), other.result(60)
    assert second.tool_calls == first.tool_calls == [call]
    assert first.usage_metadata == usage
    assert second.usage_metadata is None
    second.additional_kwargs["reasoning"].append("b")
    second.tool_calls[0]["args"]["what"].append("y")
    for each in (first, third):
        assert each.additional_kwargs == {"reasoning": ["a"]}
        assert each.tool_calls == [call]


def test_what_the_report_says_of_the_answer_comes_with_it(flights, pool):
    teller = Teller(["x"])

    class Cites(Component[Any, Any]):
        def plan(self, value, run):
            answer = yield from Shared(inner=teller.runnable, flights=Flights()).plan(value, run)
            run.report.sources.append({"document": "d"})
            return answer

    chain = Shared(inner=Cites(), flights=flights)
    leader = pool.submit(chain.invoke, "q")
    aboard(flights, 1)
    follower = pool.submit(chain.invoke, "q")
    aboard(flights, 2)
    teller.allow()
    assert follower.result(60).sources == leader.result(60).sources == [{"document": "d"}]


# The leader is lost


@pytest.mark.parametrize("follower", CALLS)
@pytest.mark.parametrize("pieces", [0, 1, 2])
def test_when_a_stream_that_leads_is_closed_a_follower_goes_on_where_it_stopped(flights, pool, follower, pieces):
    teller = Teller(["one ", "two ", "three"], ["one two", " three"])
    chain = Shared(inner=teller.runnable, flights=flights)
    closed = threading.Event()

    async def leader():
        task = asyncio.create_task(read(chain.astream("q")))
        await asyncio.to_thread(closed.wait, 60)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    leading = pool.submit(asyncio.run, leader())
    aboard(flights, 1)
    second = pool.submit(CALLS[follower], chain)
    aboard(flights, 2)
    teller.allow(pieces)
    heard(flights, pieces)
    with teller.lock:
        teller.taken = 0  # the tickets of the lost call count for nobody
        teller.gate = Signal()
    closed.set()
    leading.result(60)
    while teller.calls < 2:
        time.sleep(0.001)
    teller.allow()
    assert text(second.result(60)) == "one two three"
    assert teller.calls == 2


def test_an_error_is_not_shared_followers_ask_one_after_another(flights, pool):
    asking, most = [0], [0]
    lock, fails = threading.Lock(), [3]

    def answer(_):
        with lock:
            asking[0] += 1
            most[0] = max(most[0], asking[0])
            fails[0] -= 1
            is_down = fails[0] >= 0
        if fails[0] == 2:
            aboard(flights, 20)  # the first fails when all are there
        time.sleep(0.05)
        with lock:
            asking[0] -= 1
        if is_down:
            raise ConnectionError("down")
        return AIMessage(content="up again")

    chain = Shared(inner=RunnableLambda(answer), flights=flights)
    with capture_events() as told:
        results = [pool.submit(copy_context().run, chain.invoke, "q") for _ in range(20)]
        outcomes = [each.exception(60) for each in results]
    assert sum(isinstance(each, ConnectionError) for each in outcomes) == 3
    assert {each.result().text for each in results if each.exception() is None} == {"up again"}
    assert most == [1]
    assert fails == [-1], "three failures and one answer for all"
    assert {event.how for event in told.of(LeaderLost)} == {"failed"}


@pytest.mark.parametrize("second", [["one two three"], ["on", "e two", " three"]])
def test_followers_of_every_progress_go_on_from_where_each_was(flights, pool, second):
    """The first fails after two pieces; the second call cuts the same text in other places."""
    teller = Teller(["one ", "two ", ConnectionError("cut")], second)
    chain = Shared(inner=teller.runnable, flights=flights)
    leader = pool.submit(CALLS["stream"], chain)
    aboard(flights, 1)
    early = [pool.submit(CALLS[name], chain) for name in CALLS for _ in range(3)]
    aboard(flights, 13)
    slow = chain.stream("q")
    teller.allow(1)
    assert next(slow).text == "one "
    teller.allow()
    assert isinstance(leader.exception(60), ConnectionError)
    assert {text(each.result(60)) for each in early} == {"one two three"}
    assert text(slow) == "two three"
    assert teller.calls == 2


@pytest.mark.parametrize("other", [["on the contrary"], ["one"], ["one ", ConnectionError("again"), "x"]])
def test_an_answer_that_cannot_be_continued_ends_as_truncated(flights, pool, other):
    teller = Teller(["one ", "two", ConnectionError("cut")], other, ["one of a kind"])
    chain = Shared(inner=teller.runnable, flights=flights)
    names = ("stream", "invoke", "astream")
    with capture_events() as told:
        leader = pool.submit(CALLS["stream"], chain)
        aboard(flights, 1)
        followers = [pool.submit(copy_context().run, CALLS[name], chain) for name in names]
        aboard(flights, 4)
        teller.allow(2)
        followed(chain, 3, pieces=2)
        teller.allow()
        assert isinstance(leader.exception(60), ConnectionError)
        failed = [each for each in followers if each.exception(60)]
    assert len(failed) == sum(isinstance(piece, Exception) for piece in other)
    for each in followers:
        if each not in failed:
            assert text(each.result()) == "one two"
            assert each.result()[-1].status == "truncated"
    assert teller.calls == 2 + len(failed), "one call tells all of them"
    assert len(told.of(SharedCallCut)) == 3 - len(failed)


def test_who_has_heard_nothing_of_a_lost_leader_gets_the_other_answer_whole(flights, pool):
    teller = Teller(["one ", ConnectionError("cut")], ["another"])
    chain = Shared(inner=teller.runnable, flights=flights)
    leader = pool.submit(CALLS["stream"], chain)
    aboard(flights, 1)
    follower = chain.stream("q")
    first = pool.submit(next, follower)
    aboard(flights, 2)
    teller.allow(1)
    assert first.result(60).text == "one "
    slow = flights.join("s", "q", request="slow")
    teller.allow()
    assert isinstance(leader.exception(60), ConnectionError)
    assert text(follower) == "", "it has said one piece, which the other answer does not begin with"
    assert chain.journal[1][0].text == "one "
    slow.leave()
    late = flights.join("s", "q", request="slow", after=slow.flight)
    assert (late.is_leader, late.flight.landed.answer.text) == (False, "another")
    late.leave()
    assert teller.calls == 2


def test_words_of_a_leader_known_to_be_lost_do_not_bind_a_slow_follower(flights, pool):
    teller = Teller(["one ", "two", ConnectionError("cut")], ["one more"])
    chain = Shared(inner=teller.runnable, flights=flights)
    leader = pool.submit(CALLS["stream"], chain)
    aboard(flights, 1)
    slow = chain.stream("q")
    teller.allow(1)
    assert next(slow).text == "one "
    teller.allow()
    assert isinstance(leader.exception(60), ConnectionError)
    rest = list(slow)
    assert (text(rest), rest[-1].status) == ("more", "ok")


def test_more_than_text_cannot_be_continued_and_nobody_asks_again(flights, pool):
    thought = AIMessageChunk(content="", additional_kwargs={"reasoning_content": "hm"})
    teller = Teller([thought, ConnectionError("cut")])
    chain = Shared(inner=teller.runnable, flights=flights)
    leader = pool.submit(CALLS["stream"], chain)
    aboard(flights, 1)
    follower = pool.submit(CALLS["stream"], chain)
    aboard(flights, 2)
    teller.allow(1)
    followed(chain, 1, pieces=1)
    teller.allow()
    assert isinstance(leader.exception(60), ConnectionError)
    assert follower.result(60)[-1].status == "truncated"
    assert teller.calls == 1


def test_blanks_before_the_first_words_are_not_told_before_them(flights, pool):
    teller = Teller([" \n", ConnectionError("cut")], ["other words"])
    chain = Shared(inner=teller.runnable, flights=flights)
    leader = pool.submit(CALLS["stream"], chain)
    aboard(flights, 1)
    follower = pool.submit(CALLS["stream"], chain)
    aboard(flights, 2)
    teller.allow()
    assert isinstance(leader.exception(60), ConnectionError)
    assert text(follower.result(60)) == "other words"


def test_a_private_answer_is_asked_by_each_for_itself_at_the_same_time(flights, pool):
    together = threading.Barrier(4, timeout=60)
    first, calls = threading.Event(), []

    def answer(_):
        calls.append(1)
        if len(calls) == 1:
            assert first.wait(60)
        else:
            together.wait()  # passes only when all four are asking
        return AIMessage(content="mine")

    chain = Shared(inner=RunnableLambda(answer), flights=flights, is_private=True)
    results = [pool.submit(chain.invoke, "q") for _ in range(5)]
    aboard(flights, 5)
    first.set()
    assert [each.result(60).text for each in results] == ["mine"] * 5
    assert len(calls) == 5


# Followers come and go


def test_a_cancelled_follower_leaves_the_others_alone(flights):
    teller = Teller(["one ", "two"])
    chain = Shared(inner=teller.runnable, flights=flights)

    async def main():
        leader, follower, other = (asyncio.create_task(chain.ainvoke("q")) for _ in range(3))
        while not flights.under_way("s") or flights.under_way("s")[0].on_board < 3:
            await asyncio.sleep(0)
        (flight,) = flights.under_way("s")
        follower.cancel()
        with pytest.raises(asyncio.CancelledError):
            await follower
        assert (flight.on_board, flight.signal.waiting_tasks) == (2, 1)
        teller.allow()
        assert [(await each).text for each in (leader, other)] == ["one two"] * 2

    asyncio.run(main())
    assert teller.calls == 1


def test_a_follower_whose_stream_is_closed_leaves_the_flight(flights, pool):
    teller = Teller(["one ", "two"])
    chain = Shared(inner=teller.runnable, flights=flights)
    leader = pool.submit(CALLS["stream"], chain)
    aboard(flights, 1)
    teller.allow(1)
    heard(flights, 1)
    stream = chain.stream("q")
    assert next(stream).text == "one "
    aboard(flights, 2)
    stream.close()
    aboard(flights, 1)
    teller.allow()
    assert text(leader.result(60)) == "one two"
    assert teller.calls == 1


@pytest.mark.parametrize("follower", CALLS)
def test_a_follower_ends_at_its_own_deadline(flights, pool, follower):
    teller = Teller(["one ", "two"])
    chain = Shared(inner=teller.runnable, flights=flights)
    leader = pool.submit(CALLS["invoke"], chain)
    aboard(flights, 1)
    with pytest.raises(DeadlineExceeded):
        CALLS[follower](chain, caller(deadline_s=0.05))
    assert not leader.done()
    aboard(flights, 1)
    teller.allow()
    assert text(leader.result(60)) == "one two"


def test_a_leaders_deadline_is_not_its_followers(flights, pool):
    teller = Teller(["one"])
    chain = Shared(inner=teller.runnable, flights=flights)
    leader = pool.submit(CALLS["ainvoke"], chain, caller(deadline_s=6))  # time for the other to come
    aboard(flights, 1)
    follower = pool.submit(CALLS["invoke"], chain)
    aboard(flights, 2)
    assert isinstance(leader.exception(60), DeadlineExceeded)
    teller.allow()
    assert text(follower.result(60)) == "one"


# Nobody waits for itself


def test_a_chain_that_asks_itself_answers(flights):
    depth = [0]

    def answer(value):
        depth[0] += 1
        return chain.invoke(value) if depth[0] < 3 else AIMessage(content="from below")

    async def aanswer(value):
        depth[0] += 1
        return await chain.ainvoke(value) if depth[0] < 3 else AIMessage(content="from below")

    chain = Shared(inner=RunnableLambda(answer, aanswer), flights=flights)
    for call in CALLS.values():
        depth[0] = 0
        assert text(call(chain)) == "from below"


def test_two_streams_of_one_thread_read_in_turn_both_answer(flights):
    model = ScriptedChatModel(replies=("a b c",), loop=True)
    chain = Shared(inner=model, flights=flights)
    pairs = list(zip(chain.stream("q"), chain.stream("q"), strict=True))
    assert text([first for first, _ in pairs]) == text([second for _, second in pairs]) == "a b c"
    assert model.calls == 2


def test_two_streams_of_one_task_read_in_turn_both_answer(flights):
    model = ScriptedChatModel(replies=("a b c",), loop=True)
    chain = Shared(inner=model, flights=flights)

    async def main():
        first = chain.astream("q")
        begun = [await anext(first)]
        assert text(await read(chain.astream("q"))) == "a b c"
        assert (await asyncio.create_task(chain.ainvoke("other"))).text == "a b c"
        return text(begun + await read(first))

    assert asyncio.run(main()) == "a b c"


def test_a_sync_call_on_the_loop_of_its_leader_asks_for_itself(flights):
    """As in a notebook, whose cells run on an event loop."""
    model = ScriptedChatModel(replies=(Reply("answer", delay_s=0.01),), loop=True)
    chain = Shared(inner=model, flights=flights)

    async def main():
        task = asyncio.create_task(chain.ainvoke("q"))
        while not len(flights):
            await asyncio.sleep(0)
        assert chain.invoke("q").text == "answer"
        assert not task.done()
        assert (await task).text == "answer"

    with capture_events() as told:
        asyncio.run(main())
    assert model.calls == 2
    assert [event.how for event in told.of(LeaderLost)] == ["unreachable"]


def test_a_leader_whose_caller_stopped_reading_is_overtaken_once(flights, pool):
    teller = Teller(["one ", "two"])
    chain = Shared(inner=teller.runnable, flights=flights, stall_s=2)  # time for all to come
    teller.allow(1)
    stream = chain.stream("q")
    assert next(stream).text == "one "  # and for now no more of it is read
    followers = [pool.submit(CALLS["stream"], chain) for _ in range(5)]
    aboard(flights, 6)
    teller.allow()
    assert {text(each.result(60)) for each in followers} == {"one two"}
    assert teller.calls == 2
    assert text(stream) == "two", "it can still be read to its end"


# Any order


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    seed=st.integers(0, 2**32),
    fails=st.lists(st.none() | st.integers(0, 3), max_size=4),
    people=st.lists(
        st.tuples(st.sampled_from(["ainvoke", "astream"]), st.sampled_from("ab"), st.booleans(), st.integers(0, 20)),
        min_size=2,
        max_size=12,
    ),
)
def test_any_interleaving_of_tasks_ends_with_no_more_calls_than_leaders_lost(seed, fails, people):
    chance, flights = random.Random(seed), Flights()
    replies = [Reply(chunks=["x ", "y ", "z"], fail_after_chunks=at, chunk_delay_s=0.001) for at in fails]
    model = ScriptedChatModel(replies=(*replies, *[Reply(chunks=["x ", "y ", "z"], chunk_delay_s=0.001)] * 40))
    chain = Shared(inner=model, flights=flights)

    async def ask(how, question):
        if how == "ainvoke":
            return (await chain.ainvoke(question)).text
        return text(await read(chain.astream(question)))

    async def person(how, question, leaves, ticks):
        task = asyncio.create_task(ask(how, question))
        for _ in range(ticks if leaves else 0):
            await asyncio.sleep(0.001 * chance.random())
        if leaves:
            task.cancel()
        return await asyncio.gather(task, return_exceptions=True)

    async def main():
        async with asyncio.timeout(60):
            return await asyncio.gather(*(person(*each) for each in people))

    outcomes = [each for (each,) in asyncio.run(main())]
    errors = [each for each in outcomes if isinstance(each, ConnectionError)]
    gone = [each for each in outcomes if isinstance(each, asyncio.CancelledError)]
    assert all(each == "x y z" for each in outcomes if isinstance(each, str))
    assert len(errors) + len(gone) + sum(isinstance(each, str) for each in outcomes) == len(people)
    assert len(errors) <= sum(at is not None for at in fails)
    # Each call was led by somebody who failed or went away, or answered all who were there.
    assert model.calls <= len({question for _, question, _, _ in people}) + len(errors) + len(gone)
    assert (len(flights), flights._open, flights._followed) == (0, {}, {})


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    fails=st.lists(st.none() | st.integers(0, 3), max_size=3),
    people=st.lists(st.tuples(st.sampled_from(list(CALLS)), st.integers(1, 5)), min_size=2, max_size=10),
)
def test_any_interleaving_of_threads_ends_with_no_more_calls_than_leaders_lost(fails, people):
    flights = Flights()
    replies = [Reply(chunks=["x ", "y ", "z"], fail_after_chunks=at, delay_s=0.002) for at in fails]
    good = Reply(chunks=["x ", "y ", "z"], delay_s=0.05, chunk_delay_s=0.002)
    chain = Shared(inner=ScriptedChatModel(replies=(*replies, *[good] * 40)), flights=flights)

    async def left_early(pieces):
        stream = chain.astream("q")
        for _ in range(pieces):
            await anext(stream, None)  # it has fewer pieces where it follows one that was invoked
        await stream.aclose()

    def person(how, pieces):
        if how == "astream" and pieces < 4:
            return asyncio.run(left_early(pieces))
        return text(CALLS[how](chain))

    with ThreadPoolExecutor(len(people)) as pool:
        results = [pool.submit(person, *each) for each in people]
        outcomes = [each.exception(60) or each.result() for each in results]
    errors = [each for each in outcomes if isinstance(each, ConnectionError)]
    assert all(each in ("x y z", None) for each in outcomes if each not in errors)
    assert len(errors) <= len(fails)
    assert (len(flights), flights._open, flights._followed) == (0, {}, {})
