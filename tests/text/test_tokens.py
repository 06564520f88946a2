"""Words, as they are compared."""

from __future__ import annotations

from chainops.text.tokens import content_stems, stem, stems, tokens


def test_words_are_lower_cased_and_punctuation_vanishes() -> None:
    assert tokens("The CAT, sat; (on) 3.5 mats!") == ["the", "cat", "sat", "on", "3", "5", "mats"]


def test_identifiers_stay_whole() -> None:
    assert tokens("`__init__` of max_tokens in os.path, _x_") == [
        "__init__",
        "of",
        "max_tokens",
        "in",
        "os",
        "path",
        "_x_",
    ]


def test_a_possessive_is_its_owner() -> None:
    assert tokens("the model's and the dogs’ and don't") == ["the", "model", "and", "the", "dogs", "and", "don't"]


def test_inflections_share_a_stem_and_identifiers_keep_theirs() -> None:
    assert len({stem(word) for word in ("decorate", "decorated", "decorator", "decorators")}) == 1
    assert stem("running") == stem("runs")
    assert stem("max_tokens") == "max_tokens"


def test_content_leaves_stop_words_out() -> None:
    assert content_stems("What is it?") == []
    assert content_stems("What does the yield statement do?") == stems("yield statement")
