"""An answer is an AIMessage: whole or in chunks, here or after a journey over the wire."""

from __future__ import annotations

import copy
import json
import pickle

import pytest
from langchain_core.load import dumpd, dumps, loads
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from langchain_core.output_parsers import JsonOutputToolsParser, StrOutputParser
from langchain_core.runnables import RunnableLambda

from chainops.core.answer import Answer, AnswerChunk
from chainops.core.caller import caller
from chainops.core.errors import InvalidInput
from chainops.core.steps import Forward

SOURCE = {"n": 1, "document": "d", "title": "D", "span": [0, 4], "quote": "text"}
USAGE = {"input_tokens": 3, "output_tokens": 2, "total_tokens": 5}


@pytest.fixture
def chain(play, child):
    """Two components around a model that streams text, a tool call and usage."""

    def chunks():
        call = {"name": "look", "id": "c1", "index": 0, "type": "tool_call_chunk"}
        return child(
            AIMessageChunk(content="", id="m1"),
            AIMessageChunk(content="he", id="m1"),
            AIMessageChunk(content="llo", id="m1", tool_call_chunks=[{**call, "args": '{"at":'}]),
            AIMessageChunk(content="", id="m1", tool_call_chunks=[{**call, "name": None, "id": None, "args": " 1}"}]),
            AIMessageChunk(
                content="",
                id="m1",
                usage_metadata=USAGE,
                response_metadata={"finish_reason": "stop"},
                chunk_position="last",
            ),
        ).runnable

    def plan(value, run):
        run.report.sources.append(SOURCE)
        run.report.data = {"n": 1}
        run.report.served_by = "gpt"
        run.report.mark("degraded", "told to")
        return (yield Forward(chunks(), value))

    return play(lambda v, run: (yield Forward(play(plan, name="inner"), v)), name="outer")


def told(answer):
    """What an answer says, without ids and times."""
    facts = json.loads(json.dumps(answer.facts))
    report = facts.pop("report")
    return {
        "text": answer.text,
        "id": answer.id,
        "usage": answer.usage_metadata,
        "tools": [(call["name"], call["args"], call["id"]) for call in answer.tool_calls],
        "metadata": {key: value for key, value in answer.response_metadata.items() if key != "chainops"},
        "facts": facts,
        "stages": [(stage["name"], stage["parent"]) for stage in report["stages"]],
    }


def test_the_sum_of_a_stream_is_the_answer_of_a_call(chain, drivers):
    answers = {}
    for name, run in drivers.items():
        given = run(chain, "q")
        answers[name] = sum(given[1:], given[0]) if isinstance(given, list) else given
    whole = told(answers["invoke"])
    assert whole["text"] == "hello"
    assert whole["usage"] == USAGE
    assert whole["tools"] == [("look", {"at": 1}, "c1")]
    assert whole["facts"] == {
        "status": "degraded",
        "sources": [SOURCE],
        "served_by": "gpt",
        "reasons": ["told to"],
        "data": {"n": 1},
    }
    assert all(told(answer) == whole for answer in answers.values())
    assert isinstance(answers["invoke"], Answer)
    assert isinstance(answers["stream"], AnswerChunk)


def test_only_the_last_chunk_carries_facts_usage_and_the_end_mark(chain, drivers):
    for name in ("stream", "astream"):
        *chunks, last = drivers[name](chain, "q")
        assert [chunk.text for chunk in chunks if chunk.text] == ["he", "llo"]
        assert all(isinstance(chunk, AnswerChunk) and not chunk.facts for chunk in chunks)
        assert all(chunk.usage_metadata is None and chunk.chunk_position is None for chunk in chunks)
        assert (last.text, last.chunk_position, last.status) == ("", "last", "degraded")


def test_an_answer_that_only_calls_a_tool_is_heard(play, child, drive_by):
    call = {"name": "look", "args": "{}", "id": "c1", "index": 0, "type": "tool_call_chunk"}
    silent = child(AIMessageChunk(content=""), AIMessageChunk(content="", tool_call_chunks=[call]))
    chain = play(lambda v, run: (yield Forward(silent.runnable, v)))
    given = drive_by(chain | JsonOutputToolsParser(), "q")
    calls = given[-1] if isinstance(given[-1], list) else given
    assert calls == [{"args": {}, "type": "look"}]


def test_a_whole_message_with_tool_calls_passes_as_it_is(play, drive_by):
    message = AIMessage(content="x", tool_calls=[{"name": "look", "args": {"at": 1}, "id": "c1"}], usage_metadata=USAGE)

    def plan(value, run):
        return (yield Forward(RunnableLambda(lambda _: message), value))

    given = drive_by(play(lambda v, run: (yield Forward(play(plan), v))), "q")
    answer = sum(given[1:], given[0]) if isinstance(given, list) else given
    assert [(call["name"], call["args"], call["id"]) for call in answer.tool_calls] == [("look", {"at": 1}, "c1")]
    assert answer.usage_metadata == USAGE


def test_a_chain_ending_in_a_text_parser_streams_text(chain):
    assert [each for each in (chain | StrOutputParser()).stream("q") if each] == ["he", "llo"]
    assert (chain | StrOutputParser()).invoke("q") == "hello"


def test_an_answer_comes_back_from_langchains_serialization(chain):
    answer = chain.invoke("q")
    back = loads(dumps(answer), allowed_objects="messages")
    assert type(back) is AIMessage
    assert told(Answer.of(back)) == told(answer)
    chunk = loads(dumps(list(chain.stream("q"))[-1]), allowed_objects="messages")
    assert type(chunk) is AIMessageChunk
    assert Answer.of(chunk).status == "degraded"
    assert dumpd(answer)["id"][-1] == "AIMessage"


def test_an_answer_comes_back_from_its_own_dump_pickle_and_copy(chain):
    answer = chain.invoke("q")
    assert Answer.model_validate(answer.model_dump()) == answer
    assert Answer.model_validate_json(answer.model_dump_json()).facts == json.loads(json.dumps(answer.facts))
    assert pickle.loads(pickle.dumps(answer)) == answer
    assert copy.deepcopy(answer) == answer
    json.dumps(answer.model_dump())


def test_of_takes_ai_messages_only():
    answer = Answer(content="x")
    assert Answer.of(answer) is answer
    assert type(Answer.of(AIMessageChunk(content="x", chunk_position="last"))) is Answer
    with pytest.raises(InvalidInput, match="found HumanMessage; expected an AIMessage"):
        Answer.of(HumanMessage(content="x"))


def test_an_answer_of_which_nothing_is_known_says_so():
    answer = Answer.of(AIMessage(content="x", response_metadata={"chainops": "nonsense"}))
    assert (answer.facts, answer.status, answer.sources, answer.data) == ({}, None, [], None)
    assert (answer.report, answer.served_by, answer.reasons) == (None, None, [])


@pytest.mark.parametrize("expose", [{"status"}, {"status", "sources"}, set()])
def test_only_what_the_caller_may_see_is_in_the_answer(chain, drive_by, expose):
    given = drive_by(chain, "q", caller(expose=expose))
    answer = sum(given[1:], given[0]) if isinstance(given, list) else given
    assert set(answer.facts) == expose
    assert answer.text == "hello"
    assert answer.report is None


def test_values_of_the_answer_are_its_own(chain):
    answer = chain.invoke("q")
    answer.sources.append("more")
    assert answer.sources == [SOURCE]
