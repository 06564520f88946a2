"""Limits that processes share, through real SQLite, PostgreSQL and Redis."""

from __future__ import annotations

import bisect
import json
import multiprocessing
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chainops.core.clock import Clock
from chainops.core.errors import StoreUnavailable
from chainops.core.steps import Do, Hear
from chainops.resilience.limits.component import Pools
from chainops.resilience.limits.exchange import TTL_MS, exchange
from chainops.resilience.limits.keeper import Keeper
from chainops.resilience.limits.permits import Queue
from chainops.resilience.limits.records import LimitsDegraded, LimitsShared, Overloaded
from chainops.resilience.limits.redis_bank import RedisBank
from chainops.resilience.limits.sql_bank import SqlBank
from chainops.stores.redis import redis_store
from chainops.stores.sql import SqlStore
from chainops.testing.listening import ManualClock
from chainops.testing.servers import postgres_server, redis_server

WORKER = Path(__file__).with_name("permit_worker.py")
WINDOW_S, LIMIT, SEATS = 3.0, 120, 6


@pytest.fixture(scope="module")
def postgres():
    with postgres_server() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgres", "redis"])
def place(request, tmp_path):
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'limits.db'}"
    return request.getfixturevalue("postgres") if request.param == "postgres" else request.getfixturevalue("redis").url


@pytest.fixture
def bank(place):
    return RedisBank(redis_store(place, timeout_s=30)) if place.startswith("redis") else SqlBank(SqlStore(place))


def ask(holder="a", must=None, *, limits=None, **more):
    told = {"seats": 0, "back": [], "over": {}, "may": {}, "waited": 0, "gone": False, "window": 60_000}
    return {"holder": holder, "limits": limits or {"tokens": 10}, "must": must or {}, **told, **more}


def key():
    return f"key-{time.perf_counter_ns()}"


def test_a_bank_grants_up_to_the_limit_and_tells_when_there_is_more(bank):
    one = key()
    assert bank.exchange([(one, ask(must={"tokens": 7}))])[0]["given"] == {"tokens": 7}
    refused = bank.exchange([(one, ask("b", {"tokens": 4}))])[0]
    assert refused["given"] == {}
    assert 30_000 < refused["wait"] < 62_000  # of the minute, a busy machine has used some
    assert refused["holders"] == 2
    assert bank.exchange([(key(), ask(must={"tokens": 10}))])[0]["given"] == {"tokens": 10}


def test_several_keys_are_answered_in_the_order_asked(bank):
    keys = [key() for _ in range(3)]
    asks = [(keys[2], ask(must={"tokens": 3})), (keys[0], ask(must={"tokens": 1})), (keys[1], ask(must={"tokens": 2}))]
    assert [given["given"] for given in bank.exchange(asks)] == [{"tokens": 3}, {"tokens": 1}, {"tokens": 2}]


