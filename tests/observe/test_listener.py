from __future__ import annotations

import pytest
from langchain_core.messages import AIMessage, HumanMessage

import chainops
from chainops.core.events import RequestEnded, listen
from chainops.models.model import Model
from chainops.observe.listener import MAX_CHARS, plain, record_of
from chainops.observe.spans import draft_trace
from chainops.resilience.component import Fallback
from chainops.testing import ScriptedChatModel


class Keeping(list):
    keeps_values = True

    def __call__(self, event):
        if isinstance(event, RequestEnded):
            self.append(record_of(event))


def test_a_request_becomes_a_record_that_can_be_drafted_as_a_trace():
    chat = ScriptedChatModel(replies=["hello there"])
    kept = Keeping()
    with listen(kept):
        Fallback(routes=(Model(chat=lambda: chat, model="openai:gpt-4o-mini", name="m"),)).invoke(
            "hi", chainops.caller(user="ann", session="s1")
        )
    (record,) = kept
    assert (record["status"], record["input"], record["output"]) == ("ok", "hi", "hello there")
    assert (record["caller"]["user"], record["caller"]["session"]) == ("ann", "s1")
    assert record["usage"]["output_tokens"] > 0
    model = record["stages"][1]
    assert (model["kind"], model["output"]) == ("model", {"role": "assistant", "content": "hello there"})
    assert draft_trace(record)


def test_a_failed_request_has_its_error_and_no_output():
    kept = Keeping()

    def broken(_):
        raise TypeError("a bug")

    with listen(kept):
        with pytest.raises(TypeError):
            Fallback(routes=(broken,)).invoke("hi")
    assert (kept[0]["status"], kept[0]["output"]) == ("failed", None)
    assert "a bug" in kept[0]["error"]


def test_values_are_cut_and_plain():
    assert plain("x" * (MAX_CHARS + 1)).endswith("characters)")
    assert plain([HumanMessage("q"), AIMessage("a")]) == [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "a"},
    ]
    assert len(plain(list(range(1000)))) == 50
    deep: list = []
    deep.append(deep)
    assert plain(deep)
    assert isinstance(plain(object()), str)
