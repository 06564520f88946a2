"""The cache of a declared chain: wired to its documents, models, store and settings."""

from __future__ import annotations

import pytest

import chainops
from chainops.cache.records import CacheDropped
from chainops.core.errors import InvalidInput
from chainops.knowledge.loaders import load as load_documents
from chainops.spec.errors import ChainFileError
from chainops.testing.listening import capture_events
from chainops.testing.servers import redis_server

APPLES, SHOP = "What colour are apples?", "When does the shop open in the morning?"


@pytest.fixture
def chain(folder):
    return chainops.load(folder / "chain.yaml")


def test_reindexing_a_changed_document_takes_out_exactly_the_answers_that_rest_on_it(chain, folder):
    for question in (APPLES, SHOP):
        assert chain.invoke(question).status == "ok"
    (folder / "docs" / "shop.txt").write_text("The shop opens at ten in the morning. It is closed on Sundays.")
    with capture_events() as events:
        chain.index()
    assert [each.count for each in events.of(CacheDropped)] == [1]
    assert chain.invoke(APPLES).status == "cached"
    answer = chain.invoke(SHOP)
    assert answer.status == "ok"
    assert "ten" in answer.text


def test_what_another_process_indexed_is_noticed_when_an_answer_is_next_asked_for(chain, folder):
    chain.invoke(SHOP)
    (folder / "docs" / "shop.txt").write_text("The shop opens at ten in the morning. It is closed on Sundays.")
    elsewhere = chainops.load(folder / "chain.yaml")
    elsewhere.site.knowledge().index(load_documents(["docs/*"], folder))  # without the chain, so nothing is dropped
    again = chainops.load(folder / "chain.yaml")
    assert "ten" in again.invoke(SHOP).text


def test_a_prompt_a_model_or_a_wrapper_that_changed_is_another_chain_to_the_cache(folder):
    chainops.load(folder / "chain.yaml").invoke(APPLES)
    text = (folder / "chain.yaml").read_text()
    for changed in (
        text.replace("{model: extractive}", "{model: extractive, max_sentences: 2}"),
        text.replace("{say: sorry}", "{say: no idea}"),
    ):
        (folder / "chain.yaml").write_text(changed)
        assert chainops.load(folder / "chain.yaml").invoke(APPLES).status == "ok"
    (folder / "chain.yaml").write_text(text)
    assert chainops.load(folder / "chain.yaml").invoke(APPLES).status == "cached"


def test_an_answer_says_what_it_came_from(chain):
    chain.invoke(SHOP)
    ((entry, _, _),) = chain.cache.entries()
    assert list(entry.uses["document"]) == ["docs/shop.txt"]
    assert set(entry.uses["passage"].values()) == {"docs/shop.txt"}
    assert len(entry.uses["seen"]) > len(entry.uses["passage"])
    assert "extractive" in entry.uses["model"]
    assert entry.uses["prompt"]


def test_the_chains_cache_is_reached_by_its_name_and_a_chain_without_one_says_so(chain, folder):
    assert "threshold 0.95" in str(chain.cache.stats())
    bare = chainops.declare({"name": "bare", "kind": "chat", "models": {"m": "extractive"}}, base=folder)
    with pytest.raises(InvalidInput, match="without a cache"):
        _ = bare.cache


@pytest.mark.usefixtures("patient_redis")
def test_a_cache_in_redis_is_shared_by_chains_with_state_of_their_own(folder, tmp_path, monkeypatch):
    text = (folder / "chain.yaml").read_text()
    with redis_server() as server:
        (folder / "chain.yaml").write_text(
            text.replace("{threshold: 0.95}", f"{{threshold: 0.95, store: '{server.url}'}}")
        )
        for home, status in (("one", "ok"), ("two", "cached")):
            monkeypatch.setenv("CHAINOPS_HOME", str(tmp_path / home))
            assert chainops.load(folder / "chain.yaml").invoke(SHOP).status == status


def test_two_caches_in_one_pipeline_keep_their_own(folder):
    words = {
        "name": "two",
        "kind": "chat",
        "models": {"m": "extractive"},
        "pipeline": [{"cache": {"threshold": 1, "share": "user"}}, {"cache": {"threshold": 1}}],
    }
    chain = chainops.declare(words, base=folder)
    outer, inner = (chain.site.replicas[position]() for position in (0, 1))
    assert (outer.owner, inner.owner) == ("two", "two/1")


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ("{max_error_rate: 0.01, threshold: 0.9}", "not both"),
        ("{max_error_rate: 2}", "0.5"),
        ("{compare: mian}", "main"),
        ("{follow_ups: smal}", "main"),
        ("{mode: shade}", "shadow"),
        ("{store: 'redis://:secret@localhost'}", "REDIS_PASSWORD"),
        ("{max_entries: 0}", "1"),
    ],
)
def test_what_cannot_be_is_told_with_its_place_and_never_shows_a_password(folder, settings, told):
    text = (folder / "chain.yaml").read_text().replace("{threshold: 0.95}", settings)
    (folder / "chain.yaml").write_text(text)
    with pytest.raises(ChainFileError) as failed:
        chainops.load(folder / "chain.yaml")
    assert told in str(failed.value)
    assert "line 8" in str(failed.value)
    assert "secret@" not in str(failed.value)
