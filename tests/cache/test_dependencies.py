"""Entries go when what they came from does."""

from __future__ import annotations

import pytest
from langchain_core.messages import AIMessage

import chainops
from chainops.cache.cache import Cache, EntryNotFound
from chainops.cache.records import CacheDropped, CacheReported
from chainops.core.component import Component
from chainops.core.errors import InvalidInput
from chainops.core.steps import Say
from chainops.testing.listening import capture_events


class Library:
    """Documents by id; a question is answered from those that share its last word, the newest first."""

    def __init__(self, **documents: str) -> None:
        self.documents = documents

    def version(self):
        return str(sorted(self.documents.items()))

    def uses(self, question):
        word = question.lower().strip("?").split()[-1]
        found = {name: text for name, text in reversed(self.documents.items()) if word in text}
        passages = {f"{name}:{text}": name for name, text in found.items()}
        return {"document": found, "passage": passages, "seen": passages}


class Reads(Component[object, AIMessage]):
    library: Library
    asked: list

    def plan(self, value, run):
        self.asked.append(value)
        uses = self.library.uses(value)
        run.report.uses |= uses
        run.report.used("prompt", "help", "v1")
        run.report.used("model", "openai:gpt-4o-mini", "x")
        run.report.is_unknown = not uses["document"]
        message = AIMessage(content=f"answer {len(self.asked)}")
        yield Say(message)
        return message


@pytest.fixture
def library():
    return Library(a="the zoo has elephants", b="the shop has apples")


@pytest.fixture
def reads(library):
    return Reads(library=library, asked=[])


@pytest.fixture
def cache(make_cache, library, reads):
    return make_cache(reads, sources=library)


ELEPHANTS, APPLES = "how many elephants", "how many apples"


def test_a_changed_document_takes_out_exactly_the_answers_that_used_it(cache, library):
    cache.invoke(ELEPHANTS)
    cache.invoke(APPLES)
    library.documents["a"] = "the zoo has four elephants"
    with capture_events() as events:
        assert cache.invoke(APPLES).status == "cached"
        assert cache.invoke(ELEPHANTS).status == "ok"
    dropped = events.of(CacheDropped)
    assert [each.count for each in dropped] == [1]
    assert cache.invoke(ELEPHANTS).status == "cached"


def test_a_changed_document_can_be_dropped_at_once(cache, library, replica):
    cache.invoke(ELEPHANTS)
    cache.invoke(APPLES)
    library.documents["a"] = "the zoo has four elephants"
    assert Cache(cache).documents_changed({"a": library.documents["a"], "b": library.documents["b"]}) == 1
    assert replica.store.size("cache")[0] == 1


def test_a_removed_document_takes_its_answers_along(cache, library):
    cache.invoke(ELEPHANTS)
    del library.documents["a"]
    assert cache.invoke(ELEPHANTS).status == "ok"


def test_a_new_document_takes_out_the_answers_it_would_now_be_found_for_and_no_others(cache, library):
    cache.invoke(ELEPHANTS)
    cache.invoke(APPLES)
    library.documents["c"] = "two more elephants came"
    assert cache.invoke(ELEPHANTS).status == "ok"
    assert cache.invoke(APPLES).status == "cached"


def test_an_answer_that_did_not_know_is_asked_again_after_any_change(make_cache, library, reads):
    cache = make_cache(reads, sources=library, keep_unknown=True)
    assert cache.invoke("how many tigers").status == "ok"
    assert cache.invoke("how many tigers").status == "cached"
    library.documents["c"] = "one more apple came"
    assert cache.invoke("how many tigers").status == "ok"


def test_an_answer_that_does_not_know_is_kept_only_where_declared(cache, reads):
    for _ in range(2):
        assert cache.invoke("how many tigers").status == "ok"
    assert len(reads.asked) == 2


def test_a_similar_question_is_not_served_from_documents_that_changed(cache, library):
    cache.invoke("do tell me now how many elephants")
    library.documents["a"] = "the zoo has four elephants"
    assert cache.invoke("do tell us now how many elephants").status == "ok"


@pytest.mark.parametrize(
    ("condition", "left"),
    [
        ({"document": "a"}, {APPLES}),
        ({"prompt": "help"}, set()),
        ({"model": "openai:gpt-4o-mini"}, set()),
        ({"model": "openai:gpt-4o"}, {ELEPHANTS, APPLES}),
        ({"tag": "zoo"}, {APPLES}),
        ({"tenant": "acme"}, {APPLES}),
        ({"user": "ann"}, {APPLES}),
        ({"user": "ann", "tenant": "globex"}, {ELEPHANTS, APPLES}),
        ({"everything": True}, set()),
    ],
)
def test_entries_are_dropped_by_every_condition(cache, condition, left):
    cache.invoke(ELEPHANTS, chainops.caller(tenant="acme", user="ann", tags={"zoo"}))
    cache.invoke(APPLES, chainops.caller(tenant="globex", user="bob"))
    handle = Cache(cache)
    with capture_events() as events:
        assert handle.drop(**condition) == 2 - len(left)
    assert len(events.of(CacheDropped)) == (len(left) < 2)
    assert {entry.question for entry, _, _ in handle.entries()} == left


def test_dropping_without_a_condition_is_refused(cache):
    with pytest.raises(InvalidInput, match="everything"):
        Cache(cache).drop()


def test_gptcache_548_a_wrong_answer_can_be_reported_and_is_gone(cache):
    cache.invoke(ELEPHANTS)
    served = cache.invoke(ELEPHANTS)
    with capture_events() as events:
        (entry,) = Cache(cache).wrong(served, "there are four", by="ann")
    reported = events.of(CacheReported)[0]
    assert (reported.entry, reported.question, reported.reason, reported.by) == (
        entry,
        ELEPHANTS,
        "there are four",
        "ann",
    )
    assert cache.invoke(ELEPHANTS).status == "ok"
    with pytest.raises(EntryNotFound):
        Cache(cache).wrong(entry, "again")


def test_an_answer_that_came_from_elsewhere_cannot_be_reported(cache):
    with pytest.raises(InvalidInput, match="served from the cache"):
        Cache(cache).wrong(cache.invoke(ELEPHANTS), "no")


def test_the_policy_learns_from_a_report_on_a_similar_question(make_cache, reads, library):
    cache = make_cache(reads, sources=library)
    cache.invoke("do tell me now how many elephants")
    served = cache.invoke("do tell us now how many elephants")
    assert served.served_by == "cache (semantic)"
    handle = Cache(cache)
    before = handle.stats().standing.labels
    handle.wrong(served, "no")
    assert handle.stats().standing.labels == before + 1


def test_another_tenants_entry_is_served_under_share_all_only_once_verified(make_cache, reads, library):
    cache = make_cache(reads, sources=library, share="all")
    cache.invoke(ELEPHANTS, chainops.caller(tenant="acme"))
    assert cache.invoke(ELEPHANTS, chainops.caller(tenant="acme")).status == "cached"
    assert cache.invoke("how many elephants now", chainops.caller(tenant="globex")).status == "ok"
    (entry,) = (entry for entry, _, _ in Cache(cache).entries() if entry.question == ELEPHANTS)
    Cache(cache).verify(entry.id)
    assert cache.invoke(ELEPHANTS, chainops.caller(tenant="globex")).status == "cached"
