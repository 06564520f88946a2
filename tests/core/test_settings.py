"""Settings are strict, and state lives where it is said to."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError

from chainops.core.caller import STATE_KEY, Caller, caller
from chainops.core.settings import Seconds, Settings, home, model_home


class Example(Settings):
    size: int = 1


def test_unknown_words_and_changes_are_refused():
    with pytest.raises(ValidationError, match="siez"):
        Example(siez=2)
    with pytest.raises(ValidationError, match="frozen"):
        Example().size = 2


@pytest.mark.parametrize(
    ("said", "meant"),
    [(3, 3.0), (0.5, 0.5), ("250ms", 0.25), ("10 s", 10), ("5m", 300), ("24h", 86_400), ("2w", 1_209_600)],
)
def test_durations_are_numbers_or_numbers_with_a_unit(said, meant):
    assert TypeAdapter(Seconds).validate_python(said) == meant


@pytest.mark.parametrize("said", ["10 years", "s", "-1s", -1, 0, "0s", ""])
def test_what_is_no_duration_is_refused(said):
    with pytest.raises(ValidationError):
        TypeAdapter(Seconds).validate_python(said)


def test_state_lives_beside_the_chain_file(tmp_path, monkeypatch):
    monkeypatch.delenv("CHAINOPS_HOME", raising=False)
    monkeypatch.chdir(tmp_path)
    assert home() == tmp_path / ".chainops"
    assert home(tmp_path / "not-there-yet.yaml") == tmp_path / ".chainops"
    assert home(tmp_path / "deep") == tmp_path / "deep" / ".chainops"
    assert not (tmp_path / ".chainops").exists()


def test_the_environment_says_where_state_and_models_live(tmp_path, monkeypatch):
    monkeypatch.setenv("CHAINOPS_HOME", str(tmp_path / "h"))
    monkeypatch.setenv("CHAINOPS_MODEL_HOME", str(tmp_path / "m"))
    assert home(Path("/elsewhere")) == tmp_path / "h"
    assert model_home() == tmp_path / "m"
    monkeypatch.delenv("CHAINOPS_MODEL_HOME")
    assert model_home() == Path.home() / ".cache" / "chainops"


def test_a_caller_is_checked_where_it_is_made():
    assert caller(user="ann")["configurable"][STATE_KEY] == Caller(user="ann")
    for wrong in ({"usre": "ann"}, {"deadline_s": 0}, {"priority": 11}, {"budget_usd": -1}, {"cache": "never"}):
        with pytest.raises(ValidationError):
            caller(**wrong)
