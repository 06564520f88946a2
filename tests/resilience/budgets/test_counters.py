"""Totals in every store: one step for everybody, settled once."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from chainops.resilience.budgets.policy import Amount, BudgetSettings, windows

NOW = 1_700_000_000.0
BOTH = BudgetSettings(usd_per_day=1.0, usd_per_month=1.5, tokens_per_day=10_000)


def totals(counters, settings=BOTH, now=NOW, key="k"):
    return counters.totals("b", key, [each.id for each in windows(settings, now)])


def test_nothing_is_spent_at_first(counters):
    assert totals(counters) == [Amount(), Amount()]
    assert counters.holds(before=NOW) == []


def test_what_is_set_aside_counts_at_once_and_the_truth_replaces_it(counters, make_hold):
    hold, concerned = make_hold(usd=0.25, tokens=100, settings=BOTH)
    reserved = counters.reserve(hold, concerned)
    assert reserved.refused is None
    assert totals(counters) == list(reserved.totals) == [Amount(250_000_000, 100)] * 2
    counters.settle([("h1", Amount(10_000_001, 7))])
    assert totals(counters) == [Amount(10_000_001, 7)] * 2


def test_what_would_go_beyond_a_limit_changes_nothing_in_any_window(counters, make_hold):
    first, concerned = make_hold("h1", usd=0.9, settings=BOTH)
    second, _ = make_hold("h2", usd=0.2, settings=BOTH)
    counters.reserve(first, concerned)
    refused = counters.reserve(second, concerned)
    assert refused.refused == (0, "usd")
    assert refused.totals[0] == Amount(900_000_000, 0)
    assert totals(counters) == [Amount(900_000_000, 0)] * 2
    assert [each.id for each in counters.holds(before=NOW + 1)] == ["h1"]
    tomorrow = NOW + 86_400
    third, later = make_hold("h3", usd=0.9, settings=BOTH, at=tomorrow)
    assert counters.reserve(third, later).refused == (1, "usd"), "a new day, the same month"


def test_exactly_the_limit_may_be_spent(counters, make_hold):
    hold, concerned = make_hold(usd=1.0, settings=BOTH)
    assert counters.reserve(hold, concerned).refused is None
    free, _ = make_hold("h2", usd=0.0, tokens=5, settings=BOTH)
    assert counters.reserve(free, concerned).refused is None
    more, _ = make_hold("h3", usd=1e-9, settings=BOTH)
    assert counters.reserve(more, concerned).refused == (0, "usd")


def test_tokens_are_limited_too_unless_they_may_not_be(counters, make_hold):
    hold, concerned = make_hold(tokens=10_001, settings=BOTH)
    assert counters.reserve(hold, concerned).refused == (0, "tokens")
    assert counters.reserve(hold, concerned, enforces_tokens=False).refused is None


def test_settling_twice_or_what_was_never_set_aside_does_nothing_litellm_35568_35569(counters, make_hold):
    hold, concerned = make_hold(usd=0.5, tokens=50, settings=BOTH)
    counters.reserve(hold, concerned)
    counters.settle([("h1", Amount(100_000_000, 10))])
    counters.settle([("h1", Amount(100_000_000, 10)), ("never", Amount(900_000_000, 90)), ("h1", Amount())])
    assert totals(counters) == [Amount(100_000_000, 10)] * 2


def test_the_soft_limit_is_told_once_for_each_window_and_key(counters, make_hold):
    told = []
    for n in range(6):
        hold, concerned = make_hold(f"h{n}", usd=0.18, settings=BOTH)
        told.append(counters.reserve(hold, concerned).newly_soft)
    assert told == [(), (), (), (), (0,), ()]
    other, concerned = make_hold("o", usd=0.9, settings=BOTH, key="another")
    assert counters.reserve(other, concerned).newly_soft == (0,)


def test_what_was_set_aside_yesterday_is_settled_yesterday(counters, make_hold):
    hold, concerned = make_hold(usd=0.5, settings=BOTH)
    counters.reserve(hold, concerned)
    counters.settle([("h1", Amount(200_000_000, 0))])
    assert totals(counters, now=NOW + 86_400) == [Amount(), Amount(200_000_000, 0)]


def test_holds_come_back_whole_and_oldest_first(counters, make_hold):
    young, concerned = make_hold("young", usd=0.1, at=NOW + 50, settings=BOTH)
    old, _ = make_hold("old", usd=0.1, tokens=3, at=NOW, settings=BOTH, feature="naïve ☃")
    counters.reserve(young, concerned)
    counters.reserve(old, concerned)
    assert counters.holds(before=NOW + 51) == [old, young]
    assert counters.holds(before=NOW + 50) == [old]


def test_a_forgotten_users_name_is_on_no_hold(counters, make_hold):
    for name, facts in (("a", {}), ("b", {"user": "bob"}), ("c", {"tenant": "other"})):
        hold, concerned = make_hold(name, usd=0.01, **facts)
        counters.reserve(hold, concerned)
    counters.forget("ann", "acme")
    assert {each.id: each.call.user for each in counters.holds(before=NOW + 1)} == {"a": None, "b": "bob", "c": "ann"}
    assert counters.nameless(["a", "b", "c", "never"]) == ["a"]
    counters.settle([("a", Amount(5, 0))])
    assert counters.nameless(["a"]) == counters.nameless([]) == []
    assert counters.totals("b", "k", ["day 2023-11-14"])[0].nano_usd == 20_000_005


def test_64_threads_set_aside_no_more_than_there_is_litellm_34732_40095(counters, make_hold):
    settings = BudgetSettings(usd_per_day=1.0)

    def take(n):
        hold, concerned = make_hold(f"h{n}", usd=0.03, settings=settings)
        return counters.reserve(hold, concerned).refused is None

    with ThreadPoolExecutor(64) as threads:
        granted = sum(threads.map(take, range(128)))
    assert granted == 33
    assert totals(counters, settings) == [Amount(990_000_000, 0)]


def test_settling_and_setting_aside_at_the_same_time_adds_up(counters, make_hold):
    settings = BudgetSettings(usd_per_day=100.0, usd_per_month=1000)

    def spend(n):
        hold, concerned = make_hold(f"h{n}", usd=0.03, tokens=5, settings=settings)
        counters.reserve(hold, concerned)
        counters.settle([(f"h{n}", Amount(1_000_000, 2)), (f"h{n - 1}", Amount(1_000_000, 2))])

    with ThreadPoolExecutor(16) as threads:
        list(threads.map(spend, range(96)))
    assert totals(counters, settings) == [Amount(96_000_000, 192)] * 2
    assert counters.holds(before=NOW + 1) == []


WORKER = """
import json, sys, time
from chainops.resilience.budgets.policy import Amount, BudgetSettings, windows
from chainops.resilience.budgets.records import Hold, Spend
from chainops.resilience.budgets.redis_counters import RedisCounters
from chainops.resilience.budgets.sql_counters import SqlCounters
from chainops.stores.redis import redis_store
from chainops.stores.sql import SqlStore

