from __future__ import annotations

import json
import math
from collections import Counter

import pytest

from chainops.core.caller import Caller
from chainops.core.errors import InvalidInput
from chainops.routing.moving import ByRecord, Moving
from chainops.routing.records import Asking

ASKING = Asking("q", Caller())


def taught(chooser, **durations):
    for route, each in durations.items():
        for took in each:
            chooser.learn(route, took)
    return chooser


def test_quantiles_are_of_the_last_calls_only():
    moving = Moving(window=10)
    assert moving.quantile_s(0.5) is None
    for took in [*[9.0] * 50, *range(1, 11)]:
        moving.add(float(took))
    assert (len(moving), moving.quantile_s(0.5), moving.quantile_s(0.95)) == (10, 5.0, 10.0)


def test_a_failure_counts_as_a_call_that_never_ends():
    moving = Moving()
    for took in (1.0, 1.0, None):
        moving.add(took)
    assert moving.quantile_s(0.5) == 1.0
    assert moving.quantile_s(0.95) == math.inf


@pytest.mark.parametrize("took", [-1.0, math.nan])
def test_what_is_no_duration_is_refused(took):
    with pytest.raises(InvalidInput):
        Moving().add(took)


def test_the_cheapest_route_that_is_quick_enough_is_taken():
    chooser = ByRecord(["a", "b", "c"], by="cost", usd={"a": 0.001, "b": 0.01, "c": 0.1}, max_s=2, explore=0)
    taught(chooser, a=[5.0] * 20, b=[1.0] * 20, c=[0.1] * 20)
    choice = chooser.choose(ASKING)
    assert choice.route == "b"
    assert "cheapest" in choice.why
    assert "1.00 s" in choice.why


def test_where_none_is_quick_enough_the_quickest_is_taken():
    chooser = ByRecord(["a", "b"], by="cost", usd={"a": 0, "b": 1}, max_s=0.5, explore=0)
    choice = taught(chooser, a=[5.0] * 20, b=[1.0] * 20).choose(ASKING)
    assert choice.route == "b"
    assert "no route's p95 is within 0.5 s" in choice.why


def test_the_quickest_is_the_one_with_the_least_median():
    chooser = taught(ByRecord(["a", "b"], by="latency", explore=0), a=[1.0] * 9 + [50.0], b=[2.0] * 10)
    assert chooser.choose(ASKING).route == "a"


def test_a_tail_beyond_the_limit_counts_against_a_route_with_a_good_median():
    chooser = taught(ByRecord(["a", "b"], by="latency", max_s=5, explore=0), a=[1.0] * 9 + [50.0], b=[2.0] * 10)
    assert chooser.choose(ASKING).route == "b"


def test_a_price_nobody_knows_is_taken_to_be_the_dearest():
    chooser = taught(ByRecord(["a", "b"], by="cost", usd={"a": None, "b": 3.0}, explore=0), a=[1.0], b=[1.0])
    assert chooser.choose(ASKING).route == "b"


def test_a_failing_route_is_left_and_taken_again_once_it_is_better():
    chooser = ByRecord(["a", "b"], by="cost", usd={"a": 0.0, "b": 1.0}, max_s=3, explore=0.1, window=10, seed=1)
    taught(chooser, a=[0.1] * 10, b=[1.0] * 10)
    assert chooser.choose(ASKING).route == "a"
    taught(chooser, a=[None] * 10)
    taken: Counter[str] = Counter()
    for _ in range(200):  # still failing: only tried now and then
        route = chooser.choose(ASKING).route
        taken[route] += 1
        chooser.learn(route, None if route == "a" else 1.0)
    assert 0 < taken["a"] <= 40
    for _ in range(400):  # better again
        chooser.learn(chooser.choose(ASKING).route, 0.1)
    assert Counter(chooser.choose(ASKING).route for _ in range(50)).most_common(1)[0][0] == "a"


def test_every_route_is_tried_before_any_is_preferred():
    chooser = ByRecord(["a", "b", "c"], by="latency", explore=0)
    tried = set()
    for took in (3.0, 2.0, 1.0):
        route = chooser.choose(ASKING).route
        tried.add(route)
        chooser.learn(route, took)
    assert tried == {"a", "b", "c"}


def test_a_choice_is_plain_json_even_where_a_route_always_fails():
    choice = taught(ByRecord(["a", "b"], by="latency", explore=0), a=[None], b=[None]).choose(ASKING)
    json.dumps([choice.score, dict(choice.runners_up)], allow_nan=False)
    assert "failing" in choice.why


def test_no_route_is_refused_and_one_that_was_not_asked_is_not_learnt_from():
    with pytest.raises(InvalidInput):
        ByRecord([], by="cost")
    ByRecord(["a"], by="cost").learn("default", 1.0)
