import threading

import numpy as np
import pytest

from chainops.cache.background import UPKEEP
from chainops.cache.records import Limits, Where
from chainops.cache.stores.sql_records import SqlRecords
from chainops.stores.vectors import Vectors
from chainops.testing.cache_pieces import entry
from chainops.testing.embedding import WordVectors


class Meddled(SqlRecords):
    """Lets something happen once, between the end of a reading of the change log and its use."""

    after_reading = None

    def changes(self, *args, **kwargs):
        read = super().changes(*args, **kwargs)
        if not read and self.after_reading is not None:
            once, self.after_reading = self.after_reading, None
            once()
        return read


@pytest.fixture
def upkeep_waits():
    """What is submitted to the background begins once this is called."""
    go_on = threading.Event()
    assert UPKEEP.drain(60)
    assert UPKEEP.submit(lambda: go_on.wait(60))

    def begin():
        go_on.set()
        assert UPKEEP.drain(60)

    yield begin
    begin()


def test_what_is_stored_while_the_change_log_is_read_is_found_at_the_next_lookup(store, make_replica, upkeep_waits):
    records = Meddled(store)
    replica = make_replica(records=records)
    vector = replica.embed("the lost card")

    def keep():
        stored = entry(question="the lost card", embedder=replica.embedder_digest)
        replica.keep(stored, vector, now_s=0.0, limits=Limits(100, 10**9))

    records.after_reading = keep
    replica.neighbours("s", vector)
    assert records.after_reading is None
    assert [each.outline.question for each in replica.neighbours("s", vector)] == ["the lost card"]
    upkeep_waits()


class Remodelled(WordVectors):
    """Another model than the one that the entries were embedded with; lets something happen while it works."""

    meanwhile = None

    def embed(self, texts):
        once, self.meanwhile = self.meanwhile, None
        if once is not None:
            once()
        return super().embed(texts)


@pytest.mark.parametrize("moment", ["while it is embedded", "before it is stored"])
def test_an_entry_that_is_dropped_while_it_is_embedded_again_stays_dropped(store, make_replica, moment):
    records, embedder = SqlRecords(store), Remodelled("another model")
    replica = make_replica(records=records, embedder=embedder)
    records.put(entry(embedder="the first model"), np.ones(embedder.dimensions, dtype=np.float32))

    def drop():
        records.drop("o", Where(ids=("e",)), reason="wrong", now=0.0)

    if moment == "while it is embedded":
        embedder.meanwhile = drop
    else:
        put = records.put
        records.put = lambda *told, **more: (drop(), put(*told, **more))[1]
    replica.partitions.catch_up("s")
    assert UPKEEP.drain(60)
    assert records.get("e") is None


def test_what_is_found_out_of_an_entry_while_it_is_embedded_again_is_not_lost(store, make_replica):
    records, embedder = SqlRecords(store), Remodelled("another model")
    replica = make_replica(records=records, embedder=embedder)
    records.put(entry(embedder="the first model"), np.ones(embedder.dimensions, dtype=np.float32))
    embedder.meanwhile = lambda: records.update("e", is_verified=True)
    replica.partitions.catch_up("s")
    assert UPKEEP.drain(60)
    found = records.get("e")
    assert (found.embedder, found.is_verified) == ("another model", True)


def looked_for(replica, records, scope):
    records.put(entry(scope, scope=scope, user="ann", embedder=replica.embedder_digest), replica.embed("the lost card"))
    assert replica.neighbours(scope, replica.embed("the lost card"))


def test_a_snapshot_that_was_due_when_a_user_is_forgotten_is_not_written_any_more(
    store, make_replica, tmp_path, monkeypatch, upkeep_waits
):
    monkeypatch.setattr("chainops.cache.partitions._SNAPSHOT_FROM", 0)
    records, folder = SqlRecords(store), tmp_path / "snapshots"
    replica = make_replica(records=records, folder=folder)
    looked_for(replica, records, "s")
    replica.forget(user="ann", tenant=None, now=0.0)
    upkeep_waits()
    assert not folder.exists()


def test_a_scope_that_was_let_go_writes_no_snapshot_and_leaves_its_folder_to_others(
    store, make_replica, tmp_path, monkeypatch, upkeep_waits
):
    monkeypatch.setattr("chainops.cache.partitions._SNAPSHOT_FROM", 0)
    monkeypatch.setattr("chainops.cache.partitions._SCOPES_HELD", 1)
    records, folder = SqlRecords(store), tmp_path / "snapshots"
    replica = make_replica(records=records, folder=folder)
    for scope in "st":
        looked_for(replica, records, scope)
    upkeep_waits()
    assert Vectors(64, folder=folder / "s").save(mark=1)
    assert not Vectors(64, folder=folder / "t").save(mark=1), "its process writes there"
