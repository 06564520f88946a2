"""Processes that share a limit: together never more than one limit, whoever dies when."""

from __future__ import annotations

import copy

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from chainops.resilience.limits.exchange import SLOT_MS, TTL_MS, WINDOW_MS, exchange
from chainops.resilience.limits.keeper import Keeper
from chainops.resilience.limits.leasing import LeasedAccount
from chainops.testing.listening import ManualClock

LIMITS = {"requests": 12, "tokens": 60, "seats": 3}
WINDOW_S = 20.0


class InMemoryBank:
    """A bank that can be cut off, and whose answers can get lost."""

    place = "memory"

    def __init__(self, clock):
        self.clock, self.states = clock, {}

    def exchange(self, asks):
        asks = copy.deepcopy(list(asks))
        return [exchange(self.states.setdefault(key, {}), ask, int(self.clock.time() * 1000)) for key, ask in asks]


class Process:
    def __init__(self, bank, clock):
        self.keeper = Keeper(bank, clock, has_thread=False)
        self.account = LeasedAccount(self.keeper, "key", LIMITS, WINDOW_S)
        self.must = None
        self.account.line = lambda _: (self.must, (), 0.0)
        self.open = []
        self.heard = clock.monotonic()

    def beat(self, now):
        self.account.beat(is_regular=True)
        self.keeper.exchange([self.account], lambda: now)
        self.heard = now


