"""Turn sentence-transformers weights into an ONNX file once; afterwards nothing needs torch.

A compiled model is a folder `model_home()/<digest>/` with `model.onnx` (pooling and unit length inside the graph),
`tokenizer.json` and `meta.json`, which records the SHA-256 of the other two. Folders appear whole, by rename, and are
checked when opened: one that is half-written or damaged is never used.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import shutil
import time
import uuid
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from chainops.core.errors import ChainopsError, MissingExtra, StoreCorrupted, StoreUnavailable
from chainops.core.extras import require
from chainops.core.settings import model_home

FORMAT = 1
"""Meaning of a compiled folder; a change makes all older ones be rebuilt."""

OnProgress = Callable[[str], None]
"""Called with one short line when something takes seconds (loading, exporting)."""

_FILES = ("model.onnx", "tokenizer.json")
_SHAPES_CHECKED = ("One.", "A second, rather longer sentence about nothing in particular.", "word " * 300)
_SAME = 0.99999
_ABANDONED_AFTER_S = 3600.0


class CompileFailed(ChainopsError):
    """The weights could not be turned into an ONNX file that gives the same vectors."""

    def __init__(self, source: str, problem: str) -> None:
        self.source, self.problem = source, problem
        super().__init__(f"{source}: cannot be compiled for ONNX Runtime: {problem}; choose another embedding model")


@dataclass(frozen=True, slots=True)
class Meta:
    """What `meta.json` says about a compiled model."""

    name: str
    weights: str
    """SHA-256 that names the weights, and the folder."""
    vocabulary: str
    """SHA-256 of the tokenizer file that came with the weights."""
    dimensions: int
    max_tokens: int
    """Longer texts are cut to this many tokens, as sentence-transformers cuts them."""
    inputs: tuple[str, ...]
    files: dict[str, str]
    """SHA-256 of each file beside `meta.json`."""
    query_prompt: str = ""
    """Put before every query, for models trained with such instructions."""
    document_prompt: str = ""
    made_with: dict[str, str] = field(default_factory=dict)
    format: int = FORMAT


@dataclass(frozen=True, slots=True)
class Compiled:
    """A compiled model whose files matched their recorded digests when it was opened."""

    folder: Path
    meta: Meta


def sha256_of(path: Path) -> str:
    """SHA-256 of a file as 64 hex digits; about 0.3 s for MiniLM's 90 MB."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def open_compiled(folder: Path) -> Compiled | None:
    """Open a compiled folder; None if it is not there.

    Raises:
        StoreCorrupted: a file is missing or does not match its recorded SHA-256, or `meta.json` cannot be read.
    """
    if not folder.is_dir():
        return None
    try:
        raw = json.loads((folder / "meta.json").read_text("utf-8"))
        meta = Meta(**(raw | {"inputs": tuple(raw["inputs"])}))
        if meta.format != FORMAT:
            raise ValueError(f"format {meta.format}, this chainops writes {FORMAT}")
        for name in _FILES:
            if (found := sha256_of(folder / name)) != meta.files[name]:
                raise ValueError(f"{name} has SHA-256 {found}, recorded was {meta.files[name]}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreCorrupted(str(folder), f"compiled model is damaged: {error}", "delete the folder") from error
    return Compiled(folder, meta)


def compiled_model(
    name: str, digest: str, weights: Callable[[], Path], *, on_progress: OnProgress | None = None
) -> Compiled:
    """The compiled model for these weights, compiled now if that has not happened on this machine.

    Any number of processes may ask at once: each builds aside, and one rename wins.

    Args:
        name: What people call the model, for messages and `meta.json`.
        digest: SHA-256 that names the weights; the folder's name.
        weights: Finds the sentence-transformers folder; called only if something must be compiled.
        on_progress: Told when compiling begins and ends (about 10 s).

    Raises:
        MissingExtra: not compiled yet, and the `embed` extra is not installed.
        StoreCorrupted: the compiled folder is damaged and cannot be rebuilt without the `embed` extra.
        StoreUnavailable: the model folder cannot be written.
        CompileFailed: the model is of a kind that cannot be exported.
    """
    folder = model_home() / digest
    damage: StoreCorrupted | None = None
    try:
        if ready := open_compiled(folder):
            return ready
    except StoreCorrupted as error:
        damage = error
    try:
        require("sentence_transformers", extra="embed")
        require("onnx", extra="embed")
    except MissingExtra as missing:
        if damage is None:
            raise
        raise StoreCorrupted(
            damage.place, damage.problem, f"pip install 'chainops[{missing.extra}]' and it is rebuilt on the next use"
        ) from missing
    source = weights()
    if on_progress:
        on_progress(f"compiling {name} for ONNX Runtime in {folder} (once; about 10 s)")
    _build(name, digest, source, folder)
    ready = open_compiled(folder)
    if ready is None:
        raise StoreUnavailable(str(folder), "the compiled model vanished while it was opened", "run it again")
    if on_progress:
        on_progress(f"compiled {name}")
    return ready


def _build(name: str, digest: str, source: Path, folder: Path) -> None:
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _sweep(folder.parent)
        aside = _make_aside(folder.parent)
    except OSError as error:
        raise _unwritable(folder.parent, error) from error
    try:
        _export(name, digest, source, aside)
        _move_in(aside, folder)
    except OSError as error:
        raise _unwritable(folder.parent, error) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _unwritable(place: Path, error: OSError) -> StoreUnavailable:
    return StoreUnavailable(
        str(place),
        f"a compiled model (100 MB) cannot be written: {error.strerror or error}",
        "make room or set CHAINOPS_MODEL_HOME to a folder that can be written",
    )


def _move_in(aside: Path, folder: Path) -> None:
    """Put a finished folder in its place, over a damaged one, under a good one another process was first with."""
    for _ in range(10):
        try:
            aside.rename(folder)
        except OSError:
            if not folder.exists():
                raise
            try:
                if open_compiled(folder):
                    return
            except StoreCorrupted:
                # Away by rename first: deleting in place could delete what another process has just moved in.
                with contextlib.suppress(FileNotFoundError):
                    grave = _make_aside(folder.parent)
                    folder.rename(grave / "damaged")
                    shutil.rmtree(grave, ignore_errors=True)
        else:
            return
    raise StoreUnavailable(str(folder), "other processes keep replacing this folder", "run it again")


def _make_aside(home: Path) -> Path:
    aside = home / f".building-{uuid.uuid4().hex}"  # not mkdtemp: its mode 0700 would follow the folder into place
    aside.mkdir()
    return aside


def _sweep(home: Path) -> None:
    """Drop what processes that were killed while compiling left behind."""
    for left in home.glob(".building-*"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - left.stat().st_mtime > _ABANDONED_AFTER_S:
                shutil.rmtree(left, ignore_errors=True)


def _export(name: str, digest: str, source: Path, aside: Path) -> None:
    with _quiet():
        model = _load(source)
        inputs = _trace(model, source, aside / "model.onnx")
    tokenizer = getattr(model.tokenizer, "backend_tokenizer", None)
    if tokenizer is None:
        raise CompileFailed(str(source), "its tokenizer has no fast (tokenizers) form")
    max_tokens = int(model.get_max_seq_length() or 512)
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_tokens)
    tokenizer.save(str(aside / "tokenizer.json"))
    prompts = {key: value or "" for key, value in (model.prompts or {}).items()}
    if any(prompts.values()) and not all(getattr(module, "include_prompt", True) for module in model):
        raise CompileFailed(str(source), "it leaves its prompt out of the pooling, which the ONNX graph does not do")
    meta = Meta(
        name=name,
        weights=digest,
        vocabulary=sha256_of(words) if (words := source / "tokenizer.json").is_file() else "",
        dimensions=len(model.encode(_SHAPES_CHECKED[0], prompt="", show_progress_bar=False)),
        max_tokens=max_tokens,
        inputs=inputs,
        files={file: sha256_of(aside / file) for file in _FILES},
        query_prompt=prompts.get("query", ""),
        document_prompt=prompts.get("document", prompts.get("passage", "")),
        made_with={kind: require(kind, extra="embed").__version__ for kind in ("torch", "sentence_transformers")},
    )
    (aside / "meta.json").write_text(json.dumps(asdict(meta), indent=2), "utf-8")
    _check(model, source, Compiled(aside, meta))


def _load(source: Path) -> Any:
    sentence_transformers = require("sentence_transformers", extra="embed")
    try:
        # Local files only and no remote code: the weights were found, and verified, before this.
        model = sentence_transformers.SentenceTransformer(
            str(source), device="cpu", local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise CompileFailed(str(source), f"sentence-transformers cannot load it: {error}") from error
    return model.eval()


def _trace(model: Any, source: Path, target: Path) -> tuple[str, ...]:
    torch = require("torch", extra="embed")
    features = model.tokenizer(list(_SHAPES_CHECKED[:2]), padding=True, return_tensors="pt")
    inputs = tuple(key for key in ("input_ids", "attention_mask", "token_type_ids") if key in features)

    class Graph(torch.nn.Module):  # type: ignore[misc, name-defined, unused-ignore]
        """The whole model as one function from token ids to unit rows."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *tensors: Any) -> Any:
            rows = self.model(dict(zip(inputs, tensors, strict=True)))["sentence_embedding"]
            return torch.nn.functional.normalize(rows, dim=1)

    axes = {key: {0: "batch", 1: "tokens"} for key in inputs} | {"unit_rows": {0: "batch"}}
    try:
        with torch.no_grad():
            # The TorchScript exporter: it needs `onnx` only, takes 2 s, and its graph is as fast as the newer one's.
            torch.onnx.export(
                Graph().eval(),
                tuple(features[key] for key in inputs),
                str(target),
                dynamo=False,
                opset_version=17,
                input_names=list(inputs),
                output_names=["unit_rows"],
                dynamic_axes=axes,
            )
    except (RuntimeError, TypeError, ValueError, KeyError) as error:
        raise CompileFailed(str(source), f"the ONNX export failed: {error}") from error
    return inputs


def _check(model: Any, source: Path, made: Compiled) -> None:
    """Compare with sentence-transformers before anybody sees the folder."""
    from chainops.models.onnx import OnnxRunner

    ours = OnnxRunner(made).rows(_SHAPES_CHECKED)
    theirs = model.encode(list(_SHAPES_CHECKED), prompt="", normalize_embeddings=True, show_progress_bar=False)
    worst = float((ours * theirs).sum(axis=1).min())
    if not worst >= _SAME:
        raise CompileFailed(str(source), f"its vectors differ from sentence-transformers' (cosine {worst:.6f})")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep progress bars and the exporter's notes off the user's screen; errors still raise."""
    hub = require("transformers.utils.logging", extra="embed")
    bars = hub.is_progress_bar_enabled()
    before = {name: logging.getLogger(name).level for name in ("torch.onnx", "sentence_transformers", "transformers")}
    hub.disable_progress_bar()
    for name in before:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)
        if bars:
            hub.enable_progress_bar()


def folder_digest(folder: Path) -> str:
    """SHA-256 over everything in a sentence-transformers folder that can change its vectors: weights, settings, words.

    Raises:
        CompileFailed: no `model.safetensors` there (pickled weights are not loaded).
    """
    names = sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix in {".json", ".txt", ".model", ".safetensors"}
    )
    if not any(name.endswith(".safetensors") for name in names):
        raise CompileFailed(str(folder), "there is no .safetensors file in it (pickled weights are not loaded)")
    whole = hashlib.sha256()
    for name in names:
        whole.update(f"{name}\0{sha256_of(folder / name)}\n".encode())
    return whole.hexdigest()
