"""Chunks make a whole, and a whole makes a chunk."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, HumanMessageChunk

from chainops.core.chunks import as_chunk, as_whole, has_substance, merge, words_of


@given(st.lists(st.text(), min_size=1))
def test_text_is_joined_whatever_its_kind(texts):
    assert merge(texts) == "".join(texts)
    merged = merge([AIMessageChunk(content=text) for text in texts])
    assert (type(merged), merged.content) == (AIMessage, "".join(texts))


def test_other_values_add_up_or_the_last_one_stands():
    assert merge([]) is None
    assert merge([3]) == 3
    assert merge([[1], [2]]) == [1, 2]
    assert merge([{"a": 1}, {"b": 2}]) == {"b": 2}
    assert type(merge([HumanMessageChunk(content="a"), HumanMessageChunk(content="b")])) is HumanMessage


def test_a_message_survives_being_a_chunk():
    message = AIMessage(
        content="x",
        id="m",
        name="bot",
        tool_calls=[{"name": "look", "args": {"a": 1}, "id": "c"}],
        usage_metadata={"input_tokens": 1, "output_tokens": 1, "total_tokens": 2},
        response_metadata={"model_name": "m"},
        additional_kwargs={"k": "v"},
    )
    chunk = as_chunk(message)
    assert type(chunk) is AIMessageChunk
    assert as_whole(chunk) == merge([chunk]) == message
    assert as_chunk(chunk) is chunk
    assert as_chunk("x") == as_whole("x") == "x"


@pytest.mark.parametrize(
    ("chunk", "expected"),
    [
        ("", False),
        (None, False),
        ("x", True),
        (0, True),
        (AIMessageChunk(content=""), False),
        (AIMessageChunk(content="", response_metadata={"m": 1}, id="m"), False),
        (AIMessageChunk(content="x"), True),
        (AIMessageChunk(content=[{"type": "text", "text": "x"}]), True),
        (AIMessageChunk(content="", additional_kwargs={"refusal": "no"}), True),
        (AIMessageChunk(content="", tool_call_chunks=[{"name": "n", "args": "", "id": "c", "index": 0}]), True),
    ],
)
def test_a_chunk_has_substance_when_a_reader_would_notice_it(chunk, expected):
    assert has_substance(chunk) is expected


def test_words_are_what_is_said_and_which_tools_are_called():
    one = AIMessage(content="x", id="1", tool_calls=[{"name": "n", "args": {}, "id": "a"}])
    other = AIMessage(content="x", id="2", tool_calls=[{"name": "n", "args": {}, "id": "b"}])
    assert words_of(one) == words_of(other)
    assert words_of(one) != words_of(AIMessage(content="x"))
    assert words_of("x") == "x"
