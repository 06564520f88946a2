"""`chainops run`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

ChainPath = Annotated[Path, typer.Argument(help="The chain file.", exists=True, dir_okay=False, show_default=False)]


def run(
    chain: ChainPath,
    rows: Annotated[Path, typer.Option("--in", help="Rows: .jsonl, .csv, .parquet or .txt; .gz too.")],
    out: Annotated[Path, typer.Option("--out", help="Answers: .jsonl, .csv or .parquet.")],
    concurrency: Annotated[int, typer.Option(help="Rows in flight at most.", min=1)] = 8,
    in_order: Annotated[bool, typer.Option("--in-order", help="Answers in the order of the rows.")] = False,
    format: Annotated[str | None, typer.Option(help="jsonl, csv or parquet; default: as --out ends.")] = None,  # noqa: A002
    limit: Annotated[int | None, typer.Option(help="Only the first so many rows.", min=1)] = None,
    question: Annotated[
        str, typer.Option(help="The column that is the question; refused if no row has it.")
    ] = "question",
    keep: Annotated[
        str, typer.Option(help="Columns that the answers carry beside row, id and question, with commas between.")
    ] = "",
    retry_errors: Annotated[bool, typer.Option("--retry-errors", help="Ask rows again that failed before.")] = False,
    restart: Annotated[
        bool, typer.Option("--restart", help="Drop what was done before; the output is replaced.")
    ] = False,
    via: Annotated[
        str | None, typer.Option(help="openai-batch: hand the model's calls to the provider, at half the price.")
    ] = None,
    skip_wrappers: Annotated[
        bool, typer.Option("--skip-wrappers", help="With --via: leave out the chain's pipeline.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON, for machines.")] = False,
) -> None:
    """Ask a chain every row of a file; run it again to go on where it was stopped or killed.

    Exit status 0: all rows are answered. 1: some failed; they are rows of the output. 130: interrupted.
    """
    from chainops.batch.records import Stopped
    from chainops.batch.running import run as run_rows
    from chainops.cli.asking import opened

    options: dict[str, Any] = {"concurrency": concurrency, "in_order": in_order, "format": format, "limit": limit}
    options |= {"question": question, "keep": [name for each in keep.split(",") if (name := each.strip())]}
    options |= {"retry_errors": retry_errors, "restart": restart}
    options |= {"via": via, "skip_wrappers": skip_wrappers}
    try:
        summary = run_rows(opened(chain), rows, out, **options)
    except Stopped as stopped:
        summary = stopped.summary
    typer.echo(json.dumps(summary.to_dict(), ensure_ascii=False) if as_json else str(summary))
    if summary.is_stopped:
        raise typer.Exit(130)
    if summary.failed:
        raise typer.Exit(1)
