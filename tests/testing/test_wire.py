import base64
import json
import math
import struct

import pytest

from chainops.testing.wire import (
    chat_delivery,
    count_tokens,
    embeddings_delivery,
    hashed_vector,
    pieces_of,
    text_of,
    usage_of,
)

ASKED = {"model": "m", "messages": [{"role": "user", "content": "How are you?"}]}
CALL = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": '{"at": 1}'}}


def deliver(reply, **more):
    return chat_delivery({**ASKED, **more}, reply, number=7, at=1000.5, chunk_delay_s=0.25)


def events(delivery):
    return [json.loads(p.removeprefix(b"data: ")) for p in delivery.pieces[:-1]]


@pytest.mark.parametrize("text", ["", " ", "one", "  one  two\n\nthree ", "a\u00a0b ü 漢字 c"])
def test_joined_pieces_are_the_text(text):
    assert "".join(pieces_of(text)) == text


def test_the_text_of_a_message_may_be_a_string_parts_or_missing():
    assert text_of({"content": "a"}) == "a"
    assert (
        text_of({"content": [{"type": "text", "text": "a"}, {"type": "image_url"}, {"type": "text", "text": "b"}]})
        == "ab"
    )
    assert text_of({"content": None}) == ""


def test_a_plain_completion_holds_text_usage_and_finish_reason():
    body = json.loads(deliver({"content": "Fine, thanks."}).pieces[0])
    assert body["object"] == "chat.completion"
    assert body["choices"][0]["message"]["content"] == "Fine, thanks."
    assert body["choices"][0]["finish_reason"] == "stop"
    assert body["usage"] == {"prompt_tokens": 4, "completion_tokens": 4, "total_tokens": 8}
    assert body["created"] == 1000


def test_a_stream_says_the_same_text_in_pieces_and_ends_with_done():
    delivery = deliver({"content": "Fine, thanks."}, stream=True)
    assert delivery.is_stream
    assert delivery.pause_s == 0.25
    said = "".join(e["choices"][0]["delta"].get("content") or "" for e in events(delivery))
    assert said == "Fine, thanks."
    assert events(delivery)[-1]["choices"][0]["finish_reason"] == "stop"
    assert delivery.pieces[-1] == b"data: [DONE]\n\n"


def test_a_stream_carries_usage_only_where_it_is_asked_for():
    asked = deliver({"content": "Yes."}, stream=True, stream_options={"include_usage": True})
    assert events(asked)[-1]["usage"]["completion_tokens"] == 2
    assert not any("usage" in event for event in events(deliver({"content": "Yes."}, stream=True)))


def test_tool_calls_come_through_plain_and_streamed():
    plain = json.loads(deliver({"content": None, "tool_calls": [CALL]}).pieces[0])["choices"][0]
    assert (plain["message"]["tool_calls"], plain["finish_reason"]) == ([CALL], "tool_calls")
    streamed = events(deliver({"tool_calls": [CALL]}, stream=True))
    assert streamed[1]["choices"][0]["delta"]["tool_calls"] == [{"index": 0, **CALL}]
    assert streamed[-1]["choices"][0]["finish_reason"] == "tool_calls"


def test_usage_counts_tool_calls_too():
    assert usage_of([], {"content": "", "tool_calls": [CALL]})["completion_tokens"] > 0


def test_tokens_are_words_and_marks():
    assert count_tokens("Don't stop, now!") == 7


def test_hashed_vectors_are_unit_vectors_and_the_same_for_the_same_text():
    vector = hashed_vector("the cat sat")
    assert vector == hashed_vector("The cat sat")
    assert math.isclose(sum(v * v for v in vector), 1.0)
    assert len(hashed_vector("", dimensions=8)) == 8


def test_texts_that_share_words_are_nearer():
    def dot(a, b):
        return sum(x * y for x, y in zip(hashed_vector(a), hashed_vector(b), strict=True))

    assert dot("the cat sat on the mat", "the cat sat on a mat") > dot("the cat sat on the mat", "rockets fly to mars")


def test_embeddings_come_as_numbers_or_as_base64_floats():
    numbers = json.loads(embeddings_delivery({"model": "e"}, [[0.5, -1.0]], 3).pieces[0])
    assert numbers["data"][0]["embedding"] == [0.5, -1.0]
    packed = json.loads(embeddings_delivery({"model": "e", "encoding_format": "base64"}, [[0.5, -1.0]], 3).pieces[0])
    assert struct.unpack("<2f", base64.b64decode(packed["data"][0]["embedding"])) == (0.5, -1.0)
    assert packed["usage"] == {"prompt_tokens": 3, "total_tokens": 3}
