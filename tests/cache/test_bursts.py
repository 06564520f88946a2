"""What changes where questions come in bursts."""

from __future__ import annotations

import math

import numpy as np

from chainops.cache.bursts import CAUTION, MOST_AUDITS, allowed, audit_share
from chainops.cache.evidence import Near, evidence


def values(newer: int, oldest: int = 0) -> tuple[float, ...]:
    near = [Near(0.9, "how do I pay", "a", newer)]
    if oldest:
        near.append(Near(0.5, "where do I pay", "a", oldest))
    return evidence("how can I pay", near).values


def test_in_a_small_cache_all_are_new_and_that_says_nothing():
    assert math.isclose(allowed(0.05, np.array([values(3, 29)] * 10), np.ones(10)), 0.05)


def test_of_the_bound_less_is_used_the_more_neighbours_are_new():
    old, new = values(5000, 10**6), values(3, 10**6)
    weights = np.ones(10)
    some = [allowed(0.05, np.array([new] * count + [old] * (10 - count)), weights) for count in (0, 3, 10)]
    assert math.isclose(some[0], 0.05, rel_tol=1e-3)
    assert some[0] > some[1] > some[2]
    assert math.isclose(some[2], 0.05 * (1 - CAUTION), rel_tol=1e-3)


def test_a_wrong_run_beside_new_neighbours_is_looked_for_sooner_the_smaller_the_bound():
    assert audit_share(0.03, values(500), 0.01) == 0.03
    assert audit_share(0.03, values(3), 0.01) > audit_share(0.03, values(3), 0.02) > 0.03
    assert audit_share(0.03, values(3), 0.1) == 0.03
    assert audit_share(0.03, values(3), 0.0) == MOST_AUDITS


def test_an_entry_of_unknown_age_is_not_taken_for_new():
    unknown = evidence("how can I pay", [Near(0.9, "how do I pay", "a")]).values
    assert audit_share(0.03, unknown, 0.01) == 0.03