url, name, settles = sys.argv[1], sys.argv[2], sys.argv[3] == "settles"
counters = RedisCounters(redis_store(url, timeout_s=10)) if url.startswith("redis") else SqlCounters(SqlStore(url))
now, n = 1_700_000_000.0, 0
concerned = windows(BudgetSettings(usd_per_day=1.0), now)
facts = {"chain": "c", "user": None, "tenant": None, "feature": None, "model": "m", "key_name": None, "usd": 0.01}
facts |= {"input_tokens": 1, "output_tokens": 1, "cached_tokens": 0, "purpose": "answer", "outcome": "lost"}
facts |= {"request": "r"}
print(json.dumps("ready"), flush=True)
sys.stdin.readline()
granted = 0
while True:
    n += 1
    call = Spend(id=f"{name}-{n}", at=now, **facts)
    hold = Hold(call.id, "b", "k", tuple(each.id for each in concerned), Amount(10_000_000, 2), call)
    if counters.reserve(hold, concerned).refused is not None:
        break
    granted += 1
    print(json.dumps(granted), flush=True)
    if settles:
        counters.settle([(call.id, Amount(10_000_000, 2))])
    else:
        time.sleep(0.03)
"""


@pytest.mark.slow
def test_four_processes_together_keep_one_limit_and_the_killed_ones_holds_count(place, counters):
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, place[0], f"p{n}", "settles" if n % 2 else "holds"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for n in range(4)
    ]
    try:
        for process in processes:
            assert json.loads(process.stdout.readline()) == "ready"
        for process in processes:
            process.stdin.write("go\n")
            process.stdin.flush()
            if process is processes[0]:
                for _ in range(3):
                    process.stdout.readline()
        processes[0].kill()
        said = [process.communicate(timeout=60)[0].split() for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert totals(counters, BudgetSettings(usd_per_day=1.0)) == [Amount(1_000_000_000, 200)]
    told = sum(int(each[-1]) for each in said[1:] if each)
    assert told <= 97
    left_behind = [each for each in counters.holds(before=NOW + 1) if each.id.startswith("p0-")]
    assert told + len(left_behind) == 100
