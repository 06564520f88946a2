from __future__ import annotations

import numpy as np
import pytest

from chainops.core.errors import InvalidInput
from chainops.text.nearest import SHORTLIST, Nearest
from chainops.text.nearest_fit import fit

SIZE = 48


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def blobs(groups, per, *, seed=0, spread=0.12):
    """Points around one direction for each group; the directions are the same for every seed."""
    centres = unit(np.random.default_rng(99).standard_normal((groups, SIZE)))
    noise = np.random.default_rng(seed).standard_normal((groups * per, SIZE)) * spread
    return unit(np.repeat(centres, per, axis=0) + noise), [f"g{at // per:02}" for at in range(groups * per)]


def test_new_texts_go_to_their_own_group_and_what_is_like_none_goes_to_none():
    fitted, validation = fit(*blobs(12, 10))
    asked, truth = blobs(12, 20, seed=1)
    found = [fitted.decide(row) for row in asked]
    assert np.mean([each.likest[0].group == group for each, group in zip(found, truth, strict=True)]) >= 0.98
    assert np.mean([each.group is None for each in found]) <= 0.10
    strangers = unit(np.random.default_rng(7).standard_normal((200, SIZE)))
    assert np.mean([fitted.decide(row).group is None for row in strangers]) >= 0.95
    assert validation.accuracy >= 0.98
    assert validation.false_rejects <= 0.05


def test_the_same_examples_give_the_same_fit():
    one, other = (fit(*blobs(4, 6))[0].arrays() for _ in range(2))
    assert all(np.array_equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("per", [1, 2, 3])
def test_a_few_examples_a_group_are_enough_to_start(per):
    fitted, validation = fit(*blobs(5, per))
    asked, truth = blobs(5, 10, seed=2)
    top = [fitted.decide(row).likest[0].group for row in asked]
    assert np.mean([a == b for a, b in zip(top, truth, strict=True)]) >= 0.95
    assert validation.folds == (0 if per == 1 else min(5, per))


def test_with_one_example_each_nothing_is_turned_away_because_nothing_is_known_of_it():
    fitted, validation = fit(*blobs(3, 1))
    assert fitted.decide(unit(np.ones(SIZE))).group is not None
    assert np.isnan(validation.accuracy)


def test_single_examples_beside_several_of_no_group_can_be_fitted():
    vectors, _ = blobs(3, 3)
    kept = [0, 3, 6, 7, 8]
    fitted, validation = fit(vectors[kept], ["a", "b", None, None, None])
    assert np.isnan(validation.accuracy)
    assert fitted.decide(vectors[1]).group == "a"
    assert fitted.decide(vectors[8]).group is None


def test_examples_of_what_belongs_to_no_group_are_turned_away():
    vectors, groups = blobs(6, 12)
    labelled = [None if group == "g05" else group for group in groups]
    fitted, validation = fit(vectors, labelled)
    asked, truth = blobs(6, 20, seed=3)
    of_none = [fitted.decide(row).group for row, group in zip(asked, truth, strict=True) if group == "g05"]
    assert np.mean([each is None for each in of_none]) >= 0.95
    assert validation.none_recall >= 0.9
    assert "" not in validation.by_group


def test_what_is_asked_to_be_turned_away_is_what_cross_validation_turns_away():
    vectors, groups = blobs(8, 20, spread=0.25)
    for share in (0.05, 0.2):
        rejects = fit(vectors, groups, false_rejects=share)[1].false_rejects
        assert share / 3 <= rejects <= share + 0.005


def test_the_most_similar_example_is_named_by_its_place_in_the_list_that_was_fitted():
    vectors, groups = blobs(4, 5)
    order = np.random.default_rng(0).permutation(len(groups))
    fitted, _ = fit(vectors[order], [groups[at] for at in order])
    for at in (0, 7, 19):
        best = fitted.decide(vectors[order][at]).likest[0]
        assert (best.example, round(best.similarity, 4)) == (at, 1.0)


def test_only_the_likeliest_groups_are_told_best_first():
    decision = fit(*blobs(SHORTLIST + 5, 3))[0].decide(blobs(1, 1)[0][0])
    scores = [each.score for each in decision.likest]
    assert len(scores) == SHORTLIST
    assert scores == sorted(scores, reverse=True)


def test_arrays_make_the_same_classifier_and_foreign_ones_make_none():
    fitted, _ = fit(*blobs(4, 5))
    again = Nearest.of_arrays(fitted.arrays())
    for row in blobs(4, 3, seed=5)[0]:
        assert again.decide(row) == fitted.decide(row)
    with pytest.raises(ValueError, match="sizes"):
        Nearest.of_arrays(fitted.arrays() | {"head": np.zeros((3, 4))})


@pytest.mark.parametrize(
    ("vectors", "groups", "said"),
    [
        (np.eye(3), ["a", "a", "a"], "two groups"),
        (np.eye(3), ["a", "b"], "one row for each of 2"),
        (np.zeros(3), ["a", "b", "c"], "shape"),
        (np.full((2, 3), np.nan), ["a", "b"], "finite"),
        (np.zeros((0, 3)), [], "two groups"),
        (np.eye(2), ["a", ""], "without a name"),
    ],
    ids=["one group", "too few labels", "no matrix", "not a number", "nothing", "no name"],
)
def test_what_cannot_be_fitted_is_said(vectors, groups, said):
    with pytest.raises(InvalidInput, match=said):
        fit(vectors, groups)


def test_a_vector_of_another_size_or_with_nan_is_refused():
    fitted, _ = fit(*blobs(3, 3))
    with pytest.raises(InvalidInput, match="48"):
        fitted.decide(np.ones(SIZE + 1))
    with pytest.raises(InvalidInput, match="finite"):
        fitted.decide(np.full(SIZE, np.nan))


def test_the_nearest_example_counts_by_its_weight_beside_the_head():
    rows = np.eye(4, dtype=np.float32)
    places, starts = np.arange(4), np.array([0, 2, 4])
    thresholds, head = np.array([0.0, 0.0]), np.zeros((4, 2), dtype=np.float32)
    bias = np.array([1.0, 0.0], dtype=np.float32)
    asked = unit(np.array([0.0, 0.5, 0.0, 1.0]))
    for weight, group in ((0.0, "a"), (10.0, "b")):
        fitted = Nearest(["a", "b"], rows, places, starts, head, bias, thresholds, weight)
        best = fitted.decide(asked).likest[0]
        assert best.group == group
        assert best.score == pytest.approx(bias["ab".index(group)] + weight * best.similarity)
    strict = Nearest(["a", "b"], rows, places, starts, head, bias, np.array([0.0, 9.0]), 10.0)
    assert strict.decide(asked).group is None  # b comes first, and its own threshold is what counts
