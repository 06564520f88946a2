"""`chainops demo`: the Python language reference, a declared chain, real questions, a failing model."""

from __future__ import annotations

import json
import os
import statistics
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import typer

from chainops import Answer, caller, declare
from chainops.core.show import dollars, seconds
from chainops.spec.chain import Chain
from chainops.spec.progress import shown_progress
from chainops.spec.yaml import read
from chainops.testing.faults import Status
from chainops.testing.server import ModelServer

CHAIN = """\
# The demo's chain. Ask it yourself: chainops ask {folder}/python-help.yaml "What is a generator?"
chainops: 1
name: python-help
kind: rag
description: Questions about the Python language, answered from its reference.

models:
  main: {{model: "${{CHAINOPS_MODEL:-extractive}}"}}   # CHAINOPS_MODEL=openai:gpt-4o-mini, say
  local: {{model: extractive, max_sentences: 2}}

knowledge: {{documents: ["docs/*.md"], retrieve: 20, rerank: 5}}

pipeline:
  # A threshold promises nothing. For real use say `max_error_rate: 0.01`: 32 questions are too few to show that here.
  - cache: {{threshold: 0.87, ttl: 24h}}
  - fallback: [main, local, {{say: "I can't answer that right now."}}]
"""

QUESTIONS = (
    "What does yield from do?",
    "How do I define a lambda expression?",
    "What is the difference between is and ==?",
    "How does a with statement work?",
    "What does the global statement do?",
    "How are decorators evaluated?",
    "What happens when an exception is raised and no handler matches?",
    "What is the purpose of __slots__?",
    "How does a for loop end?",
    "What does the del statement remove?",
    "What are the rules for integer literals?",
    "How is a class created by a metaclass?",
    # asked before, word for word
    "What does yield from do?",
    "What is the purpose of __slots__?",
    # asked before, in other words
    "How do you define lambda expressions?",
    "What is the __slots__ attribute for?",
    "How does the with statement work in Python?",
    # nothing in the reference answers this
    "Who won the football world cup in 1998?",
    # from here the main model answers every call with HTTP 503
    "What does the nonlocal statement do?",
    "How can I unpack a sequence in an assignment?",
    "What does the assert statement do?",
    "What does the global statement do?",
    # and from here it works again
    "What does the pass statement do?",
    "How do I import a name from a module?",
    "What is an f-string?",
    "When is __del__ called?",
    "What does the break statement do?",
    "What does break do?",
    "What can be used as a dictionary key?",
    "What does the nonlocal statement do?",
    "When is the __del__ method called?",
    "What does the return statement do?",
)
FAILS_FROM, WORKS_FROM = 18, 22
STAND_IN = "openai:gpt-4o-mini"
PRICE = {"input_usd_per_million_tokens": 0.15, "output_usd_per_million_tokens": 0.60}
"""OpenAI's list price of gpt-4o-mini, November 2026; declared, because a server elsewhere may charge anything."""


@dataclass
class Tally:
    """What the closing table is made of."""

    durations_s: dict[str, list[float]] = field(default_factory=dict)
    tokens: int = 0
    cost_usd: float = 0.0
    saved_usd: float = 0.0
    fallbacks: int = 0
    rows: list[dict[str, Any]] = field(default_factory=list)

    def add(self, question: str, answer: Answer) -> dict[str, Any]:
        report = answer.report.to_dict()
        usage = report["usage"] or {"total_tokens": 0}
        events = {each["kind"]: each for each in report["events"]}
        similarity = next(
            (s["facts"]["similarity"] for s in report["stages"] if "similarity" in s.get("facts", {})), None
        )
        row = {
            "question": question,
            "status": answer.status,
            "duration_s": report["duration_s"],
            "served_by": answer.served_by,
            "similarity": similarity,
            "cost_usd": report["cost_usd"],
            "tokens": usage["total_tokens"],
            "text": str(answer.text),
            "topics": [source["title"] for source in answer.sources],
        }
        self.rows.append(row)
        self.durations_s.setdefault(str(answer.status), []).append(report["duration_s"])
        self.tokens += usage["total_tokens"]
        self.cost_usd += report["cost_usd"] or 0.0
        self.saved_usd += (events.get("CacheServed") or {}).get("saved_usd") or 0.0
        self.fallbacks += sum(each["kind"] == "FellBack" for each in report["events"])
        return row

    def summary(self) -> dict[str, Any]:
        asked = len(self.rows)
        cached = len(self.durations_s.get("cached", ()))
        return {
            "questions": asked,
            "hit_rate": round(cached / asked, 3) if asked else 0.0,
            "seconds": {
                status: {"count": len(each), "p50": statistics.median(each), "p95": _p95(each)}
                for status, each in sorted(self.durations_s.items())
            },
            "tokens": self.tokens,
            "cost_usd": round(self.cost_usd, 6),
            "saved_usd": round(self.saved_usd, 6),
            "fallbacks": self.fallbacks,
        }


def _p95(values: list[float]) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(0.95 * (len(ordered) - 1)))]


