"""`chainops`: the commands, and how they fail.

Exit status 2: the command line is wrong. 1: something failed. 0: done.
"""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from chainops.cli import routing, running

app = typer.Typer(
    name="chainops",
    help="Declare a LangChain chain once: run it in a notebook, evaluate it, serve it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    epilog="Add --debug to any command for a traceback when it fails.",
)
prompts = typer.Typer(help="Prompts: files to MLflow's registry and back.", no_args_is_help=True)
app.add_typer(prompts, name="prompts")
cache = typer.Typer(help="A chain's cache: what it did, why, and how to correct it.", no_args_is_help=True)
app.add_typer(cache, name="cache")
app.add_typer(routing.app, name="route")

ChainPath = Annotated[Path, typer.Argument(help="The chain file.", exists=True, dir_okay=False, show_default=False)]
User = Annotated[str | None, typer.Option(help="Who asks.")]
Tenant = Annotated[str | None, typer.Option(help="On whose behalf: the customer, or the team.")]
Feature = Annotated[str | None, typer.Option(help="What the answer is for, such as help or search.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")]


def main() -> None:
    """The entry point: one clear line for every failure, a traceback only with `--debug`."""
    arguments = sys.argv[1:]
    debug = "--debug" in arguments or bool(os.environ.get("CHAINOPS_DEBUG"))
    arguments = [each for each in arguments if each != "--debug"]
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a byte or a sign that does not fit is no reason to fail
    try:
        status = app(arguments, standalone_mode=False)
        sys.stdout.flush()
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 (this is where every failure is told)
        status = _failed(error, debug=debug)
    sys.exit(status if isinstance(status, int) else 0)


_UsageError = next(each for each in typer.BadParameter.__mro__ if each.__name__ == "ClickException")
"""Typer brings a click of its own or takes the installed one, depending on its version."""


def _failed(error: BaseException, *, debug: bool) -> int:
    """Say what went wrong, in one line; the exit status."""
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        return 130
    if isinstance(error, BrokenPipeError):  # `chainops ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # only so that exit does not complain again
        return 0
    if isinstance(error, _UsageError):
        return _misused(error)
    if debug:
        raise error
    from chainops.core.errors import ChainopsError, InvalidInput

    if isinstance(error, ChainopsError):
        typer.echo(f"chainops: {error}", err=True)
        return 2 if isinstance(error, InvalidInput) else 1
    if isinstance(error, OSError) and error.filename is not None:
        next_move = "check that it can be written, and that the disk is not full"
        typer.echo(f"chainops: {error.filename}: {error.strerror}; {next_move}", err=True)
    else:
        typer.echo(f"chainops: {type(error).__name__}: {error} (a bug? run it again with --debug)", err=True)
    return 1


def _misused(error: Any) -> int:
    """A wrong command line: what is wrong with it, and where to read on."""
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
    else:
        command = error.ctx.command_path if getattr(error, "ctx", None) else "chainops"
        typer.echo(f"chainops: {error.format_message()} Try: {command} --help", err=True)
    return 2


@app.command()
def ask(
    chain: ChainPath,
    question: Annotated[str, typer.Argument(help="The question; - reads it from standard input.")],
    stream: Annotated[bool, typer.Option("--stream", help="Print the answer as it comes.")] = False,
    as_json: AsJson = False,
    user: User = None,
    tenant: Tenant = None,
    feature: Feature = None,
    session: Annotated[str | None, typer.Option(help="Continue this conversation.")] = None,
    cache: Annotated[str, typer.Option(help="use, refresh or bypass what was answered before.")] = "use",
    deadline_s: Annotated[float | None, typer.Option(help="Seconds until an answer is of no use.", min=0.001)] = None,
) -> None:
    """Ask a chain one question."""
    from chainops.cli import asking

    who = {"user": user, "tenant": tenant, "feature": feature, "session": session}
    facts = {**who, "cache": asking.cache_word(cache), "deadline_s": deadline_s}
    asking.ask(chain, asking.question_of(question), facts, stream=stream, as_json=as_json)


@app.command()
def chat(
    chain: ChainPath,
    session: Annotated[str | None, typer.Option(help="Continue this conversation; default: a new one.")] = None,
    user: User = None,
    tenant: Tenant = None,
    feature: Feature = None,
) -> None:
    """Talk with a chain. An empty line or Ctrl-D ends."""
    from chainops.cli import asking

    asking.chat(chain, session=session, facts={"user": user, "tenant": tenant, "feature": feature})


@app.command()
def index(chain: ChainPath, as_json: AsJson = False) -> None:
    """Read a chain's documents and bring its index up to date."""
    from chainops.cli import asking

    asking.index(chain, as_json=as_json)


@app.command()
def check(chain: ChainPath, as_json: AsJson = False) -> None:
    """Validate a chain file without running it."""
    from chainops.cli import checking

    if not checking.check(chain, as_json=as_json):
        raise typer.Exit(1)


@app.command()
def schema() -> None:
    """Print the JSON Schema of chain files, for editors."""
    import json

    from chainops.spec.schema import chain_schema

    typer.echo(json.dumps(chain_schema(), indent=2, ensure_ascii=False))


@app.command()
def new(
    kind: Annotated[str, typer.Argument(help="rag or chat.")],
    folder: Annotated[Path, typer.Argument(help="Where to write it; made if it is not there.")],
) -> None:
    """Write a commented starter."""
    from chainops.cli import starting

    if kind not in starting.KINDS:
        raise typer.BadParameter(f"{kind!r} is neither rag nor chat", param_hint="KIND")
    starting.new(kind, folder)


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(help="Where the demo lives.")] = Path("demo"),
    as_json: AsJson = False,
) -> None:
    """Answer real questions about Python through a declared chain, offline."""
    from chainops.cli import demo as demo_

    demo_.run(folder, as_json=as_json)


