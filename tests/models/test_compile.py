"""Weights become an ONNX folder once, whole or not at all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from chainops.core import extras
from chainops.core.errors import MissingExtra, StoreCorrupted, StoreUnavailable
from chainops.models import compile as compiling
from chainops.models.compile import CompileFailed, compiled_model, folder_digest, open_compiled, sha256_of
from chainops.models.onnx import OnnxRunner

_COMPILE = """
import sys
from pathlib import Path
from chainops.models.compile import compiled_model
print(compiled_model("tiny", sys.argv[2], lambda: Path(sys.argv[1])).folder)
"""

_RUN = """
import sys
class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "transformers", "sentence_transformers", "onnx"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, NoTorch())
from chainops.models.embeddings import embedder
print(embedder(sys.argv[1]).embed(["the cat sat on a mat"]).tolist()[0])
"""


@pytest.fixture(scope="module")
def ready(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home in which the tiny model was compiled by two processes at the same time."""
    home = tmp_path_factory.mktemp("home")
    environment = os.environ | {"CHAINOPS_MODEL_HOME": str(home)}
    command = [sys.executable, "-c", _COMPILE, str(tiny_model), folder_digest(tiny_model)]
    both = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in "12"]
    for process in both:
        out, err = process.communicate(timeout=400)
        assert process.returncode == 0, err.decode()
        assert out.decode().strip() == str(home / folder_digest(tiny_model))
    return home


def _copy(ready: Path, model_home: Path, tiny_model: Path) -> Path:
    folder = model_home / folder_digest(tiny_model)
    folder.mkdir(parents=True)
    for file in (ready / folder.name).iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def _without_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(module: str, *, extra: str) -> None:
        raise MissingExtra(module, extra)

    monkeypatch.setattr(compiling, "require", missing)
    assert extras.require is not missing


def test_two_processes_at_once_leave_one_whole_folder_and_nothing_else(ready: Path, tiny_model: Path) -> None:
    assert [entry.name for entry in ready.iterdir()] == [folder_digest(tiny_model)]
    compiled = open_compiled(ready / folder_digest(tiny_model))
    assert compiled is not None
    assert compiled.meta.dimensions == 16
    assert compiled.meta.max_tokens == 32


def test_a_compiled_model_gives_the_vectors_of_sentence_transformers(ready: Path, tiny_model: Path) -> None:
    from sentence_transformers import SentenceTransformer

    compiled = open_compiled(ready / folder_digest(tiny_model))
    assert compiled is not None
    texts = ["the cat", "", "what is it? " * 100, "dogs ran far away from home."]
    theirs = SentenceTransformer(str(tiny_model), device="cpu").encode(texts, normalize_embeddings=True)
    assert (OnnxRunner(compiled).rows(texts) * theirs).sum(axis=1).min() > 0.99999


def test_a_compiled_model_runs_where_torch_is_not_installed(ready: Path, tiny_model: Path) -> None:
    environment = os.environ | {"CHAINOPS_MODEL_HOME": str(ready)}
    done = subprocess.run(
        [sys.executable, "-c", _RUN, str(tiny_model)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert np.linalg.norm(json.loads(done.stdout)) == pytest.approx(1, abs=1e-5)


def test_a_damaged_file_is_noticed_and_rebuilt(ready: Path, model_home: Path, tiny_model: Path) -> None:
    folder = _copy(ready, model_home, tiny_model)
    model = folder / "model.onnx"
    model.write_bytes(model.read_bytes()[:-10])
    with pytest.raises(StoreCorrupted, match=r"model\.onnx has SHA-256"):
        open_compiled(folder)
    told: list[str] = []
    compiled = compiled_model("tiny", folder.name, lambda: tiny_model, on_progress=told.append)
    assert compiled.meta.files["model.onnx"] == sha256_of(model)
    assert [line.split()[0] for line in told] == ["compiling", "compiled"]
    assert [entry.name for entry in model_home.iterdir()] == [folder.name]


@pytest.mark.parametrize("name", ["meta.json", "tokenizer.json", "model.onnx"])
def test_a_half_written_folder_is_never_used(ready: Path, model_home: Path, tiny_model: Path, name: str) -> None:
    folder = _copy(ready, model_home, tiny_model)
    (folder / name).unlink()
    with pytest.raises(StoreCorrupted, match="damaged"):
        open_compiled(folder)


def test_damage_that_cannot_be_repaired_says_what_to_install(
    ready: Path, model_home: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = _copy(ready, model_home, tiny_model)
    (folder / "meta.json").write_text("{", "utf-8")
    _without_extra(monkeypatch)
    with pytest.raises(StoreCorrupted, match=r"pip install 'chainops\[embed\]'"):
        compiled_model("tiny", folder.name, lambda: tiny_model)


def test_without_the_extra_and_without_a_compiled_folder_the_extra_is_named(
    model_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _without_extra(monkeypatch)
    with pytest.raises(MissingExtra) as raised:
        compiled_model("tiny", "0" * 64, lambda: Path("nowhere"))
    assert (raised.value.module, raised.value.extra) == ("sentence_transformers", "embed")
    assert not model_home.exists()


def test_a_folder_that_is_no_model_leaves_nothing_behind(tmp_path: Path, model_home: Path) -> None:
    source = tmp_path / "empty"
    source.mkdir()
    (source / "config.json").write_text("{}", "utf-8")
    with pytest.raises(CompileFailed, match="cannot load it"):
        compiled_model("empty", "1" * 64, lambda: source)
    assert list(model_home.iterdir()) == []


def test_a_home_that_cannot_be_written_is_named(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("not a folder", "utf-8")
    monkeypatch.setenv("CHAINOPS_MODEL_HOME", str(tmp_path / "file"))
    with pytest.raises(StoreUnavailable, match="CHAINOPS_MODEL_HOME"):
        compiled_model("tiny", "2" * 64, lambda: tiny_model)


def test_what_a_killed_process_left_is_swept_away_after_an_hour(model_home: Path) -> None:
    old, fresh = model_home / ".building-old", model_home / ".building-new"
    for folder in (old, fresh):
        folder.mkdir(parents=True)
    os.utime(old, (time.time() - 7200,) * 2)
    compiling._sweep(model_home)
    assert [entry.name for entry in model_home.iterdir()] == [".building-new"]


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}", "utf-8")
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(CompileFailed, match="pickled weights"):
        folder_digest(tmp_path)


def test_the_digest_changes_with_any_file_that_can_change_the_vectors(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"a")
    (tmp_path / "config.json").write_text("{}", "utf-8")
    before = folder_digest(tmp_path)
    (tmp_path / "README.md").write_text("words", "utf-8")
    assert folder_digest(tmp_path) == before
    (tmp_path / "config.json").write_text("{ }", "utf-8")
    assert folder_digest(tmp_path) != before
