"""The arithmetic: never more than the limit in any window, nothing lost, nobody starved."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from chainops.resilience.limits.accounts import OwnAccount
from chainops.resilience.limits.policy import (
    SLOT_S,
    WINDOW_S,
    Place,
    Turns,
    Window,
    before,
    pushed_out,
    too_large,
    turned_away,
)

LIMIT = 20


class OneProcess(RuleBasedStateMachine):
    """Takes and settles at all times; what was really used is written down apart."""

    def __init__(self):
        super().__init__()
        self.now = 500.0
        self.account = OwnAccount({"requests": 7, "tokens": LIMIT, "seats": 3})
        self.used: list[list[float]] = []  # time taken, tokens that count
        self.open: list[tuple[list, list[float]]] = []

    @rule(seconds=st.one_of(st.floats(0, 2), st.floats(0, 70)))
    def wait(self, seconds):
        self.now += seconds

    @rule(tokens=st.integers(1, LIMIT))
    def take(self, tokens):
        parts = self.account.take({"requests": 1, "tokens": tokens, "seats": 1}, self.now)
        if parts is not None:
            entry = [self.now, tokens]
            self.used.append(entry)
            self.open.append((parts, entry))

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def settle(self, data):
        parts, entry = self.open.pop(data.draw(st.integers(0, len(self.open) - 1)))
        really = data.draw(st.integers(0, int(entry[1])))
        self.account.correct(parts, {"tokens": really}, self.now)
        self.account.stand_up(self.now)
        entry[1] = really

    @invariant()
    def no_minute_has_more_than_the_limit(self):
        for start, _ in self.used:
            inside = [tokens for at, tokens in self.used if start <= at < start + WINDOW_S]
            assert sum(inside) <= LIMIT
            assert len(inside) <= 7
        assert len(self.open) <= 3

    @invariant()
    def what_is_counted_is_what_was_used_in_the_window(self):
        counted = self.account.used(self.now)
        lately = sum(tokens for at, tokens in self.used if at > self.now - WINDOW_S)
        longer = sum(tokens for at, tokens in self.used if at > self.now - WINDOW_S - SLOT_S)
        assert lately <= counted["tokens"] <= longer
        assert counted["seats"] == len(self.open)


OneProcess.TestCase.settings = settings(max_examples=60, stateful_step_count=40)
TestOneProcess = OneProcess.TestCase


@given(st.lists(st.tuples(st.floats(0, 30), st.integers(1, 10)), max_size=20), st.integers(1, LIMIT))
def test_the_wait_that_is_told_is_enough_and_not_too_long(steps, amount):
    window, now = Window(LIMIT), 100.0
    for pause, taken in steps:
        now += pause
        if window.free(now) >= taken:
            window.add(taken, now)
    wait_s = window.wait_s(amount, now)
    assert window.free(now + wait_s + 1e-6) >= amount
    if wait_s > SLOT_S:
        assert window_after(steps, now + wait_s - SLOT_S - 1e-6) < amount


def window_after(steps, then):
    window, now = Window(LIMIT), 100.0
    for pause, taken in steps:
        now += pause
        if window.free(now) >= taken:
            window.add(taken, now)
    return window.free(then)


def test_more_than_the_limit_is_told_to_take_several_windows():
    window = Window(10)
    assert window.wait_s(10, 0.0) == 0
    assert window.wait_s(11, 0.0) == WINDOW_S
    assert window.wait_s(25, 0.0) == 2 * WINDOW_S


def test_what_was_used_beyond_the_reservation_counts_from_now_on():
    account = OwnAccount({"tokens": 100})
    parts = account.take({"tokens": 10}, 0.0)
    account.correct(parts, {"tokens": 60}, 50.0)
    assert account.used(59.0) == {"tokens": 60}
    assert account.used(61.0) == {"tokens": 50}
    assert account.used(111.0) == {"tokens": 0}


@pytest.mark.parametrize("back_s", [5.0, 3600.0])
def test_a_clock_set_back_grants_nothing_twice_and_recovers(back_s):
    window = Window(10)
    window.add(10, 10_000.0)
    assert window.free(10_000.0 - back_s) == 0
    assert window.free(10_000.0 - back_s + WINDOW_S + back_s * (back_s < WINDOW_S) + SLOT_S) == 10


def test_a_clock_set_forward_frees_one_window_once():
    window = Window(10)
    window.add(10, 100.0)
    assert window.free(100_000.0) == 10
    window.add(10, 100_000.0)
    assert window.free(100_001.0) == 0


@given(st.lists(st.tuples(st.integers(-10, 10), st.floats(0, 20)), min_size=2, max_size=30))
def test_after_ageing_only_turns_and_time_decide(waiters):
    ageing_s, now = 0.25, 100.0
    places = [Place("", turn, priority, since) for turn, (priority, since) in enumerate(waiters)]
    in_line = sorted(places, key=lambda each: before(each, now, ageing_s=ageing_s))
    assert [each.turn for each in in_line] == sorted(each.turn for each in places)


def test_the_urgent_go_first_and_nobody_is_overtaken_for_ever():
    ageing_s = 0.25
    patient = Place("a", 1, -10, 0.0)
    urgent = [Place("b", turn, 10, 0.1) for turn in range(2, 50)]
    assert min([patient, *urgent], key=lambda each: before(each, 0.2, ageing_s=ageing_s)) is urgent[0]
    assert min([patient, *urgent], key=lambda each: before(each, 20 * ageing_s, ageing_s=ageing_s)) is patient


def test_a_flow_with_a_thousand_waiting_gives_every_second_turn_to_another():
    turns = Turns()
    crowd = [Place("crowd", turns.next_of("crowd"), 0, 0.0) for _ in range(1000)]
    others = [Place("other", turns.next_of("other"), 0, 1.0) for _ in range(3)]
    in_line = sorted([*crowd, *others], key=lambda each: before(each, 1.0, ageing_s=10.0))
    assert [each.flow for each in in_line[:6]].count("other") == 3


def test_a_flow_that_was_idle_has_no_turns_saved_up():
    turns = Turns()
    for _ in range(10):
        turns.went(turns.next_of("busy"))
    assert turns.next_of("idle") == turns.next_of("busy") == 11


@pytest.mark.parametrize(
    ("flows", "newcomer", "loser"),
    [
        ({"a": 10}, "b", "a"),
        ({"a": 10}, "a", None),
        ({"a": 5, "b": 4}, "b", None),
        ({"a": 6, "b": 4}, "b", "a"),
        ({}, "a", None),
    ],
)
def test_in_a_full_queue_the_largest_flow_gives_way_to_smaller_ones(flows, newcomer, loser):
    assert pushed_out(flows, newcomer) == loser


@given(
    st.lists(st.tuples(st.sampled_from("abcd"), st.integers(-10, 10), st.floats(0, 30)), max_size=30),
    st.integers(0, 35),
)
def test_who_is_turned_away_goes_last_in_one_of_the_flows_that_have_the_most(told, excess):
    places = [Place(flow, turn, priority, since) for turn, (flow, priority, since) in enumerate(told)]
    refused = turned_away(places, excess, 40.0, ageing_s=3.0)
    assert len(set(refused)) == len(refused) == min(excess, len(places))
    line = dict(enumerate(places))
    for position in refused:
        sizes = Counter(each.flow for each in line.values())
        most = [at for at, each in line.items() if sizes[each.flow] == max(sizes.values())]
        assert position == max(most, key=lambda at: before(places[at], 40.0, ageing_s=3.0))
        del line[position]


def test_what_can_never_be_granted_is_named():
    assert list(too_large({"tokens": 10, "seats": 1}, {"tokens": 11, "seats": 1})) == [("tokens", 11, 10)]
    assert math.isfinite(Window(1).wait_s(1, 0.0))
