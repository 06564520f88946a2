from __future__ import annotations

import math

import pytest

from chainops.core.caller import Caller
from chainops.core.errors import InvalidInput
from chainops.routing.records import Asking
from chainops.routing.weight import Weight, place_of


def route_of(weight, **caller):
    return weight.choose(Asking("q", Caller(**caller)))


def test_the_same_user_always_gets_the_same_route():
    weight = Weight({"a": 0.5, "b": 0.5}, experiment="e")
    for user in ("ann", "bob", "cy"):
        assert len({route_of(weight, user=user).route for _ in range(20)}) == 1


def test_many_users_are_divided_in_the_declared_shares():
    weight = Weight({"a": 90, "b": 10}, experiment="e")
    count = 20_000
    got = sum(route_of(weight, user=f"user {n}").route == "b" for n in range(count))
    assert abs(got / count - 0.1) < 4 * math.sqrt(0.1 * 0.9 / count)


def test_another_experiment_divides_the_same_users_independently():
    one, other = (Weight({"a": 1, "b": 1}, experiment=name) for name in ("one", "other"))
    users = [f"user {n}" for n in range(4000)]
    both = sum(route_of(one, user=user).route == route_of(other, user=user).route == "a" for user in users)
    assert abs(both / len(users) - 0.25) < 0.03


def test_when_a_share_grows_only_users_of_the_other_move():
    before, after = (Weight({"a": a, "b": 1 - a}, experiment="e") for a in (0.9, 0.8))
    moved = [(route_of(before, user=f"{n}").route, route_of(after, user=f"{n}").route) for n in range(5000)]
    assert {pair for pair in moved if pair[0] != pair[1]} == {("a", "b")}


def test_who_is_not_known_is_divided_by_chance_and_the_report_says_so():
    weight = Weight({"a": 0.5, "b": 0.5}, experiment="e")
    choices = [route_of(weight) for _ in range(200)]
    assert {each.route for each in choices} == {"a", "b"}
    assert not choices[0].facts["is_sticky"]
    assert "by chance" in choices[0].why


def test_sessions_stay_together_where_they_are_what_counts():
    weight = Weight({"a": 0.5, "b": 0.5}, experiment="e", per="session")
    assert len({route_of(weight, session="s", user=f"{n}").route for n in range(20)}) == 1


def test_users_of_the_same_name_in_two_tenants_are_two():
    places = {place_of("e", "ann", tenant) for tenant in (None, "x", "y")}
    assert len(places) == 3


def test_a_weight_of_nothing_gets_nobody():
    weight = Weight({"a": 0, "b": 1, "c": 0}, experiment="e")
    assert {route_of(weight, user=f"{n}").route for n in range(500)} == {"b"}
    assert weight._at(1.0) == "b"


@pytest.mark.parametrize("weights", [{}, {"a": 0}, {"a": -1, "b": 2}, {"a": math.nan}, {"a": math.inf}])
def test_weights_that_are_none_are_refused(weights):
    with pytest.raises(InvalidInput):
        Weight(weights, experiment="e")
