"""Differences that usually decide an answer: nothing is served across them until labels allow it."""

from __future__ import annotations

import random

import pytest

from chainops.cache.evidence import Evidence, Near, evidence
from chainops.cache.guard import ENOUGH, KINDS, differing
from chainops.cache.judge import Judge, Label

WARRANTY = "For how long does the X100 have a warranty?"


def told(question: str, kept: str, similarity: float = 0.97) -> Evidence:
    return evidence(question, [Near(similarity - 0.01 * at, kept, "a") for at in range(16)])


SAME = told("How long is the warranty of the X100?", WARRANTY)
APART = [
    ("For how long does the X900 have a warranty?", WARRANTY, "identifiers"),
    ("For how long does the X100 *not* have a warranty?", WARRANTY, "negation"),
    ("Which lift carries 40 kg?", "Which lift carries 20 kg?", "numbers"),
    ("Who opens the safe before lunch?", "Who opens the safe after lunch?", "opposed"),
    ("What is on the menu on Monday?", "What is on the menu on Friday?", "times"),
    ("Which hotel in Rome has a pool?", "Which hotel in Oslo has a pool?", "names"),
]


def label(found: Evidence, *, correct: bool, source="miss") -> Label:
    return Label(found.values, correct, source, 0.0)


def taught(bound: float = 0.02) -> Judge:
    """A judge whose labels show that near questions have the same answer and far ones have not."""
    rng, judge, far = random.Random(1), Judge(bound), told("Where is the bus?", "Who won the cup?", 0.2)
    middling = told("How do I pay my rent by card?", "How can I pay?", 0.75)
    many = [SAME, told("How do I pay?", "How can I pay?"), told("where is my card", "where is the card", 0.95)]
    judge.learn_all(label(rng.choice(many), correct=True) for _ in range(900))
    judge.learn_all(label(middling, correct=rng.random() < 0.9) for _ in range(200))
    judge.learn_all(label(far, correct=False) for _ in range(100))
    return judge


@pytest.mark.parametrize(("question", "kept", "kind"), APART)
def test_a_question_that_differs_in_what_decides_the_answer_is_not_served(question, kept, kind):
    judge, found = taught(), told(question, kept)
    assert judge.decide(SAME, draw=0.9).serve
    assert kind in differing(found.values)
    decision = judge.decide(found, draw=0.9)
    assert not decision.serve


def test_the_difference_is_named_where_nothing_else_speaks_against_serving():
    judge, (question, kept, _) = taught(0.1), APART[2]
    assert "differ in numbers" in judge.decide(told(question, kept), draw=0.9).reason


@pytest.mark.parametrize(("question", "kept", "kind"), APART)
def test_labels_with_the_same_kind_of_difference_open_it(question, kept, kind):
    judge, found = taught(), told(question, kept)
    judge.learn_all(label(found, correct=True) for _ in range(400))
    assert judge.decide(found, draw=0.9).serve
    others = {other: told(asked, stored) for asked, stored, other in APART if other not in differing(found.values)}
    assert not any(judge.decide(each, draw=0.9).serve for each in others.values())


def test_a_few_labels_are_not_enough_and_wrong_ones_close_it_again():
    judge, found = taught(0.1), told(*APART[2][:2])
    judge.learn_all(label(found, correct=True) for _ in range(ENOUGH - 1))
    assert not judge.decide(found, draw=0.9).serve
    judge.learn_all(label(found, correct=True) for _ in range(100))
    assert judge.decide(found, draw=0.9).serve
    judge.learn_all(label(found, correct=False, source="report") for _ in range(30))
    assert not judge.decide(found, draw=0.9).serve


def test_questions_without_such_a_difference_are_not_held_back():
    assert differing(SAME.values) == ()
    assert differing(told("Can I pay?", "Can I pay?").values) == ()
    assert set(KINDS) >= set(differing(told(*APART[0][:2]).values)) > set()
