"""The command, run as a user runs it: another process, real arguments, real exit statuses."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

COMMAND = str(Path(sys.executable).parent / "chainops")
QUESTION = "When is the shop open on Saturdays?"


def environment(**more):
    names = ("CHAINOPS_HOME", "CHAINOPS_MODEL", "CHAINOPS_DEBUG", "OPENAI_API_KEY", "OPENAI_BASE_URL")
    kept = {name: value for name, value in os.environ.items() if name not in names}
    return {**kept, "HF_HUB_OFFLINE": "1", **more}


def chainops(*arguments, cwd, stdin="", **more):
    return subprocess.run(
        [COMMAND, *map(str, arguments)],
        cwd=cwd,
        input=stdin.encode() if isinstance(stdin, str) else stdin,
        capture_output=True,
        env=environment(**more),
        timeout=240,
    )


@pytest.fixture
def started():
    """Starts the command and goes on; whatever becomes of the test, it is ended and its pipes are closed."""
    running = []

    def start(*arguments, cwd, **more):
        pipe = subprocess.PIPE
        arguments = [COMMAND, *map(str, arguments)]
        process = subprocess.Popen(
            arguments,
            cwd=cwd,
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            env=environment(**more),
            # A test run in the background ignores interrupts, and its children would inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        running.append(process)
        return process

    yield start
    for process in running:
        process.kill()
        process.wait(60)
        for pipe in (process.stdin, process.stdout, process.stderr):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


def failed(done, status):
    """What a failed command said: one line, about itself."""
    told = done.stderr.decode()
    assert done.returncode == status, told
    assert "Traceback" not in told
    lines = told.strip().splitlines()
    assert len(lines) == 1, told
    assert lines[0].startswith("chainops: ")
    assert "a bug?" not in told
    return told


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A folder with the rag starter in it, indexed."""
    folder = tmp_path_factory.mktemp("cli")
    done = chainops("new", "rag", "shop", cwd=folder)
    assert done.returncode == 0, done.stderr
    done = chainops("index", "shop/chain.yaml", "--json", cwd=folder)
    assert json.loads(done.stdout)["added"] == 1, done.stderr
    # The tests ask about what the command does; MLflow is imported only where they are about its traces.
    (folder / "shop" / "chain.yaml").open("a").write("traces: off\n")
    return folder


@pytest.fixture
def variant(shop):
    """Writes a variation of the starter's chain file beside it."""
    written = []

    def write(name, *replacements):
        text = (shop / "shop" / "chain.yaml").read_text()
        for old, new in replacements:
            assert old in text
            text = text.replace(old, new)
        path = shop / "shop" / f"{name}.yaml"
        path.write_text(text)
        written.append(path)
        return path.relative_to(shop)

    yield write
    for path in written:
        path.unlink()


# What the commands do


def test_help_lists_the_commands(shop):
    told = chainops("--help", cwd=shop).stdout.decode()
    for command in ("ask", "chat", "check", "demo", "index", "new", "prompts", "schema", "serve"):
        assert re.search(rf"^  {command} +\w", told, re.MULTILINE), command
    assert "--debug" in told
    assert re.fullmatch(r"chainops \d+\.\d+\.\d+\n", chainops("--version", cwd=shop).stdout.decode())


def test_ask_prints_the_answer_its_status_its_sources_and_where_the_time_went(shop):
    done = chainops("ask", "shop/chain.yaml", QUESTION, "--cache", "bypass", cwd=shop)
    told = done.stdout.decode()
    assert done.returncode == 0, done.stderr
    assert "Saturdays" in told
    assert "status: ok" in told
    assert "[1] Opening hours (docs/shop.md, characters" in told
    assert "█" in told
    assert done.stderr == b""


def test_ask_json_is_json_and_the_second_time_is_cached(shop):
    arguments = ("ask", "shop/chain.yaml", "Within how many days can goods be returned?", "--json")
    first, second = (json.loads(chainops(*arguments, cwd=shop).stdout) for _ in range(2))
    assert "thirty days" in first["answer"]
    assert first["sources"][0]["document"] == "docs/shop.md"
    assert (first["status"], second["status"]) == ("ok", "cached")
    assert second["answer"] == first["answer"]


