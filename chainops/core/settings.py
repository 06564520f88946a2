"""What may be set: strict, frozen values that say where they came from."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema


class Settings(BaseModel):
    """Base of everything a chain file may say. Unknown words are errors, not defaults."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
_DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|w)\s*")


def _seconds(value: Any) -> Any:
    if isinstance(value, str):
        if found := _DURATION.fullmatch(value):
            return float(found[1]) * _UNITS[found[2]]
        if not re.fullmatch(r"\s*\d+(?:\.\d+)?\s*", value):
            raise ValueError("expected seconds, or a number with a unit such as 250ms, 30m, 24h, 7d")
    return value


_AS_JSON = {
    "anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "string", "pattern": f"^({_DURATION.pattern})$"}]
}
Seconds = Annotated[float, BeforeValidator(_seconds), Field(gt=0), WithJsonSchema(_AS_JSON)]
"""A duration: a number of seconds, or a number with a unit: `250ms`, `10s`, `5m`, `24h`, `7d`, `2w`."""


def home(beside: Path | None = None) -> Path:
    """The folder that keeps state when no server is named.

    Args:
        beside: A chain file, or a folder; None means the working directory.

    Returns:
        `CHAINOPS_HOME` if set, else `.chainops/` beside the chain file. Not created here.
    """
    if configured := os.environ.get("CHAINOPS_HOME"):
        return Path(configured).expanduser().resolve()
    base = Path.cwd() if beside is None else beside
    if base.is_file() or base.suffix in {".yaml", ".yml"}:
        base = base.parent
    return base.resolve() / ".chainops"


def model_home() -> Path:
    """Where compiled models are kept, for all chains of this user: `~/.cache/chainops`."""
    if configured := os.environ.get("CHAINOPS_MODEL_HOME"):
        return Path(configured).expanduser().resolve()
    return Path.home() / ".cache" / "chainops"
