from __future__ import annotations

import json

import pytest

import chainops
from chainops.cache.records import CacheReported, Tally
from chainops.testing import capture_events
from chainops.widgets.cache_desk import LARGEST_PAGE, LONGEST_ANSWER, CacheDesk, age


@pytest.fixture
def desk(chain):
    return CacheDesk(chain.cache, config=chainops.caller(user="ann"))


def ok(reply):
    assert "error" not in reply, reply
    json.dumps(reply, allow_nan=False)  # it goes over a wire
    return reply["ok"]


def test_a_page_gives_the_newest_first_and_says_whether_there_are_more(desk, fill):
    fill(7)
    page = ok(desk.answer({"id": 1, "ask": "page", "offset": 0, "limit": 3}))
    assert [row["question"][:10] for row in page["rows"]] == ["Question 7", "Question 6", "Question 5"]
    assert (page["more"], page["total"]) == (True, 8)
    last = ok(desk.answer({"id": 2, "ask": "page", "offset": 6, "limit": 3}))
    assert [row["question"] for row in last["rows"]][-1] == "How long do refunds take?"
    assert last["more"] is False


def test_a_search_looks_into_questions_and_does_not_claim_to_have_counted(desk, fill):
    fill(12)
    page = ok(desk.answer({"ask": "page", "containing": "Question 1", "limit": 2}))
    assert [row["question"][:11] for row in page["rows"]] == ["Question 12", "Question 11"]
    assert (page["more"], page["total"]) == (True, None)


def test_no_page_is_larger_than_a_browser_takes(desk, fill):
    fill(LARGEST_PAGE + 5)
    assert len(ok(desk.answer({"ask": "page", "limit": 10**9}))["rows"]) == LARGEST_PAGE


def test_a_row_says_how_often_it_was_served_and_what_that_saved(chain, desk, fill):
    fill(1, cost_usd=0.02, tenant="acme")
    chain.cache._replica.store.served("shop", {f"e{1:031d}": 3}, now=1.0)
    row = ok(desk.answer({"ask": "page"}))["rows"][0]
    assert (row["served"], row["saved"], row["tenant"]) == (3, "$0.06", "acme")


def test_an_entry_says_what_it_came_from(chain, desk):
    chain.invoke("How long do refunds take?")
    told = ok(desk.answer({"ask": "entry", "entry": chain.cache.entries()[0][0].id}))
    assert "5 working days" in told["answer"]
    assert told["sources"][0] == {"place": "returns.md, characters 0–29", "quote": "Returns are free for 30 days."}
    assert any(each.startswith("document returns.md (") for each in told["used"])
    assert "model extractive" in told["used"]
    assert ["answered by", "extractive"] in [list(each) for each in told["facts"]]


def test_a_huge_answer_is_cut_and_says_by_how_much(chain, desk, fill):
    fill(1, content="word " * 10_000)
    told = ok(desk.answer({"ask": "entry", "entry": f"e{1:031d}"}))
    assert (len(told["answer"]), told["hidden"]) == (LONGEST_ANSWER, 50_000 - LONGEST_ANSWER)


def test_a_tried_question_is_explained_and_changes_nothing(chain, desk):
    chain.invoke("How long do refunds take?")
    before = ok(desk.answer({"ask": "stats"}))
    told = ok(desk.answer({"ask": "explain", "question": "How long does a refund take?"}))
    assert told["match"] is None
    assert told["reason"]
    assert told["neighbours"][0]["question"] == "How long do refunds take?"
    odds = [abs(each["log_odds"]) for each in told["contributions"]]
    assert len(odds) > 10
    assert odds == sorted(odds, reverse=True)
    assert ok(desk.answer({"ask": "explain", "question": "How long do refunds take?"}))["match"] == "exact"
    assert ok(desk.answer({"ask": "stats"})) == before