def test_ask_streams_as_text_and_as_json_lines(shop):
    told = chainops("ask", "shop/chain.yaml", QUESTION, "--stream", cwd=shop).stdout.decode()
    assert told.index("Saturdays") < told.index("status: ")
    lines = chainops("ask", "shop/chain.yaml", QUESTION, "--stream", "--json", cwd=shop).stdout.splitlines()
    chunks = [json.loads(line) for line in lines]
    assert "Saturdays" in "".join(chunk["chunk"] for chunk in chunks)
    assert [chunk["status"] for chunk in chunks if "status" in chunk] in (["ok"], ["cached"])


def test_a_question_can_come_from_standard_input_even_when_it_is_not_quite_text(shop):
    asked = b"When is the shop open on Saturdays? \xff\xfe"
    done = chainops("ask", "shop/chain.yaml", "-", "--json", cwd=shop, stdin=asked)
    assert json.loads(done.stdout)["status"] in ("ok", "cached"), done.stderr


def test_an_output_that_cannot_show_a_sign_shows_another(shop):
    done = chainops("ask", "shop/chain.yaml", QUESTION, cwd=shop, PYTHONIOENCODING="ascii:strict")
    assert done.returncode == 0, done.stderr
    assert b"status: " in done.stdout


def test_chat_answers_one_question_after_the_other(shop):
    done = chainops("chat", "shop/chain.yaml", cwd=shop, stdin=f"{QUESTION}\nAre refunds paid?\n")
    told = done.stdout.decode()
    assert done.returncode == 0, done.stderr
    assert "Saturdays" in told
    assert "Refunds" in told
    assert told.count("you: ") == 3
    assert told.count("[1] ") >= 2
    assert told.endswith("\n")


def test_index_says_what_changed(shop):
    (shop / "shop" / "docs" / "parking.md").write_text("# Parking\n\nThere are nine places behind the shop.\n")
    assert "1 added" in chainops("index", "shop/chain.yaml", cwd=shop).stdout.decode()
    (shop / "shop" / "docs" / "parking.md").unlink()
    told = json.loads(chainops("index", "shop/chain.yaml", "--json", cwd=shop).stdout)
    assert (told["removed"], told["unchanged"], told["skipped"]) == (1, 1, [])


def test_check_draws_a_chain_that_can_run(shop):
    done = chainops("check", "shop/chain.yaml", cwd=shop)
    assert done.returncode == 0, done.stderr
    assert "shop/chain.yaml: ok" in done.stdout.decode()
    assert "└ cache: max_error_rate 0.01, ttl 24h" in done.stdout.decode()


def test_check_tells_every_mistake_with_line_column_and_the_nearest_word(shop, variant):
    path = variant("wrong", ("max_error_rate:", "max_eror_rate:"), ("rerank: 5", "rerank: five"))
    done = chainops("check", path, cwd=shop)
    lines = done.stderr.decode().splitlines()
    assert done.returncode == 1
    assert len(lines) == 2
    assert re.match(r"shop/wrong\.yaml: line \d+, column \d+: knowledge\.rerank: found 'five'", lines[0])
    assert "did you mean 'max_error_rate'?" in lines[1]
    told = json.loads(chainops("check", path, "--json", cwd=shop).stdout)
    assert told["ok"] is False
    assert len(told["problems"]) == 2


def test_check_says_which_file_a_mistake_is_in(shop, variant):
    wrong = variant("wrong", ("max_error_rate:", "max_eror_rate:"))
    named = variant("naming", ("[main, local, {say: ", "[main, {chain: wrong.yaml}, {say: "))
    done = chainops("check", named, cwd=shop)
    assert done.returncode == 1
    assert re.match(rf"{named}: {shop / wrong}: line \d+, column \d+: pipeline\.0\.cache", done.stderr.decode())
    named = variant("lost", ("[main, local, {say: ", "[main, {chain: none.yaml}, {say: "))
    told = chainops("check", named, cwd=shop).stderr.decode()
    assert re.match(r"shop/lost\.yaml: line \d+, column \d+: pipeline\S+chain: found 'none\.yaml', no such", told)


def test_check_names_the_key_that_is_missing(shop, variant):
    path = variant("keyless", ('"${CHAINOPS_MODEL:-extractive}"', "openai:gpt-4o-mini"))
    done = chainops("check", path, cwd=shop)
    assert done.returncode == 1
    assert "OPENAI_API_KEY" in done.stderr.decode()


def test_schema_is_json_schema(shop):
    told = json.loads(chainops("schema", cwd=shop).stdout)
    assert "pipeline" in told["properties"]


