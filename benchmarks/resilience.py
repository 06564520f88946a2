"""What a fault costs: each fault of a model server, asked plainly, as a stream and in a batch, over two routes.

    python benchmarks/resilience.py [--requests 10000] [--share 0.3] [--litellm PYTHON] [--quick]

Two `ModelServer`s run in a process of their own. The first fails `--share` of its requests (by their numbers, so all
columns meet the same), or all where the fault says so; the second is well. What does not pass by itself (a context too
long, a key refused) hits the same questions each time they are asked, and a bad request (400) on both servers. Ours is
`Fallback` over two routes with a `Retry` in each; beside it, in processes of their own, LangChain's
`with_retry().with_fallbacks()` and LiteLLM's Router (with the interpreter that `--litellm` names; see
`resilience_peers.py`). `--requests` are for each column, spread evenly over the cells; eight are asked at once.

answered: the first route's whole answer. degraded: the second's. refused: an error and no text. told: a part, and an
error, a mark or a finish reason that says so (of ours only the status "truncated" counts). wrong: anything else that
ended as if it were well, such as a part of an answer, none, or another request's. calls: per request, by the servers'
own records; most: of one request. double: calls that our ledger charged, or holds for answered, beyond what the servers
served, and second good answers within one request. ms: added at p50 and p99 to the same mode without a fault; of a
batch only the wall time for each request is known. Overhead: one call after the other, no fault, beyond the bare
ChatOpenAI of the same process, which takes turns with it: lower quartiles, the columns in turn, the median of six
rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ["OPENAI_API_KEY"] = "sk-test"

from resilience_peers import (
    AT_ONCE,
    BASE_WAIT_S,
    MAX_WAIT_S,
    TIMEOUT_S,
    TRIES,
    Asker,
    Said,
    answer_to,
    chat_openai,
    overhead,
    run,
)

import chainops
from chainops.core.events import Attempted, Event, RequestEnded, listen
from chainops.models.model import Model
from chainops.models.providers import ModelSettings, chat_model
from chainops.resilience.component import Fallback
from chainops.resilience.retrying import Retry
from chainops.testing.connection import Received
from chainops.testing.faults import (
    Cut,
    Drip,
    Duplicate,
    Fault,
    Finish,
    Hang,
    Nonsense,
    Refuse,
    Reset,
    Slow,
    Stall,
    Status,
    Usage,
)
from chainops.testing.script import sometimes
from chainops.testing.server import ModelServer

MODES = ("invoke", "stream", "batch")
OUTCOMES = ("answered", "degraded", "refused", "told", "wrong")

FAULTS: dict[str, Fault] = {
    "slow first token": Stall(0, 0.1),
    "drip": Drip(0.05, step_bytes=20),
    "stall": Stall(3),
    "hang": Hang(),
    "reset": Reset(),
    "cut: reset": Cut(3),
    "cut: clean end": Cut(3, "end"),
    "cut: error event": Cut(3, "error"),
    "malformed events": Nonsense("sse"),
    "malformed JSON": Nonsense("broken_json"),
    "HTML page": Nonsense("html"),
    "wrong type": Nonsense("wrong_type"),
    "empty body": Nonsense("empty"),
    "empty answer": Nonsense("blank"),
    "error under 200": Nonsense("error_200"),
    **{str(code): Status(code) for code in (400, 401, 403, 404, 408, 409, 413, 429, 500, 502, 503, 529)},
    "429, wait told": Status(429, retry_after_s=0.1, retry_after_as="both"),
    "429, as a date": Status(429, retry_after_s=1, retry_after_as="date"),
    "429, growing": Status(429, retry_after_s=0.01, retry_after_as="ms", retry_after_growth=1.5),
    "context length": Status(400, code_name="context_length_exceeded"),
    "content filter": Status(400, code_name="content_filter"),
    "filtered midway": Finish("content_filter", after_chunks=3),
    "usage absent": Usage("absent"),
    "usage negative": Usage("negative"),
    "usage doubled": Usage("doubled"),
    "chunks twice": Duplicate(),
}
"""Played for a share of the requests."""

LASTING = ("400", "401", "403", "404", "413", "context length", "content filter", "filtered midway")
"""Asked again, the same questions fail again."""

WHOLE: dict[str, Any] = {"slow": Slow(0.01, 0.1), "503, all": Status(503), "refused, all": Refuse()}
"""Played for all of them. Beside these: "outage", the middle third of the requests gets 503."""

QUICK = ("stall", "cut: reset", "cut: clean end", "400", "429", "503", "empty answer", "503, all")


# The servers: in a process of their own, told by one JSON command a line


def serve() -> None:
    def answer(name: str) -> Any:
        return lambda messages: answer_to(name, re.findall(r"q-\d+", str(messages))[0])

    with ModelServer(answer("first")) as first, ModelServer(answer("second")) as second:
        print(json.dumps([first.url, second.url]), flush=True)
        for line in sys.stdin:
            command = json.loads(line)
            if command["do"] == "records":
                told = _records(first, second)
            else:
                told = {}
                for server in (first, second):
                    server.wait_idle()
                    server.heal()
                    server.requests.clear()
                _play(first, command["fault"], command["share"], command["count"])
                if command["fault"] == "400":
                    _play(second, "400", command["share"], 0)
            print(json.dumps(told), flush=True)


def _play(server: ModelServer, name: str, share: float, count: int) -> None:
    if name == "none":
        return
    if name == "outage":
        server.script([(count // 3, None), (count // 3, Status(503))])
    elif name in WHOLE:
        server.fail(WHOLE[name])
    elif name in LASTING:
        server.rule(lambda received: random.Random(f"7 {_question(received)}").random() < share, FAULTS[name])
    else:
        server.fail(sometimes(share, FAULTS[name], seed=7))


def _question(received: Received) -> str:
    found: list[str] = re.findall(r"q-\d+", str(received.body["messages"]))
    return found[0]


def _records(*servers: ModelServer) -> dict[str, dict[str, int]]:
    """Of each question, how often it was asked, and an answer to it was served: in part at least, or whole and good."""
    for server in servers:
        server.wait_idle()
    asked = [each for server in servers for each in server.requests]
    named = [(_question(each), each) for each in asked]
    return {
        "calls": Counter(question for question, _ in named),
        "served": Counter(question for question, each in named if each.status == 200 and each.usage is not None),
        "whole": Counter(question for question, each in named if _is_good(each)),
    }


def _is_good(received: Received) -> bool:
    is_nonsense = isinstance(received.fault, Nonsense) and received.fault.kind != "wrong_type"
    return received.status == 200 and received.is_finished and not is_nonsense


class Process:
    """A child that answers one JSON line with another."""

    def __init__(self, *command: str) -> None:
        self._child = subprocess.Popen(
            [*command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )

    def read(self) -> Any:
        assert self._child.stdout is not None
        line = self._child.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._child.args!r} ended: run it by hand to see why")
        return json.loads(line)

    def ask(self, **command: Any) -> Any:
        assert self._child.stdin is not None
        print(json.dumps(command), file=self._child.stdin, flush=True)
        return self.read()

    def close(self) -> None:
        self._child.kill()
        self._child.wait()


# Ours


class Ours:
    """`Fallback` with a `Retry` in each route, and what its ledger says."""

    most_calls = 2 + TRIES - 1
    """Two routes, and the retries, which the whole request shares."""

    def __init__(self, urls: list[str]) -> None:
        self.routes = Fallback(routes=tuple(map(self._route, urls)), names=("first", "second"))
        self.events: list[Event] = []

    def _route(self, url: str) -> Retry:
        settings = ModelSettings(model="openai:gpt-4o-mini", base_url=url, timeout_s=TIMEOUT_S)
        chat = chat_model(settings)
        model = Model(chat=lambda: chat, model=settings.model, timeout_s=TIMEOUT_S, base_url=url)
        return Retry(inner=model, attempts=TRIES, base_s=BASE_WAIT_S, max_wait_s=MAX_WAIT_S)

    def whole(self, question: str) -> Said:
        with listen(self.events.append):
            return _said(self.routes.invoke(question))

    def stream(self, question: str) -> Iterator[Said]:
        with listen(self.events.append):
            yield from map(_said, self.routes.stream(question))

    def batch(self, questions: list[str]) -> list[Said | BaseException]:
        with listen(self.events.append):
            answers = self.routes.batch(questions, {"max_concurrency": AT_ONCE}, return_exceptions=True)
        return [each if isinstance(each, BaseException) else _said(each) for each in answers]

    def double_charges(self, records: dict[str, dict[str, int]]) -> int:
        """Calls held for answered, or charged, beyond what was served; and second good answers within one request."""
        attempts = [each for each in self.events if isinstance(each, Attempted)]
        ok = sum(each.outcome == "ok" for each in attempts)
        charged = sum(each.input_tokens > 0 for each in attempts)
        requests = [each.request.attempts.all for each in self.events if isinstance(each, RequestEnded)]
        twice = sum(max(0, sum(a.outcome == "ok" for a in each) - 1) for each in requests)
        whole, served = (sum(records[name].values()) for name in ("whole", "served"))
        self.events.clear()
        return max(0, ok - whole) + max(0, charged - served) + twice


def _said(message: Any) -> Said:
    answer = chainops.Answer.of(message)
    return Said(str(message.content), answer.status == "truncated")


# The matrix


def cell(servers: Process, asker: Asker | Process, fault: str, mode: str, count: int, share: float) -> dict[str, Any]:
    servers.ask(do="play", fault=fault, share=share, count=count)
    questions = [f"q-{number}" for number in range(count)]
    told = asker.ask(mode=mode, questions=questions) if isinstance(asker, Process) else run(asker, mode, questions)
    records = servers.ask(do="records")
    found = Counter(told["outcomes"])
    row: dict[str, Any] = {name: found[name] for name in OUTCOMES}
    row["calls"] = sum(records["calls"].values()) / count
    row["most"] = max(records["calls"].values(), default=0)
    row["double"] = asker.double_charges(records) if isinstance(asker, Ours) else None
    spent = sorted(told["ms"]) or [told["each_ms"]] * 2
    row["p50"], row["p99"] = statistics.median(spent), spent[min(len(spent) - 1, int(len(spent) * 0.99))]
    return row


def matrix(
    servers: Process, askers: dict[str, Any], faults: list[str], count: int, share: float
) -> list[dict[str, Any]]:
    rows = []
    print(f"{'fault':18} {'asked as':8} {'through':10}" + "".join(f"{name:>9}" for name in OUTCOMES), end="")
    print(f"{'calls':>7}{'most':>5}{'double':>7}{'+p50 ms':>9}{'+p99 ms':>9}")
    well: dict[tuple[str, str], dict[str, Any]] = {}
    for fault in faults:
        for mode in MODES:
            for name, asker in askers.items():
                row = {"fault": fault, "mode": mode, "through": name}
                row |= cell(servers, asker, fault, mode, count, share)
                base = well.setdefault((mode, name), row)
                rows.append(row)
                double = "-" if row["double"] is None else row["double"]
                print(f"{fault:18} {mode:8} {name:10}" + "".join(f"{row[each]:9}" for each in OUTCOMES), end="")
                added = [
                    f"{row[p] - base[p]:9.1f}" if row is not base else f"({row[p]:.1f})".rjust(9)
                    for p in ("p50", "p99")
                ]
                print(f"{row['calls']:7.2f}{row['most']:5}{double:>7}" + "".join(added), flush=True)
    return rows


def totals(rows: list[dict[str, Any]], count: int) -> dict[str, Any]:
    told: dict[str, Any] = {}
    for name in dict.fromkeys(row["through"] for row in rows):
        mine = [row for row in rows if row["through"] == name]
        asked = len(mine) * count
        one = {each: sum(row[each] for row in mine) for each in OUTCOMES}
        cut = [row for row in mine if row["mode"] == "stream" and row["fault"].startswith(("cut", "stall"))]
        one |= {"asked": asked, "success": round((one["answered"] + one["degraded"]) / asked, 4)}
        one |= {"calls": round(statistics.mean(row["calls"] for row in mine), 3), "most": max(r["most"] for r in mine)}
        one["clean_ends_of_cut_streams"] = sum(row["wrong"] for row in cut)
        one["double"] = None if name != "ours" else sum(row["double"] for row in mine)
        told[name] = one
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--share", type=float, default=0.3)
    parser.add_argument("--litellm", metavar="PYTHON", help="an interpreter that has litellm and langchain-openai")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--servers", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.servers:
        serve()
        return
    faults = ["none", *(QUICK if given.quick else [*FAULTS, *WHOLE, "outage"])]
    count = 30 if given.quick else max(1, round(given.requests / len(faults) / len(MODES)))
    script = str(Path(__file__).with_name("resilience_peers.py"))
    servers = Process(sys.executable, __file__, "--servers")
    urls = servers.read()
    askers: dict[str, Any] = {"ours": Ours(urls), "langchain": Process(sys.executable, script, "langchain", *urls)}
    if given.litellm:
        askers["litellm"] = Process(given.litellm, script, "litellm", *urls)
    try:
        calls = 100 if given.quick else 600
        servers.ask(do="play", fault="none", share=0, count=0)
        ours, bare = askers["ours"], chat_openai(urls[0])
        rounds: dict[str, list[dict[str, float]]] = {name: [] for name in askers}
        for _ in range(6):
            rounds["ours"].append(overhead(lambda: bare.invoke("q-0"), lambda: ours.routes.invoke("q-0"), calls // 6))
            for name in askers.keys() - {"ours"}:
                rounds[name].append(askers[name].ask(calls=calls // 6))
        cost = {n: {word: statistics.median(r[word] for r in each) for word in each[0]} for n, each in rounds.items()}
        rows = matrix(servers, askers, faults, count, given.share)
    finally:
        for process in (servers, *(each for each in askers.values() if isinstance(each, Process))):
            process.close()
    told = totals(rows, count)
    print(
        f"\nEach fault hits {given.share:.0%} of the first server's requests, or what it says; {count} asked in a cell."
    )
    print(f"Declared most calls of one request: ours {Ours.most_calls}, the others {2 * TRIES}.")
    for name in ("ours", "langchain", "litellm"):
        if name not in told:
            print(f"{name}: not measured (name an interpreter that has it with --litellm)")
            continue
        all_of = told[name] | {"overhead": cost[name]}
        told[name] = all_of
        print(f"{name}: " + ", ".join(f"{word} {value}" for word, value in all_of.items()))
    print(json.dumps({"benchmark": "resilience", "share": given.share, "count": count, "totals": told, "cells": rows}))


if __name__ == "__main__":
    main()
