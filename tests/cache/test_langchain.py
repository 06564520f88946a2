"""LangChain's cache interface: its own suites, and the bugs of other caches that it must not have."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.caches import BaseCache
from langchain_core.load import dumps
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, SystemMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, Generation, GenerationChunk
from langchain_tests.integration_tests import AsyncCacheTestSuite, SyncCacheTestSuite

from chainops.cache.langchain import CacheFailedWarning, EntryUnreadable, LLMCache, request_of
from chainops.core.errors import InvalidInput, StoreUnavailable
from chainops.testing.chat import ScriptedChatModel


class Shelf:
    """The smallest cache there can be: exact, in a dict, as JSON."""

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str], str] = {}
        self.told: list[tuple[str, bool]] = []

    def find(self, scope: str, question: str, *, may_be_near: bool) -> Any | None:
        found = self.kept.get((scope, question))
        return None if found is None else json.loads(found)

    def keep(self, scope: str, question: str, value: Any, *, text: str, may_be_near: bool) -> None:
        self.kept[scope, question] = json.dumps(value)
        self.told.append((text, may_be_near))

    def clear(self) -> None:
        self.kept.clear()


class Broken:
    def find(self, *_: Any, **__: Any) -> None:
        raise StoreUnavailable("cache", "no server", "start it")

    keep = clear = find


class TestSync(SyncCacheTestSuite):
    @pytest.fixture
    def cache(self) -> BaseCache:
        return LLMCache(Shelf())


class TestAsync(AsyncCacheTestSuite):
    @pytest.fixture
    def cache(self) -> BaseCache:
        return LLMCache(Shelf())


def chat(*messages: Any) -> str:
    return dumps(list(messages))


CALL = {"name": "find", "args": {"city": "Bern", "days": [1, 2]}, "id": "call_1", "type": "tool_call"}
USAGE = {"input_tokens": 5, "output_tokens": 7, "total_tokens": 12}


@pytest.mark.parametrize(
    "kept",
    [
        [Generation(text="a", generation_info={"finish_reason": "stop"}), Generation(text="b")],
        [GenerationChunk(text="a")],
        [
            ChatGeneration(
                message=AIMessage("", tool_calls=[CALL], usage_metadata=USAGE), generation_info={"logprobs": None}
            )
        ],
        [ChatGeneration(message=AIMessage([{"type": "text", "text": "hi"}, {"type": "reasoning", "reasoning": "so"}]))],
        [ChatGeneration(message=AIMessage("x", additional_kwargs={"reasoning_content": "because"}, name="bot"))],
        [ChatGenerationChunk(message=AIMessageChunk("a", usage_metadata=USAGE))],
        [ChatGeneration(message=AIMessage(f"answer {n}")) for n in range(3)],
        [Generation(text="x", generation_info={"lc": 1, "type": "secret", "id": ["OPENAI_API_KEY"]})],
    ],
)
def test_generations_come_back_as_they_were(kept: list[Generation]) -> None:
    cache = LLMCache(Shelf())
    cache.update("question", "model", kept)
    found = cache.lookup("question", "model")
    assert isinstance(found, list)  # LangChain ignores a tuple without a word
    assert found == kept
    assert [type(each) for each in found] == [type(each) for each in kept]


def test_all_generations_are_kept_langchain_redis_kept_the_first() -> None:
    cache = LLMCache(Shelf())
    cache.update("q", "m", [Generation(text="one"), Generation(text="two")])
    assert [each.text for each in cache.lookup("q", "m") or ()] == ["one", "two"]


def test_two_models_with_one_prompt_never_overwrite_each_other() -> None:
    cache = LLMCache(Shelf())
    cache.update("q", "model a", [Generation(text="a")])
    cache.update("q", "model b", [Generation(text="b")])
    assert (cache.lookup("q", "model a") or [None])[0].text == "a"
    assert (cache.lookup("q", "model b") or [None])[0].text == "b"


QUESTION = HumanMessage("What is the limit?")
OTHERS = [
    chat(SystemMessage("You are a bank."), QUESTION),
    chat(SystemMessage("You are a pirate."), QUESTION),
    chat(HumanMessage("My card is gold."), AIMessage("Noted."), QUESTION),
    chat(HumanMessage("My card is red."), AIMessage("Noted."), QUESTION),
    chat(HumanMessage("What is the limit?", name="ann")),
    chat(
        HumanMessage([{"type": "text", "text": "What is the limit?"}, {"type": "image_url", "image_url": {"url": "a"}}])
    ),
    chat(
        HumanMessage([{"type": "text", "text": "What is the limit?"}, {"type": "image_url", "image_url": {"url": "b"}}])
    ),
    chat(QUESTION, AIMessage("", tool_calls=[CALL]), ToolMessage("5", tool_call_id="call_1")),
    chat(QUESTION, AIMessage("", tool_calls=[CALL]), ToolMessage("6", tool_call_id="call_1")),
    chat(QUESTION),
    "What is the limit?",
]


def test_system_prompt_history_images_and_tool_results_part_what_may_be_shared_vsr_3423() -> None:
    scopes = {request_of(prompt, llm).scope for prompt in OTHERS for llm in ("model", "model, tools=[x]")}
    assert len(scopes) == 2 * len(OTHERS)
    assert {request_of(prompt, "model").question for prompt in OTHERS} == {"What is the limit?"}


def test_the_question_alone_does_not_part_them() -> None:
    one, two = (request_of(chat(SystemMessage("s"), HumanMessage(text)), "m") for text in ("How much?", "How many?"))
    assert one.scope == two.scope
    assert one.question != two.question
    assert one.may_be_near


def test_within_a_conversation_and_for_long_prompts_only_exact_repeats_are_served() -> None:
    assert not request_of(chat(QUESTION, AIMessage("5"), HumanMessage("And for her?")), "m").may_be_near
    assert not request_of(
        chat(QUESTION, AIMessage("", tool_calls=[CALL]), ToolMessage("5", tool_call_id="call_1")), "m"
    ).may_be_near
    template = "Answer from these passages. " * 80
    assert not request_of(f"{template} Who?", "m").may_be_near
    assert not request_of(chat(HumanMessage("Hi\n<passages>\n</passages>\nWho?")), "m").may_be_near


@given(st.lists(st.text(max_size=20), min_size=2, max_size=2, unique=True), st.text(max_size=20), st.text(max_size=20))
def test_no_two_requests_that_differ_outside_the_question_share_a_scope(
    systems: list[str], question: str, llm: str
) -> None:
    one, two = (request_of(chat(SystemMessage(each), HumanMessage(question)), llm) for each in systems)
    assert one.scope != two.scope


@given(st.text(max_size=60), st.text(max_size=10))
def test_any_plain_prompt_is_its_own_question(prompt: str, llm: str) -> None:
    asked = request_of(prompt, llm)
    assert asked.question == prompt


@pytest.mark.parametrize(
    "prompt", ["[]", "[1]", '[{"a": 1}]', "[" * 100_000, '["Message"]', '[{"lc": 1, "id": [], "kwargs": {}}]']
)
def test_a_plain_prompt_that_looks_like_json_is_a_plain_prompt(prompt: str) -> None:
    assert request_of(prompt, "m").question == prompt


@pytest.mark.parametrize("reason", ["length", "max_tokens", "content_filter", "SAFETY", "refusal"])
def test_an_answer_that_was_cut_or_withheld_is_not_kept(reason: str) -> None:
    shelf = Shelf()
    cache = LLMCache(shelf)
    cache.update("q", "m", [Generation(text="half an", generation_info={"finish_reason": reason})])
    cache.update("q", "m", [ChatGeneration(message=AIMessage("half", response_metadata={"stop_reason": reason}))])
    cache.update("q", "m", [])
    assert shelf.kept == {}


def test_what_tools_are_called_with_counts_as_said() -> None:
    shelf = Shelf()
    LLMCache(shelf).update("q", "m", [ChatGeneration(message=AIMessage("Looking", tool_calls=[CALL]))])
    assert shelf.told[0][0].startswith("Looking")
    assert "Bern" in shelf.told[0][0]


def test_a_broken_store_is_a_miss_and_is_told() -> None:
    failures: list[Exception] = []
    cache = LLMCache(Broken(), on_failure=failures.append)
    assert cache.lookup("q", "m") is None
    cache.update("q", "m", [Generation(text="a")])
    assert [type(each) for each in failures] == [StoreUnavailable, StoreUnavailable]
    with pytest.raises(StoreUnavailable):
        cache.clear()


def test_without_a_listener_a_failure_is_a_warning() -> None:
    with pytest.warns(CacheFailedWarning, match="no server"):
        assert LLMCache(Broken()).lookup("q", "m") is None


@pytest.mark.parametrize(
    "value",
    [
        {},
        [],
        "text",
        [1],
        [{"kind": "Generation"}],
        [{"kind": "Path", "text": "a", "info": None}],
        [{"kind": "ChatGeneration", "info": None, "message": {"type": "system of a down", "data": {}}}],
        [{"lc": 1, "type": "constructor", "id": ["langchain", "llms", "openai", "OpenAI"], "kwargs": {}}],
        [{"lc": 1, "type": "secret", "id": ["HOME"]}],
    ],
)
def test_an_entry_written_by_hand_is_a_miss_and_builds_nothing(value: Any) -> None:
    shelf, failures = Shelf(), []
    asked = request_of("q", "m")
    shelf.kept[asked.scope, asked.question] = json.dumps(value)
    assert LLMCache(shelf, on_failure=failures.append).lookup("q", "m") is None
    assert [type(each) for each in failures] == [EntryUnreadable]


def test_clear_refuses_to_clear_a_part() -> None:
    with pytest.raises(InvalidInput, match="llm_string"):
        LLMCache(Shelf()).clear(llm_string="m")


def test_a_hit_is_a_new_object_each_time_and_has_no_one_elses_id() -> None:
    cache = LLMCache(Shelf())
    cache.update("q", "m", [ChatGeneration(message=AIMessage("a", id="run-1"))])
    one, two = cache.lookup("q", "m"), cache.lookup("q", "m")
    assert one is not None
    assert two is not None
    assert one[0] is not two[0]
    assert one[0].message.id is None


def test_a_chat_model_is_asked_once_and_keeps_its_tool_calls() -> None:
    model = ScriptedChatModel(replies=[AIMessage("first", tool_calls=[CALL])], cache=LLMCache(Shelf()))
    first = model.invoke("hello")
    second = model.invoke("hello")
    assert second.tool_calls == first.tool_calls
    assert second.text == "first"
    assert second.id != first.id


def test_async_methods_leave_the_event_loop_free() -> None:
    release = threading.Event()

    class Slow(Shelf):
        def find(self, scope: str, question: str, *, may_be_near: bool) -> Any | None:
            assert release.wait(60)
            return super().find(scope, question, may_be_near=may_be_near)

    async def ask() -> Any:
        looking = asyncio.create_task(LLMCache(Slow()).alookup("q", "m"))
        await asyncio.sleep(0)
        release.set()  # reached only if the lookup above waits elsewhere
        return await looking

    assert asyncio.run(ask()) is None
