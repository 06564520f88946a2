from __future__ import annotations

import pytest

from chainops.knowledge.base import KnowledgeBase
from chainops.knowledge.loaders import load
from chainops.stores.sql import SqlStore
from chainops.testing.servers import postgres_server

TEXTS = {"a": "Alpha is first.", "b": "Beta is second.", "c": "Naïve ünïcode 日本 🙂 is third."}


@pytest.fixture(scope="module")
def postgres():
    with postgres_server() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path):
    return request.getfixturevalue("postgres") if request.param == "postgresql" else f"sqlite:///{tmp_path}/x.db"


def test_indexing_is_the_same_on_every_database(url, tmp_path, encoder):
    bases = []
    for process in ("one", "two"):
        bases.append(KnowledgeBase(SqlStore(url), encoder, name="help", home=tmp_path / process, refresh_s=0.0))
    writer, reader = bases
    assert writer.index(load([TEXTS])).added == ("a", "b", "c")
    assert reader.search("naïve third")[0].passage.document_id == "c"
    assert reader.document("c").text == TEXTS["c"]
    report = writer.index(load([{**TEXTS, "a": "Alpha changed.", "d": "Delta is new."}]))
    assert (report.added, report.changed, report.unchanged, report.embedded) == (("d",), ("a",), 2, 2)
    assert reader.version == writer.version
    assert "Alpha changed." in [hit.passage.text for hit in reader.search("alpha")]
    assert writer.index(load([{"d": "Delta is new."}])).removed == ("a", "b", "c")
    assert len(reader.search("alpha")) == 1


def test_two_names_in_one_store_do_not_meet(store, tmp_path, encoder):
    one = KnowledgeBase(store, encoder, name="one", home=tmp_path)
    two = KnowledgeBase(store, encoder, name="two", home=tmp_path)
    one.index(load([TEXTS]))
    two.index(load([{"z": "Only this."}]))
    assert [hit.passage.document_id for hit in two.search("alpha")] == ["z"]
    assert set(one.document_digests()) == {"a", "b", "c"}
