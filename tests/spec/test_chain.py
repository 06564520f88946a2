from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.load import dumpd
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.output_parsers import StrOutputParser

import chainops
from chainops.core.errors import InvalidInput, StoreError
from chainops.knowledge.documents import EmptyCorpus
from chainops.spec.chain import normal
from chainops.testing.faults import Cut, Status
from chainops.testing.listening import capture_events
from chainops.testing.server import ModelServer


def total(chunks):
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk
    return chainops.Answer.of(whole)


def test_a_declared_chain_answers_with_sources_that_can_be_looked_up(folder):
    chain = chainops.load(folder / "chain.yaml")
    answer = chain.invoke("When does the shop open?")
    assert answer.status == "ok"
    assert "nine in the morning" in answer.text
    source = answer.sources[0]
    start, end = source["span"]
    text = (folder / "docs" / "shop.txt").read_text()
    assert source["document"] == "docs/shop.txt"
    assert text[start:end] == source["quote"]
    assert json.loads(json.dumps(answer.facts)) == answer.facts
    assert {"chain", "prompt", "knowledge", "embeddings"} <= set(answer.report["versions"])


def test_a_notice_that_another_request_has_just_told_is_no_error(folder):
    class Shared(deque):
        """When one looks, there is one more; when one takes it, it is gone."""

        def __bool__(self):
            return True

    chain = chainops.load(folder / "chain.yaml")
    chain.index()
    chain.site.knowledge().notices = Shared(["repaired"])
    assert [event.notice for event in chain.site.ready(chain)] == ["repaired"]


def test_a_chain_with_a_deadline_is_warm_when_its_models_are_open_and_not_before(tmp_path):
    model = {"model": "extractive"}
    words = {
        "chainops": 1,
        "name": "talk",
        "kind": "chat",
        "models": {"main": model},
        "pipeline": [{"deadline": "60s"}],
    }
    site, seen = chainops.declare(words, base=tmp_path).site, []
    site.models["main"] = site.models["main"].model_copy(update={"chat": lambda: seen.append(site.is_warm)})
    assert not site.is_warm
    site.warm()
    assert seen == [False]
    assert site.is_warm


def test_every_way_of_asking_gives_the_same(folder):
    chain = chainops.load(folder / "chain.yaml")
    question, config = "What colour are bananas?", chainops.caller(cache="bypass")

    async def several():
        gathered = [chunk async for chunk in chain.astream(question, config)]
        return [await chain.ainvoke(question, config), total(gathered), *await chain.abatch([question], config)]

    answers = [
        chain.invoke(question, config),
        total(list(chain.stream(question, config))),
        *chain.batch([question], config),
        *asyncio.run(several()),
    ]
    assert len({answer.text for answer in answers}) == 1
    assert all(answer.sources == answers[0].sources and answer.status == "ok" for answer in answers)
    assert all(answer.usage_metadata == answers[0].usage_metadata for answer in answers)
    stages = [[(stage["name"], stage["parent"]) for stage in answer.report["stages"]] for answer in answers]
    assert all(each == stages[0] for each in stages)
    assert (chain | StrOutputParser()).invoke(question, config) == answers[0].text


def test_a_sync_call_works_inside_a_running_loop_as_in_a_notebook(folder):
    chain = chainops.load(folder / "chain.yaml")

    async def cell():
        return chain.invoke("When does the shop open?"), list(chain.stream("When does the shop open?"))

    answer, chunks = asyncio.run(cell())
    assert answer.text == total(chunks).text


def test_what_the_documents_do_not_say_is_not_answered_and_not_cached(folder):
    chain = chainops.load(folder / "chain.yaml")
    for _ in range(2):
        answer = chain.invoke("Who won the football world cup in 1998?")
        assert "don't know" in answer.text
        assert (answer.sources, answer.status) == ([], "ok")


def test_an_answer_changes_when_its_document_does(folder):
    chain = chainops.load(folder / "chain.yaml")
    question = "When does the shop open?"
    assert "nine" in chain.invoke(question).text
    assert chain.invoke(question).status == "cached"
    (folder / "docs" / "shop.txt").write_text("The shop opens at noon. It is closed on Sundays.")
    report = chain.index()
    assert (len(report.changed), report.unchanged) == (1, 1)
    answer = chain.invoke(question)
    assert (answer.status, "noon" in answer.text) == ("ok", True)


