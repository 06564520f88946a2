"""What is decided under an error bound, audited, shown and learned."""

from __future__ import annotations

import json
import threading

import numpy as np
import pytest
from langchain_core.messages import AIMessage

import chainops
from chainops.cache.cache import Cache
from chainops.cache.compare import Verdict
from chainops.cache.records import CacheAudited, CacheCompared, CacheMissed, CacheServed
from chainops.core.errors import InvalidInput
from chainops.testing.listening import capture_events

TOPICS = ("opening hours", "ticket price", "lost card", "parking place", "group visit", "feeding time")
WAYS = (
    "please tell me about the {} of the city zoo in summer",
    "tell me about the {} of the city zoo in summer please",
    "could you tell me about the {} of the city zoo in summer",
    "please do tell me about the {} of the city zoo in summer",
    "i would like to know about the {} of the city zoo in summer",
    "kindly tell me about the {} of the city zoo in summer",
    "please tell us about the {} of the city zoo in summer",
    "please tell me all about the {} of the city zoo in summer",
)


def topic(question):
    return next(each for each in TOPICS if each in question)


def questions(count, seed=0):
    random = np.random.default_rng(seed)
    for number in range(count):
        way, name = WAYS[random.integers(len(WAYS))], TOPICS[random.integers(len(TOPICS))]
        yield f"{way.format(name)} number{number % 97}"


@pytest.fixture
def by_topic():
    asked = []

    def answer(question):
        asked.append(question)
        return AIMessage(content=f"label {TOPICS.index(topic(question))}")

    answer.asked = asked
    return answer


def test_without_any_label_nothing_is_served_for_a_similar_question(make_cache, by_topic):
    cache = make_cache(by_topic, threshold=None, max_error_rate=0.01)
    first, second = list(questions(2))
    cache.invoke(first)
    assert cache.invoke(second).status == "ok"


def test_a_bound_of_zero_serves_exact_repeats_only_and_embeds_nothing(make_cache, by_topic, embedder):
    cache = make_cache(by_topic, threshold=None, max_error_rate=0)
    for question in questions(30):
        cache.invoke(question)
    embedder.embedded.clear()
    assert cache.invoke(next(questions(1))).status == "cached"
    assert embedder.embedded == []


def test_a_steady_stream_is_served_within_the_bound_and_every_hit_is_explained(make_cache, make_replica, by_topic):
    cache = make_cache(by_topic, replica=make_replica(bound=0.05), threshold=None, max_error_rate=0.05, audit_rate=0.05)
    served = wrong = 0
    for question in questions(500):
        answer = cache.invoke(question)
        assert Cache(cache).drain(60)
        if answer.served_by == "cache (semantic)":
            served += 1
            wrong += answer.text != f"label {TOPICS.index(topic(question))}"
    assert served > 50
    assert wrong / served <= 0.05
    facts = next(stage["facts"] for stage in answer.report["stages"] if stage["kind"] == "cache")
    assert {"lookup", "similarity", "risk"} <= facts.keys()
    told = Cache(cache).explain(next(questions(1, seed=9)))
    assert told.neighbours
    assert told.contributions
    assert json.dumps(told.to_dict())
    assert "neighbours" in str(told)
    assert told.neighbours[0].question in told._repr_html_()


def test_explaining_changes_nothing(make_cache, by_topic, replica):
    cache = make_cache(by_topic)
    asked = list(questions(3))
    for question in asked[:2]:
        cache.invoke(question)
    assert Cache(cache).drain(60)
    before = replica.store.size("cache"), Cache(cache).stats().to_dict()
    for _ in range(3):
        assert Cache(cache).explain(asked[2]).question == asked[2]
    assert Cache(cache).explain(asked[0]).match == "exact"
    assert (replica.store.size("cache"), Cache(cache).stats().to_dict()) == before
    assert len(by_topic.asked) == 2


def test_what_cannot_be_looked_up_is_explained_as_such(make_cache, by_topic):
    cache = make_cache(by_topic)
    history = [{"role": "user", "text": "hello"}, {"role": "assistant", "text": "hi"}]
    told = Cache(cache).explain({"question": "and the second point?", "history": history})
    assert "depends on the conversation" in told.reason
    with pytest.raises(InvalidInput):
        Cache(cache).explain(7)


def test_shadow_mode_decides_and_tells_and_asks_all_the_same(make_cache, by_topic):
    cache = make_cache(by_topic, mode="shadow")
    cache.invoke("tell me about the lost card")
    with capture_events() as events:
        answers = [cache.invoke("tell me about the lost card"), cache.invoke("tell us about the lost card")]
    assert {answer.status for answer in answers} == {"ok"}
    assert len(by_topic.asked) == 3
    assert not events.of(CacheServed)
    assert all(each.would_serve for each in events.of(CacheMissed))
    assert "shadow" in Cache(cache).stats().rule


def test_an_audit_asks_again_in_the_background_and_its_calls_are_told_as_audits(make_cache, by_topic):
    cache = make_cache(by_topic, audit_rate=1)
    cache.invoke("tell me about the lost card")
    with capture_events() as events:
        served = cache.invoke("tell us about the lost card")
        assert Cache(cache).drain(60)
    assert served.status == "cached"
    (audited,) = events.of(CacheAudited)
    assert (audited.same, len(by_topic.asked)) == (True, 2)
    stats = Cache(cache).stats()
    assert (stats.audits, stats.standing.audits, stats.standing.wrong) == (1, 1, 0)
    assert "0 of 1 audited answers wrong" in str(stats)


