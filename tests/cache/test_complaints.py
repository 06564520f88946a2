"""What users of other caches complained about, each as a test named after the complaint."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.prompts import ChatPromptTemplate

import chainops
from chainops.cache import policy
from chainops.core.caller import Caller
from chainops.testing.chat import ScriptedChatModel

ASKED = "how do I write a good decorator"
NEAR = "how do I write a nice decorator"


@pytest.fixture
def counted():
    asked = []

    def answer(value, **kwargs):
        asked.append((value, kwargs))
        return AIMessage(content=f"answer {len(asked)}")

    answer.asked = asked
    return answer


def test_vsr_2134_no_tenant_or_user_is_ever_served_anothers_answer_however_near(make_cache, counted):
    for share, one, other in (
        ("tenant", {"tenant": "a"}, {"tenant": "b"}),
        ("user", {"tenant": "a", "user": "x"}, {"tenant": "a", "user": "y"}),
        ("user", {"tenant": "a", "user": "x"}, {"tenant": "b", "user": "x"}),
    ):
        cache = make_cache(counted, share=share, threshold=0.1)
        cache.invoke(ASKED, chainops.caller(**one))
        assert cache.invoke(ASKED, chainops.caller(**other)).status == "ok"
        assert cache.invoke(NEAR, chainops.caller(**other)).served_by != "cache (exact)"
        assert cache.invoke(ASKED, chainops.caller(**one)).status == "cached"


def test_portkey_a_request_without_a_user_shares_with_nobody_where_users_do_not_share(make_cache, counted):
    cache = make_cache(counted, share="user")
    assert [cache.invoke(ASKED).status for _ in range(2)] == ["ok", "ok"]


def test_vsr_3423_the_key_covers_system_prompt_history_tools_and_everything_else(make_cache, counted):
    cache = make_cache(counted)
    requests = [
        [SystemMessage("be brief"), HumanMessage(ASKED)],
        [SystemMessage("be long"), HumanMessage(ASKED)],
        {"question": ASKED, "language": "en"},
        {"question": ASKED, "language": "de"},
        ASKED,
    ]
    for request in requests:
        assert cache.invoke(request).status == "ok"
    for request in requests:
        assert cache.invoke(request).status == "cached"
    tools = [{"type": "function", "function": {"name": "search"}}]
    assert cache.invoke(ASKED, tools=tools).status == "ok"
    assert cache.invoke(ASKED, tools=tools).status == "cached"
    assert cache.invoke(ASKED, temperature=0.5).status == "ok"


def test_litellm_29086_the_same_system_prompt_does_not_keep_similar_questions_from_being_served(make_cache, counted):
    cache = make_cache(counted)
    cache.invoke([SystemMessage("be brief"), HumanMessage(ASKED)])
    assert cache.invoke([SystemMessage("be brief"), HumanMessage(NEAR)]).served_by == "cache (semantic)"


def test_litellm_12234_unrelated_questions_are_not_served_one_answer(make_cache, counted):
    cache = make_cache(counted)
    for question in ("who wrote moby dick", "what does a stamp cost", "name three rivers in spain"):
        assert cache.invoke(question).status == "ok"


def test_langchain_redis_98_async_and_sync_decide_alike(make_cache, counted):
    cache = make_cache(counted)
    cache.invoke(ASKED)
    for question in (ASKED, NEAR, "who wrote moby dick"):
        by_sync = cache.invoke(question, chainops.caller(cache="use"))
        by_async = asyncio.run(cache.ainvoke(question))
        if by_sync.status == "cached":
            assert (by_async.status, by_async.text) == ("cached", by_sync.text)
        else:
            assert by_async.text == by_sync.text


def test_langchain_postgres_252_the_question_is_looked_up_not_the_rendered_prompt(make_cache):
    prompt = ChatPromptTemplate.from_messages(
        [("system", "A page of text that is always the same."), ("human", "{question}")]
    )
    asked = []

    def model(messages):
        asked.append(messages)
        return AIMessage(content=f"answer {len(asked)}")

    cache = make_cache(prompt | model)
    assert cache.invoke({"question": "what is a list"}).text == "answer 1"
    assert cache.invoke({"question": "who wrote moby dick"}).text == "answer 2"


def test_vsr_1555_an_answer_that_was_streamed_is_stored_and_vsr_913_a_hit_streams(make_cache):
    chat = ScriptedChatModel(replies=["one two three"])
    cache = make_cache(chat)
    first = [chunk.text for chunk in cache.stream(ASKED)]
    again = list(cache.stream(ASKED))
    assert "".join(first) == "".join(chunk.text for chunk in again) == "one two three"
    assert chainops.Answer.of(again[-1]).status == "cached"


def test_litellm_11145_a_paced_hit_streams_in_pieces_and_keeps_all_it_had(make_cache):
    call = {"name": "search", "args": {"q": "x"}, "id": "1", "type": "tool_call"}
    said = AIMessage(content="one two three", tool_calls=[call], additional_kwargs={"reasoning_content": "hm"})
    cache = make_cache(lambda _: said, pace_tokens_per_s=1000)
    cache.invoke(ASKED)
    chunks = list(cache.stream(ASKED))
    assert len([chunk for chunk in chunks if chunk.text]) == 3
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk
    answer = chainops.Answer.of(whole)
    assert (answer.text, answer.tool_calls, answer.status) == ("one two three", [call], "cached")
    assert answer.additional_kwargs["reasoning_content"] == "hm"


@given(st.permutations(["a", "b", "c"]), st.dictionaries(st.text(), st.integers() | st.text(), max_size=4))
def test_bifrost_2791_equal_requests_have_equal_keys_in_whatever_order_they_are_written(order, rest):
    def key(names):
        value = dict.fromkeys(names, rest) | {"question": ASKED}
        return policy.key_of(
            policy.asked(value),
            answered_by="x",
            share="tenant",
            caller=Caller(),
            kwargs={},
            alone=policy.by_rules(policy.asked(value)),
        )

    assert key(order) == key(sorted(order))


SCOPES = st.fixed_dictionaries(
    {
        "tenant": st.sampled_from([None, "a", "b", "a b"]),
        "user": st.sampled_from([None, "a", "b"]),
        "answered_by": st.sampled_from(["x", "y"]),
        "system": st.sampled_from(["", "be brief", "be long"]),
        "language": st.sampled_from(["en", "de"]),
        "tools": st.sampled_from([None, "search"]),
        "share": st.sampled_from(["tenant", "user"]),
    }
)


@settings(max_examples=400)
@given(SCOPES, SCOPES, st.text(min_size=1, max_size=40))
def test_no_two_requests_that_differ_in_scope_ever_share_one(one, other, question):
    def key(told):
        messages = [SystemMessage(told["system"] + told["language"]), HumanMessage(question)]
        asked = policy.asked(messages)
        return policy.key_of(
            asked,
            answered_by=told["answered_by"],
            share=told["share"],
            caller=Caller(tenant=told["tenant"], user=told["user"]),
            kwargs={"tools": told["tools"]} if told["tools"] else {},
            alone=policy.by_rules(asked),
        )

    def scope(told):
        who = (told["share"], told["tenant"], told["user"] if told["share"] == "user" else None)
        return who, told["answered_by"], told["system"], told["language"], told["tools"]

    first, second = key(one), key(other)
    if first is None or second is None:
        assert "user" in (one["share"], other["share"])
    else:
        assert (first.scope == second.scope) == (scope(one) == scope(other))


def test_gptcache_what_a_model_is_called_with_reaches_it(make_cache, counted):
    def model(value, **kwargs):
        return counted(value, **kwargs)

    from langchain_core.runnables import RunnableLambda

    make_cache(RunnableLambda(model)).invoke(ASKED, temperature=0.3)
    assert counted.asked[0][1]["temperature"] == 0.3


def test_gptcache_many_threads_store_and_look_up_without_harm(make_cache, counted):
    cache = make_cache(counted)
    barrier = threading.Barrier(8)

    def work(number):
        barrier.wait()
        return [cache.invoke(f"{number} {each} {each} {each}").status for each in range(10)]

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(work, range(8)))
    assert all(set(each) <= {"ok", "cached"} for each in results)
    assert cache.invoke("3 3 3 3").status == "cached"


def test_vcache_an_empty_cache_is_no_error_and_a_fresh_right_answer_is_inserted(make_cache, counted, replica):
    cache = make_cache(counted, threshold=None, max_error_rate=0.01)
    assert cache.invoke(ASKED).status == "ok"
    assert cache.invoke(NEAR).status == "ok"
    assert replica.store.size("cache")[0] == 2


def test_redisvl_two_models_with_the_same_prompt_do_not_overwrite_each_other(make_cache, counted):
    one, other = (make_cache(counted, answered_by=lambda model=model: model) for model in ("small", "large"))
    first, second = one.invoke(ASKED).text, other.invoke(ASKED).text
    assert first != second
    assert (one.invoke(ASKED).text, other.invoke(ASKED).text) == (first, second)
