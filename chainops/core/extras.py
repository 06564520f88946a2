"""Import a heavier package where it is used, or say exactly how to install it."""

from __future__ import annotations

import importlib
from types import ModuleType

from chainops.core.errors import MissingExtra


def require(module: str, *, extra: str) -> ModuleType:
    """Import `module`, or raise `MissingExtra` naming the extra that installs it.

    Ask for `mlflow.tracking`, never for `mlflow` alone: a folder called `mlflow/` answers to
    that name as an empty namespace package when MLflow is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        root = module.partition(".")[0]
        if error.name is not None and error.name.partition(".")[0] != root:
            raise  # the package is there, and one of its own imports is broken: say that instead
        raise MissingExtra(root, extra) from error
