from __future__ import annotations

import pytest
from langchain_core.messages import AIMessage

import chainops
from chainops.cache.standalone import Standalone, as_standalone, depends, speaks_back, standalone


def turns(*texts):
    return [{"role": ("user", "assistant")[n % 2], "text": text} for n, text in enumerate(texts)]


OPENED = turns("How do I open a file in Python?", "Call open().")


@pytest.mark.parametrize(
    ("question", "history", "expected"),
    [
        ("How do I sort a list in Python?", [], Standalone("How do I sort a list in Python?")),
        ("How do I sort a list in Python?", OPENED, Standalone("How do I sort a list in Python?")),
        (
            "And how do I close it?",
            OPENED,
            Standalone("How do I open a file in Python? And how do I close it?", ("Call open().",)),
        ),
        ("Can you explain the second point?", OPENED, None),
        ("Shorter please", OPENED, None),
        ("and after it?", turns("why?", "because"), None),
        (
            "How do I sort a list in Python?",
            turns("I am a beginner, please answer in French.", "D'accord."),
            Standalone("How do I sort a list in Python?", ("I am a beginner, please answer in French.",)),
        ),
    ],
)
def test_a_question_takes_along_what_it_needs_of_its_conversation_or_is_given_up(question, history, expected):
    assert standalone(question, history) == expected


@pytest.mark.parametrize("question", ["why?", "And in Java?", "what about it", "Is this the same there?", "more"])
def test_a_question_that_rests_on_what_was_said_is_seen(question):
    assert depends(question)


@pytest.mark.parametrize("answer", ["As I mentioned above, call open().", "Earlier you asked about files."])
def test_an_answer_that_speaks_of_the_conversation_is_seen(answer):
    assert speaks_back(answer)
    assert not speaks_back("Call open() and read the file.")


def test_a_models_word_is_taken_for_the_question_or_for_none():
    assert as_standalone(AIMessage(" How do I close a file? ")) == Standalone("How do I close a file?")
    assert as_standalone("NONE.") is None
    assert as_standalone("") is None


def test_a_question_that_stands_alone_is_shared_between_conversations(make_cache):
    asked = []
    cache = make_cache(lambda value: asked.append(value) or AIMessage(content=f"answer {len(asked)}"))
    question = "How do I sort a list in Python?"
    cache.invoke({"question": question, "history": OPENED})
    assert cache.invoke({"question": question, "history": []}).status == "cached"


def test_follow_ups_are_compared_with_what_they_follow(make_cache):
    asked = []
    cache = make_cache(lambda value: asked.append(value) or AIMessage(content=f"answer {len(asked)}"))
    follow = "And how do I close it?"
    door = turns("How do I open a door in Python?", "Call open().")
    other = turns("How do I open a file in Python?", "Use a with statement.")
    assert cache.invoke({"question": follow, "history": OPENED}).status == "ok"
    assert cache.invoke({"question": follow, "history": OPENED}).status == "cached"
    assert cache.invoke({"question": follow, "history": other}).status == "ok"  # another reply in between
    assert cache.invoke({"question": "who wrote moby dick", "history": door}).status == "ok"
    assert cache.invoke({"question": "Explain the second point", "history": OPENED}).status == "ok"
    assert cache.invoke({"question": "Explain the second point", "history": OPENED}).status == "ok"
    assert "not cacheable" in str(cache.invoke({"question": "shorter", "history": OPENED}).report.to_dict())


def test_exact_follow_ups_are_served_within_the_same_conversation_only(make_cache):
    asked = []
    cache = make_cache(
        lambda value: asked.append(value) or AIMessage(content=f"answer {len(asked)}"), follow_ups="exact"
    )
    for question in ("shorter", "How do I sort a list in Python?"):
        assert cache.invoke({"question": question, "history": OPENED}).status == "ok"
        assert cache.invoke({"question": question, "history": OPENED}).status == "cached"
        assert cache.invoke({"question": question, "history": []}).status == "ok"


def test_a_declared_model_condenses_and_its_call_is_in_the_ledger(tmp_path):
    words = {
        "name": "talk",
        "kind": "chat",
        "models": {"main": "extractive", "small": "extractive"},
        "pipeline": [{"cache": {"threshold": 0.9, "follow_ups": "small"}}],
    }
    chain = chainops.declare(words, base=tmp_path)
    answer = chain.invoke({"question": "and it?", "history": OPENED})
    models = [stage["name"] for stage in answer.report["stages"] if stage["kind"] == "model"]
    assert models[0] == "small"


def test_a_model_that_is_not_declared_is_told_with_its_place(tmp_path):
    words = {
        "name": "talk",
        "kind": "chat",
        "models": {"main": "extractive"},
        "pipeline": [{"cache": {"compare": "mian"}}],
    }
    with pytest.raises(chainops.ChainopsError, match="main"):
        chainops.declare(words, base=tmp_path)
