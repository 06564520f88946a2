"""`chainops cache`, run as a user runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = str(Path(sys.executable).parent / "chainops")


@pytest.fixture
def run(tmp_path):
    (tmp_path / "zoo.txt").write_text("The zoo has three elephants. It opens at nine.")
    (tmp_path / "chain.yaml").write_text(
        "chainops: 1\nname: zoo\nkind: rag\nmodels: {main: {model: extractive}}\n"
        "knowledge: {documents: zoo.txt}\npipeline: [cache: {threshold: 0.9}]\n"
    )

    def run(*arguments, stdin="", status=0):
        done = subprocess.run(
            [COMMAND, *arguments],
            cwd=tmp_path,
            input=stdin,
            capture_output=True,
            text=True,
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
            timeout=240,
        )
        assert done.returncode == status, done.stderr
        return done.stdout if status == 0 else done.stderr

    return run


QUESTION = "How many elephants does the zoo have?"


def test_what_a_cache_did_is_told_explained_and_corrected(run):
    run("ask", "chain.yaml", QUESTION)
    run("ask", "chain.yaml", QUESTION)
    stats = json.loads(run("cache", "stats", "chain.yaml", "--json"))
    assert (stats["requests"], stats["hits"]["exact"], stats["entries"]) == (2, 1, 1)
    assert "threshold 0.9" in run("cache", "stats", "chain.yaml")
    told = run("cache", "explain", "chain.yaml", QUESTION)
    assert "served (exact)" in told
    assert "three elephants" in told
    near = json.loads(run("cache", "explain", "chain.yaml", "How many elephants are in the zoo?", "--json"))
    assert near["neighbours"][0]["question"] == QUESTION
    run("cache", "wrong", "chain.yaml", near["neighbours"][0]["entry"], "there are four")
    assert json.loads(run("cache", "stats", "chain.yaml", "--json"))["entries"] == 0
    assert "not found" in run("cache", "wrong", "chain.yaml", "nothing", "no", status=1)


def test_entries_are_dropped_by_what_is_said_and_never_by_nothing(run):
    run("ask", "chain.yaml", QUESTION)
    assert "everything" in run("cache", "drop", "chain.yaml", status=2)
    assert "duration" in run("cache", "drop", "chain.yaml", "--older-than", "soon", status=2)
    assert run("cache", "drop", "chain.yaml", "--older-than", "7d") == "dropped 0 entries\n"
    assert run("cache", "drop", "chain.yaml", "--document", "zoo.txt") == "dropped 1 entry\n"


def test_logged_traffic_is_replayed_from_a_file_or_standard_input(run, tmp_path):
    rows = [{"question": f"what does number {n % 4} cost", "answer": f"{n % 4} euros"} for n in range(12)]
    lines = "\n".join(map(json.dumps, rows))
    (tmp_path / "log.jsonl").write_text(lines)
    assert "no file" in run("cache", "replay", "chain.yaml", "nothing.jsonl", status=2)
    told = run("cache", "replay", "chain.yaml", "log.jsonl")
    assert "max_error_rate 0.01" in told
    scores = json.loads(run("cache", "replay", "chain.yaml", "-", "--json", stdin=lines))["scores"]
    assert {score["exact"] for score in scores if score["policy"] == "max_error_rate 0.01"} == {8}
    (tmp_path / "log.jsonl").write_text('{"question": "q", "answer": "a"}\nnot json')
    assert "line 2" in run("cache", "replay", "chain.yaml", "log.jsonl", status=2)
    (tmp_path / "log.jsonl").write_text("")
    assert "at least one" in run("cache", "replay", "chain.yaml", "log.jsonl", status=2)
