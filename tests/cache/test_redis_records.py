"""The cache's entries in a real Redis server."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from redis.crc import key_slot

from chainops.cache.records import Lease, Limits, Where
from chainops.cache.stores import redis_beside
from chainops.cache.stores.redis_records import RedisRecords
from chainops.cache.stores.redis_scripts import PREFIX
from chainops.core.errors import StoreUnavailable
from chainops.stores.redis import redis_store
from chainops.testing.cache_pieces import NOW, Follower, entry, vector
from chainops.testing.cache_stores import CacheStoreSuite
from chainops.testing.servers import redis_server


@pytest.fixture(scope="module")
def server():
    with redis_server() as running:
        yield running


@pytest.fixture(scope="module")
def cluster():
    with redis_server("--cluster-enabled", "yes") as running:
        store = redis_store(running.url, timeout_s=10)
        with store.client() as client:
            client.execute_command("CLUSTER ADDSLOTS", *range(16_384))
            for _ in range(1_200):
                if client.execute_command("CLUSTER INFO")["cluster_state"] == "ok":
                    break
                time.sleep(0.05)
            else:
                pytest.fail("the cluster did not come up")
        store.close()
        yield running


@pytest.fixture
def store(server):
    yield from emptied(server)


def emptied(server):
    store = redis_store(server.url, timeout_s=10)
    with store.client() as client:
        client.config_set("maxmemory", 0)
        client.config_set("maxmemory-policy", "noeviction")
        client.flushall()
    yield store
    store.close()


@pytest.fixture
def records(store):
    return RedisRecords(store)


class TestRedis(CacheStoreSuite):
    pass


class TestRedisCluster(CacheStoreSuite):
    """One node that holds all slots: it refuses commands and scripts whose keys lie in several."""

    examples = 5

    @pytest.fixture
    def store(self, cluster):
        yield from emptied(cluster)


def by_hand(store, command, key, *arguments):
    with store.client() as client:
        return client.execute_command(command, f"{PREFIX}{key}", *arguments)


EDITS = {
    "answer": ("body", b'[{"content":"poison"},{},{}]'),
    "no text": ("body", b"\xff\xfe"),
    "question": ("head", b'[1,"e"]'),
    "no head": ("head", b""),
    "checksum": ("sum", b"\xff"),
    "seal": ("seal", b""),
    "number": ("seq", b"12"),
    "no number": ("seq", b"x"),
    "the sum of the vector": ("vector_sum", b"0"),
}


@pytest.mark.parametrize(("field", "value"), EDITS.values(), ids=EDITS)
@pytest.mark.parametrize("look", ["exact", "get", "entries"])
def test_a_hand_edited_entry_is_dropped_and_told(store, records, field, value, look):
    records.put(entry(), vector(1))
    records.put(entry("other", scope="t"), vector(1))
    by_hand(store, "HSET", "entry:e", field, value)
    found = {
        "exact": lambda: records.exact("s", "e"),
        "get": lambda: records.get("e"),
        "entries": lambda: next((each for each in records.entries("o") if each[0].id == "e"), None),
    }[look]()
    assert found is None
    assert records.damaged() == ["e"]
    assert records.damaged() == []
    assert Follower(records, "s").read() == set()
    assert records.size("o")[0] == 1
    assert records.get("other") is not None


OTHERS = {
    "gone": ("DEL", "entry:e"),
    "of another type": ("SET", "entry:e", "x"),
    "named by nothing": ("HDEL", "exact:s", "e"),
    "another's name": ("HSET", "exact:s", "e", "other"),
    "no place": ("HDEL", "entry:e", "scope"),
}
HANDS = {name: ("HSET", "entry:e", *edit) for name, edit in EDITS.items()} | OTHERS


@pytest.mark.parametrize("hand", HANDS.values(), ids=HANDS)
def test_over_whatever_was_edited_by_hand_an_answer_is_stored_in_the_end(store, records, hand):
    records.put(entry(), vector(1))
    records.put(entry("other", scope="t"), vector(1))
    command, key, *arguments = hand
    if command == "SET":
        by_hand(store, "DEL", key)
    by_hand(store, command, key, *arguments)
    for _ in range(3):
        there = records.exact("s", "e")
        if records.put(entry("new", exact="e"), vector(1), over=0 if there is None else there.seq):
            break
    found = records.exact("s", "e")
    assert found is not None
    assert found.id == "new"


@pytest.mark.parametrize("name", [name for name in EDITS if name not in {"answer", "no text"}])
def test_an_edited_head_decides_nothing(store, records, name):
    seq = records.put(entry(), vector(1))
    by_hand(store, "HSET", "entry:e", *EDITS[name])
    assert records.at("s", [seq]) == {}
    assert records.entry_at("s", seq) is None
    assert records.damaged() == ["e"]


@pytest.mark.parametrize("name", ["vector", "embedder", "created", "vector_sum"])
def test_an_edited_vector_reaches_no_index(store, records, name):
    records.put(entry("good"), vector(1))
    seq = records.put(entry(embedder="minilm"), vector(1))
    by_hand(store, "HSET", "entry:e", name, b"\xff")
    assert seq not in Follower(records, "s").read()
    assert records.damaged() == ["e"]
    assert records.get("e") is None
    assert records.get("good") is not None


def test_entries_that_changed_places_are_not_given_out(store, records):
    one, two = (records.put(entry(name), vector(1)) for name in ("a", "b"))
    by_hand(store, "HSET", "exact:s", "a", "b")
    by_hand(store, "ZADD", "live:s", one, "b", two, "a")
    assert records.entry_at("s", one) is None
    assert {seq: outline.id for seq, outline in records.at("s", [one, two]).items()} == {one: "a", two: "b"}
    assert records.exact("s", "a") is None


def test_a_key_of_another_kind_is_no_entry(store, records):
    seq = records.put(entry(), vector(1))
    by_hand(store, "DEL", "entry:e")
    by_hand(store, "SET", "entry:e", "made by hand")
    assert records.exact("s", "e") is None
    assert records.get("e") is None
    assert records.at("s", [seq]) == {}
    records.put(entry(), vector(1))
    assert records.get("e") is not None


def test_what_the_server_evicted_is_not_there_and_its_place_can_be_taken(store, records):
    seqs = {name: records.put(entry(name), vector(1)) for name in "ab"}
    reader = Follower(records, "s")
    reader.read()
    by_hand(store, "DEL", "entry:a")
    assert records.exact("s", "a") is None
    assert records.at("s", list(seqs.values())).keys() == {seqs["b"]}
    assert Follower(records, "s").read() == {seqs["b"]}
    new = records.put(entry("new", exact="a"), vector(1))
    assert reader.read() == {seqs["b"], new}
    assert len(records.enforce("o", Limits(entries=0, bytes=0), now=NOW)) == 2
    assert records.size("o") == (0, 0), "what is gone is counted off when its turn comes"


def test_a_flushed_server_makes_readers_begin_again(store, records):
    for n in range(5):
        records.put(entry(f"{n}"), vector(1))
    reader = Follower(records, "s")
    assert len(reader.read()) == 5
    with store.client() as client:
        client.flushall()
    assert reader.read() == set()
    assert reader.restarts == 1
    seqs = {records.put(entry(f"{n}"), vector(1)) for n in range(9)}
    assert reader.read() == seqs
    stale = Follower(records, "s")
    stale.read()
    with store.client() as client:
        client.flushall()
    again = {records.put(entry(f"{n}"), vector(1)) for n in range(30)}
    assert not again & seqs, "numbers are never given twice"
    assert stale.read() == again


@pytest.mark.parametrize("lost", ["log:s", "last:s"])
def test_a_lost_part_of_the_log_is_noticed(store, records, lost):
    seqs = {records.put(entry(f"{n}"), vector(1)) for n in range(5)}
    reader = Follower(records, "s")
    reader.read()
    dropped = records.entries("o")[0][0]
    records.drop("o", Where(ids=(dropped.id,)), reason="r", now=NOW)
    by_hand(store, "DEL", lost)
    new = records.put(entry("new"), vector(1))
    assert reader.read() == seqs - {dropped.seq} | {new}
    assert reader.restarts == 1


def test_a_reader_behind_the_cut_begins_again_and_comes_through(store, monkeypatch):
    monkeypatch.setattr(redis_beside, "LOG_KEPT", 10)
    records = RedisRecords(store)
    late, slow = Follower(records, "s"), Follower(records, "s", page=50)
    seqs = [records.put(entry(f"{n}"), vector(1)) for n in range(400)]
    late.read()
    for n in range(300):
        records.drop("o", Where(ids=(f"{n}",)), reason="r", now=NOW)
    assert late.read() == set(seqs[300:])
    assert late.restarts == 1
    assert slow.read() == set(seqs[300:]), "reading from the beginning in pages is not being behind"
    assert slow.restarts == 0
    assert by_hand(store, "XLEN", "log:s") < 250


def test_what_a_killed_server_left_half_written_hides_no_entry():
    with redis_server("--appendonly", "yes", "--appendfsync", "always") as server:
        store = redis_store(server.url, timeout_s=10)
        records = RedisRecords(store)
        one = records.put(entry(), vector(1))
        reader = Follower(records, "s")
        reader.read()
        with store.client() as client:
            folder = Path(client.config_get("dir")["dir"])
        server.kill()
        number = str(one + 1)
        half = ["MULTI"], ["SET", PREFIX + "last:s", number], ["XADD", PREFIX + "log:s", f"{number}-0", "p", "ghost"]
        (file,) = [path for path in folder.rglob("*.aof") if ".base." not in path.name]
        with file.open("ab") as log:
            for words in half:
                log.write(b"*%d\r\n" % len(words))
                log.write("".join(f"${len(word)}\r\n{word}\r\n" for word in words).encode())
            log.write(b"*4\r\n$4\r\nHSE")
        server.start()
        two = records.put(entry("two", exact="two"), vector(1, 2))
        server.kill()
        server.start()  # most servers carry out now what had been half written
        assert records.entry_at("s", two).id == "two"
        assert reader.read() == {one, two}
        assert Follower(records, "s").read() == {one, two}
        store.close()


def test_tombstones_are_bounded(store, monkeypatch):
    monkeypatch.setattr(redis_beside, "TOMBSTONES_KEPT", 3)
    records = RedisRecords(store)
    for n in range(6):
        records.put(entry(f"{n}"), None)
        records.drop("o", Where(ids=(f"{n}",)), reason="r", now=NOW + n)
    assert [stone.id for stone in records.tombstones("o")] == ["5", "4", "3"]
    assert by_hand(store, "HLEN", "grave:o") == 3


def test_a_server_without_memory_keeps_nothing_half_and_still_drops(store, records):
    for n in range(50):
        records.put(entry(f"{n}"), vector(1))
    with store.client() as client:
        client.config_set("maxmemory", 1)
    with pytest.raises(StoreUnavailable, match="memory limit"):
        records.put(entry("more"), vector(1))
    assert records.get("more") is None
    assert records.get("1") is not None
    assert records.drop("o", Where(ids=("1",)), reason="r", now=NOW) == ["1"]
    assert len(records.enforce("o", Limits(entries=30, bytes=1 << 30), now=NOW)) == 19
    with store.client() as client:
        client.config_set("maxmemory", 0)
    assert len(Follower(records, "s").read()) == 30 == records.size("o")[0] == len(records.entries("o"))
    assert records.put(entry("more"), vector(1)) > 0


def test_a_server_that_evicts_by_itself_makes_nothing_wrong(store, records):
    with store.client() as client:
        client.config_set("maxmemory-policy", "allkeys-random")
        client.config_set("maxmemory", client.info("memory")["used_memory"] + 300_000)
    reader = Follower(records, "s")
    for n in range(300):
        records.put(entry(f"{n}", message={"content": f"{n} " * 500}), vector(1))
        reader.read()
    with store.client() as client:
        client.config_set("maxmemory", 0)
    there = 0
    for n in range(300):
        found = records.exact("s", f"{n}")
        there += found is not None
        assert found is None or found.message == {"content": f"{n} " * 500}
    assert there < 300
    assert all(outline.id for outline in records.at("s", sorted(reader.read())).values())
    while records.enforce("o", Limits(entries=0, bytes=0), now=NOW):
        pass
    assert records.damaged() == []


def test_a_replica_reads_and_says_that_it_cannot_write(store, records):
    records.put(entry(), vector(1))
    with store.client() as client:
        client.execute_command("REPLICAOF", "127.0.0.1", 1)
    try:
        assert records.exact("s", "e") is not None
        with pytest.raises(StoreUnavailable, match="replica that only reads"):
            records.put(entry("more"), vector(1))
    finally:
        with store.client() as client:
            client.execute_command("REPLICAOF", "NO", "ONE")


def test_a_server_that_forgot_the_scripts_gets_them_again(store, records):
    records.put(entry(), vector(1))
    with store.client() as client:
        client.script_flush()
    assert records.exact("s", "e") is not None


def test_all_keys_are_in_one_slot_of_a_cluster(store, records):
    records.put(entry(tags=("x",), user="ann"), vector(1))
    records.lease("o", Lease("s", "x", "me", "q", None, NOW + 30), now=NOW)
    with store.client() as client:
        assert {key_slot(key) for key in client.scan_iter()} == {key_slot(PREFIX.encode())}


def test_an_empty_cache_leaves_no_keys_but_counters(store, records):
    for n in range(300):
        records.put(entry(f"{n}", tags=("x",), user="ann", tenant="t", uses={"document": {"d": "1"}}), vector(1))
    records.clear("o")
    with store.client() as client:
        left = {key.decode().removeprefix(PREFIX) for key in client.scan_iter()}
    assert left == {"owners", "size:o", "last:s", "log:s"}


def test_the_server_ends_leases_by_its_own_clock(store, records):
    records.lease("o", Lease("s", "x", "me", "q", None, NOW + 30), now=NOW)
    assert 29_000 < by_hand(store, "PTTL", "lease:1:s:x") <= 30_000
    records.renew("me", [("s", "x")], until=NOW + 45)
    assert 44_000 < by_hand(store, "PTTL", "lease:1:s:x") <= 45_000


TAKER = """
import sys, time
from chainops.cache.records import Lease
from chainops.cache.stores.redis_records import RedisRecords
from chainops.stores.redis import redis_store
records = RedisRecords(redis_store(sys.argv[1], timeout_s=10))
records.leases("s", now=1.0)
print("ready", flush=True)
sys.stdin.readline()
for n in range(20):
    taken = records.lease("o", Lease("s", str(n), sys.argv[2], "q", None, 31.0), now=1.0) is None
    print(int(taken), flush=True)
