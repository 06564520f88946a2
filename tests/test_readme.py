"""The README's fences run, as a reader would run them."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
FENCES = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
BIN = Path(sys.executable).parent


def fences(language: str) -> list[str]:
    return [text for found, text in FENCES if found == language]


def newest_entry(folder: Path) -> str:
    """Id of what the chain of the README kept last."""
    told = "import chainops; print(chainops.load('shop/chain.yaml').cache.entries()[0][0].id)"
    environment = {**os.environ, "CHAINOPS_HOME": str(folder / "home")}
    done = subprocess.run([sys.executable, "-c", told], cwd=folder, capture_output=True, text=True, env=environment)
    return done.stdout.strip()


def test_the_first_screen_has_the_two_commands():
    screen = "\n".join(README.splitlines()[:24])
    assert "make demo" in screen
    assert "make test" in screen


def test_python_runs_from_the_top_to_the_end(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "any-word")
    names = {"__name__": "readme"}
    first, cache, failing = fences("python")
    exec(compile(first, "README.md", "exec"), names)  # our own README
    told = capsys.readouterr().out
    assert told.startswith("ok ")
    assert "three elephants" in told
    assert "zoo True" in told
    exec(compile(cache, "README.md", "exec"), names)
    told = capsys.readouterr().out
    assert told.startswith("cached cache (exact)")
    assert "not yet certified" in told
    assert "How many elephants does the zoo have?" in told
    exec(compile(failing, "README.md", "exec"), names)
    told = capsys.readouterr().out
    assert told.splitlines() == ["degraded It is 42.", "['answered by second because first: overloaded']", "2 1"]


@pytest.mark.parametrize("text", fences("yaml"))
def test_chain_files_are_understood(text, tmp_path):
    import chainops

    (tmp_path / "chain.yaml").write_text(text)
    assert chainops.load(tmp_path / "chain.yaml").declared.name == "python-help"


ROUTED = """chainops: 1
name: routed
kind: chat
models: {{a: {{model: extractive}}, b: {{model: extractive}}}}
pipeline: [{{route: {route}}}]
"""
BY_MEANING = """{by: meaning, routes: {money: a, time: b}, none: a, examples: {
  money: ["What does it cost?", "How much is it?", "Is it expensive?", "What is the price?"],
  time: ["When does it open?", "At what time do you close?", "Is it open on Sunday?", "How late may I come?"]}}"""


def test_commands_run_in_their_order(tmp_path):
    commands = [line for text in fences("sh") for line in text.splitlines() if line.startswith("chainops ")]
    assert len(commands) >= 11
    rows = [{"question": f"What costs number {n % 3}?", "answer": f"{n % 3} euros"} for n in range(6)]
    (tmp_path / "log.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps({"question": row["question"]}) for row in rows))
    for folder, route in (("routed", "{by: complexity, simple: a, complex: b}"), ("meant", BY_MEANING)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "chain.yaml").write_text(ROUTED.format(route=route))
    for command in commands:
        if " ENTRY " in command:
            command = command.replace("ENTRY", newest_entry(tmp_path))
        done = subprocess.run(
            [BIN / "chainops", *shlex.split(command, comments=True)[1:]],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            env={**os.environ, "CHAINOPS_HOME": str(tmp_path / "home")},
        )
        assert done.returncode == 0, f"{command}\n{done.stderr}"


def test_every_make_target_and_path_that_is_named_exists():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in set(re.findall(r"\bmake (\w+)", README)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    for path in set(re.findall(r"`((?:chainops|notebooks|docs)/[\w./]+)`", README)):
        assert (ROOT / path).exists(), path


def test_every_extra_that_is_named_exists():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = set(re.findall(r"\.\[(\w+)\]", README))
    assert named <= set(project["optional-dependencies"])
