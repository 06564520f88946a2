"""Where sentences begin and end."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from chainops.text.sentences import sentences


def pieces(text: str, kind: str | None = None) -> list[str]:
    return [text[span.start : span.end] for span in sentences(text) if kind is None or span.kind == kind]


_LINES = st.sampled_from(
    ["A sentence. Another one!", "- item one", "  continued", "```", "   x = f(1)", "Title", "=====", "| a | b |", "",
     "for example:", ">>> 1 + 1", "2", "1. first", "# head", "e.g. this", "[4]", "中文。另一", "\t", "***"]
)  # fmt: skip


@given(st.one_of(st.text(max_size=300), st.lists(_LINES, max_size=25).map("\n".join)))
def test_spans_are_ordered_and_cover_every_character_that_is_no_space(text: str) -> None:
    at = 0
    for span in sentences(text):
        assert at <= span.start < span.end
        assert not text[at : span.start].strip()
        assert text[span.start : span.end] == text[span.start : span.end].strip()
        at = span.end
    assert not text[at:].strip()


def test_prose_falls_into_sentences() -> None:
    assert pieces("It rains. Does it? Yes! “Really?” she said.") == [
        "It rains.",
        "Does it?",
        "Yes!",
        "“Really?” she said.",
    ]


def test_abbreviations_initials_and_decimals_do_not_end_a_sentence() -> None:
    text = "Dr. J. K. Smith paid 3.5 dollars, e.g. in the U.S. in 1990. He left, etc. The end."
    assert pieces(text) == [
        "Dr. J. K. Smith paid 3.5 dollars, e.g. in the U.S. in 1990.",
        "He left, etc.",
        "The end.",
    ]


def test_a_sentence_may_begin_with_an_identifier() -> None:
    assert pieces("It fails. iter() is called. __init__ runs.") == ["It fails.", "iter() is called.", "__init__ runs."]


def test_a_footnote_mark_stays_with_its_sentence() -> None:
    assert pieces("The body runs later. [4] Then it ends. [5]") == ["The body runs later. [4]", "Then it ends. [5]"]


def test_chinese_sentences_need_no_space() -> None:
    assert pieces("天气很好。我们走吧！") == ["天气很好。", "我们走吧！"]


def test_list_items_are_apart_and_keep_their_continuation_lines() -> None:
    assert pieces("Things:\n\n- one\n- two\n  goes on\n\n1. First\n2. Second") == [
        "Things:",
        "- one",
        "- two\n  goes on",
        "1. First",
        "2. Second",
    ]


def test_a_fenced_block_stays_whole_even_when_it_is_never_closed() -> None:
    assert pieces("Do:\n\n```python\nx = 1\n\ny = 2\n```\n\nDone.", "code") == ["```python\nx = 1\n\ny = 2\n```"]
    assert pieces("Do:\n\n```\nx = 1\n\ny = 2", "code") == ["```\nx = 1\n\ny = 2"]


def test_a_literal_block_of_python_documentation_stays_whole() -> None:
    text = (
        "The code\n\n   @f1(arg)\n   @f2\n   def func(): pass\n\nis equivalent to\n\n   func = f1(arg)(f2(func))\n\nso."
    )
    assert pieces(text, "code") == ["@f1(arg)\n   @f2\n   def func(): pass", "func = f1(arg)(f2(func))"]


def test_doctests_and_tables_are_code() -> None:
    assert pieces("See:\n\n>>> 1 + 1\n2\n\nGood.", "code") == [">>> 1 + 1\n2"]
    assert pieces("Both:\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\nGood.", "code") == ["| a | b |\n|---|---|\n| 1 | 2 |"]


def test_indented_prose_after_a_colon_is_not_code() -> None:
    assert pieces("Note:\n\n   This is only indented. It is prose.", "prose") == [
        "Note:",
        "This is only indented.",
        "It is prose.",
    ]


def test_headings_of_markdown_and_rest_are_told_apart_from_sentences() -> None:
    assert pieces("# One\n\nText.\n\nTwo words\n*********\n\nMore.", "heading") == ["# One", "Two words\n*********"]


def test_nothing_gives_nothing() -> None:
    assert sentences("") == []
    assert sentences(" \n\t ") == []


def test_no_text_takes_more_than_linear_time() -> None:
    # A quadratic rule would need minutes for any of these, not fractions of a second: the test would hang.
    for piece in (
        ".",
        "a. ",
        "1. ",
        "[1]",
        "a(",
        "   x=1\n",
        "|a\n    b\n",
        "```\n",
        "- x\n    y = 1\n",
        ". (",
        "\n",
        "'.",
    ):
        sentences(piece * 50_000)
