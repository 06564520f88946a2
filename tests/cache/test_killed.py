"""Writers and servers are killed at any moment: nothing acknowledged is lost, nothing is half, and the log is right."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time

import pytest

from chainops.cache.stores.redis_records import RedisRecords
from chainops.cache.stores.sql_records import SqlRecords
from chainops.stores.redis import redis_store
from chainops.stores.sql import SqlStore
from chainops.testing.cache_pieces import Follower, entry, vector
from chainops.testing.servers import redis_server

# A process that has imported everything, and forks a writer when asked for one: a hundred lives take seconds so.
NURSERY = """
import os, random, sys
import numpy as np
import redis, sqlalchemy, hypothesis
from chainops.cache.stores.redis_records import RedisRecords
from chainops.cache.stores.sql_records import SqlRecords
from chainops.cache.records import Where
from chainops.stores.redis import redis_store
from chainops.stores.sql import SqlStore
from chainops.testing.cache_pieces import NOW, entry, vector
from chainops.core.errors import StoreError

def write(url, life, said):
    chance = random.Random(life)
    records = RedisRecords(redis_store(url, timeout_s=10)) if url.startswith("redis") else SqlRecords(SqlStore(url))
    n = 0
    while True:
        n += 1
        name = f"{life}-{n}"
        os.write(said, f"try {name}\\n".encode())
        exact, text = f"{life}-{chance.randrange(30)}", {"content": f"{name} " * 700}
        records.put(entry(name, exact=exact, message=text, tags=(name,)), vector(1, n))
        os.write(said, f"put {name}\\n".encode())
        if chance.random() < 0.3:
            name = f"{life}-{chance.randrange(n) + 1}"
            os.write(said, f"try {name}\\n".encode())
            records.drop("o", Where(tag=name), reason="r", now=NOW)
            os.write(said, f"drop {name}\\n".encode())

for line in sys.stdin:
    url, life, path = line.split()
    child = os.fork()
    if not child:
        said = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            write(url, life, said)
        except StoreError:
            os._exit(0)
        finally:
            os._exit(1)
    print(child, flush=True)
    os.waitpid(child, 0)
    print("ended", flush=True)
"""


@pytest.fixture(scope="module")
def nursery():
    with subprocess.Popen(
        [sys.executable, "-c", NURSERY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process
        process.stdin.close()


class Lives:
    """What killed writers acknowledged. Each life writes under its own names."""

    def __init__(self, nursery, url, folder):
        self.nursery, self.url, self.folder = nursery, url, folder
        self.said = []

    def live(self, kill):
        """One writer, until `kill(its id)` has ended it."""
        path = self.folder / f"said {len(self.said)}".replace(" ", "-")
        self.nursery.stdin.write(f"{self.url} {len(self.said)} {path}\n")
        self.nursery.stdin.flush()
        child = int(self.nursery.stdout.readline())
        while not path.exists() or path.read_text().count("\n") < 6:
            time.sleep(0.001)
        time.sleep(random.random() * 0.03)
        kill(child)
        assert self.nursery.stdout.readline() == "ended\n"
        self.said.append([line.split() for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")])

    def check(self, records):
        """All that was acknowledged is there, whole, unless it was replaced or dropped, or just about to be."""
        found = {each.id: each for each, _, _ in records.entries("o", limit=1_000_000)}
        assert records.damaged() == []
        put = 0
        for told in self.said:
            gone = {name for what, name in told if what == "drop"}
            last = told[-1][1]
            for place, (what, name) in enumerate(told):
                put += what == "put"
                if what != "put" or name in gone or name == last or ["try", name] in told[place:]:
                    continue
                assert name in found or self.was_replaced(records, name, told[place:], found)
            assert not gone & found.keys() - {last}
        assert put > 3 * len(self.said)
        for name, each in found.items():
            assert each.message == {"content": f"{name} " * 700}
            assert records.exact("s", each.exact) == each
        there = {each.seq for each in found.values()}
        assert Follower(records, "s").read() == there
        assert Follower(records, "s", page=50).read() == there
        assert records.size("o")[0] == len(found)
        return there

    def was_replaced(self, records, name, later, found):
        """Whether another entry with the same question came after it: each life draws its questions by its number."""
        life, number = name.split("-")
        chance, questions, n = random.Random(life), {}, 0
        total = max(int(each[1].split("-")[1]) for each in later)
        while n < total:
            n += 1
            questions[n] = chance.randrange(30)
            if chance.random() < 0.3:
                chance.randrange(n)
        mine = questions[int(number)]
        return any(questions[n] == mine for n in range(int(number) + 1, total + 1))


def kill(child):
    os.kill(child, signal.SIGKILL)


def outlive(told, records, lives, kill, revive=lambda: None):
    reader = Follower(records(), "s")
    for _ in range(lives):
        told.live(kill)
        revive()
        reader.read()
    assert reader.read() == told.check(records())
    assert reader.restarts == 0


def kill_sqlite_writers(nursery, folder, lives):
    url = f"sqlite:///{folder}/cache.db"
    store = SqlStore(url)
    outlive(Lives(nursery, url, folder), lambda: SqlRecords(store), lives, kill)
    store.close()


def kill_redis_writers(nursery, folder, lives):
    with redis_server() as server:
        store = redis_store(server.url, timeout_s=10)
        outlive(Lives(nursery, server.url, folder), lambda: RedisRecords(store), lives, kill)
        store.close()


def kill_redis_servers(nursery, folder, lives):
    with redis_server("--appendonly", "yes", "--appendfsync", "always") as server:
        store = redis_store(server.url, timeout_s=10)
        told = Lives(nursery, server.url, folder)

        def revive():
            server.repair()  # what its operator does; `test_what_a_killed_server_left_half_written...` does not
            server.start()

        outlive(told, lambda: RedisRecords(store), lives, lambda _child: server.kill(), revive)
        store.close()


KILLING = {"sqlite writers": kill_sqlite_writers, "redis writers": kill_redis_writers, "redis": kill_redis_servers}


@pytest.mark.parametrize("killing", KILLING.values(), ids=KILLING)
def test_what_was_acknowledged_outlives_kills(nursery, tmp_path, killing):
    killing(nursery, tmp_path, 15)


@pytest.mark.slow
@pytest.mark.parametrize("killing", KILLING.values(), ids=KILLING)
def test_what_was_acknowledged_outlives_a_hundred_kills(nursery, tmp_path, killing):
    killing(nursery, tmp_path, 100)


def test_a_redis_that_restarts_is_used_again(tmp_path):
    with redis_server("--appendonly", "yes") as server:
        records = RedisRecords(redis_store(server.url, timeout_s=10))
        seq = records.put(entry(), vector(1))
        reader = Follower(records, "s")
        reader.read()
        server.restart()
        assert records.exact("s", "e") is not None
        more = records.put(entry("more"), vector(1))
        assert reader.read() == {seq, more}
        assert reader.restarts == 0
