from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chainops.text.facts import differences, facts


def between(a: str, b: str):
    return differences(facts(a), facts(b))


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("Send 1,000 now", "Send 1000 now"),
        ("Send two files", "Send 2 files"),
        ("It took 5k steps", "It took 5,000 steps"),
        ("Two hundred people", "200 people"),
        ("twenty five of them", "25 of them"),
        ("it takes one day", "it takes 1 day"),
        ("one can of beans", "1 can of beans"),
        ("It rose by 2.50", "It rose by 2.5"),
        ("costs $5", "costs 5 dollars"),
        ("five percent", "5%"),
        ("5 % of it", "5% of it"),
        ("at 3:30 pm", "at 15:30"),
        ("at 3 pm", "at 15:00"),
        ("use GPT-4 there", "use gpt4 there"),
        ("don't go", "do not go"),
        ("on 2020-01-05", "on 2020-1-5"),
    ],
)
def test_two_ways_to_write_one_fact_do_not_differ(a, b):
    assert between(a, b).total == 0


@pytest.mark.parametrize(
    ("a", "b", "kind"),
    [
        ("Send 10 files", "Send 11 files", "numbers"),
        ("costs $5", "costs €5", "units"),
        ("Why is it working?", "Why is it not working?", "negation"),
        ("Why does it work?", "Why doesn't it work?", "negation"),
        ("leave on Monday", "leave on Friday", "times"),
        ("in April", "in May", "times"),
        ("at 3 am", "at 3 pm", "times"),
        ("flights to Paris", "flights to Rome", "names"),
        ("open the GPT-4 page", "open the GPT-5 page", "identifiers"),
        ("write to a@x.org", "write to b@x.org", "identifiers"),
        ("install 1.2.3", "install 1.2.4", "identifiers"),
        ('print "hello"', 'print "bye"', "quoted"),
        ("before lunch", "after lunch", "opposed"),
        ("enable alerts", "disable alerts", "opposed"),
        ("lock it", "unlock it", "opposed"),
        ("a valid card", "an invalid card", "opposed"),
        ("Ly49 promotes growth", "Ly49 inhibits growth", "opposed"),
    ],
)
def test_one_changed_fact_is_seen(a, b, kind):
    assert getattr(between(a, b), kind) > 0


def test_an_even_number_of_negations_cancels_out():
    assert not facts("it is not unable").is_negated
    assert facts("it is unable").is_negated


def test_a_name_in_small_letters_is_the_same_name():
    assert between("which ATM can I use", "which atm can i use").names == 0


def test_a_capital_at_the_start_of_a_sentence_is_no_name():
    assert facts("Where is it? Here. There").names == frozenset()


def test_titles_and_shouting_have_no_names():
    assert facts("WHY IS MY CARD NOT WORKING").names == frozenset()
    assert facts("What Are The Best Books To Read").names == frozenset()


def test_may_and_one_are_facts_only_where_they_are_meant():
    assert facts("it may be that one").times == frozenset()
    assert facts("it may be that one").numbers == frozenset()
    assert facts("it was in May").times == {"month 5"}


def test_a_year_is_a_time_and_a_sum_is_not():
    assert facts("the show in 2019").times == {"2019"}
    assert facts("I paid 2000 for it").times == frozenset()


@given(st.text(max_size=200))
def test_any_text_can_be_read_and_equals_itself(text):
    assert differences(facts(text), facts(text)).total == 0


@given(st.text(max_size=80), st.text(max_size=80))
def test_differences_do_not_depend_on_the_order(a, b):
    assert between(a, b) == between(b, a)


@pytest.mark.parametrize("unit", ["a", "1", "a1", "a-", "1,", "1.", "@", "a@", '"', " 1", "a.", "not "])
def test_a_long_text_is_read_in_linear_time(unit):
    # Quadratic reading of so many characters would take minutes: that this test ends is the claim.
    facts(unit * (300_000 // len(unit)))
