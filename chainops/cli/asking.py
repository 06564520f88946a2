"""`chainops ask`, `chat` and `index`."""

from __future__ import annotations

import json
import sys
import uuid
from pathlib import Path
from typing import Any

import typer

from chainops import Answer, caller, load
from chainops.core.show import answer_text
from chainops.spec.chain import Chain
from chainops.spec.progress import shown_progress

MAX_STDIN_CHARS = 2_000_000


def cache_word(word: str) -> str:
    if word not in ("use", "refresh", "bypass"):
        raise typer.BadParameter(f"{word!r}: expected use, refresh or bypass", param_hint="--cache")
    return word


def question_of(argument: str) -> str:
    return sys.stdin.read(MAX_STDIN_CHARS) if argument == "-" else argument


def opened(path: Path) -> Chain:
    """The chain, indexed: the first question should not wait in silence."""
    chain = load(path)
    if chain.declared.knowledge is not None:
        from chainops.knowledge.base import NotIndexed

        try:
            _ = chain.site.knowledge().version
        except NotIndexed:
            with shown_progress(f"indexing {chain.declared.name}") as show:
                report = chain.index(progress=show)
            for problem in report.skipped:
                typer.echo(f"skipped {problem}", err=True)
    return chain


def ask(path: Path, question: str, facts: dict[str, Any], *, stream: bool, as_json: bool) -> None:
    from chainops.spec.chain import normal

    normal(question, max_chars=load(path).declared.max_question_chars)  # before anything is indexed for it
    chain, config = opened(path), caller(**facts)
    if stream:
        _stream(chain, question, config, as_json=as_json)
        return
    answer = chain.invoke(question, config)
    if as_json:
        typer.echo(json.dumps({"answer": str(answer.text), **answer.facts}, ensure_ascii=False))
    else:
        typer.echo(answer_text(answer))


def _stream(chain: Chain, question: str, config: Any, *, as_json: bool) -> None:
    whole: Any = None
    for chunk in chain.stream(question, config):
        whole = chunk if whole is None else whole + chunk
        if as_json:
            typer.echo(json.dumps({"chunk": str(chunk.text), **chunk.facts}, ensure_ascii=False))
        else:
            typer.echo(str(chunk.text), nl=False)
    if not as_json and whole is not None:
        typer.echo(answer_text(Answer.of(whole))[len(str(whole.text)) :])


def chat(path: Path, *, session: str | None, facts: dict[str, Any]) -> None:
    chain = opened(path)
    session = session or f"chat-{uuid.uuid4().hex[:8]}"
    typer.echo(f"{chain.declared.name}, session {session}. An empty line ends.")
    while True:
        try:
            question = input("\nyou: ")
        except EOFError:
            typer.echo()  # the shell's prompt begins on a line of its own
            return
        if not question.strip():
            return
        _one_turn(chain, question, caller(session=session, **facts))


def _one_turn(chain: Chain, question: str, config: Any) -> None:
    from chainops.core.errors import ChainopsError

    typer.echo(f"{chain.declared.name}: ", nl=False)
    whole: Any = None
    try:
        for chunk in chain.stream(question, config):
            whole = chunk if whole is None else whole + chunk
            typer.echo(str(chunk.text), nl=False)
    except ChainopsError as error:  # one failed turn does not end the conversation
        typer.echo(f"chainops: {error}", err=True)
        return
    answer = Answer.of(whole) if whole is not None else None
    if answer is None:
        typer.echo()
        return
    titles = ", ".join(f"[{each['n']}] {each['title']}" for each in answer.sources)
    typer.echo(f"\n  ({answer.status}{'; ' + titles if titles else ''})")


def index(path: Path, *, as_json: bool) -> None:
    chain = load(path)
    with shown_progress(f"indexing {chain.declared.name}") as show:
        report = chain.index(progress=show)
    told = {
        "added": len(report.added),
        "changed": len(report.changed),
        "removed": len(report.removed),
        "unchanged": report.unchanged,
        "skipped": [str(each) for each in report.skipped],
        "passages": report.passages,
        "seconds": round(report.seconds, 3),
    }
    if as_json:
        typer.echo(json.dumps(told, ensure_ascii=False))
        return
    for problem in report.skipped:
        typer.echo(f"skipped {problem}", err=True)
    typer.echo(", ".join(f"{told[name]} {name}" for name in ("added", "changed", "removed", "unchanged", "passages")))
