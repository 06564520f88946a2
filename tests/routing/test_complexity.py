from __future__ import annotations

import json
import math

import numpy as np
import pytest

from chainops.core.caller import Caller
from chainops.routing.complexity import NUMBERS, ByComplexity, features, score, shipped
from chainops.routing.records import Asking

EASY = ["What are your opening hours?", "hi", "How do I reset my password?", "Who wrote Faust?"]
HARD = (
    "If a train leaves at 3 and travels 60 miles per hour for half of the time, and then twice as fast, how much "
    "longer than the 40 mile trip before does it take, after each stop is left out?"
)


def ask(chooser, question):
    return chooser.choose(Asking(question, Caller(), chooser.prepare(question)))


def test_everyday_questions_are_simple_and_a_sum_with_conditions_is_complex():
    chooser = ByComplexity("small", "large")
    for question in EASY:
        assert ask(chooser, question).route == "small", question
    choice = ask(chooser, HARD)
    assert choice.route == "large"
    assert "fractions" in choice.why or "conditions" in choice.why


def test_the_parts_add_up_to_the_score():
    alone, with_topic, _ = shipped()
    found = score(HARD, alone)
    assert found.score == pytest.approx(alone.offset + sum(found.parts.values()))
    vector = np.full(len(with_topic.topic), 0.05, dtype=np.float32)
    about = score(HARD, with_topic, vector)
    assert about.parts["topic"] == pytest.approx(0.05 * sum(with_topic.topic), abs=1e-4)


def test_the_explanation_shows_the_features_that_count():
    shown = ask(ByComplexity("small", "large"), HARD).facts["features"]
    assert {"fractions", "length"} <= set(shown)
    json.dumps(shown)


def test_the_shipped_numbers_are_few_and_say_where_they_come_from():
    told = json.loads(NUMBERS.read_text())
    assert NUMBERS.stat().st_size < 8_000
    assert "Apache-2.0" in told["trained_on"]
    assert set(told["question"]["features"]) == set(features("x"))
    assert list(told["question"]["levels"]) == sorted(told["question"]["levels"])


@pytest.mark.parametrize("question", ["", "?", "\x00\ud800", "a" * 100_000, "((((" * 5_000, "½ ∑ 漢字 🙂"])
def test_any_text_has_a_level(question):
    alone, _, _ = shipped()
    found = score(question, alone)
    assert 0 <= found.level <= 1
    assert math.isfinite(found.score)


def test_the_topic_counts_only_with_the_embedder_it_was_trained_with(embedder):
    chooser = ByComplexity("small", "large", embedder=lambda: embedder)
    assert ask(chooser, HARD).facts == ask(ByComplexity("small", "large"), HARD).facts
    assert not embedder.embedded
    from chainops.models.embeddings import embedder as real

    assert "topic" in ask(ByComplexity("small", "large", embedder=lambda: real("minilm")), HARD).facts["features"]


def test_the_border_is_where_it_is_said_to_be():
    assert ask(ByComplexity("small", "large", above=0.0), "hi").route == "large"
    assert ask(ByComplexity("small", "large", above=1.0), "hi").route == "small"
