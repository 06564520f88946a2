from __future__ import annotations

import pytest

from chainops.core.errors import InvalidInput
from chainops.knowledge.retrieval import Hit, fuse, rerank
from chainops.knowledge.splitting import Passage


def hit(key, score, *, document="d", start=0, text="some words here"):
    passage = Passage(id=key, document_id=document, title="", start=start, end=start + len(text), text=text)
    return Hit(passage=passage, score=score, similarity=score, lexical=score, dense_rank=1, lexical_rank=1)


def test_the_score_is_the_mean_of_both_and_ranks_are_told():
    fused = fuse([("a", 0.8), ("b", 0.4)], [("b", 1.0), ("c", 0.2)], {"a": 0.1, "b": 1.0})
    assert [(one.key, round(one.score, 3), one.dense_rank, one.lexical_rank) for one in fused] == [
        ("b", 0.7, 2, 1),
        ("a", 0.45, 1, None),
        ("c", 0.3, None, 2),  # its cosine is at most that of the last one found
    ]


def test_either_index_alone_may_find_something():
    assert [one.key for one in fuse([], [("a", 0.5)], {})] == ["a"]
    assert [one.key for one in fuse([("a", 0.5)], [], {})] == ["a"]
    assert fuse([], [], {}) == []


def test_equal_scores_are_ordered_by_key():
    assert [one.key for one in fuse([("b", 0.5), ("a", 0.5)], [], {})] == ["a", "b"]


def test_the_best_are_kept_and_the_rest_say_why_not():
    hits = [
        hit("low", 0.1, document="e"),
        hit("best", 0.9, start=0, text="one two three"),
        hit("inside", 0.8, start=4, text="two three"),
        hit("copy", 0.7, document="f", text="one  two\nthree"),
        hit("next", 0.6, start=13, text="four five"),
        hit("third", 0.5, document="g", text="six"),
    ]
    selection = rerank(hits, keep=3)
    assert [kept.passage.id for kept in selection.hits] == ["best", "next", "third"]
    assert [(one.hit.passage.id, one.reason) for one in selection.dropped] == [
        ("inside", "overlap"), ("copy", "duplicate"), ("low", "rank"),
    ]  # fmt: skip
    assert (selection.tokens, selection.found) == (6, 6)


def test_a_shorter_passage_takes_the_room_a_longer_one_cannot():
    hits = [hit("a", 0.9, text="w " * 6, document="a"), hit("b", 0.8, text="v " * 6, document="b")]
    hits.append(hit("c", 0.7, text="u u", document="c"))
    selection = rerank(hits, keep=5, token_budget=8)
    assert [kept.passage.id for kept in selection.hits] == ["a", "c"]
    assert [(one.hit.passage.id, one.reason) for one in selection.dropped] == [("b", "budget")]


def test_an_empty_selection_says_whether_nothing_was_found_or_nothing_fits():
    nothing, too_long = rerank([]), rerank([hit("a", 0.5)], token_budget=1)
    assert not nothing
    assert (nothing.found, nothing.dropped) == (0, ())
    assert not too_long
    assert (too_long.found, too_long.dropped[0].reason) == (1, "budget")


@pytest.mark.parametrize("wrong", [{"keep": 0}, {"token_budget": 0}])
def test_no_room_at_all_is_refused(wrong):
    with pytest.raises(InvalidInput):
        rerank([], **wrong)
