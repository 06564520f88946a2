from __future__ import annotations

import math

import pytest
from langchain_core.messages import AIMessage

from chainops.routing.scoring import agreement, confidence, grounding

QUOTES = ["The zoo has three elephants. It opens at 9 in the morning.", "Tickets cost 12 euros."]


def test_what_the_passages_say_is_supported_and_what_they_do_not_is_not():
    said = grounding("The zoo has three elephants [1]. Tickets cost 12 euros [2].", QUOTES)
    invented = grounding("Dolphins perform each afternoon near the lake.", QUOTES)
    assert said == 1.0
    assert invented < 0.3


def test_a_number_that_no_passage_has_supports_nothing():
    assert grounding("Tickets cost 15 euros.", QUOTES) == 0.0


def test_without_passages_or_words_there_is_no_support():
    assert grounding("The zoo opens.", []) == 0.0
    assert grounding("", QUOTES) == 0.0
    assert grounding("It is.", QUOTES) == 0.0


def test_answers_agree_on_their_final_number_or_in_their_words():
    assert agreement("2 + 3 = 5\n#### 5", ["#### 5", "1 + 3 = 4\n#### 4"]) == 0.5
    assert agreement("The zoo opens at nine", ["At nine, the zoo opens", "the zoo opens at nine"]) == 1.0
    assert agreement("The zoo opens", ["Nobody knows"]) < 0.2
    assert agreement("x", []) == 0.0


def test_logprobs_are_read_as_openai_gives_them():
    message = AIMessage(
        content="ab", response_metadata={"logprobs": {"content": [{"logprob": -0.1}, {"logprob": -0.3}]}}
    )
    assert confidence(message) == pytest.approx(math.exp(-0.2))


@pytest.mark.parametrize(
    "logprobs",
    [None, {}, {"content": None}, {"content": []}, {"content": [{"logprob": math.nan}]}, [1], {"content": [3]}],
)
def test_without_usable_logprobs_nothing_is_claimed(logprobs):
    assert confidence(AIMessage(content="a", response_metadata={"logprobs": logprobs})) is None


def test_text_alone_has_no_logprobs():
    assert confidence("text") is None
