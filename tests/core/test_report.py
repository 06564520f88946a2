"""A report is plain JSON: what was decided, how long it took, what it cost."""

from __future__ import annotations

import json

import pytest

from chainops.core.caller import Caller
from chainops.core.clock import use_clock
from chainops.core.events import CleanupFailed
from chainops.core.run import Request
from chainops.testing.listening import ManualClock


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def request_(clock):
    with use_clock(clock):
        return Request(Caller(), ())


def test_the_gravest_status_stays_and_every_reason_is_kept(request_):
    report = request_.report
    for status, reason in [("cached", "a hit"), ("truncated", "cut"), ("degraded", "second route")]:
        report.mark(status, reason)
    assert report.facts() == {
        "status": "truncated",
        "sources": [],
        "reasons": ["a hit", "cut", "second route"],
    }


def test_facts_of_another_answer_are_adopted_as_they_are_but_not_shared(request_):
    facts = {"status": "refused", "sources": [{"n": 1}], "reasons": ["r"], "data": 7, "served_by": "gpt"}
    request_.report.adopt(facts)
    assert request_.report.facts() == facts
    request_.report.sources.append({"n": 2})
    request_.report.mark("ok", "more")
    assert (facts["sources"], facts["reasons"]) == ([{"n": 1}], ["r"])
    request_.report.adopt({})
    assert request_.report.facts() == {"status": "ok", "sources": []}


def test_the_report_tells_stages_events_tokens_and_money(request_, clock):
    request_.chain, request_.versions["prompt"] = "help", "v3"
    stage = request_.open_stage(None, "model", "model")
    clock.advance(1.5)
    stage.facts["route"] = "small"
    request_.tell(CleanupFailed(component="model", error="e"), stage.id)
    usage = {"input_tokens": 3, "output_tokens": 2, "total_tokens": 5}
    request_.attempts.reserve("gpt").settle("ok", usage=usage, cost_usd=0.5)
    request_.close_stage(stage, ValueError("no " * 400))
    request_.end(None, None)
    clock.advance(100)
    told = json.loads(json.dumps(request_.report.to_dict()))
    assert (told["chain"], told["versions"], told["duration_s"]) == ("help", {"prompt": "v3"}, 1.5)
    assert (told["usage"], told["cost_usd"]) == (usage, 0.5)
    (shown,) = told["stages"]
    assert (shown["name"], shown["duration_s"], shown["facts"]) == ("model", 1.5, {"route": "small"})
    assert shown["error"].startswith("ValueError: no")
    assert len(shown["error"]) == 500
    assert [(event["kind"], event["stage"], event["at_s"]) for event in told["events"]] == [
        ("CleanupFailed", 0, 1.5),
        ("Attempted", None, 1.5),
    ]


def test_a_stage_still_at_work_has_no_duration(request_):
    assert request_.open_stage(None, "model", "model").to_dict()["duration_s"] is None
