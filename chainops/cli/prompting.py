"""`chainops prompts`."""

from __future__ import annotations

import os
from pathlib import Path

import typer

from chainops.core.settings import home
from chainops.prompts.files import read_prompt
from chainops.prompts.registry import PromptRegistry


def _registry(tracking_uri: str | None) -> PromptRegistry:
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")  # a new database is no news
    default = f"sqlite:///{(home() / 'mlflow.db').as_posix()}"
    return PromptRegistry(tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or default)


def push(file: Path, *, alias: str | None, tracking_uri: str | None) -> None:
    pushed = _registry(tracking_uri).push(read_prompt(file), alias=alias)
    pointing = f", {alias} points to it" if alias else ""
    typer.echo(f"{pushed.name} version {pushed.version}{pointing}: use it as prompts:/{pushed.name}/{pushed.version}")


def versions(name: str, *, tracking_uri: str | None) -> None:
    for each in _registry(tracking_uri).versions(name):
        typer.echo(str(each))
