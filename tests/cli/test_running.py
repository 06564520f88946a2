"""`chainops run`, run as a user runs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from chainops.testing import ModelServer, Status

COMMAND = str(Path(sys.executable).parent / "chainops")
ROWS = "--in", "rows.jsonl", "--out", "out.jsonl"


@pytest.fixture
def server():
    with ModelServer() as running:
        yield running


@pytest.fixture
def folder(tmp_path, server):
    (tmp_path / "chain.yaml").write_text(
        "chainops: 1\nname: talk\nkind: chat\ntraces: off\n"
        f'models: {{main: {{model: "openai:m", base_url: "{server.url}"}}}}\n'
    )
    (tmp_path / "rows.jsonl").write_text("".join(f'{{"question": "question {n}"}}\n' for n in range(1, 21)))
    return tmp_path


def environment():
    return {**os.environ, "OPENAI_API_KEY": "none"}


@pytest.fixture
def run(folder):
    def run(*arguments, status=0):
        done = subprocess.run(
            [COMMAND, "run", "chain.yaml", *arguments],
            cwd=folder,
            capture_output=True,
            text=True,
            env=environment(),
            timeout=240,
        )
        assert done.returncode == status, done.stderr
        assert "Traceback" not in done.stderr
        return done

    return run


def test_a_file_is_answered_and_the_summary_is_for_people_or_machines(run, folder, server):
    done = run(*ROWS, "--in-order")
    assert "20: 20 ok" in done.stdout
    assert "20 of 20 rows, 0 failed" in done.stderr
    found = [json.loads(line)["answer"] for line in (folder / "out.jsonl").read_text().splitlines()]
    assert found == [f"question {n}" for n in range(1, 21)]
    told = json.loads(run("--in", "rows.jsonl", "--out", "out.csv", "--limit", "3", "--json").stdout)
    assert (told["rows"], told["answered"], told["failed"], told["is_stopped"]) == (3, 3, 0, False)
    assert len((folder / "out.csv").read_text().splitlines()) == 4


def test_answers_carry_the_columns_that_are_named(run, folder):
    (folder / "rows.csv").write_text("question,lang,source,other\na,de,x,1\nb,fr,y,2\n")
    run("--in", "rows.csv", "--out", "out.csv", "--in-order", "--keep", "lang, source")
    header, *lines = (folder / "out.csv").read_text().splitlines()
    assert header.startswith("row,id,question,lang,source,answer,")
    assert [line.split(",")[:6] for line in lines] == [["1", "", "a", "de", "x", "a"], ["2", "", "b", "fr", "y", "b"]]


def test_failed_rows_are_exit_status_1_until_they_are_answered(run, server):
    server.rule(lambda request: "question 7" in str(request.body), Status(500))
    done = run(*ROWS, status=1)
    assert "19 ok, 1 failed" in done.stdout
    assert "--retry-errors" in done.stdout
    server.heal()
    assert "20 ok" in run(*ROWS, "--retry-errors").stdout
    assert len(server.requests) == 21


def test_a_wrong_command_line_is_exit_status_2_and_one_line(run, folder):
    for arguments in (
        ("--in", "none.jsonl", "--out", "out.jsonl"),
        ("--in", "rows.jsonl", "--out", "out.xml"),
        ("--in", "rows.jsonl", "--out", "rows.jsonl"),
        (*ROWS, "--via", "elsewhere"),
        (*ROWS, "--concurrency", "0"),
        (*ROWS, "--question", "text"),
        ("--out", "out.jsonl"),
    ):
        told = run(*arguments, status=2).stderr.strip()
        assert told.startswith("chainops: ")
        assert len(told.splitlines()) == 1
    assert "the columns question;" in run(*ROWS, "--question", "text", status=2).stderr
    assert sorted(path.name for path in folder.iterdir()) == ["chain.yaml", "rows.jsonl"]


def test_an_output_that_is_there_and_another_runs_journal_are_refused_with_the_next_move(run, folder, server):
    server.fail(Status(500))
    run(*ROWS, status=1)
    (folder / "rows.jsonl").write_text('"other"\n')
    assert "--restart" in run(*ROWS, status=1).stderr
    server.heal()
    run(*ROWS, "--restart")
    assert "--restart" in run(*ROWS, status=1).stderr
    assert json.loads((folder / "out.jsonl").read_text())["answer"] == "other"


def test_ctrl_c_says_how_to_go_on_and_the_same_command_goes_on(run, folder, server):
    (folder / "rows.jsonl").write_text("".join(f'"question {n}"\n' for n in range(1000)))
    process = subprocess.Popen(
        [COMMAND, "run", "chain.yaml", *ROWS],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        # A test run in the background ignores interrupts, and its children would inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        while len(server.requests) < 20:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=240)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130, stderr
    assert "interrupt again" in stderr
    assert "run the same again to go on" in stdout
    assert not (folder / "out.jsonl").exists()
    before = len(server.requests)
    assert 20 <= before < 1000
    told = json.loads(run(*ROWS, "--json").stdout)
    assert (told["rows"], told["taken_up"], len(server.requests)) == (1000, before, 1000)


def test_the_providers_batches_are_one_option_away(run, server):
    assert "20 ok" in run(*ROWS, "--via", "openai-batch").stdout
    assert {request.path for request in server.requests} >= {"/v1/files", "/v1/batches"}
    assert server.calls(path="/v1/chat/completions") == []
