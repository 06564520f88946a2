"""What once went wrong, each a promise since."""

from __future__ import annotations

import pytest

import chainops
from chainops.core.component import Component
from chainops.core.steps import Ask
from chainops.spec.errors import ChainFileError
from chainops.testing import ModelServer, Status

RAG = {"name": "zoo", "kind": "rag", "models": {"m": {"model": "extractive"}}}
QUESTION = "How many elephants does the zoo have?"


def test_other_documents_in_the_same_folder_give_other_answers(tmp_path):
    for number in ("three", "seven"):
        chain = chainops.declare(RAG, base=tmp_path, documents=[("zoo", f"The zoo has {number} elephants.")])
        assert number in chain.invoke(QUESTION).text


def test_two_chains_of_one_name_under_one_home_do_not_share_documents(tmp_path, monkeypatch):
    monkeypatch.setenv("CHAINOPS_HOME", str(tmp_path / "home"))
    for folder, number in (("a", "three"), ("b", "ninety")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "zoo.txt").write_text(f"The zoo has {number} elephants.")
        words = {**RAG, "knowledge": {"documents": ["zoo.txt"]}, "pipeline": ["cache"]}
        assert number in chainops.declare(words, base=tmp_path / folder).invoke(QUESTION).text


def test_two_questions_within_one_request_are_answered_from_their_own_passages(tmp_path):
    documents = [("zoo", "The zoo has three elephants."), ("food", "The restaurant serves pizza and ice cream.")]
    chain = chainops.declare({**RAG, "knowledge": {"rerank": 1}}, base=tmp_path, documents=documents)

    class Both(Component[str, str]):
        def plan(self, value, run):
            first = yield Ask(chain, QUESTION)
            second = yield Ask(chain, "What does the restaurant serve?")
            return f"{first.text} {second.text}"

    told = Both().invoke("")
    assert "three elephants" in told
    assert "pizza" in told


def test_another_server_behind_the_same_name_is_not_answered_for_by_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    words = {
        "name": "talk",
        "kind": "chat",
        "models": {"m": {"model": "openai:m"}},
        "pipeline": [{"cache": {"threshold": 1}}],
    }
    for answer in ("one", "two"):
        with ModelServer(answer) as server:
            monkeypatch.setenv("OPENAI_BASE_URL", server.url)
            assert chainops.declare(words, base=tmp_path).invoke("who are you").text == answer


