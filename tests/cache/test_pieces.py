"""What goes on where another answer stopped, and what is copied for another request."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, AIMessageChunk

from chainops.cache.sharing.flight import Flights
from chainops.cache.sharing.pieces import Resume, Tap, Through, own
from chainops.core.chunks import merge, words_of
from chainops.text.personal import personal

words = st.text(alphabet="ab ", max_size=8)


def cut(text, places):
    """The text in pieces."""
    ends = sorted({min(place, len(text)) for place in places} | {len(text)})
    return [text[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def texts(pieces):
    return "".join(each if isinstance(each, str) else each.text for each in pieces)


@given(
    said=words, more=words, places=st.lists(st.integers(0, 16)), others=st.lists(st.integers(0, 16)), kind=st.booleans()
)
def test_whatever_the_cuts_only_what_goes_beyond_comes_out(said, more, places, others, kind):
    make = (lambda text: AIMessageChunk(content=text)) if kind else str
    resume = Resume([make(piece) for piece in cut(said, places)])
    out = [each for piece in cut(said + more, others) for each in resume.feed(make(piece))]
    out += resume.finish()
    assert not resume.has_diverged
    assert texts(out) == more
    assert len(out) >= 1
    assert texts([merge([*map(make, cut(said, places)), *out])]) == said + more


@given(said=words.filter(bool), other=words, others=st.lists(st.integers(0, 8)))
def test_it_diverges_exactly_when_the_other_does_not_begin_with_what_was_said(said, other, others):
    resume = Resume([AIMessageChunk(content=said)])
    out = [each for piece in cut(other, others) for each in resume.feed(AIMessageChunk(content=piece))]
    out += resume.finish()
    assert resume.has_diverged is not other.startswith(said)
    if resume.has_diverged:
        assert texts(out) == ""


def test_what_cannot_be_compared_word_for_word_diverges():
    call = {"name": "f", "args": "{}", "id": "1", "index": 0}
    for chunk in (
        AIMessageChunk(content="a", tool_call_chunks=[call]),
        AIMessageChunk(content=[{"type": "text", "text": "a"}]),
        AIMessageChunk(content="a", additional_kwargs={"reasoning_content": "hm"}),
        {"text": "a"},
    ):
        resume = Resume([AIMessageChunk(content="a")])
        assert list(resume.feed(chunk)) == []
        assert resume.has_diverged


def test_the_facts_of_the_last_swallowed_piece_are_kept():
    resume = Resume(["a"])
    assert list(resume.feed(AIMessageChunk(content="a", response_metadata={"model_name": "m"}))) == []
    (last,) = resume.finish()
    assert (last.text, last.response_metadata) == ("", {"model_name": "m"})


def test_filters_go_one_after_the_other():
    class Twice:
        def feed(self, chunk):
            return (chunk, chunk)

        def finish(self):
            return ("a", "end")

    both = Through(Twice(), Resume(["aa"]))
    assert [*both.feed("a"), *both.feed("b")] == ["b", "b"]
    assert list(both.finish()) == ["a", "end"]


@pytest.mark.parametrize("kind", [AIMessage, AIMessageChunk])
def test_a_copy_says_the_same_and_shares_nothing(kind):
    call = {"name": "f", "args": {"x": [1]}, "id": "1", "type": "tool_call"}
    original = kind(
        content=[{"type": "text", "text": "a"}],
        tool_calls=[call],
        additional_kwargs={"reasoning": ["b"]},
        response_metadata={"m": {"n": 1}},
        usage_metadata={"input_tokens": 1, "output_tokens": 1, "total_tokens": 2},
        id="run-1",
    )
    copied = own(original)
    assert words_of(copied) == words_of(original)
    assert type(copied) is kind
    assert (copied.id, copied.usage_metadata) == (None, None)
    assert (copied.additional_kwargs, copied.response_metadata) == ({"reasoning": ["b"]}, {"m": {"n": 1}})
    copied.content[0]["text"] = copied.additional_kwargs["reasoning"] = copied.response_metadata["m"]["n"] = None
    copied.tool_calls[0]["args"]["x"].append(2)
    assert original.content == [{"type": "text", "text": "a"}]
    assert original.tool_calls == [call]
    assert (original.additional_kwargs, original.response_metadata) == ({"reasoning": ["b"]}, {"m": {"n": 1}})


def test_other_values_are_copied_too():
    value = {"a": [1]}
    copied = own(value)
    assert copied == value
    assert copied["a"] is not value["a"]
    assert own("text") == "text"
    assert own(AIMessageChunk(content="a", id="run-1", chunk_position="last")).chunk_position == "last"


@pytest.mark.parametrize("secret", ["ann@lee-family.org", "+1 415 555 2671"])
@pytest.mark.parametrize("size", [1, 3, 200])
def test_nobody_else_hears_personal_data_to_its_end_in_whatever_pieces_it_comes(secret, size):
    flights = Flights()
    seat = flights.join("s", "q", request="leader")
    tap = Tap(seat, lambda words: not personal(words))
    answer = f"{'Of course. ' * 40}Write to {secret} or call. {'Anything else? ' * 40}"
    told = []
    for start in range(0, len(answer), size):
        tap.feed(AIMessageChunk(content=answer[start : start + size]))
        if seat.flight.state == "flying":
            told = [chunk.text for chunk in seat.flight.chunks]
    assert seat.flight.state == "private"
    assert "".join(told) == answer[: len("".join(told))]
    assert secret not in "".join(told)
    seat.leave()
