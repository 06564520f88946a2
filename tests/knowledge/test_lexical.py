from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chainops.knowledge.lexical import LexicalIndex, question_terms, terms, weigh

TEXTS = st.text(alphabet="ab c", min_size=1, max_size=12)


def index(texts):
    made = LexicalIndex()
    made.add((key, weigh("", (), text)) for key, text in texts.items())
    return made


def found(made, question, k=100):
    return [(key, round(score, 5)) for key, score in made.search(question, k)[0]]


def test_the_formula_is_bm25():
    made = index({"one": "apple apple pear", "two": "pear plum fig grape"})
    share = dict(made.search("apple", 5)[0])["one"]
    norm = 1.2 * (1 - 0.75 + 0.75 * 3 / 3.5)
    assert share == pytest.approx(2 * 2.2 / (2 + norm) / 2.2, rel=1e-5)
    both = dict(made.search("apple pear", 5)[0])
    rare, common = math.log(1 + 1.5 / 1.5), math.log(1 + 0.5 / 2.5)
    most = (rare + common) * 2.2
    assert both["one"] == pytest.approx((rare * 2 * 2.2 / (2 + norm) + common * 2.2 / (1 + norm)) / most, rel=1e-5)


def test_words_that_nothing_contains_lower_the_share():
    made = index({"one": "for loops", "two": "while loops", "three": "weather"})
    known, unknown = (made.search(question, 1)[0][0] for question in ("weather", "weather forecast in Berlin"))
    assert known[0] == unknown[0] == "three"
    assert unknown[1] < known[1] / 2


@settings(deadline=None)
@given(
    before=st.dictionaries(st.sampled_from("pqrstu"), TEXTS, max_size=6),
    changes=st.lists(st.tuples(st.sampled_from("pqrstu"), st.none() | TEXTS), max_size=10),
    question=TEXTS,
)
def test_scores_depend_on_the_content_and_not_on_how_it_came_to_be(before, changes, question):
    made, now = index(before), dict(before)
    for key, text in changes:
        if text is None:
            assert made.remove([key]) == (key in now)
            now.pop(key, None)
        else:
            made.add([(key, weigh("", (), text))])
            now[key] = text
    assert len(made) == len(now)
    assert found(made, question) == found(index(now), question)


def test_memory_of_removed_passages_is_given_back_and_scores_stay():
    made = index({f"k{n:04}": f"word{n} common {'long ' * (n % 7)}" for n in range(1000)})
    made.remove(f"k{n:04}" for n in range(900))
    assert len(made._keys) < 500
    fresh = index({f"k{n:04}": f"word{n} common {'long ' * (n % 7)}" for n in range(900, 1000)})
    assert found(made, "word950 common long") == found(fresh, "word950 common long")


def test_a_title_counts_twice_and_a_heading_once():
    assert weigh("Yield", ("Yield from",), "yield it") == {"yield": 4.0, "it": 1.0, "from": 1.0}


def test_keywords_that_are_common_words_are_found():
    made = index({"with": "the with statement", "for": "the for statement", "while": "the while statement"})
    assert found(made, "What does with do?")[0][0] == "with"


def test_parts_of_identifiers_are_found():
    made = index({"a": "set max_tokens first", "b": "nothing here"})
    assert [key for key, _ in found(made, "how many tokens")] == ["a"]
    assert "max_tokens" in terms("max_tokens")


def test_a_question_of_question_words_is_still_a_question():
    assert question_terms("What is the decorator?") == ["is", "decor"]
    assert question_terms("what are the") == ["what", "are", "the"]


def test_nothing_indexed_and_nothing_shared_find_nothing():
    assert LexicalIndex().search("word", 5) == ([], {})
    assert index({"a": "apple"}).search("pear !?", 5, also=["a", "gone"]) == ([], {"a": 0.0})


def test_equal_scores_are_ordered_by_key_even_at_the_cut():
    made = index(dict.fromkeys(["c", "a", "b", "d"], "same words"))
    assert [key for key, _ in made.search("same", 2)[0]] == ["a", "b"]
