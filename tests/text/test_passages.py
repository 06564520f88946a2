"""The passages block, and the markers that cite it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chainops.text.passages import (
    PromptPassage,
    citations,
    has_passages,
    parse_passages,
    render_passages,
    without_passages,
)

_NASTY = st.lists(
    st.sampled_from(
        ["<passages>", "</passages>", '<passage id="1" title="x">', "</passage>", "\n", "<", "\\", "<\\", "<\\\\",
         "/passage", "passages",
         ">", '"', "&quot;", "&amp;", "\r", "a", " "]
    ),
    max_size=12,
).map("".join)  # fmt: skip
_TEXT = st.one_of(st.text(max_size=80), _NASTY)
_PASSAGES = st.lists(st.builds(PromptPassage, st.integers(1, 99), _TEXT, _TEXT), max_size=5)


@given(_PASSAGES, st.text(alphabet=st.characters(blacklist_characters="<"), max_size=30))
def test_any_passages_come_back_exactly(passages: list[PromptPassage], around: str) -> None:
    message = f"{around}\n{render_passages(passages)}\n{around}"
    assert parse_passages(message) == passages
    assert has_passages(message)
    assert without_passages(message) == f"{around}\n\n{around}"


def test_the_block_can_be_read_by_people_and_code_is_left_as_it_is() -> None:
    block = render_passages([PromptPassage(1, 'The "yield" statement', "if a < b && c: print('<x>')")])
    assert block == (
        '<passages>\n<passage id="1" title="The &quot;yield&quot; statement">'
        "if a < b && c: print('<x>')</passage>\n</passages>"
    )


def test_no_block_is_told_apart_from_an_empty_one() -> None:
    assert not has_passages("hello")
    assert has_passages(render_passages([]))
    assert parse_passages("hello") == parse_passages(render_passages([])) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Yes [1]. And so [2, 3].", [1, 2, 3]),
        ("Both say it.[2][1]", [2, 1]),
        ("[3] says so, and [3] again.", [3]),
        ("`x[1]`, a[0], f()[2], x[1][2] and\n```\n[4]\n```", []),
        ("An index [0], a far one [99].", []),
        ("A list [1, 2] == other", []),
    ],
)
def test_citations_are_markers_and_not_subscripts(text: str, expected: list[int]) -> None:
    assert citations(text, 9) == expected


def test_without_a_count_any_number_from_one_is_a_citation() -> None:
    assert citations("Here [99].") == [99]


def test_no_message_takes_more_than_linear_time() -> None:
    # A quadratic pattern would need minutes for any of these: the test would hang.
    for piece in (
        "<passages>\n",
        '<passages>\n<passage id="1" title="">',
        '<passage id="1" title="',
        "[1",
        "[1][2]",
        "`",
        "[1,",
    ):
        message = piece * 50_000
        assert parse_passages(message) == []
        assert without_passages(message) == message
        citations(message)
    closed = '<passages>\n<passage id="1" title="">' * 20_000 + "</passages>"
    assert parse_passages(closed) == []