def test_retrieval_runs_once_however_many_models_are_tried(folder, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    with ModelServer() as server:
        server.fail(Status(500))
        words = {
            "name": "help",
            "kind": "rag",
            "models": {
                "a": {"model": "openai:a", "base_url": server.url},
                "b": {"model": "openai:b", "base_url": server.url},
                "local": {"model": "extractive"},
            },
            "knowledge": {"documents": ["docs/*"]},
            "pipeline": [{"fallback": ["a", "b", "local"]}],
        }
        answer = chainops.declare(words, base=folder).invoke("When does the shop open?")
    assert (answer.status, answer.served_by) == ("degraded", "extractive")
    assert [stage["kind"] for stage in answer.report["stages"]].count("retrieve") == 1
    assert len(server.requests) == 2


def test_the_same_words_in_python_make_the_same_chain_and_can_be_written(folder):
    from_file = chainops.load(folder / "chain.yaml")
    (folder / "again.yaml").write_text(from_file.to_yaml())
    again = chainops.load(folder / "again.yaml")
    in_python = chainops.declare(from_file.declared.words(), base=folder)
    assert from_file.site.digest == again.site.digest == in_python.site.digest


def test_python_objects_can_be_documents(tmp_path):
    chain = chainops.declare(
        {"name": "objects", "kind": "rag", "models": {"m": {"model": "extractive"}}},
        base=tmp_path,
        documents=[("zoo", "The zoo has three elephants and one tiger.")],
    )
    answer = chain.invoke("How many elephants does the zoo have?")
    assert "three elephants" in answer.text
    assert answer.sources[0]["document"] == "zoo"
    with pytest.raises(InvalidInput, match="Python objects"):
        chain.to_yaml()


def test_a_chat_remembers_its_session(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    with ModelServer(lambda messages: f"{len(messages)} messages, first {messages[0]['role']}") as server:
        chain = chainops.declare(
            {"name": "talk", "kind": "chat", "models": {"m": {"model": "openai:m", "base_url": server.url}}},
            base=tmp_path,
        )
        config = chainops.caller(session="s1")
        assert [chain.invoke(question, config).text for question in ("a", "b")] == [
            "2 messages, first system",
            "4 messages, first system",
        ]
        assert chain.invoke("c").text.startswith("2 messages")


def test_portkey_1797_a_cut_stream_ends_marked_even_without_a_fallback(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    with ModelServer("one two three four five six") as server:
        chain = chainops.declare(
            {"name": "talk", "kind": "chat", "models": {"m": {"model": "openai:m", "base_url": server.url}}},
            base=tmp_path,
        )
        server.fail(Cut(after_chunks=3))
        assert total(list(chain.stream("q"))).status == "truncated"
        with pytest.raises(chainops.ChainopsError):
            chain.invoke("q")


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("", "an empty string"),
        ("  \n", "white space"),
        ("x" * 1_000_000, "1,000,000 characters"),
        (None, "NoneType"),
        (42, "int"),
        ([], "list"),
        ({"query": "q"}, "dict"),
        ({"question": 3}, "int"),
        ({"question": "q", "history": [{"role": "root", "text": "x"}]}, "root"),
        ({"question": "q", "history": ["x"]}, "'x'"),
    ],
)
def test_a_question_that_is_none_is_one_clear_error_in_every_driver(folder, value, found):
    chain = chainops.load(folder / "chain.yaml")
    for ask in (chain.invoke, lambda value: list(chain.stream(value)), lambda value: asyncio.run(chain.ainvoke(value))):
        with pytest.raises(InvalidInput) as caught:
            ask(value)
        assert found in str(caught.value)
        assert len(str(caught.value)) < 300


@given(st.text(min_size=1, max_size=50))
def test_any_text_is_a_question_or_refused(text):
    try:
        request = normal(text, max_chars=100)
    except InvalidInput:
        assert not text.strip()
    else:
        request["question"].encode()


def test_messages_are_a_question_with_its_history():
    request = normal([HumanMessage("hello"), AIMessage("hi"), HumanMessage("bye")], max_chars=100)
    assert request == {
        "question": "bye",
        "history": [{"role": "user", "text": "hello"}, {"role": "assistant", "text": "hi"}],
    }


def test_an_empty_corpus_names_the_patterns(folder):
    (folder / "empty.yaml").write_text((folder / "chain.yaml").read_text().replace("docs/*", "nothing/*.md"))
    with pytest.raises(EmptyCorpus, match="nothing"):
        chainops.load(folder / "empty.yaml").invoke("q")


def test_a_corrupted_store_is_named(folder):
    (folder / ".chainops").mkdir(exist_ok=True)
    (folder / ".chainops" / "chainops.db").write_bytes(b"garbage" * 1000)
    with pytest.raises(StoreError, match=r"chainops\.db"):
        chainops.load(folder / "chain.yaml").invoke("q")


def test_two_threads_that_ask_first_index_once(folder):
    chain = chainops.load(folder / "chain.yaml")
    answers = chain.batch(["When does the shop open?"] * 4, {"max_concurrency": 4})
    assert len({answer.text for answer in answers}) == 1
    assert chain.index().unchanged == 2


def test_who_asks_reaches_no_metadata_and_no_repr(folder):
    chain = chainops.load(folder / "chain.yaml")
    config = chainops.caller(user="very-secret-ann", tenant="acme")
    seen = []

    from langchain_core.callbacks import BaseCallbackHandler

    class Watch(BaseCallbackHandler):
        def on_chain_start(self, serialized, inputs, *, metadata=None, **kwargs):
            seen.append(repr((metadata, kwargs.get("tags"))))

    chain.invoke("When does the shop open?", {**config, "callbacks": [Watch()]})
    assert len(seen) > 3
    assert not any("very-secret-ann" in each for each in seen)
    assert "very-secret-ann" not in repr(dumpd(chain))


def test_the_caller_sees_only_what_is_exposed(folder):
    chain = chainops.load(folder / "chain.yaml")
    config = chainops.caller(expose=["status"])
    for answer in (chain.invoke("When does the shop open?", config), total(list(chain.stream("a shop?", config)))):
        assert set(answer.facts) == {"status"}


def test_chain_and_answer_draw_themselves_and_escape_what_they_show(folder):
    (folder / "docs" / "evil.md").write_text(
        "# <script>alert(1)</script>\n\nEvil <img src=x> zebras eat <b>grass</b> daily."
    )
    chain = chainops.load(folder / "chain.yaml")
    answer = chain.invoke("What do evil zebras eat?")
    drawn = chain._repr_html_() + answer._repr_html_() + answer.report._repr_html_()
    assert "grass" in drawn
    assert "<script" not in drawn
    assert "<img" not in drawn
    assert "fallback" in chain._repr_html_()


def test_a_registry_prompt_is_used_and_one_that_is_not_there_is_named(folder):
    pytest.importorskip("mlflow.version")
    from chainops.prompts.prompt import Prompt
    from chainops.prompts.registry import PromptRegistry

    uri = f"sqlite:///{folder / 'mlflow.db'}"
    prompt = Prompt("shouting", (("user", "{{context}}\n\nQuestion: {{question}}"),))
    PromptRegistry(uri).push(prompt, alias="production")
    text = (folder / "chain.yaml").read_text() + f"mlflow: {uri}\n"
    (folder / "chain.yaml").write_text(text + "prompt: prompts:/shouting@production\n")
    chain = chainops.load(folder / "chain.yaml")
    answer = chain.invoke("When does the shop open?")
    assert "nine" in answer.text
    assert answer.report["versions"]["prompt"]["version"] == 1
    (folder / "chain.yaml").write_text(text + "prompt: prompts:/shouting/7\n")
    with pytest.raises(chainops.ChainopsError, match="7"):
        chainops.load(folder / "chain.yaml")


def test_importing_and_loading_a_chain_imports_nothing_heavy(folder):
    code = (
        "import sys, chainops; chainops.load(sys.argv[1]); "
        "print(*[m for m in ('numpy','faiss','onnxruntime','torch','mlflow','sqlalchemy','langchain_openai','openai',"
        "'bm25s','transformers','sentence_transformers','typer','rich') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder / "chain.yaml")], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []


def test_events_of_a_request_are_heard(folder):
    with capture_events() as events:
        chainops.load(folder / "chain.yaml").invoke("When does the shop open?")
    assert [type(event).__name__ for event in events] == [
        "Indexed",
        "CacheMissed",
        "Retrieved",
        "Attempted",
        "CacheKept",
        "RequestEnded",
    ]
