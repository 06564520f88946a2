from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest

import chainops
from chainops.batch import OpenAIBatch, run
from chainops.batch.journal import Journal
from chainops.batch.provider import ProviderRun
from chainops.core.errors import InvalidInput
from chainops.models.failures import ModelFailed
from chainops.testing import Cut, ModelServer, Status

QUICK = OpenAIBatch(rows_per_batch=4, poll_first_s=0.01, poll_max_s=0.05)


class Killed(BaseException):
    """Nobody catches it: what is on the disk and at the provider then is what a killed process leaves."""


@pytest.fixture
def out(tmp_path):
    return tmp_path / "answers.jsonl"


def made(server, path):
    return [each for each in server.requests if (each.method, each.path) == ("POST", path)]


def batches(server):
    return len(made(server, "/v1/batches"))


def test_the_models_calls_go_through_batches_and_the_rest_is_the_chains(talk, rows, out, read, server):
    chain = talk(models={"main": {**talk().declared.models["main"].model_dump(exclude_unset=True), "temperature": 0.5}})
    direct = run(chain, rows(10), out.with_name("direct.jsonl"), in_order=True)
    usual = [each.body for each in made(server, "/v1/chat/completions")]
    summary = run(chain, rows(10), out, in_order=True, via=QUICK)
    assert (summary.answered, summary.failed, batches(server)) == (10, 0, 3)
    assert len(made(server, "/v1/chat/completions")) == 10  # those of the direct run
    assert summary.cost_usd == direct.cost_usd / 2
    assert "50% of the price" in " ".join(summary.notes)
    for one, other in zip(read(out.with_name("direct.jsonl")), read(out), strict=True):
        assert other["served_by"] == "openai:gpt-4o-mini (batch)"
        own = {"served_by", "duration_s", "cost_usd", "batch"}
        assert {k: v for k, v in other.items() if k not in own} == {k: v for k, v in one.items() if k not in own}
        assert other["cost_usd"] == one["cost_usd"] / 2
    uploaded = [json.loads(line) for part in made(server, "/v1/batches") for line in content(server, part)]
    plain = [{k: v for k, v in body.items() if k != "stream"} for body in usual]
    assert in_order([each["body"] for each in uploaded]) == in_order(plain)
    assert not [path for path in out.parent.iterdir() if path.name.startswith("answers.jsonl.")]


def in_order(bodies):
    return sorted(json.dumps(body, sort_keys=True) for body in bodies)


def content(server, submitted):
    return server._batches._files.content(submitted.body["input_file_id"]).splitlines()


def test_a_rag_chain_retrieves_before_and_cites_after(server, out, read, tmp_path):
    model = {"model": "openai:gpt-4o-mini", "base_url": server.url}
    documents = [("apples", "Apples are red or green."), ("zoo", "The zoo has three elephants.")]
    words = {"name": "r", "kind": "rag", "models": {"main": model}, "traces": "off"}
    chain = chainops.declare(words, base=tmp_path, documents=documents)
    with ModelServer("The zoo has three elephants [1].") as cited:
        chain = chainops.declare(
            {**words, "models": {"main": {**model, "base_url": cited.url}}}, base=tmp_path, documents=documents
        )
        assert run(chain, ["How many elephants has the zoo?"], out, via=QUICK).answered == 1
    (record,) = read(out)
    assert record["sources"][0]["document"] == "zoo"
    assert record["status"] == "ok"


def test_when_documents_changed_meanwhile_nothing_is_cited_and_the_answer_says_so(
    out, read, tmp_path, monkeypatch, server
):
    words = {"name": "r", "kind": "rag", "traces": "off", "knowledge": {"documents": "zoo.txt"}}
    (tmp_path / "zoo.txt").write_text("The zoo has three elephants.")
    with ModelServer("The zoo has three elephants [1].") as cited:
        words["models"] = {"main": {"model": "openai:m", "base_url": cited.url}}
        chain = chainops.declare(words, base=tmp_path)
        collect = ProviderRun._collect

        async def collect_later(self, part, batch):
            (tmp_path / "zoo.txt").write_text("The zoo sold its elephants and has two zebras now.")
            chain.index()
            await collect(self, part, batch)

        monkeypatch.setattr(ProviderRun, "_collect", collect_later)
        run(chain, ["How many elephants has the zoo?"], out, via=QUICK)
    (record,) = read(out)
    assert (record["status"], record["sources"]) == ("degraded", [])
    assert "documents changed" in record["reasons"][0]
    assert record["answer"] == "The zoo has three elephants [1]."


