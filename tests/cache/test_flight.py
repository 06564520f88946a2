"""Who leads, who follows, who may not wait for whom, and that nothing is left behind."""

from __future__ import annotations

import asyncio
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from chainops.cache.sharing.flight import Flights
from chainops.core.errors import PlanError


@pytest.fixture
def flights():
    return Flights()


THREADS = {name: ThreadPoolExecutor(1) for name in ("leader", *"12345")}


def elsewhere(work, thread="leader"):
    """What `work` gives in a thread of its own: the leader of a flight is seldom in the follower's thread."""
    return THREADS[thread].submit(work).result(10)


def lead(flights, exact="q", request="leader", scope="s", **more):
    seat = elsewhere(lambda: flights.join(scope, exact, request=request, **more))
    assert seat.is_leader
    return seat


def assert_empty(flights):
    assert (len(flights), flights._open, flights._followed) == (0, {}, {})


def test_of_32_threads_that_come_together_one_leads(flights):
    together, seats = threading.Barrier(32), []

    def come(number):
        together.wait()
        seats.append(flights.join("s", "q", request=str(number)))

    threads = [threading.Thread(target=come, args=(number,)) for number in range(32)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(60)
    assert [seat.is_leader for seat in seats].count(True) == 1
    assert len({seat.flight for seat in seats}) == 1
    for seat in seats:
        seat.leave()
    assert_empty(flights)


def test_scopes_and_questions_never_meet(flights):
    assert lead(flights, "q", scope="s").flight is not lead(flights, "q", scope="t").flight
    assert lead(flights, "other", scope="s").is_leader
    assert [flight.exact for flight in flights.under_way("s")] == ["q", "other"]
    assert [flight.exact for flight in flights.under_way("t")] == ["q"]


def test_who_comes_after_the_landing_gets_the_answer_until_the_leader_leaves(flights):
    leader = lead(flights)
    leader.land("answer", facts={"status": "ok"}, cost_usd=0.5)
    late = flights.join("s", "q", request="late")
    assert not late.is_leader
    assert (late.flight.state, late.flight.landed.answer, late.flight.landed.cost_usd) == ("landed", "answer", 0.5)
    leader.leave()
    assert flights.join("s", "q", request="later").is_leader


@pytest.mark.parametrize("end", ["fail", "abandon", "keep_private", "leave"])
def test_when_a_leader_is_lost_the_next_who_joins_leads_and_the_others_follow_it(flights, end):
    leader = lead(flights)
    waiting = [flights.join("s", "q", request=f"waiting {number}") for number in range(3)]
    seen = leader.flight.signal.seen
    leader.fail(ConnectionError("x")) if end == "fail" else getattr(leader, end)()
    assert leader.flight.signal.wait_beyond(seen, 0), "they are woken"
    assert flights.under_way("s") == []
    for seat in waiting:
        seat.leave()
    second = lead(flights, request="waiting 0")
    assert [flights.join("s", "q", request=f"waiting {number}").is_leader for number in (1, 2)] == [False, False]
    assert second.flight is not leader.flight


def test_a_late_follower_that_takes_over_keeps_those_who_were_lost_after_it_in_line(flights):
    first = lead(flights)
    early, slow, late = (flights.join("s", "q", request=name) for name in ("early", "slow", "late"))
    first.fail(ConnectionError("down"))
    first.leave()
    second = lead(flights, request="early", after=early.flight)
    waiting = flights.join("s", "q", request="slow", after=slow.flight)
    assert waiting.flight is second.flight
    second.fail(ConnectionError("down"))
    second.leave()
    third = lead(flights, request="late", after=late.flight)
    third.land("the answer")
    third.leave()
    found = flights.join("s", "q", request="slow", after=waiting.flight)
    assert (found.is_leader, found.flight) == (False, third.flight)
    for seat in (early, slow, late, waiting, found):
        seat.leave()
    assert_empty(flights)


def test_what_is_over_stays_over(flights):
    leader = lead(flights)
    leader.land("answer")
    leader.fail(ConnectionError("while storing it"))
    leader.leave()
    leader.leave()
    assert (leader.flight.state, leader.flight.error) == ("landed", None)
    assert_empty(flights)


def test_a_flight_that_has_ended_cannot_be_followed(flights):
    leader = lead(flights)
    (found,) = flights.under_way("s")
    leader.leave()
    assert flights.follow(found, request="r") is None


def test_pieces_are_kept_until_the_last_one_has_left(flights):
    leader = lead(flights)
    elsewhere(lambda: leader.say("a"))
    slow = flights.join("s", "q", request="slow")
    elsewhere(lambda: leader.say("b"))
    leader.land("ab")
    leader.leave()
    assert slow.flight.chunks == ["a", "b"]
    slow.leave()
    assert slow.flight.chunks == []
    assert_empty(flights)


def test_a_follower_cannot_speak_for_its_flight(flights):
    lead(flights)
    follower = flights.join("s", "q", request="r")
    for speak in (follower.say, follower.land, follower.fail):
        with pytest.raises(PlanError, match="is_leader"):
            speak("x")


def test_an_overtaken_leader_goes_on_for_those_who_are_with_it(flights):
    leader = lead(flights)
    patient, impatient = (flights.join("s", "q", request=name) for name in ("patient", "impatient"))
    impatient.overtake()
    impatient.leave()
    assert lead(flights, request="impatient").flight is not leader.flight
    leader.land("late")
    assert patient.flight.landed.answer == "late"
    leader.leave()
    assert len(flights.under_way("s")) == 1, "its leaving does not end the flight that overtook it"


# Near-equal questions


def test_near_equal_questions_that_come_together_make_one_call(flights):
    together, seats = threading.Barrier(16), []

    def come(number):
        together.wait()
        near = lambda others: others[0]
        seats.append(flights.join("s", f"wording {number}", request=str(number), question=str(number), near=near))

    threads = [threading.Thread(target=come, args=(number,)) for number in range(16)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(60)
    assert [seat.is_leader for seat in seats].count(True) == 1


def test_a_flight_that_took_off_while_the_others_were_judged_is_judged_too(flights):
    lead(flights, "far", question="far")
    judged = []

    def near(others):
        judged.append([flight.question for flight in others])
        if len(judged) == 1:
            lead(flights, "close", request="quick", question="close")
        return next((flight for flight in others if flight.question == "close"), None)

    seat = flights.join("s", "q", request="r", near=near)
    assert judged == [["far"], ["close"]]
    assert (seat.is_leader, seat.flight.exact) == (False, "close")


def test_a_near_flight_that_has_just_ended_is_not_followed(flights):
    leader = lead(flights, "close")

    def near(others):
        leader.leave()
        return others[0]

    assert flights.join("s", "q", request="r", near=near).is_leader


def test_the_same_question_is_followed_before_any_near_one_is_looked_at(flights):
    lead(flights, "close")
    same = lead(flights, "q")
    seat = flights.join("s", "q", request="r", near=lambda others: pytest.fail("looked"))
    assert seat.flight is same.flight


# Nobody waits for itself


def test_a_request_does_not_follow_itself_and_its_own_call_is_nobody_elses(flights):
    leader = lead(flights, request="r")
    assert not flights.join("s", "q", request="another").is_leader
    again = flights.join("s", "q", request="r")
    assert again.is_leader
    assert flights.under_way("s") == [leader.flight]
    again.land("inner")
    again.leave()
    assert flights.under_way("s") == [leader.flight]


def test_two_requests_do_not_wait_for_each_other(flights):
    lead(flights, "a", request="1")
    lead(flights, "b", request="2")
    assert not flights.join("s", "b", request="1").is_leader
    assert flights.join("s", "a", request="2").is_leader


def test_three_requests_do_not_wait_in_a_ring(flights):
    for exact, request in (("a", "1"), ("b", "2"), ("c", "3")):
        lead(flights, exact, request=request)
    assert not flights.join("s", "b", request="1").is_leader
    third = flights.join("s", "c", request="2")
    assert not third.is_leader
    assert flights.join("s", "a", request="3").is_leader
    third.leave()
    assert not flights.join("s", "a", request="3").is_leader, "nobody waits for it any more"


def test_a_stream_left_half_way_in_this_thread_is_not_waited_for(flights):
    first = flights.join("s", "q", request="first")
    assert flights.join("s", "q", request="second").is_leader
    assert not elsewhere(lambda: flights.join("s", "q", request="third")).is_leader
    first.land("answer")
    assert not flights.join("s", "q", request="fourth").is_leader, "there is nothing to wait for"


def test_a_task_follows_other_tasks_of_its_loop_but_not_itself(flights):
    async def join(name):
        return flights.join("s", "q", request=name)

    async def main():
        assert (await join("first")).is_leader
        assert (await join("second")).is_leader, "the first is this task's own, half-way"
        other = await asyncio.create_task(join("third"))
        assert (other.is_leader, other.may_block) == (False, False)
        assert (await asyncio.to_thread(lambda: flights.join("s", "q", request="fourth"))).may_block

    asyncio.run(main())


def test_a_forked_child_has_no_flights_and_its_followers_are_on_their_own(flights):
    leader = lead(flights)
    follower = flights.join("s", "q", request="r")
    pid = os.fork()
    if not pid:
        is_empty, is_lost = len(flights) == 0, follower.flight.state == "abandoned"
        leader.leave()
        follower.leave()
        os._exit(0 if is_empty and is_lost and flights.join("s", "q", request="r").is_leader else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert (len(flights), leader.flight.state, leader.flight.on_board) == (1, "flying", 2)


class Airport(RuleBasedStateMachine):
    """Any order of coming, speaking, ending, losing patience and leaving."""

    seats = Bundle("seats")

    @initialize()
    def open(self):
        self.flights, self.aboard, self.count = Flights(), [], 0

    @rule(
        target=seats,
        exact=st.sampled_from("abc"),
        request=st.sampled_from(["1", "2", "3", "4", "5"]),
        near=st.sampled_from([None, lambda others: others[-1], lambda others: None]),
    )
    def join(self, exact, request, near):
        seat = elsewhere(lambda: self.flights.join("s", exact, request=request, near=near), request)
        self.aboard.append(seat)
        return seat

    @rule(seat=seats)
    def say(self, seat):
        if seat.is_leader:
            elsewhere(lambda: seat.say("x"), seat.request)

    @rule(seat=seats, end=st.sampled_from(["land", "fail", "abandon", "keep_private"]))
    def end(self, seat, end):
        if seat.is_leader:
            getattr(seat, end)(*{"land": ("answer",), "fail": (ValueError(),)}.get(end, ()))

    @rule(seat=seats)
    def overtake(self, seat):
        seat.overtake()

    @rule(seat=consumes(seats))
    def leave(self, seat):
        seat.leave()
        self.aboard.remove(seat)

    @invariant()
    def what_is_open_has_its_leader_on_board(self):
        led = {seat.flight for seat in self.aboard if seat.is_leader}
        for flight in self.flights.under_way("s"):
            assert flight in led
            assert flight.state in ("flying", "landed")
        assert len(self.flights) == len({seat.flight for seat in self.aboard})

    @invariant()
    def nobody_waits_for_itself(self):
        """There is an order in which everything can be answered."""
        waits = {}
        for seat in self.aboard:
            if not seat.is_leader and seat.flight.state == "flying":
                waits.setdefault(seat.request, set()).add(seat.flight.request)
        while free := [request for request, others in waits.items() if not others & waits.keys()]:
            for request in free:
                del waits[request]
        assert not waits

    def teardown(self):
        for seat in self.aboard:
            seat.leave()
        assert_empty(self.flights)


TestAnyOrder = Airport.TestCase
TestAnyOrder.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
