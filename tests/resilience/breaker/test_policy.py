from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from pydantic import ValidationError

from chainops.models.failures import Failure
from chainops.resilience.breaker import policy
from chainops.resilience.breaker.policy import BreakerSettings, Opening, Recent, Route

SETTINGS = BreakerSettings(failures=3, within_s=10, open_s=8, most_open_s=60, probe_s=5)


def opening(until, failure="server", since=0.0, times=1):
    return Opening(failure, "overloaded", since, until, times)


@pytest.mark.parametrize(
    ("reason", "kind", "expected"),
    [
        ("timeout", "retryable", "timeout"),
        ("overloaded", "retryable", "server"),
        ("connection cut", "retryable", "server"),
        ("rate limit", "retryable", "rate limit"),
        ("key refused", "next_route", "setup"),
        ("quota", "next_route", "setup"),
        ("model not found", "next_route", "setup"),
        ("context length", "next_route", None),
        ("content filter", "next_route", None),
        ("over budget", "next_route", None),
        ("invalid request", "caller", None),
        ("TypeError", "bug", None),
    ],
)
def test_only_what_a_route_did_counts_against_it(reason, kind, expected):
    assert policy.failure_class(Failure(kind, reason)) == expected


def test_a_failure_of_one_key_among_several_says_nothing_about_the_route():
    assert policy.failure_class(Failure("next_route", "key refused", retry_after_s=0)) is None


def test_enough_failures_within_the_time_open_it():
    recent = Recent(SETTINGS)
    assert [recent.failed("server", at) for at in (0, 4, 9)] == [False, False, True]


def test_failures_far_apart_do_not():
    recent = Recent(SETTINGS)
    assert [recent.failed("server", at) for at in (0, 6, 11, 16.5)] == [False, False, False, False]
    assert recent.failed("server", 16.6)


def test_each_kind_of_failure_is_counted_by_itself():
    recent = Recent(SETTINGS)
    assert not any(recent.failed(kind, 1.0) for kind in ("server", "timeout", "server", "timeout"))


def test_a_route_that_mostly_works_stays_open_to_all():
    recent = Recent(SETTINGS)
    for at in range(100):
        for _ in range(9):
            recent.succeeded()
        assert not recent.failed("server", at / 100)


def test_a_rate_limit_opens_at_once_for_as_long_as_the_server_asks():
    told = {"is_many": False, "times": 1, "settings": SETTINGS}
    assert policy.opens_for_s("rate limit", retry_after_s=20, **told) == 20
    assert policy.opens_for_s("rate limit", retry_after_s=900, **told) == 60
    assert policy.opens_for_s("rate limit", retry_after_s=None, **told) is None
    assert policy.opens_for_s("server", retry_after_s=20, **told) is None


def test_a_refused_key_opens_at_once_for_the_longest_time():
    assert policy.opens_for_s("setup", retry_after_s=None, is_many=False, times=1, settings=SETTINGS) == 60


def test_each_failed_probe_doubles_the_time_up_to_the_most():
    times = [
        policy.opens_for_s("server", retry_after_s=None, is_many=True, times=times, settings=SETTINGS)
        for times in (1, 2, 3, 4, 5, 5_000)
    ]
    assert times == [8, 16, 32, 60, 60, 60]


@given(st.permutations([opening(20.0), opening(50.0), opening(35.0, since=-3.0, times=4)]))
def test_the_later_deadline_wins_in_whatever_order_they_come_litellm_40130(openings):
    route = Route()
    for each in openings:
        route = policy.opened(route, each)
    assert route.openings == (opening(50.0, since=-3.0, times=4),)


def test_a_clock_set_back_does_not_keep_it_open_for_hours():
    route = Route((opening(10_000.0),))
    assert policy.state(route, 9_990.0, SETTINGS) == "open"
    assert policy.state(route, 5_000.0, SETTINGS) == "due"


def test_one_whose_clock_is_a_little_behind_does_not_take_anothers_probe():
    route = policy.claimed(Route((opening(10.0),)), "a", 100.005, SETTINGS)
    assert policy.claimed(route, "b", 100.0, SETTINGS) == route
    route = policy.opened(Route(), opening(100.005 + SETTINGS.most_open_s))
    assert policy.state(route, 100.0, SETTINGS) == "open"


def test_a_success_does_not_close_what_was_opened_for_longer_meanwhile():
    route = Route((opening(10.0), opening(50.0, "rate limit")), probe="p", probe_until=15.0)
    assert policy.proven(route, 12.0, SETTINGS) == Route((opening(50.0, "rate limit"),))


def test_settings_that_contradict_each_other_are_refused():
    with pytest.raises(ValidationError, match="most_open_s"):
        BreakerSettings(open_s=60, most_open_s=30)
    assert BreakerSettings(open_s="2m", most_open_s="10m").open_s == 120


class Shared(RuleBasedStateMachine):
    """Several processes at one route, in any order: one probe at a time, and never a call before its time."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1_000.0
        self.route = Route()
        self.probes: dict[str, float] = {}
        self.count = 0

    @rule(seconds=st.floats(0.1, 40))
    def time_passes(self, seconds):
        self.now += seconds

    @rule(failure=st.sampled_from(["timeout", "server", "rate limit", "setup"]), seconds=st.floats(1, 60))
    def somebody_opens_it(self, failure, seconds):
        before = self.route
        self.route = policy.opened(before, Opening(failure, "r", self.now, self.now + seconds))
        assert policy.last(self.route).until >= max((each.until for each in before.openings), default=0.0)

    @rule()
    def somebody_claims_the_probe(self):
        self.count += 1
        token = f"t{self.count}"
        standing = policy.state(self.route, self.now, SETTINGS)
        self.route = policy.claimed(self.route, token, self.now, SETTINGS)
        if standing == "due":
            assert self.route.probe == token
            self.probes[token] = self.now
        else:
            assert self.route.probe != token

    @rule(how=st.sampled_from(["ok", "failed", "nothing"]), which=st.integers(0, 20))
    def a_probe_ends(self, how, which):
        if not self.probes:
            return
        token = sorted(self.probes)[which % len(self.probes)]
        del self.probes[token]
        if how == "ok":
            self.route = policy.proven(self.route, self.now, SETTINGS)
            assert policy.state(self.route, self.now, SETTINGS) in ("closed", "open")
        elif how == "failed" and self.route.probe == token:
            self.route = policy.failed_again(
                self.route, token, Opening("server", "r", self.now, self.now + 8, 2), self.now
            )
            assert policy.state(self.route, self.now, SETTINGS) == "open"
        else:
            self.route = policy.released(self.route, token)

    @invariant()
    def at_most_one_probe_is_within_its_time(self):
        within = [token for token, at in self.probes.items() if self.now < at + SETTINGS.probe_s]
        held = [token for token in within if token == self.route.probe]
        if policy.state(self.route, self.now, SETTINGS) == "probing":
            assert len(held) <= 1

    @invariant()
    def it_can_always_be_tried_again(self):
        later = self.now + 61 + SETTINGS.probe_s
        assert policy.state(self.route, later, SETTINGS) in ("closed", "due")


TestShared = Shared.TestCase
