"""`chainops cache`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from chainops.core.errors import InvalidInput


def _told(thing: Any, *, as_json: bool) -> None:
    typer.echo(json.dumps(thing.to_dict(), ensure_ascii=False) if as_json else str(thing))


def _cache(chain: Path) -> Any:
    from chainops.spec.chain import load

    return load(chain).cache


def stats(chain: Path, *, tenant: str | None, as_json: bool) -> None:
    _told(_cache(chain).stats(tenant=tenant), as_json=as_json)


def explain(chain: Path, question: str, *, tenant: str | None, user: str | None, as_json: bool) -> None:
    from chainops.core.caller import caller
    from chainops.spec.chain import load

    loaded = load(chain)
    loaded.site.ready(loaded) if loaded.declared.knowledge is not None else None
    _told(loaded.cache.explain(question, caller(tenant=tenant, user=user)), as_json=as_json)


def wrong(chain: Path, entry: str, reason: str) -> None:
    gone = _cache(chain).wrong(entry, reason)
    others = f" and {len(gone) - 1} near it that say the same" if len(gone) > 1 else ""
    typer.echo(f"dropped {gone[0]}{others}")


def entries(chain: Path, *, containing: str, limit: int, as_json: bool) -> None:
    found = _cache(chain).entries(containing=containing, limit=limit)
    if as_json:
        rows = [
            {"id": each.id, "question": each.question, "served": times, "tenant": each.tenant}
            for each, times, _ in found
        ]
        typer.echo(json.dumps(rows, ensure_ascii=False))
        return
    for each, times, _ in found:
        typer.echo(f"{each.id}  served {times:>4}  {' '.join(each.question.split())[:80]}")


def drop(chain: Path, *, older_than: str | None, everything: bool, **said: str | None) -> None:
    from pydantic import TypeAdapter, ValidationError

    from chainops.core.settings import Seconds

    try:
        if older_than is not None and older_than.replace(".", "").isdigit():
            raise ValueError("a bare number could mean seconds or days")
        older_than_s = None if older_than is None else TypeAdapter(Seconds).validate_python(older_than)
    except (ValidationError, ValueError):
        raise InvalidInput("--older-than", repr(older_than), "a duration such as 30m, 24h, 7d") from None
    count = _cache(chain).drop(older_than_s=older_than_s, everything=everything, **said)
    typer.echo(f"dropped {count} {'entry' if count == 1 else 'entries'}")


def replay(chain: Path, rows: Path, *, as_json: bool) -> None:
    if str(rows) != "-" and not rows.is_file():
        raise InvalidInput(str(rows), "no file", 'JSON lines with "question" and "answer", or - for standard input')
    _told(_cache(chain).replay(_rows(rows)), as_json=as_json)


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    with sys.stdin if str(path) == "-" else path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise InvalidInput(f"{path}, line {number}", f"no JSON ({error})", "one JSON object per line") from None
            if not isinstance(row, dict):
                raise InvalidInput(f"{path}, line {number}", type(row).__name__, "one JSON object per line")
            yield row