def test_new_chat_can_be_asked_and_checked(tmp_path):
    assert chainops("new", "chat", "talk", cwd=tmp_path).returncode == 0
    assert chainops("check", "talk/chain.yaml", cwd=tmp_path).returncode == 0
    told = json.loads(chainops("ask", "talk/chain.yaml", "hello", "--json", cwd=tmp_path).stdout)
    assert told["status"] == "ok"
    assert told["answer"]


def test_new_overwrites_nothing(shop):
    before = (shop / "shop" / "chain.yaml").read_text()
    assert "chain.yaml already there" in failed(chainops("new", "rag", "shop", cwd=shop), 2)
    assert (shop / "shop" / "chain.yaml").read_text() == before


def test_the_demo_shows_hits_and_fallbacks_and_can_be_repeated(tmp_path):
    for _ in range(2):
        done = chainops("demo", "here", "--json", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)
        assert len(told["rows"]) == 32
        assert set(told["summary"]["seconds"]) == {"ok", "cached", "degraded"}
        assert told["summary"]["fallbacks"] >= 3
    asked = json.loads(chainops("ask", "here/python-help.yaml", "What is a lambda?", "--json", cwd=tmp_path).stdout)
    assert asked["sources"]


def test_serve_answers_over_http_until_it_is_interrupted(shop, started):
    server = started("serve", "shop/chain.yaml", "--port", "0", cwd=shop)
    try:
        line = server.stdout.readline().decode()
        found = re.match(r"shop: (http://127\.0\.0\.1:\d+)/shop/playground/", line)
        assert found, line + server.stderr.read().decode()
        body = json.dumps({"input": QUESTION}).encode()
        request = urllib.request.Request(f"{found[1]}/shop/invoke", body, {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as reply:
            assert "Saturdays" in json.load(reply)["output"]["content"]
    finally:
        server.send_signal(signal.SIGINT)
        _, told = server.communicate(timeout=120)
    assert server.returncode in (0, 130)
    assert b"Traceback" not in told


# How they fail


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("ask", "shop/chain.yaml", "q", "--nope"), "--nope"),
        (("nope",), "'nope'"),
        (("ask", "nothing.yaml", "q"), "nothing.yaml"),
        (("ask", "shop", "q"), "directory"),
        (("ask", "shop/chain.yaml"), "question"),
        (("ask", "shop/chain.yaml", "q", "--cache", "maybe"), "use, refresh or bypass"),
        (("ask", "shop/chain.yaml", "q", "--deadline-s", "-1"), "--deadline-s"),
        (("ask", "shop/chain.yaml", ""), "an empty string"),
        (("ask", "shop/chain.yaml", "  "), "white space"),
        (("new", "ragg", "x"), "neither rag nor chat"),
        (("serve", "shop/chain.yaml", "--port", "99999"), "--port"),
        (("serve", "shop/chain.yaml", "--host", "256.1.1.1"), "256.1.1.1"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, tuple) else None,
)
def test_a_wrong_command_line_is_status_2_and_one_line(shop, arguments, told):
    assert told in failed(chainops(*arguments, cwd=shop), 2)


def test_no_command_at_all_shows_help(shop):
    done = chainops(cwd=shop)
    assert done.returncode == 2
    assert b"Commands:" in done.stdout + done.stderr


def test_a_question_of_a_megabyte_is_refused_before_anything_is_done(shop):
    told = failed(chainops("ask", "shop/chain.yaml", "-", cwd=shop, stdin="x" * 1_000_000), 2)
    assert "1,000,000 characters" in told
    assert len(told) < 300


def test_a_missing_key_names_the_variable(shop, variant):
    fallback = '  - fallback: [main, local, {say: "I can\'t answer that right now."}]\n'
    path = variant("keyless", ('"${CHAINOPS_MODEL:-extractive}"', "openai:gpt-4o-mini"), (fallback, ""))
    told = failed(chainops("ask", path, "Where is the bakery?", cwd=shop), 1)
    assert "OPENAI_API_KEY" in told


def test_an_empty_corpus_names_the_patterns(shop, variant):
    path = variant("empty", ("docs/**/*", "nowhere/*.md"), ("name: shop", "name: empty"))
    told = failed(chainops("ask", path, "q", cwd=shop), 1)
    assert "nowhere/*.md" in told


