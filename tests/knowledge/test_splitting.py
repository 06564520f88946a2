from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chainops.core.errors import InvalidInput
from chainops.knowledge.documents import Document
from chainops.knowledge.splitting import MAX_UNBROKEN_CHARS, count_tokens, split

WORDS = st.sampled_from(
    tuple(re.split(" ", "the decorator yields, returns `value` x_y 3.14 (see PEP 8). Dr. naïve 日本語 ไทย e.g. - ###"))
)
BREAKS = st.sampled_from(
    [" ", " ", " ", "\n", "\n\n", ". ", "\n# Title\n", "\n```\n", "\n- ", "\n    ", "\n====\n", "\t\r"]
)
STRUCTURED = st.lists(st.tuples(WORDS, BREAKS), min_size=1, max_size=120).map(
    lambda pairs: "".join(w + b for w, b in pairs)
)


def document(text, media_type="text/markdown"):
    return Document(id="d", title="D", text=text, media_type=media_type)


@settings(deadline=None, max_examples=200)
@given(
    text=st.one_of(STRUCTURED, st.text(min_size=1, max_size=400)),
    size=st.integers(16, 60),
    overlap=st.integers(0, 3),
)
def test_passages_are_exact_in_order_and_hold_every_character(text, size, overlap):
    try:
        whole = document(text)
    except ValueError:  # blank, or not storable: no document to split
        return
    passages = split(whole, size_tokens=size, overlap_sentences=overlap)
    covered = [False] * len(text)
    for passage in passages:
        assert whole.text[passage.start : passage.end] == passage.text
        assert passage.text == passage.text.strip()
        covered[passage.start : passage.end] = [True] * len(passage.text)
    assert all(held or char.isspace() for held, char in zip(covered, text, strict=True))
    starts, ends = [p.start for p in passages], [p.end for p in passages]
    assert starts == sorted(set(starts))
    assert ends == sorted(set(ends))
    assert len({passage.id for passage in passages}) == len(passages)
    if overlap == 0:
        assert all(end <= start for end, start in zip(ends, starts[1:], strict=False))


@settings(deadline=None, max_examples=150)
@given(text=STRUCTURED, size=st.integers(16, 60))
def test_a_passage_is_longer_than_its_size_only_when_one_word_is(text, size):
    if not text.strip():
        return
    for passage in split(document(text), size_tokens=size):
        assert passage.tokens <= size or len(passage.text.split()) == 1


@settings(deadline=None, max_examples=150)
@given(text=STRUCTURED, size=st.integers(16, 40))
def test_no_word_is_split(text, size):
    if not text.strip():
        return
    inside = re.compile(r"[A-Za-zï_0-9]")
    for passage in split(document(text), size_tokens=size):
        for edge in (passage.start, passage.end):
            around = text[max(edge - 1, 0) : edge + 1]
            assert len(around) < 2 or edge == 0 or not all(inside.match(char) for char in around)


def test_a_passage_keeps_its_id_when_another_part_changes():
    first = split(document("# One\n\n" + "Alpha beta gamma. " * 30 + "\n\n# Two\n\n" + "Delta. " * 30), size_tokens=60)
    second = split(document("# One\n\n" + "Alpha beta gamma. " * 30 + "\n\n# Two\n\n" + "Other. " * 30), size_tokens=60)
    same = {p.id for p in first} & {p.id for p in second}
    assert same == {p.id for p in first if "Alpha" in p.text}
    renamed = Document(id="e", title="D", text=document("Alpha.").text)
    assert split(renamed)[0].id != split(document("Alpha."))[0].id


def test_passages_end_at_headings_and_say_what_they_stand_under():
    body = "A sentence of some eight words stands here. " * 6
    text = f"# Book\n\n{body}\n\n## Chapter\n\n{body}\n\n### Part\n\n{body}\n\n## Next\n\n{body}"
    passages = split(document(text), size_tokens=100)
    assert [p.headings for p in passages] == [
        ("Book",), ("Book", "Chapter"), ("Book", "Chapter", "Part"), ("Book", "Next"),
    ]  # fmt: skip
    assert [p.text.split("\n")[0] for p in passages] == ["# Book", "## Chapter", "### Part", "## Next"]


def test_underlined_titles_are_headings_and_hashes_in_plain_text_are_not():
    body = "A sentence of some eight words stands here. " * 6
    text = f"Title\n*****\n\n{body}\n\nPart\n====\n\n# a comment\n{body}"
    passages = split(document(text, "text/plain"), size_tokens=100)
    assert {p.headings for p in passages} == {("Title",), ("Part",)}


def test_small_sections_share_a_passage():
    text = "".join(f"## Q{n}\n\nShort answer {n}.\n\n" for n in range(12))
    passages = split(document(text), size_tokens=100)
    assert len(passages) < 8
    assert passages[0].text.startswith("## Q0")


def test_a_code_block_that_fits_is_not_divided():
    code = "```python\n" + "\n".join(f"value_{n} = compute({n})" for n in range(8)) + "\n```"
    text = "Words before it stand here. " * 8 + f"\n\n{code}\n\n" + "Words after it stand here. " * 8
    assert any(code in p.text for p in split(document(text), size_tokens=90))


def test_a_code_block_that_does_not_fit_is_divided_at_line_ends():
    code = "```\n" + "\n".join(f"value_{n} = compute(argument_{n})" for n in range(60)) + "\n```"
    passages = split(document(code), size_tokens=60)
    assert len(passages) > 3
    assert all(p.text.endswith((")", "```")) and p.text.startswith(("value_", "```")) for p in passages)


def test_a_paragraph_that_goes_on_begins_with_the_sentence_before():
    text = " ".join(f"Sentence number {n} has these seven words." for n in range(30))
    passages = split(document(text), size_tokens=60, overlap_sentences=1)
    for before, after in pairwise(passages):
        shared = text[after.start : before.end]
        assert shared.startswith("Sentence number")
        assert shared.count(".") == 1


def test_a_megabyte_without_a_space_is_cut():
    passages = split(document("x" * 1_000_000))
    assert max(len(p.text) for p in passages) <= MAX_UNBROKEN_CHARS


def test_scripts_without_spaces_are_counted_by_letter_and_cut_between_letters():
    text = "日本語の文章です" * 100
    assert count_tokens(text) == 800
    assert all(p.tokens <= 50 for p in split(document(text), size_tokens=50))


@pytest.mark.parametrize("wrong", [{"size_tokens": 15}, {"overlap_sentences": -1}])
def test_sizes_that_make_no_sense_are_refused(wrong):
    with pytest.raises(InvalidInput):
        split(document("Text."), **wrong)


def test_a_heading_never_stands_alone():
    code = "```\n" + "\n".join(f"line_{n} = call({n})" for n in range(11)) + "\n```"
    text = f"# The heading of it\n\n{code}\n\n" + "Words after it stand here. " * 30
    assert all(len(p.text.splitlines()) > 1 for p in split(document(text), size_tokens=90) if p.text.startswith("#"))
