"""Which sentences are quoted, decided without a model."""

from __future__ import annotations

import numpy as np

from chainops.models.extract import Question, choose, units, write_answer
from chainops.text.passages import PromptPassage, citations


def no_similarity(texts: list[str]) -> np.ndarray:
    """Every text at a right angle to the others, so that words alone decide."""
    return np.eye(len(texts), dtype=np.float32)


def pick(question: str, *texts: str, most: int = 3, threshold: float = 0.1) -> list[str]:
    passages = [PromptPassage(at, "", text) for at, text in enumerate(texts, 1)]
    chosen = choose(question, passages, no_similarity, max_sentences=most, threshold=threshold)
    return [quote.unit.text for quote in chosen]


def test_headings_bare_code_and_footnote_marks_are_not_quoted() -> None:
    found = units("Title\n=====\n\n- Cats purr\n  loudly. [3]\n\n   x = 1\n\nSee also:\n\nDogs bark.")
    assert [unit.text for unit in found] == ["Cats purr loudly.", "Dogs bark."]


def test_code_travels_with_the_sentence_that_announces_it() -> None:
    found = units("A function may be decorated. For example, the code\n\n   @f\n   def g(): pass\n\nruns.")
    assert found[1].text == "For example, the code"
    assert found[1].code == "@f\ndef g(): pass"
    assert "decor" in found[1].words


def test_words_wrapped_at_a_hyphen_are_joined() -> None:
    assert units("It re-\nraises the error.")[0].text == "It re-raises the error."


def test_the_sentence_with_the_rare_words_wins() -> None:
    assert pick("Where do penguins breed?", "Birds live here. Penguins breed in Antarctica. Birds fly.", most=1) == [
        "Penguins breed in Antarctica."
    ]


def test_nothing_is_quoted_when_no_sentence_speaks_of_it() -> None:
    assert pick("Who invented the telephone?", "Penguins breed in Antarctica.") == []
    assert pick("", "Penguins breed in Antarctica.") == []
    assert pick("Anything?") == []


def test_a_definition_begins_with_what_it_defines() -> None:
    text = "Some people use a decorator. A decorator is a callable that wraps a function."
    assert pick("What is a decorator?", text, most=1) == ["A decorator is a callable that wraps a function."]


def test_the_same_sentence_is_quoted_once() -> None:
    assert pick("Do cats purr?", "Cats purr loudly.", "Cats purr loudly.") == ["Cats purr loudly."]


def test_quotes_keep_the_passages_order_and_their_markers() -> None:
    passages = [
        PromptPassage(4, "", "Cats purr at night. Fish swim."),
        PromptPassage(7, "", "At night cats hunt mice."),
    ]
    chosen = choose("What do cats do at night?", passages, no_similarity, max_sentences=3, threshold=0.1)
    answer = write_answer(chosen)
    assert answer == "Cats purr at night. [4] At night cats hunt mice. [7]"
    assert citations(answer) == [4, 7]


def test_a_word_that_no_sentence_has_counts_against_all_of_them() -> None:
    candidates = units("Cats purr. Cats hunt mice.")
    known, half = Question.asked("cats hunt", candidates), Question.asked("cats teleport", candidates)
    assert known.coverage(candidates[1]) == 1
    assert half.coverage(candidates[1]) < 0.3