def test_documents_that_are_not_text_are_named(shop, variant):
    (shop / "shop" / "odd").mkdir()
    (shop / "shop" / "odd" / "noise.txt").write_bytes(bytes(range(256)) * 20)
    path = variant("odd", ("docs/**/*", "odd/*"), ("name: shop", "name: odd"))
    told = failed(chainops("index", path, cwd=shop), 1)
    assert "noise.txt" in told


@pytest.mark.parametrize("command", [("ask", QUESTION), ("index",)], ids=["ask", "index"])
def test_a_corrupted_database_is_named(shop, tmp_path, command):
    shutil.copytree(shop / "shop", tmp_path / "shop")
    for part in (tmp_path / "shop" / ".chainops").glob("chainops.db-*"):
        part.unlink()  # SQLite would mend the file from these
    (tmp_path / "shop" / ".chainops" / "chainops.db").write_bytes(b"garbage" * 1000)
    told = failed(chainops(command[0], "shop/chain.yaml", *command[1:], cwd=tmp_path), 1)
    assert "chainops.db" in told


def test_a_state_folder_that_cannot_be_written_is_named(shop):
    (shop / "a-file").write_text("not a folder")
    told = failed(chainops("ask", "shop/chain.yaml", QUESTION, cwd=shop, CHAINOPS_HOME=str(shop / "a-file" / "x")), 1)
    assert "a-file" in told
    assert "CHAINOPS_HOME" in told


def test_a_starter_that_cannot_be_written_is_named_and_leaves_nothing(shop):
    (shop / "b-file").write_text("not a folder")
    assert "b-file" in failed(chainops("new", "rag", "b-file/shop", cwd=shop), 1)


def test_debug_shows_the_traceback(shop, variant):
    path = variant("empty", ("docs/**/*", "nowhere/*.md"), ("name: shop", "name: empty"))
    for arguments in (("--debug", "ask", path, "q"), ("ask", path, "q", "--debug")):
        done = chainops(*arguments, cwd=shop)
        assert done.returncode == 1
        assert b"Traceback" in done.stderr
        assert b"EmptyCorpus" in done.stderr


def test_a_reader_that_goes_away_is_no_failure(shop, started):
    for arguments in (("schema",), ("ask", "shop/chain.yaml", QUESTION)):
        process = started(*arguments, cwd=shop)
        process.stdout.close()
        told = process.stderr.read()
        process.stdin.close()
        assert process.wait(120) in (0, 1)  # 1 is click's, where it notices first
        assert told == b""


def test_an_interrupt_ends_a_chat_quietly(shop, started):
    process = started("chat", "shop/chain.yaml", cwd=shop)
    assert process.stdout.readline().startswith(b"shop, session")
    assert process.stdout.read(6) == b"\nyou: "
    status = None
    for _ in range(6):  # a signal that comes just before the read begins is only seen when the read ends
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            status = process.wait(timeout=30)  # ending takes some time, too: a second signal would meet it there
            break
    told = process.communicate()[1]  # until here its standard input was open: an end of input would end it too
    assert (status, told) == (130, b"")


def test_a_pushed_prompt_is_found_by_the_chain_it_stands_under(tmp_path):
    assert chainops("new", "rag", "shop", cwd=tmp_path).returncode == 0
    pushed = chainops("prompts", "push", "shop/prompts/shop.md", "--alias", "production", cwd=tmp_path)
    assert b"prompts:/shop@production" in pushed.stdout
    file = tmp_path / "shop" / "chain.yaml"
    file.write_text(file.read_text().replace("file:prompts/shop.md", "prompts:/shop@production"))
    checked = chainops("check", "shop/chain.yaml", cwd=tmp_path)
    assert checked.returncode == 0, checked.stderr
    assert b"version 1" in checked.stdout


def test_check_tells_which_wrappers_stand_oddly_and_which_models_a_budget_leaves_out(tmp_path):
    (tmp_path / "chain.yaml").write_text(
        "chainops: 1\nname: talk\nkind: chat\ntraces: off\n"
        'models: {here: {model: "openai:gpt-4o", base_url: "http://127.0.0.1:9/v1"}, local: extractive}\n'
        "pipeline: [retry, budget: {usd_per_day: 1}, fallback: [here, local]]\n"
    )
    told = chainops("check", "chain.yaml", cwd=tmp_path, OPENAI_API_KEY="any").stdout.decode()
    assert "'retry' before the fallback" in told
    assert "models.here is not asked under a budget in USD" in told
    assert "models.local" not in told
