"""`chainops spend`."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import typer

from chainops.core.errors import InvalidInput


def spend(chain: Path, *, by: str, since: str | None, as_json: bool) -> None:
    from chainops.spec.chain import load

    back = None if since is None else timedelta(seconds=_seconds(since))
    told = load(chain).spending(by, back)  # type: ignore[arg-type]  # it checks the word
    typer.echo(json.dumps(told.to_dict(), ensure_ascii=False) if as_json else str(told))


def _seconds(text: str) -> float:
    from pydantic import TypeAdapter, ValidationError

    from chainops.core.settings import Seconds

    try:
        if text.replace(".", "").isdigit():
            raise ValueError("a bare number could mean seconds or days")
        seconds: float = TypeAdapter(Seconds).validate_python(text)
    except (ValidationError, ValueError):
        raise InvalidInput("--since", repr(text), "a duration such as 12h, 7d, 4w") from None
    return seconds