_WANTS = st.sampled_from(
    [{}, {"requests": 1}, {"tokens": 200}, {"seats": 1}, {"requests": 1, "tokens": 100, "seats": 1}]
)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    st.lists(
        st.tuples(
            st.sampled_from([0, 10, 300, 900, 5000, 61_000, -100, -70_000]), st.sampled_from("abcd"), st.integers(0, 3),
            _WANTS, st.sampled_from([{}, {"requests": 5}, {"tokens": 300, "seats": 1}]), st.integers(0, 3000),
            st.integers(0, 130), st.booleans(),
        ),
        max_size=40,
    )
)  # fmt: skip
def test_the_script_in_redis_is_the_step_in_python(redis, steps):
    store, one, state, now = redis_store(redis.url, timeout_s=30), key(), {}, 1_700_000_000_000
    bank = RedisBank(store)
    for pause, holder, seats, must, may, waited, ago, gives_back in steps:
        now += pause
        bank._now_ms = now
        told = ask(
            holder, must, limits={"requests": 20, "tokens": 1000, "seats": 3}, seats=seats, may=may, waited=waited,
            back=[["tokens", now // 500 - ago, 30]] if gives_back else [], over={"tokens": 7} if ago == 5 else {},
            gone=ago == 77,
        )  # fmt: skip
        assert bank.exchange([(one, told)])[0] == json.loads(json.dumps(exchange(state, told, now)))


# N replicas together keep one limit: litellm#40291, bifrost#3547


def start_workers(place, folder, n, *limits):
    words = [f"{name}={amount}" for name, amount in limits]
    workers = [
        subprocess.Popen(
            [sys.executable, WORKER, place, folder / str(i), str(WINDOW_S), *words],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for i in range(n)
    ]  # fmt: skip
    for worker in workers:
        worker.stdout.readline()
    return workers


def log_of(path, ended_at=None):
    """Times at which a worker began and ended calls. What it had begun when it was killed ended then."""
    told = [line.split() for line in path.read_text().splitlines() if line.count(" ") == 1]
    began = [float(at) for at, word in told if word == "in"]
    ended = [float(at) for at, word in told if word == "out"]
    return began, ended + [ended_at or time.time()] * (len(began) - len(ended))


def most_in_window(times):
    times = sorted(times)
    return max(bisect.bisect_left(times, at + WINDOW_S) - i for i, at in enumerate(times))


def most_at_a_time(began, ended):
    now = most = 0
    for _, step in sorted([(at, 1) for at in began] + [(at, -1) for at in ended]):
        now += step
        most = max(most, now)
    return most


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sqlite", "redis"])
def test_four_processes_keep_one_limit_and_use_what_a_killed_one_held_litellm_40291_bifrost_3547(kind, tmp_path, redis):
    place = redis.url if kind == "redis" else f"sqlite:///{tmp_path / 'limits.db'}"
    if kind == "redis":
        with redis_store(place, timeout_s=30).client() as client:
            client.flushall()
    workers = start_workers(place, tmp_path, 4, ("requests", LIMIT), ("seats", SEATS))
    try:
        for worker in workers:
            worker.stdin.write(f"{time.time() + 24}\n")
            worker.stdin.flush()
        log = tmp_path / "0"
        while not log.exists() or log.read_text().count("in") < 5:
            time.sleep(0.01)
        workers[0].kill()
        killed_at = time.time()
    finally:
        for worker in workers:
            worker.wait(60)
    logs = [log_of(tmp_path / str(i), killed_at if i == 0 else None) for i in range(4)]
    began = [at for each, _ in logs for at in each]
    ended = [at for _, each in logs for at in each]
    assert most_in_window(began) <= LIMIT
    assert most_at_a_time(began, ended) <= SEATS
    later = [at for at in began if at > killed_at + TTL_MS / 1000]
    assert most_in_window(later) > 0.8 * LIMIT, "the killed one's share is used by the others"
    assert all(any(at > killed_at for at in each) for each, _ in logs[1:])


# One process and its store


def pool_at(place, limits, *, queue=None, clock=None, **more):
    bank = RedisBank(redis_store(place, timeout_s=30)) if place.startswith("redis") else SqlBank(SqlStore(place))
    keeper = Keeper(bank, clock or Clock(), **more)
    pools = Pools(key(), limits, queue or Queue(), lambda: keeper)
    return pools.of("", "chain"), keeper


def test_what_a_process_held_is_free_when_it_ends(place, run_of, play):
    limits, clock = {"requests": 10, "seats": 2}, Clock()
    pool, keeper = pool_at(place, limits)
    for _ in range(4):
        play(pool.enter({"requests": 1, "seats": 1}, run_of(clock), "m")).close(clock.monotonic())
    keeper.close()
    other = Keeper(keeper.bank, clock)
    again = type(pool)("chain", type(pool.account)(other, pool.account.key, limits), Queue())
    held = [play(again.enter({"requests": 1, "seats": 1}, run_of(clock), "m")) for _ in range(2)]
    for permit in held:
        permit.close(clock.monotonic())
    for _ in range(4):
        play(again.enter({"requests": 1, "seats": 1}, run_of(clock), "m")).close(clock.monotonic())
    with pytest.raises(Overloaded) as caught:
        play(again.enter({"requests": 1, "seats": 1}, run_of(clock), "m"))
    assert caught.value.retry_after_s > 30
    other.close()


def test_permits_are_taken_in_blocks_and_not_asked_for_one_by_one(place, run_of, play):
    clock = ManualClock()  # blocks lapse with time, so on a slow machine more of them would be needed
    pool, keeper = pool_at(place, {"requests": 1_000_000, "tokens": 1_000_000_000}, clock=clock, has_thread=False)
    asked = []
    exchanged = keeper.bank.exchange
    keeper.bank.exchange = lambda asks: asked.append(1) or exchanged(asks)
    for _ in range(500):
        permit = play(pool.enter({"requests": 1, "tokens": 500}, run_of(clock), "m"))
        permit.close(clock.monotonic(), used={"tokens": 100})
        clock.advance(0.002)
    assert len(asked) < 60
    keeper.close()


def test_an_unreachable_redis_leaves_each_process_its_share_and_recovers(run_of, play):
    clock, limits = ManualClock(), {"requests": 8}  # what is leased does not lapse while this machine is busy
    with redis_server() as server:
        pool, keeper = pool_at(server.url, limits, clock=clock, has_thread=False)
        run = run_of(clock)
        play(pool.enter({"requests": 1}, run, "m")).close(clock.monotonic())
        keeper.bank.exchange([(pool.account.key, ask("another", limits=limits))])
        keeper.exchange([pool.account])
        assert pool.account.holders == 2
        server.kill()
        for _ in range(3):
            play(pool.enter({"requests": 1}, run, "m")).close(clock.monotonic())
        assert [type(event) for event in run.events] == [LimitsDegraded]
        assert (run.events[0].processes, run.events[0].limit) == (2, "chain")
        with pytest.raises(Overloaded):  # 8 / 2 processes, with the one from before
            play(pool.enter({"requests": 1}, run, "m"))
        server.start()
        deadline = time.monotonic() + 60
        while pool.account.is_alone and time.monotonic() < deadline:
            keeper.exchange([pool.account])
        for _ in range(4):
            play(pool.enter({"requests": 1}, run, "m")).close(clock.monotonic())
        assert LimitsShared in {type(event) for event in run.events}
        left = keeper.bank.exchange([(pool.account.key, ask("another", limits=limits))])[0]["left"]["requests"]
        assert left <= 8 - 3 - 4, "what was used alone is told when the store is back"
        keeper.close()


def test_a_row_that_cannot_be_read_leaves_the_process_its_share(tmp_path, run_of, play):
    clock = Clock()
    pool, keeper = pool_at(f"sqlite:///{tmp_path / 'limits.db'}", {"requests": 10}, has_thread=False)
    play(pool.enter({"requests": 1}, run_of(clock), "m"))
    with sqlite3.connect(tmp_path / "limits.db") as database:
        database.execute("UPDATE limits SET state = '{broken'")
    run = run_of(clock)
    clock_ahead = clock.monotonic() + 2
    assert pool.take({"requests": 1}, clock_ahead) is None, "its block has lapsed"
    play(pool.enter({"requests": 8}, run, "m"))
    assert [type(event) for event in run.events] == [LimitsDegraded]
    assert "delete it" in run.events[0].problem
    keeper.close()


def _child(pool, answers):
    pool_holder = pool.account.holder
    answers.put((pool.account.used(time.perf_counter()), pool_holder, pool.open))


def test_a_forked_child_holds_nothing_of_its_parents(tmp_path, run_of, play):
    clock = Clock()
    pool, keeper = pool_at(f"sqlite:///{tmp_path / 'limits.db'}", {"requests": 10, "seats": 2})
    play(pool.enter({"requests": 1, "seats": 1}, run_of(clock), "m"))
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    child = context.Process(target=_child, args=(pool, answers))
    child.start()
    used, holder, is_open = answers.get(timeout=60)
    child.join()
    assert used["seats"] == 0
    assert is_open == 0
    assert holder != pool.account.holder
    assert pool.account.used(clock.monotonic())["seats"] == 1
    keeper.close()


# What comes at one moment: nobody is refused for calls that wait only until the store has answered


def held_waiting_refused(pool, callers, run_of, play, keep_alive=lambda: None):
    """How many of those who come at one moment are let in, and wait or are refused while nobody leaves."""
    clock, told, leave, start = Clock(), [], threading.Event(), threading.Barrier(len(callers))

    def come(caller):
        start.wait()
        try:
            permit = play(pool.enter({"seats": 1}, run_of(clock, **caller), "m"))
        except Overloaded as refused:
            told.append(refused.reason)
            return
        told.append("in")
        leave.wait(60)
        permit.close(clock.monotonic())

    def all_are_known():
        return len(told) + pool.waiting() == len(callers)

    def is_settled():
        with pool.lock, pool.account.lock:  # nothing is heard of the store between the two looks
            pool.pump(clock.monotonic())
            is_asking = pool.waiting() and pool.account.wants_more({"seats": 1}, clock.monotonic())
            return all_are_known() and not is_asking

    threads = [threading.Thread(target=come, args=[caller], daemon=True) for caller in callers]
    for thread in threads:
        thread.start()
    until = time.monotonic() + 60
    while not is_settled():
        assert time.monotonic() < until
        keep_alive()
        time.sleep(0.005)
    found = told.count("in"), pool.waiting(), told.count("queue full")
    leave.set()
    for thread in threads:
        thread.join(60)
    assert sorted(told) == ["in"] * (found[0] + found[1]) + ["queue full"] * found[2], "all who waited got in"
    return found


@pytest.mark.parametrize("most", [0, 4])
def test_of_those_who_come_at_one_moment_all_for_whom_there_is_room_get_in_or_wait(place, run_of, play, most):
    pool, keeper = pool_at(place, {"seats": 20}, queue=Queue(most, 60))
    assert held_waiting_refused(pool, [{}] * 40, run_of, play) == (20, most, 20 - most)
    keeper.close()


@pytest.mark.parametrize("most", [0, 4])
def test_those_for_whom_another_process_left_no_room_are_refused_when_the_store_says_so(place, run_of, play, most):
    pool, keeper = pool_at(place, {"seats": 20}, queue=Queue(most, 60))
    told = [(pool.account.key, ask("another", limits={"seats": 20}, seats=12))]
    keeper.bank.exchange(told)
    found = held_waiting_refused(pool, [{}] * 40, run_of, play, lambda: keeper.bank.exchange(told))
    assert found == (8, most, 32 - most)
    keeper.close()


def test_a_line_that_waits_for_the_store_is_bounded_and_cut_in_fair_order_when_the_store_says_no(place, run_of):
    clock = ManualClock()
    pool, keeper = pool_at(place, {"seats": 20}, queue=Queue(4, 60), clock=clock, has_thread=False)
    keeper.bank.exchange([(pool.account.key, ask("another", limits={"seats": 20}, seats=20))])
    plans = [pool.enter({"seats": 1}, run_of(clock, tenant=tenant), "m") for tenant in ["crowd"] * 30 + ["other"] * 2]
    steps = [reason_or_step(plan) for plan in plans]
    assert isinstance(steps[0], Do)
    assert [isinstance(step, Hear) for step in steps[1:24]] == [True] * 23, "20 may have a seat, and 4 may wait"
    assert steps[24:30] == ["queue full"] * 6
    assert [isinstance(step, Hear) for step in steps[30:]] == [True] * 2, "another tenant pushes out the crowd's last"
    steps[0].work()
    told = [reason_or_step(plan) for plan in plans[:24] + plans[30:]]
    assert told[2:22] == ["queue full"] * 20
    assert told[22:24] == ["pushed out"] * 2
    assert [isinstance(step, Hear) for step in told[:2] + told[24:]] == [True] * 4
    with pytest.raises(Overloaded, match="4 calls wait") as caught:
        next(pool.enter({"seats": 1}, run_of(clock, tenant="other"), "m"))
    assert caught.value.waiting == 4
    keeper.close()


def reason_or_step(plan):
    try:
        return next(plan)
    except StopIteration:
        return "in"
    except Overloaded as refused:
        return refused.reason


def test_who_comes_when_the_store_cannot_be_reached_queues_for_this_processs_share(tmp_path, run_of):
    class Gone(SqlBank):
        def exchange(self, asks):
            raise StoreUnavailable(self.place, "gone", "wait")

    clock = ManualClock()
    keeper = Keeper(Gone(SqlStore(f"sqlite:///{tmp_path / 'limits.db'}")), clock, has_thread=False)
    pool = Pools(key(), {"seats": 20}, Queue(4, 60), lambda: keeper).of("", "chain")
    pool.account.holders = 2
    plans = [pool.enter({"seats": 1}, run_of(clock), "m") for _ in range(24)]
    steps = [reason_or_step(plan) for plan in plans]
    steps[0].work()
    told = [reason_or_step(plan) for plan in plans]
    assert told[:10] == ["in"] * 10
    assert [isinstance(step, Hear) for step in told[10:14]] == [True] * 4
    assert told[14:] == ["queue full"] * 10


# What the keeper's thread and the process's end do beside the calls


def test_a_permits_time_does_not_run_while_others_ask_the_store(tmp_path, run_of):
    clock = ManualClock()
    pool, keeper = pool_at(f"sqlite:///{tmp_path / 'limits.db'}", {"requests": 10}, clock=clock, has_thread=False)
    plan = pool.enter({"requests": 1}, run_of(clock), "m")
    step = next(plan)
    with ThreadPoolExecutor(1) as threads:
        with keeper._asking:
            asking = threads.submit(step.work)
            wait([asking], timeout=0.2)
            clock.advance(2)
        asking.result(60)
    assert reason_or_step(plan) == "in"
    keeper.close()


def test_the_end_waits_for_nobody_who_is_busy_with_the_queue(tmp_path, run_of, play):
    pool, keeper = pool_at(f"sqlite:///{tmp_path / 'limits.db'}", {"requests": 10}, has_thread=False)
    play(pool.enter({"requests": 1}, run_of(Clock()), "m"))
    with ThreadPoolExecutor(1) as threads, pool.lock:  # whoever has it may be about to ask for the account's
        threads.submit(keeper.close).result(30)


def test_nothing_is_leased_ahead_after_the_farewell(tmp_path, run_of, play):
    class EndsMeanwhile(Keeper):
        """Is closed after it has looked whether it is, and before it asks."""

        def _still_busy(self, **more):
            held, end = super()._still_busy(**more), self.close

            class Held(list):
                def __getitem__(self, which):
                    end()
                    return super().__getitem__(which)

            return Held(held)

    bank = SqlBank(SqlStore(f"sqlite:///{tmp_path / 'limits.db'}"))
    keeper = EndsMeanwhile(bank, ManualClock(), has_thread=False)
    pool = Pools("shared", {"requests": 10}, Queue(), lambda: keeper).of("", "chain")
    play(pool.enter({"requests": 1}, run_of(keeper.clock), "m"))
    keeper._keep()
    (told,) = bank.exchange([(pool.account.key, ask("another", limits={"requests": 10}))])
    assert (told["holders"], told["left"]) == (1, {"requests": 9})
