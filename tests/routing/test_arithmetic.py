from __future__ import annotations

import json

import pytest

from chainops.routing.arithmetic import (
    NUMBERS,
    equations,
    features,
    final_number,
    is_arithmetic,
    likelihood,
    value_of,
)

QUESTION = "A pen costs $2, and paper costs $1 less than three times as much. What is the change from $10?"
RIGHT = "Paper costs 3 * $2 - $1 = $5. Together that is $2 + $5 = $7. The change is $10 - $7 = $3.\n#### 3"
WRONG = "Paper costs 3 * $2 - $1 = $5. Together that is $2 + $5 = $8. The change is $10 - $8 = $2.5.\n#### 2.5"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3 * 4", 12),
        ("(2+3) × 4 ÷ 5", 4),
        ("$1,000 - $1", 999),
        ("50% * 30", 15),
        ("-2 + 5", 3),
        ("3", None),
        ("2 ** 99", None),
        ("9**9**9", None),
        ("1/0", None),
        ("__import__('os')", None),
        ("(" * 70, None),
        ("1 + " * 50, None),
        ("a + 1", None),
        ("1 + True", None),
    ],
)
def test_only_sums_of_numbers_have_a_value(text, value):
    assert value_of(text) == (None if value is None else pytest.approx(value))


def test_equations_are_checked_with_room_for_rounding():
    assert equations(RIGHT) == (3, 0)
    assert equations(WRONG) == (1, 2)
    assert equations("10 / 3 = 3.33 and 2 + 2 = 5") == (1, 1)
    assert equations("no numbers, x = y") == (0, 0)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("so 5\n#### 1,234", 1234),
        (r"hence \boxed{42}", 42),
        ("the answer is $7.50 in all", 7.5),
        ("3 apples and 4 pears", 4),
        ("none", None),
        ("", None),
    ],
)
def test_the_final_number_is_the_marked_one_else_the_last(text, number):
    assert final_number(text) == number


def test_an_answer_whose_sums_hold_is_likelier_right_than_one_whose_do_not():
    right, parts = likelihood(QUESTION, RIGHT)
    wrong, _ = likelihood(QUESTION, WRONG)
    nothing, _ = likelihood(QUESTION, "I cannot tell.")
    assert right > 0.6 > wrong > 0
    assert nothing < right
    assert set(parts) == set(features(QUESTION, RIGHT))


def test_prose_is_no_arithmetic():
    assert is_arithmetic(RIGHT)
    assert not is_arithmetic("The shop opens at 9 and closes at 17, on 3 days.")


@pytest.mark.parametrize("answer", ["", "=" * 5000, "1" * 30_000, "\ud800", "9" * 400 + " + 1 = 2", "(" * 9999 + "= 1"])
def test_any_answer_can_be_judged(answer):
    assert 0 <= likelihood("how much?", answer)[0] <= 1


def test_the_shipped_weights_say_where_they_come_from():
    told = json.loads(NUMBERS.read_text())
    assert "GSM8K" in told["trained_on"]
    assert set(told["features"]) == set(features("", ""))
