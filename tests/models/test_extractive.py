"""The chat model that quotes."""

from __future__ import annotations

import asyncio

import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage

from chainops.models.extractive import NO_PASSAGES, ExtractiveChatModel, question_and_passages
from chainops.text.passages import NO_ANSWER, PromptPassage, citations, render_passages

PASSAGES = [
    PromptPassage(
        1,
        "The yield statement",
        'Using "yield" in a function definition causes that definition to create a generator function instead of a '
        'normal function. When "yield from <expr>" is used, the supplied expression must be an iterable. The values '
        "produced by iterating that iterable are passed directly to the caller of the current generator.",
    ),
    PromptPassage(2, "The pass statement", '"pass" is a null operation. When it is executed, nothing happens.'),
    PromptPassage(3, "Penguins", "Emperor penguins breed during the winter in Antarctica. They eat fish and krill."),
]
BLOCK = render_passages(PASSAGES)


@pytest.fixture(scope="module")
def model() -> ExtractiveChatModel:
    return ExtractiveChatModel()


def ask(model: ExtractiveChatModel, question: str) -> AIMessage:
    return model.invoke([SystemMessage(f"Answer from the passages.\n{BLOCK}"), HumanMessage(question)])


def test_it_quotes_the_passage_that_answers_and_cites_it(model: ExtractiveChatModel) -> None:
    answer = ask(model, "Where do emperor penguins breed?")
    assert "breed during the winter in Antarctica. [3]" in answer.text
    assert citations(answer.text) == [3]
    assert answer.response_metadata["model_name"] == "extractive"
    assert answer.response_metadata["finish_reason"] == "stop"


def test_every_sentence_of_an_answer_stands_in_its_passage(model: ExtractiveChatModel) -> None:
    text = ask(model, "What does yield from do?").text
    for piece in text.split(" [1]"):
        assert piece.strip() in PASSAGES[0].text


def test_it_says_when_the_passages_do_not_answer(model: ExtractiveChatModel) -> None:
    assert ask(model, "Who won the football world cup in 2014?").text == NO_ANSWER
    assert ask(model, " ").text == NO_ANSWER
    empty = model.invoke([SystemMessage(render_passages([])), HumanMessage("Where do penguins breed?")])
    assert empty.text == NO_ANSWER


def test_without_passages_it_says_what_it_is(model: ExtractiveChatModel) -> None:
    assert model.invoke("Hello").text == NO_PASSAGES


def test_it_obeys_max_sentences(model: ExtractiveChatModel) -> None:
    question = [HumanMessage(f"{BLOCK}\nQuestion: What does yield do in a function definition?")]
    assert len(ExtractiveChatModel(max_sentences=1).invoke(question).text.split("[1]")) == 2
    assert len(model.invoke(question, max_sentences=1).text.split("[1]")) == 2


@pytest.mark.parametrize(
    ("human", "question"),
    [
        ("Where?", "Where?"),
        (f"{BLOCK}\n\nQuestion: Where?", "Where?"),
        (f"Use these.\n{BLOCK}\n**Question:** Where?\n\nAnswer:", "Where?"),
        (f"Question:\nWhere?\nAnd when?\n{BLOCK}", "Where?\nAnd when?"),
        (f"{BLOCK}\nWhere?", "Where?"),
    ],
)
def test_the_question_is_found_beside_the_block(human: str, question: str) -> None:
    messages = [SystemMessage(BLOCK), HumanMessage("Old one?"), AIMessage("Yes."), HumanMessage(human)]
    assert question_and_passages(messages) == (question, PASSAGES)


def test_the_last_block_counts() -> None:
    old, new = render_passages(PASSAGES[:1]), render_passages(PASSAGES[1:])
    assert question_and_passages([HumanMessage(old), HumanMessage(f"{new}\nSo?")]) == ("So?", PASSAGES[1:])


def test_streams_say_the_same_as_invoke_and_count_once(model: ExtractiveChatModel) -> None:
    messages = [SystemMessage(BLOCK), HumanMessage("Where do emperor penguins breed?")]
    whole = model.invoke(messages)
    chunks = list(model.stream(messages))
    assert len(chunks) > 5
    assert "".join(chunk.text for chunk in chunks) == whole.text
    assert [chunk.usage_metadata for chunk in chunks if chunk.usage_metadata] == [whole.usage_metadata]

    async def streamed() -> str:
        return "".join([chunk.text async for chunk in model.astream(messages)])

    assert asyncio.run(streamed()) == whole.text
    assert asyncio.run(model.ainvoke(messages)).text == whole.text


def test_usage_counts_real_tokens(model: ExtractiveChatModel) -> None:
    usage = model.invoke([HumanMessage("hello world")]).usage_metadata
    assert usage is not None
    assert usage["input_tokens"] == 2
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]


def test_stop_and_max_tokens_end_the_answer(model: ExtractiveChatModel) -> None:
    question = [SystemMessage(BLOCK), HumanMessage("Where do emperor penguins breed?")]
    assert "winter" not in model.invoke(question, stop=["winter"]).text
    short = ExtractiveChatModel(max_tokens=5).invoke(question)
    assert short.usage_metadata is not None
    assert 0 < short.usage_metadata["output_tokens"] <= 5
    assert short.response_metadata["finish_reason"] == "length"


def test_a_misspelt_setting_is_an_error() -> None:
    with pytest.raises(ValueError, match="max_sentence"):
        ExtractiveChatModel(max_sentence=2)
