"""An adversary plants a question that reads like a victim's to an embedding, so that its answer is served.

The search is the published kind: hill-climbing over words put in front of, behind and in place of one's own, led by
nothing but the embedding's similarity to the victim's question.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest
from langchain_core.messages import AIMessage

from chainops.cache import policy
from chainops.cache.evidence import NAMES, Near, evidence
from chainops.core.caller import Caller, caller
from chainops.models.embeddings import embedder

VICTIMS = [
    ("How do I activate my new bank card?", "Where can I send my bank card data to?"),
    ("Can I cancel my order and get my money back?", "Which link should I click to win money?"),
]
"""A victim's question, and what the adversary's own asks: something else."""
BUDGET = 120
"""Embeddings for one attack."""

Embed = Callable[[list[str]], np.ndarray]
Around = tuple[tuple[str, ...], tuple[str, ...]]
"""Words in front of the adversary's question, and behind it."""


def edits(around: Around, victim: Sequence[str], rng: random.Random) -> Iterator[Around]:
    """One step: a phrase of the victim's, or a filler, goes in at some place, or stands in for a word there."""
    while True:
        side = rng.randrange(2)
        words = around[side]
        start = rng.randrange(len(victim))
        phrase = victim[start : start + rng.randint(1, 4)] if rng.random() < 0.8 else [rng.choice(["please", "about"])]
        at = rng.randrange(len(words) + 1)
        new = (*words[:at], *phrase, *words[at + rng.randrange(2) :])
        yield (new, around[1]) if side == 0 else (around[0], new)


def collide(embed: Embed, victim: str, own: str, *, budget: int = BUDGET, seed: int = 7) -> tuple[str, float]:
    """The text nearest to `victim` that was found among those that hold the adversary's own question."""
    rng = random.Random(seed)
    target = embed([victim])[0]
    around: Around = ((), ())
    best, spent = float(embed([own])[0] @ target), 2
    while spent < budget:
        candidates = edits(around, victim.split(), rng)
        tried = [next(candidates) for _ in range(10)]
        scores = embed([" ".join([*each[0], own, *each[1]]) for each in tried]) @ target
        spent += len(tried)
        top = int(scores.argmax())
        if scores[top] > best:
            best, around = float(scores[top]), tried[top]
    return " ".join([*around[0], own, *around[1]]), best


@pytest.fixture(scope="module")
def embed() -> Embed:
    return embedder("minilm").embed


@pytest.fixture(scope="module")
def collisions(embed: Embed) -> list[tuple[str, str, str, float, float]]:
    """Victim, the adversary's own question, what the search found, its similarity, and that of one's own."""
    found = []
    for victim, own in VICTIMS:
        planted, similarity = collide(embed, victim, own)
        rows = embed([victim, own])
        found.append((victim, own, planted, similarity, float(rows[0] @ rows[1])))
    return found


def test_the_attack_is_real_a_search_of_a_hundred_embeddings_finds_near_duplicates(collisions) -> None:
    for _, own, planted, similarity, before in collisions:
        assert own in planted
        assert similarity > before + 0.2
        assert similarity > 0.85, "nearer than many a threshold in use"


def key(question: str, caller: Caller, share: policy.Share = "tenant") -> policy.Key:
    asked = policy.asked(question)
    assert asked is not None
    alone = policy.by_rules(asked)
    made = policy.key_of(asked, answered_by="chain", share=share, caller=caller, kwargs={}, alone=alone)
    assert made is not None
    return made


@pytest.mark.parametrize("share", ["tenant", "user"])
def test_another_tenants_entry_is_never_in_the_partition_that_is_searched(collisions, share) -> None:
    for victim, _, planted, _, _ in collisions:
        attacked = key(victim, Caller(tenant="acme", user="ann"), share)
        assert key(planted, Caller(tenant="evil", user="ann"), share).scope != attacked.scope
        assert key(planted, Caller(tenant=None, user="ann"), share).scope != attacked.scope
        assert key(planted, Caller(tenant="acme", user="ann"), share).scope == attacked.scope


def test_a_tenant_cannot_name_itself_into_anothers_partition() -> None:
    """Parts of a scope are not glued together: `a` + `bc` is not `ab` + `c`."""
    callers = [Caller(tenant="a", user="bc"), Caller(tenant="ab", user="c"), Caller(tenant='a", "b', user="c")]
    assert len({key("q", each, "user").scope for each in callers}) == len(callers)


def test_the_evidence_sees_the_words_that_the_embedding_overlooks(collisions) -> None:
    for victim, _, planted, similarity, _ in collisions:
        told = dict(zip(NAMES, evidence(victim, [Near(similarity, planted, "g")]).values, strict=True))
        honest = dict(zip(NAMES, evidence(victim, [Near(similarity, f"Please, {victim}", "g")]).values, strict=True))
        assert told["overlap"] < honest["overlap"] - 0.2
        assert told["overlap_rare"] < honest["overlap_rare"] - 0.1
        assert told["length_ratio"] > honest["length_ratio"]


@pytest.mark.parametrize("share", ["tenant", "user", "all"])
def test_a_victim_is_never_served_what_another_tenant_planted(collisions, make_cache, make_replica, share) -> None:
    """Even at a threshold that every planted question passes."""
    asked: list[str] = []

    def chain(question: str) -> AIMessage:
        asked.append(question)
        return AIMessage(content=f"answer to: {question}")

    replica = make_replica(embedder=embedder("minilm"))
    cache = make_cache(chain, replica=replica, threshold=0.5, share=share)
    attacker, victim = caller(tenant="evil", user="mallory"), caller(tenant="acme", user="ann")
    for _, _, planted, _, _ in collisions:
        cache.invoke(planted, attacker)
    for question, *_ in collisions:
        assert cache.invoke(question, victim).text == f"answer to: {question}"


def test_within_one_tenant_a_planted_question_is_not_served_before_the_bound_is_supported(
    collisions, make_cache, make_replica
) -> None:
    replica = make_replica(embedder=embedder("minilm"))
    cache = make_cache(lambda question: AIMessage(content=f"answer to: {question}"), replica=replica, threshold=None)
    for question, _, planted, _, _ in collisions:
        cache.invoke(planted)
        assert cache.invoke(question).text == f"answer to: {question}"
