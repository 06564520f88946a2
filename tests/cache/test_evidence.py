from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from chainops.cache.evidence import NAMES, NEIGHBOURS, RANGES, Near, evidence


def features(question: str, *near: Near) -> dict[str, float]:
    return evidence(question, near).to_dict()


def near(similarity: float, question: str = "how do I top up", group: str = "a") -> Near:
    return Near(similarity, question, group)


def test_margin_is_measured_to_the_nearest_entry_with_another_answer():
    found = features("top up?", near(0.9), near(0.85), near(0.6, group="b"), near(0.5, group="c"))
    assert math.isclose(found["margin"], 0.3)


def test_margin_of_neighbours_that_all_agree_is_to_the_last_of_sixteen():
    found = features("top up?", *(near(0.9 - 0.01 * at) for at in range(NEIGHBOURS)))
    assert math.isclose(found["margin"], 0.15)
    assert math.isclose(features("top up?", near(0.9))["margin"], 0.9)


def test_agreement_counts_neighbours_that_have_the_candidate_answer():
    found = features("x?", near(0.9), near(0.8, group="b"), near(0.7), near(0.6), near(0.5, group="b"))
    assert math.isclose(found["agreement"], 3 / 5)
    assert math.isclose(found["agreement_near"], 3 / 4)
    assert found["vote"] > 0


def test_neighbours_after_the_sixteenth_do_not_matter():
    kept = [near(0.9 - 0.01 * at) for at in range(NEIGHBOURS)]
    assert evidence("x?", kept) == evidence("x?", [*kept, near(0.1, group="b")])


def test_a_word_that_only_one_side_has_is_seen_from_its_side():
    found = features("refund for my stolen phone", near(0.9, "refund for my phone"))
    assert found["rarest_asked"] > 0
    assert found["rarest_kept"] == 0
    found = features("refund for my phone", near(0.9, "refund for my stolen phone"))
    assert found["rarest_asked"] == 0
    assert found["rarest_kept"] > 0


def test_a_word_of_another_answer_is_foreign_and_not_merely_unseen():
    group = near(0.9, "card payment pending"), near(0.8, "cash payment pending", "b")
    assert features("cash payment late", *group)["foreign"] > 0
    assert features("late payment", *group)["foreign"] == 0
    assert features("late payment", *group)["unseen"] > 0


def test_facts_on_one_side_are_counted_and_capped():
    found = features("pay $5 before 1 May 2019, not 6, 7, 8 or 9", near(0.9, "pay"))
    assert found["numbers"] == 3
    assert found["negation"] == 1
    assert found["times"] >= 1


def test_the_same_question_differs_in_nothing():
    found = features("Can I pay 5 EUR in Paris?", near(1.0, "Can I pay 5 EUR in Paris?"))
    assert found["overlap"] == found["same_words"] == 1
    assert all(found[name] == 0 for name in ("numbers", "negation", "times", "names", "identifiers", "opposed"))


def test_age_is_that_of_the_nearest_and_of_the_newest_with_its_answer():
    found = features("x?", Near(0.9, "q", "a", 99), Near(0.8, "q", "b", 0), Near(0.7, "q", "a", 9))
    assert math.isclose(found["age"], math.log(100))
    assert math.isclose(found["age_group"], math.log(10))


def test_no_neighbour_gives_zeros():
    assert evidence("anything", []).values == (0.0,) * len(NAMES)


texts = st.text(max_size=60)
near_ones = st.builds(Near, st.floats(-1, 1), texts, st.sampled_from("abc"), st.integers(0, 10**9), st.none())
neighbours = st.lists(near_ones, max_size=20)


@given(texts, neighbours)
def test_any_neighbourhood_gives_finite_numbers_of_the_stated_names(question, found):
    found.sort(key=lambda each: -each.similarity)
    values = evidence(question, found).values
    assert len(values) == len(NAMES)
    assert all(map(math.isfinite, values))


@given(texts, neighbours)
def test_every_value_is_within_its_range(question, found):
    found.sort(key=lambda each: -each.similarity)
    for name, value in evidence(question, found).to_dict().items():
        low, high = RANGES[name]
        assert low - 1e-9 <= value <= high + 1e-9


@given(texts, neighbours)
def test_what_the_groups_are_called_does_not_matter(question, found):
    found.sort(key=lambda each: -each.similarity)
    renamed = [each._replace(group="group of " + each.group) for each in found]
    assert evidence(question, found) == evidence(question, renamed)
