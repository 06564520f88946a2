from __future__ import annotations

import datetime as dt
import pickle
from pathlib import Path

import pytest

from chainops.knowledge.documents import Document, EmptyCorpus, LoadProblem, UnusableDocument


def document(**changes):
    return Document(**{"id": "a.md", "title": "A", "text": "Some text.", **changes})


def test_the_digest_changes_with_every_part_but_the_id():
    first = document()
    assert document(id="b.md").digest == first.digest
    others = [document(title="B"), document(text="Other."), document(media_type="text/x"), document(metadata={"k": 1})]
    assert len({first.digest, *(other.digest for other in others)}) == 5


def test_dates_and_paths_in_metadata_become_text():
    plain = document(metadata={"on": dt.date(2026, 1, 2), "from": Path("x/y")}).metadata
    assert plain == {"on": "2026-01-02", "from": "x/y"}


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"text": " \n"}, "is empty"),
        ({"text": "a\x00b"}, "NUL"),
        ({"text": "a\ud800b"}, "surrogate pair at character 1"),
        ({"id": ""}, "its id has 0 characters"),
        ({"id": "x" * 1001}, "its id has 1001 characters"),
        ({"metadata": {"model": object()}}, "not plain JSON (object)"),
        ({"metadata": {"share": float("nan")}}, "not plain JSON"),
        ({"metadata": {"name": "a\ud800"}}, "surrogate"),
    ],
)
def test_what_cannot_be_kept_is_refused_by_name(changes, problem):
    with pytest.raises(UnusableDocument) as caught:
        document(**changes)
    assert problem in caught.value.problem


def test_an_offset_knows_its_page():
    paged = document(text="one\n\ntwo\n\nthree", metadata={"pages": [0, 5, 10]})
    assert [paged.page_of(offset) for offset in (0, 4, 5, 9, 10)] == [1, 1, 2, 2, 3]
    assert document().page_of(3) is None


def test_errors_pickle_with_their_facts():
    error = EmptyCorpus(["docs/*.md"], "/base", [LoadProblem("docs/*.md", "matches no file")])
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.patterns, again.problems) == (str(error), error.patterns, error.problems)
    assert "docs/*.md in /base" in str(error)