def test_a_stand_in_is_neither_cached_nor_remembered_as_the_model_it_stood_in_for(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    with ModelServer(lambda messages: f"{len(messages)} messages") as server:
        model = {"model": "openai:m", "base_url": server.url}
        words = {
            "name": "talk",
            "kind": "chat",
            "models": {"big": model, "small": {**model, "model": "openai:small"}},
            "pipeline": [{"fallback": ["big", "small", {"say": "sorry"}]}, {"cache": {"threshold": 1}}],
        }
        chain = chainops.declare(words, base=tmp_path)
        config = chainops.caller(session="s")
        server.fail(Status(503), times=1)
        assert chain.invoke("q").served_by == "openai:small"
        assert chain.invoke("q").served_by == "openai:m"
        server.fail(Status(503))
        assert chain.invoke("hello", config).text == "sorry"
        server.heal()
        assert chain.invoke("hello again", config).text == "2 messages"


def test_an_answer_that_reached_its_limit_of_tokens_is_truncated(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    from langchain_core.messages import AIMessage

    from chainops.models.model import Model
    from chainops.testing import ScriptedChatModel

    chat = ScriptedChatModel(replies=[AIMessage("half an ans", response_metadata={"finish_reason": "length"})])
    assert Model(chat=lambda: chat, model="openai:m").invoke("q").status == "truncated"


def test_a_dollar_sign_survives_being_written(tmp_path):
    words = {"name": "t", "kind": "chat", "models": {"m": {"model": "extractive"}}}
    words["pipeline"] = [{"fallback": ["m", {"say": "it costs ${AMOUNT} or $5"}]}]
    chain = chainops.declare(words, base=tmp_path)
    (tmp_path / "t.yaml").write_text(chain.to_yaml())
    assert chainops.load(tmp_path / "t.yaml").site.digest == chain.site.digest


@pytest.mark.parametrize(("text", "missing"), [("{{question}}", "{{context}}"), ("{{context}}", "{{question}}")])
def test_a_prompt_without_the_question_or_the_passages_is_refused(tmp_path, text, missing):
    (tmp_path / "p.md").write_text(f"---\nname: p\n---\n{text}\n")
    words = {**RAG, "knowledge": {"documents": ["*.txt"]}, "prompt": "file:p.md"}
    with pytest.raises(ChainFileError) as caught:
        chainops.declare(words, base=tmp_path)
    assert missing in str(caught.value)
    lines = ["chainops: 1", "name: t", "kind: rag", "models: {m: extractive}", "knowledge: {documents: '*.txt'}"]
    (tmp_path / "c.yaml").write_text("\n".join([*lines, "prompt: file:p.md"]))
    with pytest.raises(ChainFileError) as caught:
        chainops.load(tmp_path / "c.yaml")
    (problem,) = caught.value.problems
    assert (caught.value.place, problem.line, problem.column) == (str(tmp_path / "c.yaml"), 6, 1)
    assert missing in problem.found


def test_documents_that_cannot_be_read_are_told_with_the_answer_that_read_the_others(tmp_path):
    (tmp_path / "good.txt").write_text("The zoo has three elephants.")
    (tmp_path / "bad.txt").write_bytes(b"\x00\x01\x02\xff" * 100)
    chain = chainops.declare({**RAG, "knowledge": {"documents": ["*.txt"]}}, base=tmp_path)
    answer = chain.invoke(QUESTION)
    assert "three" in answer.text
    assert any("bad.txt" in reason for reason in answer.reasons)
    assert answer.report["events"][0]["skipped"]


def test_a_locked_store_forgets_the_turn_and_keeps_the_answer(tmp_path):
    import sqlite3

    chain = chainops.declare({"name": "t", "kind": "chat", "models": {"m": {"model": "extractive"}}}, base=tmp_path)
    chain.invoke("hello", chainops.caller(session="s"))
    lock = sqlite3.connect(tmp_path / ".chainops" / "chainops.db", isolation_level=None)
    lock.execute("BEGIN IMMEDIATE")
    try:
        answer = chain.invoke("hello", chainops.caller(session="s"))
    finally:
        lock.execute("ROLLBACK")
    assert answer.text
    assert "not remembered" in answer.reasons[0]


def test_a_program_that_merely_imports_ipykernel_is_no_notebook(tmp_path, capsys):
    import ipykernel.displayhook  # noqa: F401

    documents = [("zoo", "The zoo has three elephants.")]
    assert "three" in chainops.declare(RAG, base=tmp_path, documents=documents).invoke(QUESTION).text
    assert capsys.readouterr().out == ""


def test_a_model_may_be_named_alone_and_a_store_is_found_from_the_files_folder(tmp_path, monkeypatch):
    folder, elsewhere = tmp_path / "chain", tmp_path / "elsewhere"
    for each in (folder, elsewhere):
        each.mkdir()
    monkeypatch.chdir(elsewhere)
    (folder / "c.yaml").write_text(
        "chainops: 1\nname: t\nkind: chat\nmodels: {m: extractive}\n"
        "store: state/own.db\npipeline: [cache: {threshold: 1}]\n"
    )
    chainops.load(folder / "c.yaml").invoke("hello", chainops.caller(session="s"))
    assert (folder / "state" / "own.db").exists()
    assert not list(elsewhere.iterdir())


def test_an_answer_without_a_source_says_so(tmp_path):
    chain = chainops.declare(RAG, base=tmp_path, documents=[("zoo", "The zoo has three elephants.")])
    answer = chain.invoke("Who won the football world cup in 1998?")
    assert answer.sources == []
    assert any("no passage is cited" in reason for reason in answer.reasons)
