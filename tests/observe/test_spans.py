import json

import pytest

from chainops.observe.spans import MAX_PREVIEW, MAX_TEXT, draft_trace, trace_id


def attribute(span, key):
    return json.loads(span["attributes"][key])


def test_each_stage_is_a_span_under_its_parent_and_the_request_is_the_root(record):
    spans = {span["name"]: span for span in draft_trace(record()).spans}
    assert spans["python-help"]["parent_span_id"] is None
    assert spans["cache"]["parent_span_id"] == spans["python-help"]["span_id"]
    assert spans["documents"]["parent_span_id"] == spans["small"]["parent_span_id"] == spans["cache"]["span_id"]
    assert [attribute(span, "mlflow.spanType") for span in spans.values()] == [
        "CHAIN",
        "TASK",
        "RETRIEVER",
        "CHAT_MODEL",
    ]


@pytest.mark.parametrize(("name", "kind"), [("python-help", "rag"), ("anything", "chain")])
def test_a_stage_that_is_the_chain_itself_is_the_root_span(record, name, kind):
    at = {"start_s": 0, "duration_s": 0.3}
    stages = [
        {"id": 0, "parent": None, "name": name, "kind": kind, "facts": {"digest": "d"}, **at},
        {"id": 1, "parent": 0, "name": "cache", "kind": "cache", **at},
    ]
    root, cache = draft_trace(record(stages=stages, events=[{"kind": "Spent", "stage": 0, "at_s": 0}])).spans
    assert (root["name"], root["parent_span_id"]) == ("python-help", None)
    assert (attribute(root, "chainops.digest"), root["events"][0]["name"]) == ("d", "Spent")
    assert cache["parent_span_id"] == root["span_id"]


def test_a_model_traced_alone_keeps_its_tokens(record):
    small = record()["stages"][2] | {"parent": None}
    (root,) = draft_trace(record(chain="small", stages=[small], events=[])).spans
    assert attribute(root, "mlflow.spanType") == "CHAT_MODEL"
    assert attribute(root, "mlflow.chat.tokenUsage")["total_tokens"] == 120


def test_times_are_those_of_the_record(record):
    draft = draft_trace(record())
    small = draft.spans[-1]
    assert (draft.started_ms, draft.duration_ms) == (1_700_000_000_250, 300)
    assert small["start_time_unix_nano"] == 1_700_000_000_300_000_000
    assert small["end_time_unix_nano"] == 1_700_000_000_500_000_000
    assert small["events"][0]["time_unix_nano"] == 1_700_000_000_350_000_000


def test_a_stage_whose_parent_is_not_in_the_record_hangs_under_the_root(record):
    stages = [{"id": 7, "parent": 99, "name": "lost", "kind": "model", "start_s": 0, "duration_s": 0}]
    root, lost = draft_trace(record(stages=stages)).spans
    assert lost["parent_span_id"] == root["span_id"]


def test_the_trace_id_follows_from_the_request_so_writing_twice_makes_one_trace(record):
    assert draft_trace(record()).trace_id == draft_trace(record()).trace_id == trace_id("r1", 1_700_000_000.25)
    assert trace_id("r1", 1_700_000_001.0) != trace_id("r1", 1_700_000_000.25)


def test_only_a_failed_request_is_an_error_and_a_refused_one_is_not(record):
    failed = draft_trace(record(status="failed", output=None, error="all routes failed"))
    assert failed.failed
    assert failed.spans[0]["status"] == {"code": "STATUS_CODE_ERROR", "message": "all routes failed"}
    assert failed.response_preview == "all routes failed"
    refused = draft_trace(record(status="refused"))
    assert not refused.failed
    assert refused.tags["chainops.status"] == "refused"


def test_unknown_cost_and_usage_are_left_out_rather_than_zero(record):
    draft = draft_trace(record(cost_usd=None, usage={}))
    assert not {"mlflow.trace.cost", "mlflow.trace.tokenUsage"} & draft.metadata.keys()


def test_long_texts_are_cut_and_say_so(record):
    draft = draft_trace(record(output="x" * (MAX_TEXT + 5)))
    assert attribute(draft.spans[0], "mlflow.spanOutputs").endswith(f"[cut here: {MAX_TEXT + 5:,} characters in all]")
    assert len(draft.response_preview) == MAX_PREVIEW


def test_half_a_surrogate_pair_does_not_make_a_record_unwritable(record):
    draft = draft_trace(record(output="bad \ud800 text"))
    draft.response_preview.encode()
    draft.spans[0]["attributes"]["mlflow.spanOutputs"].encode()


def test_messages_of_a_model_are_laid_out_as_mlflow_draws_them(record):
    small = draft_trace(record()).spans[-1]
    assert attribute(small, "mlflow.spanInputs") == {"messages": [{"role": "user", "content": "hi"}]}


def test_event_facts_are_primitives(record):
    (event,) = draft_trace(record()).spans[-1]["events"]
    assert (event["name"], event["attributes"]) == ("FellBack", {"reason": "timeout", "tried": '["large"]'})


def test_a_record_without_its_status_is_refused(record):
    broken = record()
    del broken["status"]
    with pytest.raises(KeyError):
        draft_trace(broken)
