"""A process that stores answers is killed at any moment: nothing acknowledged is lost, nothing half is served."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from chainops.cache.records import CacheRecords
from chainops.cache.replica import Replica
from chainops.stores.sql import SqlStore

WRITER = """
import sys, time
import numpy as np
from chainops.cache.records import CacheRecords, Entry
from chainops.stores.sql import SqlStore
records = CacheRecords(SqlStore(f"sqlite:///{sys.argv[1]}"))
n = 0
while True:
    name = f"{sys.argv[2]}-{n}"
    vector = np.zeros(64, dtype=np.float32)
    vector[n % 64] = 1
    entry = Entry(id=name, scope="s", exact=name, question=name, message={"text": "x" * 3000 + name},
                  facts={"status": "ok"}, cost_usd=None, created_at=time.time())
    records.put(entry, vector, owner="c", keep=10_000, alive_since=None)
    print(name, flush=True)
    n += 1
"""


def kill_writers(tmp_path, embedder, lives):
    acknowledged = set()
    for life in range(lives):
        said = tmp_path / f"said {life}"
        with said.open("w") as file:
            writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path / "c.db"), str(life)], stdout=file)
        while said.read_text().count("\n") < 5 + (life * 7) % 40:
            assert writer.poll() is None
            time.sleep(0.001)
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait(30)
        acknowledged.update(said.read_text().split("\n")[:-1])
    records = CacheRecords(SqlStore(tmp_path / "c.db"))
    for name in acknowledged:
        entry = records.get(name)
        assert entry is not None
        assert entry.message["text"] == "x" * 3000 + name
    replica = Replica(records, lambda: embedder)
    partition = replica._partition("s")
    replica._catch_up(partition, "s")
    assert len(partition.index) == records.count() >= len(acknowledged)
    vector = np.zeros(64, dtype=np.float32)
    vector[3] = 1
    assert partition.index.search(vector, 1)[0].key.endswith("-3")


def test_killed_writers_lose_no_acknowledged_answer(tmp_path, embedder):
    kill_writers(tmp_path, embedder, 3)


@pytest.mark.slow
def test_a_hundred_killed_writers_lose_no_acknowledged_answer(tmp_path, embedder):
    kill_writers(tmp_path, embedder, 100)
