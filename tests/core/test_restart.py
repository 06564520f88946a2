"""An answer that begins anew: whoever adds the chunks up has the new one alone."""

from __future__ import annotations

import asyncio

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk

from chainops.core.answer import Answer, AnswerChunk, RestartChunk
from chainops.core.chunks import merge
from chainops.core.component import AnyRunnable, Component
from chainops.core.steps import Forward, Restart, Say


class Begins(Component):
    def plan(self, value, run):
        yield Say(AIMessageChunk(content="wrong beginning"))
        yield Restart()
        message = AIMessage(content="right answer")
        yield Say(message)
        return message


class Around(Component):
    inner: AnyRunnable

    def plan(self, value, run):
        return (yield Forward(self.inner, value))


@pytest.mark.parametrize("component", [Begins(), Around(inner=Begins()), Around(inner=Around(inner=Begins()))])
def test_chunks_added_up_are_the_new_answer_in_every_driver(component):
    assert component.invoke("x").text == "right answer"
    chunks = list(component.stream("x"))
    assert [each.restart for each in chunks].count(True) == 1
    total = chunks[0]
    for each in chunks[1:]:
        total += each
    answer = Answer.of(total)
    assert (answer.text, answer.status) == ("right answer", "ok")
    assert not answer.facts.get("restart")
    assert merge(chunks).text == "right answer"

    async def collect():
        return [each async for each in component.astream("x")]

    assert merge(asyncio.run(collect())).text == "right answer"


def test_a_plain_chunk_and_a_restart_leave_nothing_of_the_plain_chunk():
    assert (AIMessageChunk(content="void") + RestartChunk.new()).text == ""
    assert (AnswerChunk(content="void") + RestartChunk.new() + AIMessageChunk(content="new")).text == "new"


def test_two_restarts_leave_what_follows_the_second():
    chunks = [AIMessageChunk(content="a"), RestartChunk.new(), AIMessageChunk(content="b"), RestartChunk.new()]
    assert merge([*chunks, AIMessageChunk(content="c")]).text == "c"


def test_the_marker_travels_as_json():
    facts = RestartChunk.new().response_metadata
    assert facts == {"chainops": {"restart": True}}
