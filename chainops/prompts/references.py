"""Find a prompt by the words a chain file uses for it."""

from __future__ import annotations

import re
from pathlib import Path

from chainops.core.errors import InvalidInput
from chainops.core.settings import home
from chainops.prompts.files import read_prompt
from chainops.prompts.prompt import Prompt
from chainops.prompts.registry import PromptRegistry

FORMS = "prompts:/NAME@ALIAS, prompts:/NAME/VERSION, or file:PATH.md"

_REGISTERED = re.compile(r"prompts:/([A-Za-z0-9._-]+)(?:@([\w-]+)|/([1-9]\d*))", re.ASCII)


def load_prompt(reference: str, *, base: Path, tracking_uri: str | None = None) -> Prompt:
    """Read the prompt a reference names.

    Args:
        reference: `prompts:/name@alias`, `prompts:/name/3`, or `file:path.md`.
        base: The chain file's folder: file paths are relative to it.
        tracking_uri: The registry; None means `mlflow.db` at home beside the chain file.

    Raises:
        InvalidInput: the reference has another form.
        PromptFileNotFound, PromptNotFound: nothing is there; says what is.
        PromptInvalid: what is there is no prompt.
        StoreUnavailable: the registry cannot be reached.
        MissingExtra: a registry prompt, and MLflow is not installed.
    """
    if reference.startswith("file:") and (path := reference.removeprefix("file:").strip()):
        return read_prompt(base / path)
    match = _REGISTERED.fullmatch(reference)
    if match is None:
        raise InvalidInput("prompt", repr(reference), FORMS)
    name, alias, version = match.groups()
    registry = PromptRegistry(tracking_uri or f"sqlite:///{(home(base) / 'mlflow.db').as_posix()}")
    return registry.load(name, alias=alias, version=None if version is None else int(version))