def test_a_question_is_tried_on_behalf_of_the_tenant_that_is_named(chain, desk):
    chain.invoke("How long do refunds take?", chainops.caller(tenant="acme"))
    asked = {"ask": "explain", "question": "How long do refunds take?"}
    assert ok(desk.answer(asked))["match"] is None
    assert ok(desk.answer({**asked, "tenant": "acme"}))["match"] == "exact"


def test_the_estimate_tells_the_bound_the_interval_and_hits_by_kind(chain, desk):
    chain.cache._replica.store.tally("shop", None, {"exact": Tally(3, 0.5, 2.0), "missed": Tally(1)})
    told = ok(desk.answer({"ask": "stats"}))
    assert (told["bound"], told["audits"], told["error_rate"]) == (0.02, 0, None)
    assert (told["lower"], told["upper"], told["certified"]) == (0.0, 1.0, False)
    assert told["hits"] == {"exact": 3, "semantic": 0, "joined": 0}
    assert told["hit_rate"] == 0.75
    assert told["saved"] == "$0.50 and 2.00 s of waiting"


def test_wrong_drops_the_entry_and_tells_who_said_so(chain, desk):
    chain.invoke("How long do refunds take?")
    entry = chain.cache.entries()[0][0].id
    with capture_events() as events:
        assert ok(desk.answer({"ask": "wrong", "entry": entry, "reason": "it is 7 days"})) == {"entry": entry}
    reported = [each for each in events if isinstance(each, CacheReported)]
    assert [(each.entry, each.reason, each.by) for each in reported] == [(entry, "it is 7 days", "ann")]
    assert chain.cache.entries() == []


def test_wrong_without_a_reason_drops_nothing(chain, desk):
    chain.invoke("How long do refunds take?")
    reply = desk.answer({"ask": "wrong", "entry": chain.cache.entries()[0][0].id, "reason": "  "})
    assert "reason: found nothing" in reply["error"]
    assert len(chain.cache.entries()) == 1


def test_verify_and_drop_do_what_they_say(chain, desk, fill):
    fill(1)
    entry = f"e{1:031d}"
    ok(desk.answer({"ask": "verify", "entry": entry}))
    assert ok(desk.answer({"ask": "entry", "entry": entry}))["verified"] is True
    assert ok(desk.answer({"ask": "drop", "entry": entry})) == {"entry": entry, "dropped": 1}
    assert [each.question for each, _, _ in chain.cache.entries()] == ["How long do refunds take?"]


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ({"ask": "entry", "entry": "nobody"}, "'nobody': not found"),
        ({"ask": "drop", "entry": "nobody"}, "'nobody': not found"),
        ({"ask": "verify", "entry": "nobody"}, "'nobody': not found"),
        ({"ask": "drop"}, "entry: found NoneType; expected text"),
        ({"ask": "page", "offset": "0"}, "offset: found str; expected a whole number"),
        ({"ask": "page", "containing": 5}, "containing: found int; expected text"),
        ({"ask": "explain", "question": " "}, "question: found nothing"),
        ({"ask": "eval", "code": "1"}, "ask: found 'eval'; expected one of page, entry"),
        ({}, "ask: found None"),
    ],
)
def test_what_cannot_be_answered_is_told_in_the_reply(desk, message, words):
    reply = desk.answer({"id": 7, **message})
    assert reply["id"] == 7
    assert words in reply["error"]


def test_an_entry_of_another_chain_in_the_same_store_is_out_of_reach(chain, desk, fill):
    fill(1, owner="another")
    assert "not found" in desk.answer({"ask": "drop", "entry": f"e{1:031d}"})["error"]
    assert chain.cache._replica.store.get(f"e{1:031d}") is not None


@pytest.mark.parametrize(
    ("duration_s", "words"), [(-5, "now"), (0.4, "now"), (61, "1 min"), (7_300, "2 h"), (9e5, "10 d")]
)
def test_an_age_is_told_in_its_largest_unit(duration_s, words):
    assert age(duration_s) == words
