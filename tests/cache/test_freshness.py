from __future__ import annotations

import pytest

from chainops.cache.freshness import is_current
from chainops.cache.records import Entry

DOCUMENTS = {"a": "1", "b": "1", "c": "1"}


class Now:
    def __init__(self, passages, documents=DOCUMENTS):
        self.told = {"document": documents, "passage": {each: each[0] for each in passages}}

    def uses(self, question):
        return self.told


def entry(*, rests_on=("a1",), seen=("a1", "b1"), knowledge="v1", is_unknown=False):
    return Entry(
        id="e",
        owner="o",
        scope="s",
        exact="x",
        question="q",
        message={"text": "t"},
        facts={},
        group="e",
        uses={
            "document": {each[0]: DOCUMENTS[each[0]] for each in rests_on},
            "passage": {each: each[0] for each in rests_on},
            "seen": {each: each[0] for each in seen},
        },
        knowledge=knowledge,
        is_unknown=is_unknown,
        cost_usd=None,
        created_at=0.0,
    )


@pytest.mark.parametrize(
    ("kept", "now", "current"),
    [
        (entry(), Now(["a1", "b1"]), True),
        (entry(), Now(["b1", "a1"]), True),  # both were seen
        (entry(), Now(["a1", "c1"]), True),  # what is new comes after all it rests on
        (entry(), Now(["c1", "a1"]), False),  # what is new comes before
        (entry(rests_on=("a1", "b1")), Now(["a1", "c1", "b1"]), False),
        (entry(), Now(["b1"]), False),  # what it rests on is not found any more
        (entry(), Now(["a1", "b1"], {"a": "2", "b": "1"}), False),  # its document changed elsewhere
        (entry(), Now(["a1", "b2"], {"a": "1", "b": "2"}), True),  # a document it does not rest on changed
        (entry(knowledge=None), Now(["a1", "b1"]), False),
        (entry(is_unknown=True), Now(["a1", "b1"]), False),
    ],
)
def test_an_answer_stands_while_what_it_rests_on_is_found_first_and_unchanged(kept, now, current):
    assert is_current(kept, now, "v2") is current


def test_an_answer_of_the_same_state_is_current_without_looking():
    assert is_current(entry(is_unknown=True), None, "v1")
