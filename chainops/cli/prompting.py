"""`chainops prompts`."""

from __future__ import annotations

import os
from pathlib import Path

import typer

from chainops.core.settings import home
from chainops.prompts.files import read_prompt
from chainops.prompts.registry import PromptRegistry

_LEVELS = 3
"""How many folders above a prompt file its chain is looked for."""


def _registry(tracking_uri: str | None, beside: Path) -> tuple[PromptRegistry, str]:
    """The registry of the chain that these prompts belong to, and its address."""
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")  # a new database is no news
    default = f"sqlite:///{(home(beside) / 'mlflow.db').as_posix()}"
    address = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or default
    return PromptRegistry(address), address


def _chain_folder(file: Path) -> Path:
    """The folder of the chain that a prompt file stands under: the nearest that has a chain file or its state."""
    for folder in list(file.resolve().parents)[:_LEVELS]:
        chains = (each.read_text("utf-8", "replace") for each in folder.glob("*.y*ml") if each.is_file())
        if (folder / ".chainops").is_dir() or any("chainops:" in text for text in chains):
            return folder
    return Path.cwd()


def push(file: Path, *, alias: str | None, tracking_uri: str | None) -> None:
    registry, address = _registry(tracking_uri, _chain_folder(file))
    pushed = registry.push(read_prompt(file), alias=alias)
    reference = f"prompts:/{pushed.name}@{alias}" if alias else f"prompts:/{pushed.name}/{pushed.version}"
    typer.echo(f"{pushed.name} version {pushed.version} in {address.rpartition('@')[2]}: use it as {reference}")


def versions(name: str, *, tracking_uri: str | None) -> None:
    registry, _ = _registry(tracking_uri, Path.cwd())
    for each in registry.versions(name):
        aliases = f" {', '.join(each.aliases)}" if each.aliases else ""
        typer.echo(f"{name} version {each.version}{aliases}{f': {each.message}' if each.message else ''}")
