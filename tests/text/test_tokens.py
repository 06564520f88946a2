"""Words, as they are compared."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

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


def test_threads_get_the_stems_that_one_thread_gets() -> None:
    words = [f"{stem}{ending}" for stem in ("relat", "organiz", "happi", "connect", "sens") for ending in _ENDINGS]
    expected = [stem.__wrapped__(word) for word in words]
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # threads take turns in the middle of a word
    try:
        with ThreadPoolExecutor(8) as pool:
            all_got = list(pool.map(lambda _: [stem.__wrapped__(word) for word in words], range(40)))
    finally:
        sys.setswitchinterval(usual)
    assert all(got == expected for got in all_got)


_ENDINGS = ("ing", "ed", "ional", "ations", "ness", "fulness", "izer", "ities", "ly", "ables")