def test_what_needs_no_model_is_not_submitted(server, out, read, tmp_path):
    model = {"model": "openai:gpt-4o-mini", "base_url": server.url}
    chain = chainops.declare({"name": "t", "kind": "chat", "models": {"main": model}, "traces": "off"}, base=tmp_path)
    rows = [{"text": 1}, "", {"question": "a", "session": "s"}]
    assert run(chain, rows, out, via=QUICK).failed == 3
    assert server.requests == []


def test_wrappers_are_refused_by_name_unless_they_are_left_out(talk, rows, out, server):
    chain = talk(pipeline=[{"cache": {"threshold": 1.0}}, {"fallback": ["main", {"say": "sorry"}]}])
    with pytest.raises(InvalidInput, match=r"`cache`, `fallback`.*--skip-wrappers"):
        run(chain, rows(3), out, via="openai-batch")
    assert run(chain, rows(3), out, via=QUICK, skip_wrappers=True).answered == 3


def test_a_model_of_another_provider_and_rows_read_once_only_are_refused(talk, rows, out, tmp_path):
    with pytest.raises(InvalidInput, match="extractive"):
        run(talk(models={"main": "extractive"}), rows(3), out, via=QUICK)
    with pytest.raises(InvalidInput, match="read once only"):
        run(talk(), iter(["a"]), out, via=QUICK)


def test_a_failed_line_is_a_failed_row_and_can_be_asked_again(talk, rows, out, read, server):
    server.fail_lines(lambda name: name.startswith(("2-", "7-")), Status(429))
    first = run(talk(), rows(9), out, via=QUICK, in_order=True)
    assert (first.answered, first.failed) == (7, 2)
    error = read(out)[1]["error"]
    assert (error["type"], error["kind"]) == ("ModelUnavailable", "retryable")
    assert "429" in error["message"]
    server.heal()
    again = run(talk(), rows(9), out, via=QUICK, in_order=True, retry_errors=True)
    assert (again.asked, again.answered, again.failed) == (2, 9, 0)
    assert [record["answer"] for record in read(out)] == [f"question {n}" for n in range(1, 10)]
    assert batches(server) == 3 + 1


@pytest.mark.parametrize(("end", "share", "answered"), [("expired", 0.5, 4), ("cancelled", 0.5, 4), ("failed", 0.0, 0)])
def test_rows_of_a_batch_that_ended_early_are_failed_rows_and_can_be_asked_again(
    talk, rows, out, read, tmp_path, monkeypatch, end, share, answered
):
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    with ModelServer(batch_delay_s=None) as server:
        chain = talk(models={"main": {"model": "openai:m", "base_url": server.url}})
        server.rule(lambda request: ending(server, request, end, share), Status(500))
        first = run(chain, rows(8), out, via=QUICK, in_order=True)
        assert (first.answered, first.failed) == (answered, 8 - answered)
        failures = [record["error"] for record in read(out) if record["error"]]
        assert all(each["kind"] == "retryable" and end in each["message"] for each in failures)
        server.heal()
        server._batches.delay_s = 0.0
        assert run(chain, rows(8), out, via=QUICK, retry_errors=True).answered == 8


def ending(server, request, end, share):
    """Ends all batches as soon as somebody looks at one; fails nothing itself."""
    if request.method == "GET" and request.path.startswith("/v1/batches/"):
        server.finish_batches(end=end, share=share)
    return False


def test_a_provider_that_fails_for_a_while_is_asked_again_and_no_batch_is_made_twice(talk, rows, out, server):
    server.fail(Status(503), times=2)
    assert run(talk(), rows(4), out, via=QUICK).answered == 4
    assert len(server._batches._batches.all()) == 1


def test_a_batch_that_was_made_though_its_answer_was_lost_is_found_not_made_again(talk, rows, out, server):
    server.rule(lambda request: request.method == "POST" and request.path == "/v1/batches", Cut(after_chunks=0))
    # The server submits before its answer is cut, as a real one does when the connection breaks.
    summary = run(talk(), rows(4), out, via=QUICK)
    assert summary.answered == 4
    assert len(server._batches._batches.all()) == 1


def test_a_key_that_is_refused_ends_the_run_which_can_go_on(talk, rows, out, server):
    server.fail(Status(401))
    with pytest.raises(ModelFailed, match="OPENAI_API_KEY"):
        run(talk(), rows(6), out, via=QUICK)
    server.heal()
    assert run(talk(), rows(6), out, via=QUICK).answered == 6
    assert len(server._batches._batches.all()) == 2


# Killed between any two steps. A run of 6 rows has 2 parts with 4 notes each.


