"""The process is killed at any moment: no row is lost, none is twice in the output, none that is done asked again."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest

from chainops.testing import ModelServer

# A process that has imported everything, and forks a run when asked for one: many lives take seconds so.
NURSERY = """
import os, sys
import langchain_openai, openai, genai_prices, numpy
from chainops.batch import run
import chainops.batch.running, chainops.spec.recipes, chainops.memory.component, chainops.models.model

for line in sys.stdin:
    chain, rows, out, concurrency = line.split()
    child = os.fork()
    if not child:
        try:
            run(chain, rows, out, concurrency=int(concurrency), keep=["mark"], progress=False)
            os._exit(0)
        finally:
            os._exit(1)
    print(child, flush=True)
    print(os.waitpid(child, 0)[1], flush=True)
"""
CHAIN = """\
chainops: 1
name: talk
kind: chat
traces: off
models: {{main: {{model: "openai:m", base_url: "{url}"}}}}
{more}
"""
CONCURRENCY = 8


@pytest.fixture(scope="module")
def nursery():
    environment = {**os.environ, "OPENAI_API_KEY": "none"}
    with subprocess.Popen(
        [sys.executable, "-c", NURSERY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        yield process
        process.stdin.close()


def live(nursery, folder, name, kill_when):
    """One run; killed once `kill_when(pid)` returns True, which it may never. Whether it ended by itself."""
    nursery.stdin.write(f"{folder}/chain.yaml {folder}/rows.jsonl {folder}/{name} {CONCURRENCY}\n")
    nursery.stdin.flush()
    child = int(nursery.stdout.readline())
    if kill_when(child):
        os.kill(child, signal.SIGKILL)
    status = int(nursery.stdout.readline())
    assert status in (0, signal.SIGKILL), status
    return status == 0


def killed_many_times(nursery, folder, kills, *, more="", seed=1):
    """Kill runs at random moments until `kills` are done, then let one end; gives the records."""
    chance = random.Random(seed)
    count = kills * 30
    with ModelServer() as server:
        (folder / "chain.yaml").write_text(CHAIN.format(url=server.url, more=more))
        with (folder / "rows.jsonl").open("w") as file:
            file.writelines(
                json.dumps({"question": f"question {n}", "id": n, "mark": -n}) + "\n" for n in range(1, count + 1)
            )
        done, journal = 0, folder / "out.jsonl.partial"
        for life in range(kills):

            def after_some_rows(child, life=life):
                since, wanted = len(server.requests), chance.randrange(1, 2 * count // kills)
                until = time.monotonic() + 120
                while len(server.requests) - since < wanted and time.monotonic() < until:
                    if (folder / "out.jsonl").exists():
                        return False  # it was quicker
                    time.sleep(0.001)
                time.sleep(chance.random() * 0.01)
                return True

            if live(nursery, folder, "out.jsonl", after_some_rows):
                break
            done += 1
            acknowledged = [json.loads(line[9:]) for line in journal.read_bytes().split(b"\n")[1:-1]]
            rows = [record["row"] for record in acknowledged]
            assert len(rows) == len(set(rows)), "a row in the journal was asked again"
        else:
            assert live(nursery, folder, "out.jsonl", lambda _: False)
        assert server.wait_idle(60)
        # A request may be cut off in the middle: then it has no messages.
        asked = {each.body["messages"][-1]["content"] for each in server.requests if "messages" in each.body}
        requests = len(server.requests)
    records = [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]
    assert done >= kills // 2
    assert sorted(record["row"] for record in records) == list(range(1, count + 1))
    assert all(record["answer"] == record["question"] == f"question {record['row']}" for record in records)
    assert all(record["id"] == record["row"] == -record["mark"] for record in records)
    assert asked == {record["question"] for record in records}
    assert requests <= count + done * CONCURRENCY
    left = {path.name for path in folder.iterdir()} & {"out.jsonl.partial", "out.jsonl.lock", ".out.jsonl.writing"}
    assert left == set()
    return records


def test_no_row_is_lost_and_none_repeated_in_ten_kills(nursery, tmp_path):
    killed_many_times(nursery, tmp_path, 10)


@pytest.mark.slow
def test_no_row_is_lost_and_none_repeated_in_fifty_kills(nursery, tmp_path):
    killed_many_times(nursery, tmp_path, 50, seed=2)


def test_with_a_cache_a_killed_run_answers_all_rows_too(nursery, tmp_path):
    records = killed_many_times(nursery, tmp_path, 2, more="pipeline: [cache: {threshold: 1.0}]", seed=3)
    assert {record["status"] for record in records} <= {"ok", "cached"}


def test_a_kill_while_the_output_is_written_leaves_a_run_that_ends(nursery, tmp_path):
    """Between the last row, the writing, the renaming and the journal's removal: killed again and again there."""
    chance = random.Random(4)
    with ModelServer() as server:
        (tmp_path / "chain.yaml").write_text(CHAIN.format(url=server.url, more=""))
        rows = [{"question": f"question {n} " + "x" * 2000, "mark": n} for n in range(300)]
        (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        out = tmp_path / "out.jsonl"

        def at_the_end(child):
            while len(server.requests) < 300 and not out.exists():
                time.sleep(0.0005)
            time.sleep(chance.random() * 0.02)
            return True

        for _ in range(8):
            if not out.exists() or out.with_name("out.jsonl.partial").exists():
                live(nursery, tmp_path, "out.jsonl", at_the_end)
        if out.with_name("out.jsonl.partial").exists():
            assert live(nursery, tmp_path, "out.jsonl", lambda _: False)
        assert len(server.requests) <= 300 + 8 * CONCURRENCY
    found = [json.loads(line)["row"] for line in out.read_text().splitlines()]
    assert sorted(found) == list(range(1, 301))
