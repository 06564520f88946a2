"""How long it takes until something can be done: import, --help, load. Whole processes, interleaved."""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CHAIN = """\
chainops: 1
name: small
kind: chat
models: {main: {model: "openai:gpt-4o-mini"}, local: {model: extractive}}
pipeline: [cache: {ttl: 24h}, fallback: [main, local, {say: sorry}]]
"""
LANGCHAIN = """
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableSerializable
"""  # what any chain needs, whoever builds it


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=11)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as folder:
        chain = Path(folder) / "chain.yaml"
        chain.write_text(CHAIN)
        python = sys.executable
        commands = {
            "bare Python": [python, "-c", "pass"],
            "langchain-core alone": [python, "-c", LANGCHAIN],
            "import chainops": [python, "-c", "import chainops"],
            "chainops --help": [str(Path(python).parent / "chainops"), "--help"],
            "chainops.load": [python, "-c", f"import chainops; chainops.load({str(chain)!r})"],
        }
        times: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(runs + 1):  # the first of each warms the file cache and is not counted
            for name, command in commands.items():
                began = time.perf_counter()
                subprocess.run(command, check=True, capture_output=True)
                times[name].append(time.perf_counter() - began)
    p50 = {name: statistics.median(each[1:]) for name, each in times.items()}
    bare, langchain = p50["bare Python"], p50["langchain-core alone"]
    targets = {"import chainops": "<= 0.4 s more than bare Python", "chainops --help": "<= 0.6 s more than bare Python"}
    print(f"{'what':<22} {'p50':>8} {'over bare':>10} {'over langchain-core':>20}  target")
    for name, seconds in p50.items():
        target = targets.get(name, "<= 0.5 s over langchain-core" if name == "chainops.load" else "")
        print(f"{name:<22} {seconds:7.3f}s {seconds - bare:9.3f}s {seconds - langchain:19.3f}s  {target}")
    print(
        json.dumps(
            {"benchmark": "startup", "runs": runs, "p50_s": {name: round(each, 4) for name, each in p50.items()}}
        )
    )


if __name__ == "__main__":
    main()
