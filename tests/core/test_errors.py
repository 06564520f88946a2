"""Errors carry facts, and carry them home from worker processes."""

from __future__ import annotations

import copy
import pickle

import pytest

from chainops.core import errors
from chainops.core.errors import ChainopsError
from chainops.core.extras import require

EXAMPLES = [
    errors.ChainopsError("plain"),
    errors.MissingExtra("langserve", "serve"),
    errors.InvalidInput("question", "''", "some text"),
    errors.DeadlineExceeded("model", 2.5),
    errors.PlanError("broke the rules"),
    errors.StoreError("a.db", "is odd", "look at it"),
    errors.StoreUnavailable("a.db", "is locked", "wait"),
    errors.StoreCorrupted("a.db", "is not a database", "restore it"),
    errors.StoreTooNew("a.db", "was written by 9.0", "upgrade"),
    errors.CallRefused("gpt", "over budget", "no budget is left", retry_after_s=60.0),
    errors.AttemptsExhausted("gpt", "its retries are used up"),
    errors.AllRoutesFailed([("gpt", errors.ChainopsError("odd"))]),
]


def test_every_error_of_core_has_an_example_here():
    defined = {each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, ChainopsError)}
    assert {type(example) for example in EXAMPLES} == defined


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("way", [lambda e: pickle.loads(pickle.dumps(e)), copy.deepcopy, copy.copy])
def test_errors_pickle_and_copy_with_their_facts(error, way):
    error.report = {"stages": []}
    back = way(error)
    assert type(back) is type(error)
    assert str(back) == str(error)
    assert repr(back.__dict__) == repr(error.__dict__)  # an error among the facts equals only itself
    assert back.retryable == error.retryable


def test_an_error_with_a_signature_of_its_own_pickles_too():
    back = pickle.loads(pickle.dumps(Odd([("a", ValueError("x"))], limit=3)))
    assert (str(back), back.limit, repr(back.failures)) == ("1 of 3 failed", 3, "[('a', ValueError('x'))]")


class Odd(ChainopsError):
    def __init__(self, failures, *, limit):
        self.failures, self.limit = failures, limit
        super().__init__(f"{len(failures)} of {limit} failed")


def test_errors_are_what_python_would_call_them():
    assert issubclass(errors.DeadlineExceeded, TimeoutError)
    assert issubclass(errors.InvalidInput, ValueError)
    assert issubclass(errors.MissingExtra, ImportError)
    assert [each.retryable for each in (errors.StoreUnavailable, errors.StoreCorrupted)] == [True, False]


def test_messages_name_the_place_and_the_next_move():
    assert str(EXAMPLES[3]) == (
        "model: the deadline of 2.5 s has passed; "
        "give it more: chainops.caller(deadline_s=...), or `deadline` in the chain file"
    )
    assert str(EXAMPLES[6]) == "a.db: is locked; wait"


def test_a_missing_extra_says_how_to_install_it():
    with pytest.raises(errors.MissingExtra) as caught:
        require("no_such_package_here.sub", extra="serve")
    assert str(caught.value) == "'no_such_package_here' is not installed; pip install 'chainops[serve]'"
    assert (caught.value.module, caught.value.extra) == ("no_such_package_here", "serve")


def test_a_package_that_is_there_but_broken_says_what_it_lacks(tmp_path, monkeypatch):
    (tmp_path / "half_there.py").write_text("import its_missing_part")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="its_missing_part") as caught:
        require("half_there", extra="serve")
    assert not isinstance(caught.value, errors.MissingExtra)


def test_a_package_that_is_there_is_given():
    assert require("json.decoder", extra="serve").JSONDecoder
