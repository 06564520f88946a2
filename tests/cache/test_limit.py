"""Which risk may be served by the labels there are."""

from __future__ import annotations

import numpy as np
import pytest

from chainops.cache.bound import NOTHING, Labels, Limit, limit_for


def labels(risk, wrong, *, audits=0):
    """Labels of equal weight, the last `audits` of them audits."""
    risk, wrong = np.asarray(risk, float), np.asarray(wrong, float)
    ones, is_audit = np.ones(len(risk)), np.zeros(len(risk))
    if audits:
        is_audit[-audits:] = 1.0
    return Labels(risk, wrong, ones, ones, ones, is_audit, np.zeros(len(risk)))


def mixed(easy, hard, *, wrong_easy=0):
    """`easy` labels of a predicted risk of 0.4%, of which some were wrong all the same, and `hard` ones of 60%."""
    wrong = [1.0] * wrong_easy + [0.0] * (easy - wrong_easy) + [0.0, 1.0, 1.0] * (hard // 3)
    return labels([0.004] * easy + [0.6] * (hard // 3 * 3), wrong)


def served(limit: Limit) -> bool:
    return limit.risk >= 0.004


def test_nothing_is_served_before_there_are_labels_enough():
    assert limit_for(mixed(5, 30), 0.01) is NOTHING


def test_where_predictions_hold_some_twenty_labels_are_enough_for_a_small_bound():
    assert served(limit_for(mixed(25, 60), 0.01))
    assert served(limit_for(mixed(12, 60), 0.02))


@pytest.mark.parametrize("bound", [0.01, 0.02, 0.05, 0.1])
def test_where_errors_come_that_nothing_predicts_only_what_was_seen_counts(bound):
    share = 0.15
    assert not served(limit_for(mixed(60, 60, wrong_easy=int(60 * share)), bound))
    assert not served(limit_for(mixed(400, 60, wrong_easy=int(400 * share)), bound))


def test_one_error_among_few_labels_forbids_and_among_many_does_not():
    assert not served(limit_for(mixed(40, 60, wrong_easy=1), 0.01))
    assert served(limit_for(mixed(300, 60, wrong_easy=1), 0.01))


def test_a_wider_bound_never_serves_less():
    rng = np.random.default_rng(1)
    for _ in range(200):
        risk = rng.beta(0.4, 1.5, size=rng.integers(5, 400))
        wrong = rng.random(len(risk)) < np.minimum(1.0, risk * rng.uniform(0.3, 3.0))
        given = labels(risk, wrong)
        limits = [limit_for(given, bound).risk for bound in (0.01, 0.02, 0.05, 0.1)]
        assert limits == sorted(limits)


def test_nothing_above_even_odds_is_ever_served():
    assert limit_for(labels([0.55] * 500, [0.0] * 500), 1.0) is NOTHING


def test_a_bound_of_zero_serves_nothing():
    assert limit_for(mixed(5000, 60), 0.0) is NOTHING