@app.command()
def serve(
    chains: Annotated[list[Path], typer.Argument(help="Chain files.", exists=True, dir_okay=False)],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 picks a free one.", min=0, max=65535)] = 8000,
) -> None:
    """Serve chains with LangServe: /NAME/invoke, batch, stream, stream_events, playground."""
    from chainops.serve.app import run

    run(chains, host=host, port=port)


app.command("run")(running.run)


@app.command()
def spend(
    chain: ChainPath,
    by: Annotated[
        str, typer.Option(help="user, tenant, feature, model, day, chain, purpose, outcome or key_name.")
    ] = "user",
    since: Annotated[str | None, typer.Option(help="Only the last 12h, 7d, 4w.")] = None,
    as_json: AsJson = False,
) -> None:
    """What a chain has spent, and on whom."""
    from chainops.cli import spending

    spending.spend(chain, by=by, since=since, as_json=as_json)


@prompts.command("push")
def prompts_push(
    file: Annotated[Path, typer.Argument(help="A prompt file (*.md).", exists=True, dir_okay=False)],
    alias: Annotated[str | None, typer.Option(help="Let this alias point to it, such as production.")] = None,
    mlflow: Annotated[
        str | None, typer.Option(help="Tracking URI; default: MLFLOW_TRACKING_URI, or .chainops beside the chain file.")
    ] = None,
) -> None:
    """Make a file a version in MLflow's prompt registry; identical content makes no new one."""
    from chainops.cli import prompting

    prompting.push(file, alias=alias, tracking_uri=mlflow)


@prompts.command("list")
def prompts_list(
    name: Annotated[str, typer.Argument(help="The prompt's name.")],
    mlflow: Annotated[
        str | None, typer.Option(help="Tracking URI; default: MLFLOW_TRACKING_URI, or .chainops beside the chain file.")
    ] = None,
) -> None:
    """Versions and aliases of a prompt."""
    from chainops.cli import prompting

    prompting.versions(name, tracking_uri=mlflow)


@cache.command("stats")
def cache_stats(
    chain: ChainPath,
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's.")] = None,
    as_json: AsJson = False,
) -> None:
    """Hits, savings, and the measured error against the bound."""
    from chainops.cli import caching

    caching.stats(chain, tenant=tenant, as_json=as_json)


@cache.command("explain")
def cache_explain(
    chain: ChainPath,
    question: Annotated[str, typer.Argument(help="The question.")],
    tenant: Annotated[str | None, typer.Option(help="As asked by this tenant.")] = None,
    user: Annotated[str | None, typer.Option(help="As asked by this user.")] = None,
    as_json: AsJson = False,
) -> None:
    """Why a question would be served from the cache, or not."""
    from chainops.cli import caching

    caching.explain(chain, question, tenant=tenant, user=user, as_json=as_json)


@cache.command("list")
def cache_list(
    chain: ChainPath,
    containing: Annotated[str, typer.Option(help="Only questions with these words in them.")] = "",
    limit: Annotated[int, typer.Option(help="At most so many, newest first.", min=1)] = 50,
    as_json: AsJson = False,
) -> None:
    """Entries and their ids."""
    from chainops.cli import caching

    caching.entries(chain, containing=containing, limit=limit, as_json=as_json)


@cache.command("wrong")
def cache_wrong(
    chain: ChainPath,
    entry: Annotated[str, typer.Argument(help="Id of the entry, as the answer's report says it.")],
    reason: Annotated[str, typer.Argument(help="What is wrong with it.")],
) -> None:
    """Take out an entry whose answer is wrong."""
    from chainops.cli import caching

    caching.wrong(chain, entry, reason)


@cache.command("drop")
def cache_drop(
    chain: ChainPath,
    id: Annotated[str | None, typer.Option(help="One entry.")] = None,  # noqa: A002
    document: Annotated[str | None, typer.Option(help="Answers that came from this document.")] = None,
    prompt: Annotated[str | None, typer.Option(help="Answers given with this prompt.")] = None,
    model: Annotated[str | None, typer.Option(help="Answers of this model, as provider:name.")] = None,
    tag: Annotated[str | None, typer.Option(help="What was asked under this tag.")] = None,
    tenant: Annotated[str | None, typer.Option(help="What this tenant asked.")] = None,
    user: Annotated[str | None, typer.Option(help="What this user asked.")] = None,
    older_than: Annotated[str | None, typer.Option(help="What was stored longer ago: 30m, 24h, 7d.")] = None,
    everything: Annotated[bool, typer.Option("--everything", help="All of it.")] = False,
) -> None:
    """Take out the entries that fit all conditions given."""
    from chainops.cli import caching

    said = {"id": id, "document": document, "prompt": prompt, "model": model, "tag": tag, "tenant": tenant}
    caching.drop(chain, older_than=older_than, everything=everything, user=user, **said)


@cache.command("replay")
def cache_replay(
    chain: ChainPath,
    rows: Annotated[Path, typer.Argument(help='JSON lines with "question" and "answer"; - reads standard input.')],
    as_json: AsJson = False,
) -> None:
    """Score thresholds and bounds on logged traffic before enabling one."""
    from chainops.cli import caching

    caching.replay(chain, rows, as_json=as_json)


def _version(wanted: Any) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"chainops {version('chainops')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    """What stands before the command."""