@pytest.mark.parametrize("is_written", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("number", range(8))
def test_killed_before_or_after_any_note_it_goes_on_and_submits_nothing_twice(
    talk, rows, out, read, server, monkeypatch, number, is_written
):
    note, count = Journal.note, [0]

    def killing(self, told):
        count[0] += 1
        if count[0] == number + 1:
            if is_written:
                note(self, told)
            raise Killed
        note(self, told)

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "note", killing)
        with pytest.raises(Killed):
            run(talk(), rows(6), out, via=QUICK, progress=False)
    summary = run(talk(), rows(6), out, via=QUICK, in_order=True)
    assert summary.answered == 6
    assert [record["answer"] for record in read(out)] == [f"question {n}" for n in range(1, 7)]
    assert len(server._batches._batches.all()) == 2
    assert len([each for each in server._batches._files.all() if each["purpose"] == "batch"]) == 2
    assert summary.cost_usd == sum(record["cost_usd"] for record in read(out))


@pytest.mark.parametrize("row", range(1, 7))
def test_killed_in_the_middle_of_collecting_no_row_is_recorded_twice(talk, rows, out, read, server, monkeypatch, row):
    record, count = Journal.record, [0]

    def killing(self, told):
        record(self, told)
        count[0] += 1
        if count[0] == row:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "record", killing)
        with pytest.raises(Killed):
            run(talk(), rows(6), out, via=QUICK, progress=False, concurrency=1)
    summary = run(talk(), rows(6), out, via=QUICK)
    assert (summary.answered, summary.taken_up, summary.asked) == (6, row, 6 - row)
    assert summary.cost_usd == sum(record["cost_usd"] for record in read(out))
    assert len(server._batches._batches.all()) == 2


def test_killed_while_asking_failed_rows_again_it_goes_on_without_being_told_to(
    talk, rows, out, read, server, monkeypatch
):
    server.fail_lines(lambda name: name.startswith(("2-", "5-")), Status(500))
    assert run(talk(), rows(6), out, via=QUICK).failed == 2
    server.heal()
    with monkeypatch.context() as patch:
        patch.setattr(ProviderRun, "_poll", lambda self: (_ for _ in ()).throw(Killed()))
        with pytest.raises(Killed):
            run(talk(), rows(6), out, via=QUICK, retry_errors=True, progress=False)
    summary = run(talk(), rows(6), out, via=QUICK)
    assert (summary.answered, summary.asked) == (6, 2)
    assert len(server._batches._batches.all()) == 3


PROGRAM = """
import sys
from chainops.batch import OpenAIBatch, run
quick = OpenAIBatch(rows_per_batch=40, poll_first_s=0.02, poll_max_s=0.05)
run("chain.yaml", "rows.jsonl", "out.jsonl", via=quick, progress=False)
"""


def test_killed_at_random_moments_every_row_is_answered_once_by_the_provider(tmp_path):
    chance, kills = random.Random(5), 0
    with ModelServer(batch_delay_s=0.3) as server:
        (tmp_path / "chain.yaml").write_text(
            "chainops: 1\nname: talk\nkind: chat\ntraces: off\n"
            f'models: {{main: {{model: "openai:m", base_url: "{server.url}"}}}}\n'
        )
        (tmp_path / "rows.jsonl").write_text("".join(f'"question {n}"\n' for n in range(1, 201)))
        for _ in range(5):
            process = subprocess.Popen(
                [sys.executable, "-c", PROGRAM], cwd=tmp_path, env={**os.environ, "OPENAI_API_KEY": "none"}
            )
            since, wanted, until = len(server.requests), chance.randrange(1, 12), time.monotonic() + 120
            while len(server.requests) - since < wanted and process.poll() is None and time.monotonic() < until:
                time.sleep(0.002)
            time.sleep(chance.random() * 0.05)
            process.send_signal(signal.SIGKILL)
            if process.wait() == 0:
                break
            kills += 1
        else:
            subprocess.run(
                [sys.executable, "-c", PROGRAM], cwd=tmp_path, env={**os.environ, "OPENAI_API_KEY": "none"}, check=True
            )
        assert len(server._batches._batches.all()) == 5
    records = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert kills >= 2
    assert sorted(record["row"] for record in records) == list(range(1, 201))
    assert all(record["answer"] == f"question {record['row']}" for record in records)


def test_batches_that_a_restart_leaves_behind_are_named(talk, rows, out, server, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(ProviderRun, "_poll", lambda self: (_ for _ in ()).throw(Killed()))
        with pytest.raises(Killed):
            run(talk(), rows(6), out, via=QUICK, progress=False)
    summary = run(talk(), rows(6), out, via=QUICK, restart=True)
    (note,) = [note for note in summary.notes if "not collected" in note]
    assert "batch_000001, batch_000002" in note
    assert summary.answered == 6