class FourProcesses(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.clock = ManualClock(10_000.0)
        self.bank = InMemoryBank(self.clock)
        self.processes = [Process(self.bank, self.clock) for _ in range(4)]
        self.used = []

    @rule(seconds=st.one_of(st.floats(0, 0.6), st.floats(0, 25)))
    def wait(self, seconds):
        while seconds > 0:  # the living beat, as their threads would
            step = min(seconds, 1.0)
            self.clock.advance(step)
            seconds -= step
            for process in self.processes:
                if self.clock.now - process.heard > 1.0:
                    process.beat(self.clock.now)

    @rule(which=st.integers(0, 3), tokens=st.integers(1, 40))
    def take(self, which, tokens):
        process, needs = self.processes[which], {"requests": 1, "tokens": tokens, "seats": 1}
        parts = process.account.take(needs, self.clock.now)
        if parts is None:
            process.must = needs
            process.beat(self.clock.now)
            process.must = None
            parts = process.account.take(needs, self.clock.now)
        if parts is not None:
            entry = [self.clock.now, tokens]
            self.used.append(entry)
            process.open.append((parts, entry))

    @rule(which=st.integers(0, 3), share=st.floats(0, 1))
    def settle(self, which, share):
        process = self.processes[which]
        if process.open:
            parts, entry = process.open.pop(0)
            entry[1] = int(entry[1] * share)
            process.account.correct(parts, {"tokens": entry[1]}, self.clock.now)
            process.account.stand_up(self.clock.now)

    @rule(which=st.integers(0, 3))
    def beat(self, which):
        self.processes[which].beat(self.clock.now)

    @rule(which=st.integers(0, 3))
    def kill(self, which):
        self.processes[which] = Process(self.bank, self.clock)

    @invariant()
    def together_they_keep_one_limit(self):
        for start, _ in self.used:
            inside = [tokens for at, tokens in self.used if start <= at < start + WINDOW_S]
            assert sum(inside) <= LIMITS["tokens"]
            assert len(inside) <= LIMITS["requests"]
        assert sum(len(process.open) for process in self.processes) <= LIMITS["seats"]

    def teardown(self):
        """Nothing is lost: when all is settled and a window has passed, one process gets the whole limit."""
        for process in self.processes:
            while process.open:
                process.open.pop()
                process.account.stand_up(self.clock.now)
        last = Process(self.bank, self.clock)
        for _ in range(int(WINDOW_S + TTL_MS / 1000) + 3):
            self.clock.advance(1.0)
            for process in self.processes:
                process.beat(self.clock.now)
        needs = {"requests": LIMITS["requests"], "tokens": LIMITS["tokens"], "seats": LIMITS["seats"]}
        last.must = needs
        for _ in range(3):
            last.beat(self.clock.now)
            for process in self.processes:
                process.beat(self.clock.now)
        assert last.account.take(needs, self.clock.now) is not None


FourProcesses.TestCase.settings = settings(max_examples=60, stateful_step_count=40)
TestFourProcesses = FourProcesses.TestCase


def ask(holder, must=None, **more):
    told = {"seats": 0, "back": [], "over": {}, "may": {}, "waited": 0, "gone": False, "window": WINDOW_MS}
    return {"holder": holder, "limits": LIMITS, "must": must or {}, **told, **more}


def test_who_has_waited_longer_gets_it_first_though_another_asks_more_often():
    state = {}
    exchange(state, ask("a", {"tokens": 50}), 0)
    assert exchange(state, ask("b", {"tokens": 40}, waited=100), 1000)["given"] == {}
    assert exchange(state, ask("c", {"tokens": 5}), 1100)["given"] == {}, "b waits for more than is left"
    freed = WINDOW_MS + 2 * SLOT_MS + 1000
    exchange(state, ask("b", {"tokens": 40}, waited=freed - 1000), freed - 1000)
    assert exchange(state, ask("c", {"tokens": 30}, waited=100), freed)["given"] == {}
    assert exchange(state, ask("b", {"tokens": 40}, waited=freed), freed)["given"] == {"tokens": 40}


def test_a_process_that_asks_no_more_loses_its_place():
    state = {}
    exchange(state, ask("a", {"tokens": 60}), 0)
    exchange(state, ask("a", back=[["tokens", 0, 30]]), 10)
    assert exchange(state, ask("b", {"tokens": 40}), 20)["given"] == {}
    assert exchange(state, ask("c", {"tokens": 20}), 30)["given"] == {}
    assert exchange(state, ask("c", {"tokens": 20}), 5000)["given"] == {"tokens": 20}


def test_blocks_ahead_are_taken_only_from_what_others_leave():
    state = {}
    given = exchange(state, ask("a", {"tokens": 1}, may={"tokens": 1000}), 0)["given"]
    assert given == {"tokens": 1 + 59 // 2}
    assert exchange(state, ask("b", {"tokens": 30}), 1)["given"] == {"tokens": 30}
    exchange(state, ask("c", {"tokens": 10}), 2)
    assert exchange(state, ask("a", may={"tokens": 1000}), 3)["given"] == {}


def test_while_others_want_seats_each_may_keep_its_share():
    state = {}
    exchange(state, ask("a", {"seats": 3}), 0)
    assert exchange(state, ask("b", {"seats": 1}), 1)["given"] == {}
    assert exchange(state, ask("a", seats=3), 2)["share"] == 1
    assert exchange(state, ask("a", seats=1), 3)["share"] == 1
    assert exchange(state, ask("b", {"seats": 1}), 4)["given"] == {"seats": 1}


def test_the_seats_of_a_silent_process_are_free_again():
    state = {}
    exchange(state, ask("a", {"seats": 3}), 0)
    assert exchange(state, ask("b", {"seats": 1}), TTL_MS - 1)["given"] == {}
    assert exchange(state, ask("b", {"seats": 1}), TTL_MS + 1)["given"] == {"seats": 1}


def test_a_store_clock_set_back_by_an_hour_grants_nothing_twice_and_does_not_block_for_an_hour():
    state = {}
    now = 10_000_000
    exchange(state, ask("a", {"tokens": 60}), now)
    back = now - 3_600_000
    assert exchange(state, ask("b", {"tokens": 1}), back)["given"] == {}
    assert exchange(state, ask("b", {"tokens": 1}), back + WINDOW_MS + 2000)["given"] == {"tokens": 1}


def test_an_account_that_is_used_in_the_moment_it_falls_idle_is_still_kept():
    clock = ManualClock(10_000.0)
    process = Process(InMemoryBank(clock), clock)
    process.keeper.watch(process.account)
    beat = process.account.beat

    def used_just_after(*, is_regular):
        is_busy = beat(is_regular=is_regular)
        process.must = {"seats": 1}
        process.keeper.exchange([process.account], clock.monotonic)
        assert process.account.take({"seats": 1}, clock.now) is not None
        return is_busy

    process.account.beat = used_just_after
    assert process.keeper._still_busy(is_regular=True) == []
    assert process.account in process.keeper._accounts


def leased(process, amount):
    """A process with so many tokens in hand, leased ahead."""
    process.account._recent.update(tokens=amount)
    process.beat(process.keeper.clock.now)
    return process.account._in_hand("tokens", process.keeper.clock.now)


def test_a_block_counts_for_as_long_as_it_may_be_used():
    clock = ManualClock(10_000.0)
    bank = InMemoryBank(clock)
    first, second = Process(bank, clock), Process(bank, clock)
    in_hand = leased(first, 60)
    assert in_hand == 30
    clock.advance(0.99)
    assert first.account.take({"tokens": 30}, clock.now) is not None
    used_at = clock.now
    clock.advance(WINDOW_S - 0.1)
    second.must = {"tokens": 60}
    second.beat(clock.now)
    assert second.account.take({"tokens": 60}, clock.now) is None, "30 + 60 within one window"
    clock.advance(0.7)
    second.beat(clock.now)
    assert second.account.take({"tokens": 60}, clock.now) is not None
    assert clock.now > used_at + WINDOW_S


def test_a_block_that_lapsed_is_not_used_and_goes_back():
    clock = ManualClock(10_000.0)
    bank = InMemoryBank(clock)
    first, second = Process(bank, clock), Process(bank, clock)
    assert leased(first, 60) == 30
    clock.advance(1.01)
    assert first.account.take({"tokens": 1}, clock.now) is None
    first.beat(clock.now)
    first.beat(clock.now)
    second.must = {"tokens": 60}
    second.beat(clock.now)
    assert second.account.take({"tokens": 60}, clock.now) is not None


def test_tokens_given_back_after_their_block_lapsed_are_not_used_here_again():
    clock = ManualClock(10_000.0)
    process = Process(InMemoryBank(clock), clock)
    assert leased(process, 60) == 30
    parts = process.account.take({"tokens": 30}, clock.now)
    clock.advance(1.5)
    process.account.correct(parts, {"tokens": 0}, clock.now)
    assert process.account._in_hand("tokens", clock.now) == 0


def test_a_process_that_holds_all_seats_lets_one_go_when_another_waits():
    clock = ManualClock(10_000.0)
    bank = InMemoryBank(clock)
    first, second = Process(bank, clock), Process(bank, clock)
    first.must = {"seats": 3}
    first.beat(clock.now)
    first.must = None
    assert all(first.account.take({"seats": 1}, clock.now) is not None for _ in range(3))
    second.must = {"seats": 1}
    second.beat(clock.now)
    first.beat(clock.now)  # learns that another waits
    first.account.stand_up(clock.now)
    assert first.account.take({"seats": 1}, clock.now) is None, "two are more than its share"
    first.beat(clock.now)
    second.beat(clock.now)
    assert second.account.take({"seats": 1}, clock.now) is not None
