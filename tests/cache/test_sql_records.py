"""The cache's entries in SQLite and PostgreSQL."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
import sys

import pytest
import sqlalchemy as sa

from chainops.cache.records import Where
from chainops.cache.stores import sql_taking
from chainops.cache.stores.sql_records import SqlRecords
from chainops.cache.stores.sql_tables import schema
from chainops.core.errors import StoreUnavailable
from chainops.stores.sql import Schema, SqlStore
from chainops.testing.cache_pieces import NOW, Follower, entry, vector
from chainops.testing.cache_stores import CacheStoreSuite
from chainops.testing.servers import postgres_database, postgres_server


@pytest.fixture(scope="module")
def postgres():
    with postgres_server() as url:
        yield url


@pytest.fixture
def store(tmp_path):
    store = SqlStore(tmp_path / "cache.db")
    yield store
    store.close()


@pytest.fixture
def records(store):
    return SqlRecords(store)


class TestSqlite(CacheStoreSuite):
    pass


class TestPostgres(CacheStoreSuite):
    examples = 5

    @pytest.fixture
    def records(self, postgres):
        with postgres_database(postgres) as url:
            store = SqlStore(url)
            yield SqlRecords(store)
            store.close()

    def test_a_damaged_entry_is_never_given_out(self, records):
        seq = records.put(entry(), vector(1))
        with records._store.write() as connection:
            connection.execute(sa.text("UPDATE cache_entries SET body = replace(body, 'answer', 'poison')"))
        assert records.exact("s", "e") is None
        assert records.damaged() == ["e"]
        assert records.at("s", [seq]) == {}
        assert records.size("o") == (0, 0)


def by_hand(store, statement, *values):
    with contextlib.closing(sqlite3.connect(store.place)) as connection, connection:
        assert connection.execute(statement, values).rowcount > 0


EDITS = {
    "answer": "UPDATE cache_entries SET body = replace(body, 'answer e', 'poison')",
    "cut answer": "UPDATE cache_entries SET body = substr(body, 1, 20)",
    "no text": "UPDATE cache_entries SET body = 5",
    "bytes": "UPDATE cache_entries SET head = x'ff00'",
    "question": "UPDATE cache_entries SET head = replace(head, 'question e', 'question f')",
    "approval": "UPDATE cache_entries SET head = replace(head, 'false,false', 'false,true')",
    "checksum": "UPDATE cache_entries SET checksum = 'é'",
    "number": "UPDATE cache_entries SET seal = 'x'",
    "the sum of the vector": "UPDATE cache_entries SET vector_sum = ''",
    "the sum of the answer": "UPDATE cache_entries SET body_sum = 'x', body = body || ' '",
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
@pytest.mark.parametrize("look", ["exact", "get", "entry_at", "entries"])
def test_a_hand_edited_entry_is_dropped_and_told(store, records, edit, look):
    seq = records.put(entry(), vector(1))
    records.put(entry("other", scope="t"), vector(1))
    by_hand(store, edit.replace("'false,false'", "'false,false'") + " WHERE id = 'e'")
    found = {
        "exact": lambda: records.exact("s", "e"),
        "get": lambda: records.get("e"),
        "entry_at": lambda: records.entry_at("s", seq),
        "entries": lambda: next((each for each in records.entries("o") if each[0].id == "e"), None),
    }[look]()
    assert found is None
    assert records.damaged() == ["e"]
    assert records.damaged() == []
    assert Follower(records, "s").read() == set()
    assert records.size("o")[0] == 1
    assert records.get("other") is not None


OTHERS = {
    "place": "UPDATE cache_entries SET seq = seq + 100",
    "id": "UPDATE cache_entries SET id = 'other'",
    "exact": "UPDATE cache_entries SET exact = 'other'",
}


@pytest.mark.parametrize("edit", (EDITS | OTHERS).values(), ids=EDITS | OTHERS)
def test_over_whatever_was_edited_by_hand_an_answer_is_stored_in_the_end(store, records, edit):
    records.put(entry(), vector(1))
    by_hand(store, edit)
    for _ in range(3):
        there = records.exact("s", "e")
        if records.put(entry("new", exact="e"), vector(1), over=0 if there is None else there.seq):
            break
    found = records.exact("s", "e")
    assert found is not None
    assert found.id == "new"


@pytest.mark.parametrize("name", [name for name in EDITS if name not in {"answer", "cut answer", "no text"}])
def test_an_edited_head_decides_nothing(store, records, name):
    seq = records.put(entry(), vector(1))
    by_hand(store, EDITS[name])
    assert records.at("s", [seq]) == {}
    assert records.damaged() == ["e"]


@pytest.mark.parametrize(
    "edit", ["vector = x'00'", "vector = 'text'", "vector = NULL", "embedder = 'other'", "created_at = 5.0"]
)
def test_an_edited_vector_reaches_no_index(store, records, edit):
    records.put(entry("good"), vector(1))
    seq = records.put(entry(embedder="minilm"), vector(1))
    by_hand(store, f"UPDATE cache_entries SET {edit} WHERE id = 'e'")
    assert seq not in Follower(records, "s").read()
    assert records.damaged() == ["e"]
    assert records.get("e") is None
    assert records.get("good") is not None


def test_entries_that_changed_places_are_not_given_out(store, records):
    one, two = (records.put(entry(name), vector(1)) for name in ("a", "b"))
    by_hand(store, "UPDATE cache_entries SET exact = exact || '-'")
    by_hand(store, "UPDATE cache_entries SET exact = CASE id WHEN 'a' THEN 'b' ELSE 'a' END")
    assert records.exact("s", "a") is None
    by_hand(store, "UPDATE cache_entries SET seq = ? WHERE seq = ?", two + 5, one)
    assert records.at("s", [one, two + 5]) == {}
    assert records.entry_at("s", two + 5) is None


def test_a_reader_behind_the_cut_begins_again_and_comes_through(records, monkeypatch):
    monkeypatch.setattr(sql_taking, "LOG_KEPT", 5)
    monkeypatch.setattr(sql_taking, "_CUT_EVERY", 1)
    late, slow = Follower(records, "s"), Follower(records, "s", page=3)
    seqs = [records.put(entry(f"{n}"), vector(1)) for n in range(30)]
    late.read()
    for n in range(20):
        records.drop("o", Where(ids=(f"{n}",)), reason="r", now=NOW)
    assert late.read() == set(seqs[20:])
    assert late.restarts == 1
    assert slow.read() == set(seqs[20:]), "reading from the beginning in pages is not being behind"
    assert slow.restarts == 0
    with records._store.read() as connection:
        assert connection.execute(sa.text("SELECT count(*) FROM cache_drops")).scalar() == 5


def test_tombstones_are_bounded(records, monkeypatch):
    monkeypatch.setattr(sql_taking, "TOMBSTONES_KEPT", 3)
    for n in range(6):
        records.put(entry(f"{n}"), None)
        records.drop("o", Where(ids=(f"{n}",)), reason="r", now=NOW)
    assert [stone.id for stone in records.tombstones("o")] == ["5", "4", "3"]


def test_a_store_of_the_first_version_is_upgraded_to_an_empty_one(store):
    metadata = sa.MetaData()
    old = sa.Table(
        "cache_entries",
        metadata,
        sa.Column("seq", sa.Integer, primary_key=True),
        sa.Column("id", sa.String(32), nullable=False),
    )
    store.migrate(Schema("cache", metadata))
    with store.write() as connection:
        connection.execute(old.insert(), {"id": "old"})
    store.close()
    records = SqlRecords(SqlStore(store.place if "://" in store.place else f"sqlite:///{store.place}"))
    assert records.get("old") is None
    assert records.put(entry(), vector(1)) > 0
    assert schema().version == 2


def test_what_a_user_said_is_nowhere_in_the_files_afterwards(store, records, tmp_path):
    secret = "my mother's maiden name is Quetzalcoatl"
    for n in range(20):
        told = {"question": f"{secret} {n}", "message": {"content": secret * 50}, "user": "ann"}
        records.put(entry(f"{n}", **told), vector(1))
    records.drop("o", Where(ids=("0",)), reason=secret, now=NOW)
    assert any(b"Quetzalcoatl" in path.read_bytes() for path in tmp_path.iterdir())
    assert records.forget(user="ann", tenant=None, now=NOW) == 20
    assert not any(b"Quetzalcoatl" in path.read_bytes() for path in tmp_path.iterdir())


def test_a_full_disk_keeps_nothing_half_and_is_over_when_there_is_room(store, records):
    records.put(entry("before"), vector(1))
    with store.write() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages + 20}")
    kept = ["before"]

    def fill():
        for n in range(1000):
            records.put(entry(f"{n}", message={"content": "x" * 3000}), vector(1))
            kept.append(f"{n}")

    with pytest.raises(StoreUnavailable, match="disk is full"):
        fill()
    assert [found.id for found, _, _ in records.entries("o", limit=2000)][::-1] == kept
    assert len(Follower(records, "s").read()) == len(kept) == records.size("o")[0]
    with store.write() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count = 1000000")
    records.put(entry("after"), vector(1))
    assert records.exact("s", "after") is not None


def test_no_frequent_statement_reads_a_whole_table(store, records):
    seq = records.put(entry(), vector(1))
    assert seq
    with store.read() as connection:
        for name, statement in records._ready()._asdict().items():
            cursor = connection.connection.cursor()
            cursor.execute(f"EXPLAIN QUERY PLAN {statement._text}", [1] * len(statement._order))
            steps = [row[-1] for row in cursor.fetchall()]
            assert not [step for step in steps if step.startswith("SCAN") or "TEMP B-TREE" in step], (name, steps)


def test_reads_go_on_while_another_process_writes(store, records):
    records.put(entry(), vector(1))
    with contextlib.closing(sqlite3.connect(store.place, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        other.execute("DELETE FROM cache_entries")
        assert records.exact("s", "e") is not None
        assert len(Follower(records, "s").read()) == 1
        other.execute("ROLLBACK")


TAKER = """
import sys, time
from chainops.cache.records import Lease
from chainops.cache.stores.sql_records import SqlRecords
from chainops.stores.sql import SqlStore
records = SqlRecords(SqlStore(f"sqlite:///{sys.argv[1]}"))
records.leases("s", now=1.0)
print("ready", flush=True)
sys.stdin.readline()
for n in range(20):
    taken = records.lease("o", Lease("s", str(n), sys.argv[2], "q", None, 31.0), now=1.0) is None
    print(int(taken), flush=True)
"""


def test_processes_get_one_holder_for_each_lease(store, records):
    records.leases("s", now=NOW)
    takers = [
        subprocess.Popen(
            [sys.executable, "-c", TAKER, store.place, f"{n}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for n in range(3)
    ]
    assert [taker.stdout.readline() for taker in takers] == ["ready\n"] * 3
    for taker in takers:
        taker.stdin.write("go\n")
        taker.stdin.flush()
    taken = [taker.communicate(timeout=240)[0].split() for taker in takers]
    assert [sum(map(int, each)) for each in zip(*taken, strict=True)] == [1] * 20
