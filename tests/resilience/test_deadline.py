"""Deadlines: a request's time is shared out, passed down, and what was left out is told."""

from __future__ import annotations

import time

import pytest
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableLambda
from pydantic import ValidationError

import chainops
from chainops.core.errors import DeadlineExceeded
from chainops.knowledge.retrieval import Hit, rerank, unranked
from chainops.knowledge.splitting import Passage
from chainops.resilience.component import Fallback, Sentence
from chainops.resilience.deadline import Deadline, DeadlineSettings
from chainops.testing.faults import Drip, Hang
from chainops.testing.server import ModelServer


@pytest.mark.parametrize("fault", [Hang(), Drip(interval_s=0.2)], ids=str)
def test_a_deadline_reaches_the_http_client(served, ask, driver, fault):
    with ModelServer("answer") as server:
        server.fail(fault)
        began = time.monotonic()
        with pytest.raises(chainops.ChainopsError):
            ask(driver, Deadline(inner=served(server, timeout_s=30), within_s=0.5))
        assert time.monotonic() - began < 20
        assert server.wait_idle(30)


def test_the_nearer_of_two_deadlines_counts(served):
    with ModelServer("answer") as server:
        server.fail(Hang())
        with pytest.raises((DeadlineExceeded, chainops.ChainopsError)):
            Deadline(inner=served(server), within_s=60).invoke("x", chainops.caller(deadline_s=0.3))
        with pytest.raises((DeadlineExceeded, chainops.ChainopsError)):
            Deadline(inner=served(server), within_s=0.3).invoke("x", chainops.caller(deadline_s=60))


def test_a_share_for_each_attempt_leaves_time_for_the_next_route(served, ask, driver):
    with ModelServer("first") as first:
        first.fail(Hang())
        # The second is no call with a share of its own, which a machine that stands still for a moment would use up.
        inner = Fallback(routes=(served(first, timeout_s=30), RunnableLambda(lambda _: AIMessage(content="second"))))
        answer = ask(driver, Deadline(inner=inner, within_s=20, shares={"attempt": 0.1}))
        assert (answer.text, answer.status) == ("second", "degraded")
        assert "timeout" in answer.reasons[0]


def test_a_fixed_sentence_answers_after_the_deadline(served, ask, driver):
    with ModelServer("first") as first:
        first.fail(Hang())
        inner = Fallback(routes=(served(first, timeout_s=30), Sentence(text="too late", name="say")))
        assert ask(driver, Deadline(inner=inner, within_s=0.4)).text == "too late"


def hit(number, text="words", tokens=10):
    passage = Passage(
        id=f"p{number}",
        document_id=f"d{number}",
        title="t",
        text=" ".join([text] * tokens) if text == "same" else f"{text} {number}",
        start=0,
        end=10,
    )
    return Hit(
        passage=passage, score=1.0 - number / 100, similarity=0.5, lexical=0.0, dense_rank=number, lexical_rank=None
    )


def test_reranking_that_runs_out_of_time_gives_what_was_chosen_by_then():
    hits = [hit(number) for number in range(10)]
    looks = iter([False, False, True, True, True, True, True, True, True, True])
    late = rerank(hits, keep=5, is_late=lambda: next(looks))
    assert [each.passage.id for each in late.hits] == ["p0", "p1", "p2"]
    assert {each.reason for each in late.dropped} == {"late"}
    assert len(rerank(hits, keep=5, is_late=lambda: True).hits) == 1
    assert len(rerank(hits, keep=5).hits) == 5


def test_without_time_to_rerank_the_nearest_that_fit_are_taken():
    hits = [hit(number, text="same", tokens=30) for number in range(10)]
    budget = 2 * hits[0].passage.tokens + 1
    assert [each.passage.id for each in unranked(hits, keep=3, token_budget=budget).hits] == ["p0", "p1"]


def test_shares_are_shares():
    assert DeadlineSettings(within_s="8s", shares={"retrieve": 0.2}).within_s == 8
    with pytest.raises(ValidationError, match="a share of retrieve"):
        DeadlineSettings(within_s="8s", shares={"retrieve": 2})
    with pytest.raises(ValidationError):
        DeadlineSettings(within_s="8s", shares={"retreive": 0.2})
    with pytest.raises(ValidationError):
        DeadlineSettings(within_s=0)
