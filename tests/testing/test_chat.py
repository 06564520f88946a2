import asyncio

import pytest
from langchain_core.messages import AIMessage, HumanMessage

from chainops.testing import Reply, ScriptedChatModel, ScriptExhausted

CALL = {"name": "look", "args": {"at": 1}, "id": "call_1"}


def streamed(model, question="q"):
    return list(model.stream(question))


async def _collect(model, question):
    return [chunk async for chunk in model.astream(question)]


def every_way(make):
    """The final message of invoke, ainvoke, stream and astream, each on a fresh model."""

    def whole(chunks):
        total = chunks[0]
        for chunk in chunks[1:]:
            total += chunk
        return total

    return [
        make().invoke("q"),
        asyncio.run(make().ainvoke("q")),
        whole(streamed(make())),
        whole(asyncio.run(_collect(make(), "q"))),
    ]


def test_replies_come_in_order_and_calls_are_remembered():
    model = ScriptedChatModel(replies=["one", AIMessage("two"), Reply("three")])
    assert [model.invoke(q).content for q in ("a", "b", "c")] == ["one", "two", "three"]
    assert model.calls == 3
    assert model.asked[1] == [HumanMessage("b")]


def test_an_exhausted_script_says_so():
    model = ScriptedChatModel(replies=["one"])
    model.invoke("a")
    with pytest.raises(ScriptExhausted, match="1 replies"):
        model.invoke("b")


def test_a_loop_begins_again():
    model = ScriptedChatModel(replies=["one", "two"], loop=True)
    assert [model.invoke("q").content for _ in range(5)] == ["one", "two", "one", "two", "one"]


def test_an_exception_is_raised_when_its_turn_comes():
    model = ScriptedChatModel(replies=[TimeoutError("slow"), "fine"])
    with pytest.raises(TimeoutError, match="slow"):
        model.invoke("q")
    assert model.invoke("q").content == "fine"
    assert model.calls == 2


@pytest.mark.parametrize(
    "reply",
    ["some words here", Reply(chunks=["some ", "words ", "here"]), AIMessage("some words here", id="x")],
)
def test_text_is_the_same_in_all_four_ways(reply):
    messages = every_way(lambda: ScriptedChatModel(replies=[reply]))
    assert {message.text for message in messages} == {"some words here"}


def test_usage_and_finish_reason_are_the_same_in_all_four_ways():
    messages = every_way(lambda: ScriptedChatModel(replies=["some words here"]))
    assert all(message.usage_metadata["output_tokens"] == 3 for message in messages)
    assert all(message.usage_metadata["total_tokens"] == 4 for message in messages)
    assert all(message.response_metadata["finish_reason"] == "stop" for message in messages)


def test_tool_calls_are_the_same_in_all_four_ways():
    for reply in (Reply(tool_calls=[CALL]), AIMessage("", tool_calls=[CALL])):
        for message in every_way(lambda reply=reply: ScriptedChatModel(replies=[reply])):
            assert [(c["name"], c["args"], c["id"]) for c in message.tool_calls] == [("look", {"at": 1}, "call_1")]


def test_a_stream_is_cut_as_told():
    chunks = streamed(ScriptedChatModel(replies=[Reply("abc", chunks=["a", "bc"])]))
    assert [chunk.content for chunk in chunks if chunk.content] == ["a", "bc"]


@pytest.mark.parametrize("after", [0, 2, 3])
def test_a_stream_fails_after_the_chunks_it_was_told(after):
    reply = Reply(chunks=["a", "b", "c"], fail_after_chunks=after, error=ConnectionResetError("cut"))
    model, got = ScriptedChatModel(replies=[reply] * 2), []
    with pytest.raises(ConnectionResetError, match="cut"):  # noqa: PT012 - what came before it matters
        for chunk in model.stream("q"):
            got.append(chunk.content)
    assert got == ["a", "b", "c"][:after]
    with pytest.raises(ConnectionResetError):
        model.invoke("q")


def test_streams_closed_early_are_counted():
    model = ScriptedChatModel(replies=["one two three"], loop=True)
    stream = model.stream("q")
    next(stream)
    stream.close()
    assert model.closed_streams == 1

    async def leave():
        stream = model.astream("q")
        await anext(stream)
        await stream.aclose()

    asyncio.run(leave())
    assert model.closed_streams == 2


def test_a_message_given_twice_is_not_shared():
    given = AIMessage("same", response_metadata={"a": {}})
    model = ScriptedChatModel(replies=[given, given])
    first, second = model.invoke("q"), model.invoke("q")
    first.response_metadata["a"]["b"] = 1
    assert second.response_metadata["a"] == {}
    assert given.response_metadata["a"] == {}


def test_a_misspelt_field_is_an_error():
    with pytest.raises(ValueError, match="repiles"):
        ScriptedChatModel(repiles=["x"])


def test_tools_can_be_bound():
    model = ScriptedChatModel(replies=[Reply(tool_calls=[CALL])])
    assert model.bind_tools([{"name": "look"}]).invoke("q").tool_calls[0]["name"] == "look"