def write_documents(folder: Path) -> int:
    """The language reference that ships with CPython, a Markdown file for each topic; how many."""
    from pydoc_data.topics import topics

    documents = folder / "docs"
    documents.mkdir(parents=True, exist_ok=True)
    for topic, text in topics.items():
        path, written = documents / f"{topic}.md", f"# {topic}\n\n{text}"
        if not path.exists() or path.read_text(encoding="utf-8") != written:
            path.write_text(written, encoding="utf-8")
    return len(topics)


@contextmanager
def _stand_in(chain_file: Path) -> Iterator[tuple[Chain, ModelServer]]:
    """The demo's chain with its main model played by a server on this machine."""
    from chainops.models.extractive import ExtractiveChatModel

    model = ExtractiveChatModel()

    def answer(messages: list[dict[str, Any]]) -> str:
        return str(model.invoke([(each["role"], each["content"]) for each in messages]).text)

    words = read(chain_file).value
    with ModelServer(answer) as server:
        os.environ["CHAINOPS_DEMO_KEY"] = "none"  # the client wants one; the server does not look at it
        played = {"model": STAND_IN, "base_url": server.url, "key_env": "CHAINOPS_DEMO_KEY", "price": PRICE}
        words["models"]["main"] = {**played, "timeout_s": 10}
        yield declare(words, base=chain_file.parent), server


def run(folder: Path, *, as_json: bool) -> None:
    """The whole demo. Works again when repeated: documents and index are kept, answers are asked anew."""
    topics = write_documents(folder)
    chain_file = folder / "python-help.yaml"
    chain_file.write_text(CHAIN.format(folder=folder.as_posix()), encoding="utf-8")
    say = typer.echo if not as_json else _to_stderr
    say(f"{topics} topics of the Python language reference are in {folder / 'docs'}, the chain in {chain_file}.")
    with _stand_in(chain_file) as (chain, server):
        with shown_progress("indexing", always=not as_json) as show:
            report = chain.index(progress=show)
        say(f"index: {report.passages} passages, {report.embedded} of them new, in {report.seconds:.1f} s")
        say(
            f"\nA server on this machine plays {STAND_IN}: it answers with sentences of the reference,\n"
            f"so the cost shown is what {STAND_IN} would charge for the same tokens. No key, no network.\n"
        )
        chain.cache.clear()
        tally = Tally()
        say("sim. is how similar the nearest question asked before is; this demo's cache serves its answer from 0.87.")
        if not as_json:
            typer.echo(_HEAD)
        for number, question in enumerate(QUESTIONS):
            if number == FAILS_FROM:
                server.fail(Status(503))
                say(f"--- {STAND_IN} now answers every call with HTTP 503")
            if number == WORKS_FROM:
                server.heal()
                say(f"--- {STAND_IN} works again")
            row = tally.add(question, chain.invoke(question, caller(user="demo", feature="demo")))
            if not as_json:
                typer.echo(_line(row))
    if as_json:
        typer.echo(json.dumps({"summary": tally.summary(), "rows": tally.rows}, ensure_ascii=False))
        return
    _closing(tally.summary())
    _next_steps(folder)


def _to_stderr(message: str) -> None:
    typer.echo(message, err=True)


_HEAD = f"{'status':<9} {'time':>8}  {'served by':<20} {'sim.':>5} {'cost':>10}  question → answer [topics]"


def _line(row: dict[str, Any]) -> str:
    similarity = f"{row['similarity']:.2f}" if row["similarity"] is not None else ""
    words = " ".join(row["text"].split())
    return (
        f"{row['status']:<9} {seconds(row['duration_s']):>8}  {row['served_by'] or '':<20} {similarity:>5} "
        f"{dollars(row['cost_usd']):>10}  {row['question']} → {words[:60]}… [{', '.join(row['topics'])}]"
    )


def _closing(summary: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{summary['questions']} questions, {summary['hit_rate']:.0%} served from the cache")
    for column in ("status", "answers", "p50", "p95"):
        table.add_column(column, justify="left" if column == "status" else "right")
    for status, each in summary["seconds"].items():
        table.add_row(status, str(each["count"]), seconds(each["p50"]), seconds(each["p95"]))
    Console(file=sys.stdout).print(table)
    typer.echo(
        f"{summary['tokens']:,} tokens, {dollars(summary['cost_usd'])} spent, {dollars(summary['saved_usd'])} saved "
        f"by the cache, {summary['fallbacks']} fallbacks."
    )


def _next_steps(folder: Path) -> None:
    bin_folder = Path(sys.executable).parent
    here = bin_folder.relative_to(Path.cwd()).as_posix() + "/" if bin_folder.is_relative_to(Path.cwd()) else ""
    chain = (folder / "python-help.yaml").as_posix()
    database = (folder / ".chainops" / "mlflow.db").as_posix()
    typer.echo(
        "\nNext:\n"
        f'  {here}chainops ask {chain} "What is a generator?"       your own question\n'
        f"  {here}jupyter lab notebooks/01_first_chain.ipynb              the same in a notebook\n"
        f"  {here}mlflow server --backend-store-uri sqlite:///{database}   the traces of these answers\n"
        f"  {here}chainops serve {chain}                             over HTTP, with a playground"
    )


__all__ = ["CHAIN", "QUESTIONS", "Tally", "run", "write_documents"]
