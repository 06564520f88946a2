"""The queue before one limit: who waits, for how long, and who is refused at once."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor, wait

import pytest

from chainops.core.clock import Clock
from chainops.core.steps import Hear
from chainops.resilience.limits.accounts import OwnAccount
from chainops.resilience.limits.component import KeyGate, Pools
from chainops.resilience.limits.permits import Queue
from chainops.resilience.limits.pool import Pool
from chainops.resilience.limits.records import LimitWaited, Overloaded, TooLarge

SEAT = {"seats": 1}


def pool_of(limits, most=100, wait_s=10.0, ceiling=None):
    return Pool("chain", OwnAccount(limits), Queue(most, wait_s), ceiling)


def wait_in_line(pool, run, needs=SEAT):
    """A plan that has got as far as waiting."""
    plan = pool.enter(needs, run, "m")
    assert isinstance(next(plan), Hear)
    return plan


def permit_of(plan):
    """What a plan was given while it waited."""
    with pytest.raises(StopIteration) as stop:
        plan.send(True)
    return stop.value.value


def test_rates_are_waited_for_on_the_requests_clock(clock, run_of, play):
    pool = pool_of({"requests": 2}, wait_s=100)
    run = run_of(clock)
    for _ in range(2):
        play(pool.enter({"requests": 1}, run, "m"), clock).close(clock.now)
    play(pool.enter({"requests": 1}, run, "m"), clock).close(clock.now)
    assert 60 <= sum(clock.slept) <= 60.5
    assert [type(event) for event in run.events] == [LimitWaited]
    assert run.stage.facts["queued_s"] == pytest.approx(sum(clock.slept))


def test_no_call_waits_in_vain(clock, run_of):
    pool = pool_of({"requests": 1})
    next_of(pool.enter({"requests": 1}, run_of(clock), "m"))
    with pytest.raises(Overloaded) as caught:
        next(pool.enter({"requests": 1}, run_of(clock), "m"))
    assert (caught.value.reason, caught.value.waiting) == ("wait too long", 0)
    assert 60 <= caught.value.retry_after_s <= 60.5
    assert caught.value.retryable
    patient = pool_of({"requests": 1}, wait_s=120)
    next_of(patient.enter({"requests": 1}, run_of(clock), "m"))
    with pytest.raises(Overloaded) as caught:
        next(patient.enter({"requests": 1}, run_of(clock, deadline_s=5), "m"))
    assert caught.value.reason == "deadline too near"
    assert patient.waiting() == 0


def next_of(plan):
    with pytest.raises(StopIteration) as stop:
        next(plan)
    return stop.value.value


def test_a_call_that_needs_more_than_the_whole_limit_is_refused_with_the_way_out(clock, run_of):
    pool = pool_of({"tokens": 1000})
    with pytest.raises(TooLarge, match="1,001 tokens and tokens_per_minute per chain allows 1,000; send less text"):
        next(pool.enter({"tokens": 1001}, run_of(clock), "m"))
    assert next_of(pool.enter({"tokens": 1000}, run_of(clock), "m")) is not None


def test_a_full_queue_refuses_and_makes_room_for_other_tenants(clock, run_of):
    pool = pool_of(SEAT, most=3)
    held = next_of(pool.enter(SEAT, run_of(clock), "m"))
    crowd = [wait_in_line(pool, run_of(clock, tenant="crowd")) for _ in range(3)]
    with pytest.raises(Overloaded) as caught:
        next(pool.enter(SEAT, run_of(clock, tenant="crowd"), "m"))
    assert caught.value.reason == "queue full"
    other = wait_in_line(pool, run_of(clock, tenant="other"))
    with pytest.raises(Overloaded) as caught:
        crowd[2].send(True)
    assert caught.value.reason == "pushed out"
    held.close(clock.now)
    first = permit_of(crowd[0])
    first.close(clock.now)
    permit_of(other).close(clock.now)
    permit_of(crowd[1])


def test_a_tenant_with_a_thousand_waiting_does_not_starve_another(clock, run_of):
    pool = pool_of(SEAT, most=2000)
    held = next_of(pool.enter(SEAT, run_of(clock), "m"))
    crowd = [wait_in_line(pool, run_of(clock, tenant="crowd")) for _ in range(1000)]
    other = wait_in_line(pool, run_of(clock, tenant="other"))
    for done in range(3):
        held.close(clock.now)
        if pool.stats(clock.now)["waiting_by"].get("other") is None:
            break
        held = permit_of(crowd[done])
    assert done <= 1, "it went second at the latest"
    permit_of(other)


def test_the_urgent_go_first_but_a_patient_one_rises_with_time(clock, run_of):
    pool = pool_of(SEAT, wait_s=10)
    held = next_of(pool.enter(SEAT, run_of(clock), "m"))
    patient = wait_in_line(pool, run_of(clock, priority=-10))
    urgent = wait_in_line(pool, run_of(clock, priority=10))
    held.close(clock.now)
    held = permit_of(urgent)
    clock.advance(5.0)
    later = wait_in_line(pool, run_of(clock, priority=10))
    held.close(clock.now)
    held = permit_of(patient)
    held.close(clock.now)
    permit_of(later)


def test_a_cancelled_waiter_leaves_and_the_next_is_told(clock, run_of):
    pool = pool_of(SEAT)
    held = next_of(pool.enter(SEAT, run_of(clock), "m"))
    first, second = (wait_in_line(pool, run_of(clock)) for _ in range(2))
    first.close()
    assert pool.waiting() == 1
    held.close(clock.now)
    permit_of(second).close(clock.now)
    assert pool.stats(clock.now)["used"] == {"seats": 0}


def test_a_waiter_cancelled_just_after_it_was_let_go_gives_all_back(clock, run_of):
    pool = pool_of({"seats": 1, "requests": 5, "tokens": 100})
    needs = {"seats": 1, "requests": 1, "tokens": 10}
    held = next_of(pool.enter(needs, run_of(clock), "m"))
    waiter = wait_in_line(pool, run_of(clock), needs)
    held.close(clock.now)
    waiter.close()
    assert pool.stats(clock.now)["used"] == {"seats": 0, "requests": 1, "tokens": 10}
    assert pool.open == 0


def test_a_permit_is_given_back_once(clock, run_of):
    pool = pool_of({"seats": 2, "tokens": 100})
    permits = [next_of(pool.enter({"seats": 1, "tokens": 50}, run_of(clock), "m")) for _ in range(2)]
    for _ in range(3):
        permits[0].close(clock.now, used={"tokens": 0})
    assert pool.stats(clock.now)["used"] == {"seats": 1, "tokens": 50}


class Shut:
    counts_tokens = False
    until = 0.0

    def wait_s(self, needs, now):
        return max(0.0, self.until - now)

    def closed(self, now):
        return ("rate limit", "its key K rests", self.until - now) if self.until > now else None

    def took(self, needs, now):
        pass


def test_a_key_that_rests_is_waited_for_or_refused_with_its_reason(clock, run_of):
    shut = Shut()
    pool = pool_of({}, ceiling=shut)
    shut.until = clock.now + 60
    with pytest.raises(Overloaded, match="its key K rests") as caught:
        next(pool.enter({"requests": 1}, run_of(clock), "m"))
    assert (caught.value.reason, caught.value.retry_after_s) == ("rate limit", 60)
    shut.until = clock.now + 5
    waiter = wait_in_line(pool, run_of(clock), {"requests": 1})
    clock.advance(5.1)
    pool.pump(clock.now)
    permit_of(waiter)


def test_sixty_four_threads_are_never_more_than_the_seats_and_all_get_through(run_of, play):
    pool, clock = pool_of({"seats": 5, "tokens": 100_000}, wait_s=60), Clock()
    lock, now, most, done = threading.Lock(), [0], [0], []

    def work():
        permit = play(pool.enter({"seats": 1, "tokens": 100}, run_of(clock), "m"))
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.001)
        with lock:
            now[0] -= 1
            done.append(1)
        permit.close(clock.monotonic(), used={"tokens": 7})

    threads = [threading.Thread(target=lambda: [work() for _ in range(5)]) for _ in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(done) == 320
    assert most[0] <= 5
    assert pool.stats(clock.monotonic())["used"] == {"seats": 0, "tokens": 7 * 320}


def test_tasks_of_several_loops_and_threads_wait_for_the_same_seats(run_of, play):
    pool, clock, done = pool_of({"seats": 2}, wait_s=60), Clock(), []

    async def task():
        plan, reply = pool.enter(SEAT, run_of(clock), "m"), None
        while True:
            try:
                step = plan.send(reply)
            except StopIteration as stop:
                permit = stop.value
                break
            reply = await step.signal.await_beyond(step.since, step.timeout_s)
        await asyncio.sleep(0.002)
        permit.close(clock.monotonic())
        done.append("task")

    async def many():
        await asyncio.gather(*(task() for _ in range(15)))

    def in_thread():
        permit = play(pool.enter(SEAT, run_of(clock), "m"))
        permit.close(clock.monotonic())
        done.append("thread")

    threads = [threading.Thread(target=lambda: asyncio.run(many())) for _ in range(2)]
    threads += [threading.Thread(target=in_thread) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(done) == ["task"] * 30 + ["thread"] * 10


def test_nobody_looks_at_what_is_used_while_another_thread_takes_from_it(clock):
    class Watched(OwnAccount):
        is_taking = was_looked_at = False

        def take(self, needs, now):
            self.is_taking = True
            taking.set()
            assert go_on.wait(60)
            parts = super().take(needs, now)
            self.is_taking = False
            return parts

        def used(self, now):
            self.was_looked_at = self.was_looked_at or self.is_taking
            return super().used(now)

    taking, go_on = threading.Event(), threading.Event()
    pool = Pool("chain", Watched({"requests": 5}), Queue())
    with ThreadPoolExecutor(4) as threads:
        took = threads.submit(pool.take, {"requests": 1}, clock.now)
        assert taking.wait(60)
        looks = [threads.submit(look, clock.now) for look in (pool.remaining, pool.stats, KeyGate(pool).load)]
        wait(looks, timeout=0.2)  # they are done now, where nothing keeps them from it
        go_on.set()
        assert took.result(60) is not None
        assert [each.result(60) for each in looks][::2] == [{"requests": 4}, (0.0, 0, 0.2)]
    assert not pool.account.was_looked_at


def test_a_pool_that_is_forgotten_while_somebody_is_about_to_use_it_is_found_again():
    pools = Pools("limit", {"seats": 1}, Queue())
    pools._sweep_at = 1
    held = pools.of("ann", "user")
    pools.of("bob", "user")
    assert set(pools._pools) == {"bob"}
    assert pools.of("ann", "user") is held


def test_a_waiter_that_is_collected_while_it_is_let_go_gives_all_back(clock, run_of):
    class Collects(Shut):
        """As the garbage collector does, wherever something is made."""

        def took(self, needs, now):
            for plan in forgotten:
                plan.close()

    forgotten = []
    pool = pool_of(SEAT, ceiling=Collects())
    held = next_of(pool.enter(SEAT, run_of(clock), "m"))
    forgotten.append(wait_in_line(pool, run_of(clock)))
    waiter = wait_in_line(pool, run_of(clock))
    held.close(clock.now)
    permit_of(waiter).close(clock.now)
    assert (pool.open, pool.stats(clock.now)["used"]) == (0, {"seats": 0})
