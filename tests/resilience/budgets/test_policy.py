from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from pydantic import ValidationError

from chainops.core.attempts import Expected
from chainops.core.caller import Caller
from chainops.resilience.budgets import policy
from chainops.resilience.budgets.policy import Amount, BudgetSettings, Limit, Routing, Saying, windows


def at(text, name="UTC"):
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(name)).timestamp()


def test_windows_end_at_midnight_and_at_the_end_of_the_month():
    day, month = windows(BudgetSettings(usd_per_day=5, usd_per_month=100), at("2026-12-31T15:00"))
    assert (day.id, day.ends) == ("day 2026-12-31", at("2027-01-01T00:00"))
    assert (month.id, month.ends) == ("month 2026-12", at("2027-01-01T00:00"))
    assert day.limit == Limit(5_000_000_000, None)


@pytest.mark.parametrize(
    ("moment", "expected", "hours"),
    [("2026-03-29T12:00", "day 2026-03-29", 23), ("2026-10-25T12:00", "day 2026-10-25", 25)],
)
def test_days_are_those_of_the_declared_place_even_when_its_clocks_change(moment, expected, hours):
    settings = BudgetSettings(usd_per_day=5, time_zone="Europe/Berlin")
    (day,) = windows(settings, at(moment, "Europe/Berlin"))
    assert day.id == expected
    assert day.ends - at(f"{moment[:10]}T00:00", "Europe/Berlin") == hours * 3600


@given(
    st.datetimes(datetime(2000, 1, 1), datetime(2090, 1, 1)),
    st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Pacific/Apia", "Africa/Cairo"]),
)
def test_a_window_never_ends_before_now_nor_lasts_longer_than_it_should(moment, name):
    now = moment.replace(tzinfo=UTC).timestamp()
    day, month = windows(BudgetSettings(tokens_per_day=1, tokens_per_month=1, time_zone=name), now)
    assert now < day.ends <= now + 26 * 3600
    assert now < month.ends <= now + 32 * 86400
    assert windows(BudgetSettings(tokens_per_day=1, time_zone=name), day.ends + 1)[0].id != day.id


def test_only_what_is_limited_has_a_window():
    assert windows(BudgetSettings(usd_per_request=1), 0.0) == ()
    assert [each.name for each in windows(BudgetSettings(tokens_per_month=1), 0.0)] == ["month"]


def test_the_lower_of_the_chains_and_the_callers_limit_holds():
    settings = BudgetSettings(usd_per_request=0.02)
    assert policy.of_request(settings, Caller(budget_usd=0.5)).nano_usd == 20_000_000
    assert policy.of_request(settings, Caller(budget_usd=0.005)).nano_usd == 5_000_000
    assert policy.of_request(BudgetSettings(), Caller(budget_usd=0)).nano_usd == 0
    assert policy.of_request(BudgetSettings(), Caller()).nano_usd is None


def test_what_costs_nothing_breaks_no_limit_of_money():
    limit = Limit(1_000, 50)
    assert limit.broken_by(Amount(5_000, 0), Amount(0, 10)) is None
    assert limit.broken_by(Amount(0, 50), Amount(0, 1)) == "tokens"
    assert limit.broken_by(Amount(999, 0), Amount(2, 1)) == "usd"
    assert limit.broken_by(Amount(998, 0), Amount(2, 1)) is None
    assert Limit(0, None).broken_by(Amount(), Amount(1, 0)) == "usd"


def test_an_unknown_price_is_no_price_where_money_is_limited():
    expected = Expected(600, 400, None)
    assert policy.expected_amount(expected, BudgetSettings(), is_usd_limited=True) is None
    assert policy.expected_amount(expected, BudgetSettings(), is_usd_limited=False) == Amount(0, 1000)
    declared = BudgetSettings(unknown_price_usd_per_million_tokens=3)
    assert policy.expected_amount(expected, declared, is_usd_limited=True) == Amount(3_000_000, 1000)


def test_those_who_are_told_apart_have_keys_of_their_own():
    ann, bob, nobody = Caller(user="ann", tenant="t"), Caller(user="bob", tenant="t"), Caller()
    keys = {
        policy.key_of(per, caller) for per in ("user", "tenant", "feature", "chain") for caller in (ann, bob, nobody)
    }
    assert len(keys) == 3 + 2 + 1 + 1
    assert "ann" not in policy.key_of("user", ann)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"time_zone": "Mars/Olympus"}, "Mars/Olympus"),
        ({"soft": 0}, "soft"),
        ({"usd_per_day": -1}, "usd_per_day"),
        ({"at_hard": "explode"}, "at_hard"),
        ({"at_hard": {"sing": "la"}}, "at_hard"),
        ({"usd_per_dya": 1}, "usd_per_dya"),
        ({"store": "redis://:secret@host/0"}, "REDIS_PASSWORD"),
        ({"store": "mysql://host"}, "postgresql://"),
    ],
)
def test_nonsense_is_refused_by_name(said, told):
    with pytest.raises(ValidationError, match=told):
        BudgetSettings(**said)


def test_what_to_do_is_a_word_a_sentence_or_a_model():
    assert BudgetSettings(at_hard={"say": "no"}).at_hard == Saying(say="no")
    assert BudgetSettings(at_hard={"route": "local"}).at_hard == Routing(route="local")
    assert BudgetSettings(at_soft={"route": "small"}).at_soft == Routing(route="small")
    assert BudgetSettings(at_hard="review").at_hard == "review"


class Accounts(RuleBasedStateMachine):
    """The arithmetic every store does: what is set aside never goes beyond the limit, and ends as what was spent."""

    def __init__(self) -> None:
        super().__init__()
        self.limit = Limit(1_000, 100)
        self.total, self.truth = Amount(), Amount()
        self.holds: list[Amount] = []
        self.beyond = Amount()

    @rule(usd=st.integers(0, 400), tokens=st.integers(0, 40))
    def reserve(self, usd, tokens):
        more = Amount(usd, tokens)
        if self.limit.broken_by(self.total, more) is None:
            self.total += more
            self.holds.append(more)

    @rule(usd=st.integers(0, 600), tokens=st.integers(0, 60), which=st.integers(0, 100))
    def settle(self, usd, tokens, which):
        if self.holds:
            held = self.holds.pop(which % len(self.holds))
            actual = Amount(usd, tokens)
            self.total += actual - held
            self.truth += actual
            self.beyond += Amount(max(0, usd - held.nano_usd), max(0, tokens - held.tokens))

    @invariant()
    def it_is_never_negative_and_beyond_the_limit_only_by_wrong_estimates(self):
        assert self.total.nano_usd >= 0
        assert self.total.tokens >= 0
        assert self.total.nano_usd <= 1_000 + self.beyond.nano_usd
        assert self.total.tokens <= 100 + self.beyond.tokens
        held = sum((each.nano_usd for each in self.holds), 0)
        assert self.total.nano_usd == self.truth.nano_usd + held


TestAccounts = Accounts.TestCase