"""


def test_processes_get_one_holder_for_each_lease(store):
    takers = [
        subprocess.Popen(
            [sys.executable, "-c", TAKER, store.url, f"{n}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for n in range(3)
    ]
    assert [taker.stdout.readline() for taker in takers] == ["ready\n"] * 3
    for taker in takers:
        taker.stdin.write("go\n")
        taker.stdin.flush()
    taken = [taker.communicate(timeout=240)[0].split() for taker in takers]
    assert [sum(map(int, each)) for each in zip(*taken, strict=True)] == [1] * 20


@pytest.mark.parametrize("step", ["whole", "update"])
def test_two_changes_of_an_entry_at_once_are_both_made(store, monkeypatch, step):
    records, other = RedisRecords(store), RedisRecords(store)
    seq = records.put(entry(), vector(1))
    run, between = records._run, [lambda: other.update("e", is_verified=True)]

    def meddled(script, *told):
        if script == "update" == step and between:
            between.pop()()
        came = run(script, *told)
        if script == "whole" == step and between:
            between.pop()()
        return came

    monkeypatch.setattr(records, "_run", meddled)
    assert records.update("e", group="another")
    found = other.get("e")
    assert (found.is_verified, found.group, found.seq) == (True, "another", seq)
    assert other.damaged() == []