def test_an_audit_that_finds_another_answer_is_counted_and_stops_serving_it(make_cache):
    said = iter(["label a", "label b", "label c"])
    cache = make_cache(lambda _: AIMessage(content=next(said)), audit_rate=1)
    cache.invoke("tell me about the lost card")
    assert cache.invoke("tell us about the lost card").text == "label a"
    assert Cache(cache).drain(60)
    standing = Cache(cache).stats().standing
    assert (standing.audits, standing.wrong) == (1, 1)
    assert cache.invoke("tell us about the lost card").text == "label b"


def test_an_audit_that_fails_is_told_and_proves_nothing(make_cache):
    calls = []

    def once(_):
        calls.append(1)
        if len(calls) > 1:
            raise ConnectionError("gone")
        return AIMessage(content="label a")

    cache = make_cache(once, audit_rate=1)
    cache.invoke("tell me about the lost card")
    with capture_events() as events:
        assert cache.invoke("tell us about the lost card").status == "cached"
        assert Cache(cache).drain(60)
    (audited,) = events.of(CacheAudited)
    assert audited.same is None
    assert "gone" in audited.why
    assert Cache(cache).stats().standing.audits == 0


def test_what_one_process_learned_every_process_and_a_restart_knows(make_cache, make_replica, by_topic):
    first = make_cache(by_topic, replica=make_replica(bound=0.05), threshold=None, max_error_rate=0.05)
    for question in questions(60):
        first.invoke(question)
        assert Cache(first).drain(60)
    second = make_cache(by_topic, replica=make_replica(bound=0.05), threshold=None, max_error_rate=0.05)
    ours, theirs = Cache(first).stats().standing, Cache(second).stats().standing
    assert ours.labels == theirs.labels > 20
    assert ours.limit == theirs.limit


def test_statistics_count_by_kind_and_tenant_and_draw_themselves(make_cache, by_topic):
    cache = make_cache(by_topic)
    for tenant in ("acme", "acme", "globex"):
        cache.invoke("tell me about the lost card", chainops.caller(tenant=tenant))
    cache.invoke("tell us about the lost card", chainops.caller(tenant="acme"))
    stats = Cache(cache).stats()
    assert (stats.requests, stats.missed, dict(stats.hits)) == (4, 2, {"exact": 1, "semantic": 1, "joined": 0})
    assert Cache(cache).stats(tenant="globex").requests == 1
    assert stats.hit_rate == 0.5
    assert stats.entries == 2
    assert stats.bytes > 0
    assert json.dumps(stats.to_dict())
    assert "threshold 0.8" in str(stats)
    assert "50.0%" in stats._repr_html_()


def test_replay_scores_policies_on_logged_traffic_and_serves_nobody(make_cache, by_topic):
    rows = [{"question": question, "label": topic(question)} for question in questions(300)]
    rows += [{"question": rows[0]["question"], "label": rows[0]["label"]}]
    scored = Cache(make_cache(by_topic)).replay(rows, thresholds=(0.9,), bounds=(0.05,))
    by_threshold, by_bound = scored.scores
    assert by_threshold.policy == "threshold 0.9"
    assert by_bound.exact >= 1
    assert by_bound.served > 0
    assert by_bound.error_rate <= 0.05
    assert "max_error_rate 0.05" in str(scored)
    assert "max_error_rate 0.05" in scored._repr_html_()
    assert by_topic.asked == []


def test_replay_keeps_tenants_apart(make_cache, by_topic):
    rows = [{"question": "the same", "answer": "x", "tenant": tenant} for tenant in ("a", "b", "a")]
    scored = Cache(make_cache(by_topic)).replay(rows, thresholds=(0.5,), bounds=())
    assert (scored.scores[0].exact, scored.scores[0].served) == (1, 0)


@pytest.mark.parametrize(
    "row", [{}, {"question": "q"}, {"question": "", "answer": "a"}, {"question": 1, "answer": "a"}]
)
def test_replay_names_the_row_it_cannot_read(make_cache, by_topic, row):
    with pytest.raises(InvalidInput, match="row 2"):
        Cache(make_cache(by_topic)).replay([{"question": "q", "answer": "a"}, row])


def test_the_asker_does_not_wait_for_the_comparison_and_what_it_found_is_known_to_all(make_cache, make_replica):
    began, go = threading.Event(), threading.Event()

    class Slow:
        def same(self, question, a, b):
            began.set()
            assert go.wait(60)
            return Verdict(same=True, score=1.0, why="told to")

    slow = Slow()
    cache = make_cache(lambda question: AIMessage(content=f"about {topic(question)}"), threshold=0.99)
    cache = cache.model_copy(update={"comparer": lambda: slow})
    cache.invoke("tell me about the lost card")
    with capture_events() as events:
        assert cache.invoke("tell us about the lost card").status == "ok"
        assert began.wait(60)  # it goes on, and the answer is here
        go.set()
        assert Cache(cache).drain(60)
    (compared,) = events.of(CacheCompared)
    assert (compared.same, compared.why) == (True, "told to")
    groups = {entry.group for entry, _, _ in Cache(cache).entries()}
    assert len(groups) == 1
    elsewhere = make_cache(lambda _: AIMessage(content="x"), replica=make_replica(), threshold=0.99)
    told = Cache(elsewhere).explain("please tell us about the lost card")
    assert [each.same_answer for each in told.neighbours] == [True, True]
