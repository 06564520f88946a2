"""What `Vectors` leaves on the disk: whole or refused, whatever happens to the process or the files."""

import os
import random
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from chainops.core.errors import StoreCorrupted
from chainops.stores.vector_files import Folder
from chainops.stores.vectors import IndexStale, Vectors

SMALL = 40


def unit_rows(count, dimensions=8, seed=0):
    rows = np.random.default_rng(seed).standard_normal((count, dimensions)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


POOL = unit_rows(400)


@pytest.fixture
def saved(tmp_path):
    """A folder with 100 rows in a base, of which 5 are dead, and 20 beside it."""
    vectors = Vectors(8, folder=tmp_path / "v", stamp="s", flat_below=SMALL)
    vectors.add(range(100), POOL[:100])
    assert vectors.settle(120)
    vectors.add(range(100, 120), POOL[100:120])
    vectors.remove(range(5))
    assert vectors.save(mark="17-0")
    vectors.close()
    return tmp_path / "v"


def reopened(folder):
    return Vectors.open(folder, stamp="s", flat_below=SMALL)


def test_what_was_saved_is_there_again(saved):
    vectors = reopened(saved)
    assert vectors.mark == "17-0"
    assert vectors.keys() == list(range(5, 120))
    assert all(vectors.search(POOL[key], 1)[0].key == key for key in range(5, 120))
    assert sorted(path.name.partition("-")[0] for path in saved.iterdir()) == ["base", "base", "lock", "snapshot"]


def test_there_is_nothing_to_open_where_nothing_was_saved(tmp_path):
    with pytest.raises(IndexStale):
        Vectors.open(tmp_path / "nowhere")


def test_another_stamp_is_stale(saved):
    with pytest.raises(IndexStale, match="'other'"):
        Vectors.open(saved, stamp="other")


def test_every_changed_byte_of_a_snapshot_is_noticed(saved):
    path = saved / "snapshot"
    content = path.read_bytes()
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 0x40]) + content[place + 1 :])
        with pytest.raises((StoreCorrupted, IndexStale)):
            reopened(saved)


@pytest.mark.parametrize("kind", ["snapshot", "base-*.rows", "base-*.lists"])
def test_files_that_were_cut_edited_or_lost_are_refused(saved, kind):
    (path,) = saved.glob(kind)
    content = path.read_bytes()
    rng = random.Random(0)
    changed = [content[: rng.randrange(len(content))] for _ in range(20)]
    changed += [content + b"\0", content[1:], b"", content[::-1]]
    for _ in range(50):
        place = rng.randrange(len(content))
        changed.append(content[:place] + bytes([content[place] ^ (1 << rng.randrange(8))]) + content[place + 1 :])
    for each in changed:
        path.write_bytes(each)
        with pytest.raises(StoreCorrupted):
            reopened(saved)
    path.unlink()
    with pytest.raises((StoreCorrupted, IndexStale)):
        reopened(saved)
    path.write_bytes(content)
    assert len(reopened(saved)) == 115


def test_one_writes_the_others_read_and_take_over(saved):
    first, second = reopened(saved), reopened(saved)
    assert first.save(mark=1)
    second.add([500], POOL[300:301])
    assert not second.save(mark=2)
    assert second.search(POOL[300], 1)[0].key == 500
    first.close()
    assert second.save(mark=2)
    assert 500 in reopened(saved)


def test_a_reader_keeps_what_it_mapped_when_the_writer_replaces_it(saved):
    writer, reader = reopened(saved), reopened(saved)
    old = reader.generation
    writer.save(mark=1)
    writer.remove(range(60))
    assert writer.settle(120)
    assert writer.save(mark=2)
    assert list(saved.glob(f"base-{old}.*")) == []
    assert reader.generation == old
    assert all(reader.search(POOL[key], 1)[0].key == key for key in range(5, 120))
    assert reopened(saved).keys() == list(range(60, 120))


def test_who_takes_over_after_its_files_were_removed_writes_new_ones(saved):
    writer, reader = reopened(saved), reopened(saved)
    writer.save(mark=1)
    writer.remove(range(60))
    assert writer.settle(120)
    writer.save(mark=2)
    writer.close()
    assert reader.save(mark=3)
    assert reopened(saved).keys() == list(range(5, 120))
    assert reopened(saved).mark == 3


def test_a_forked_child_does_not_keep_the_lock(tmp_path):
    code = """
import os, sys, time
from pathlib import Path
import numpy as np
from chainops.stores.vectors import Vectors
vectors = Vectors(2, folder=Path(sys.argv[1]))
vectors.add([1], np.ones((1, 2)))
assert vectors.save(mark=1)
if (child := os.fork()) == 0:
    os.closerange(0, 3)
    time.sleep(60)
    os._exit(0)
print(child, flush=True)
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "v")], stdout=subprocess.PIPE, check=True)
    try:
        assert Vectors.open(tmp_path / "v").save(mark=2)
    finally:
        os.kill(int(done.stdout), 9)


def test_a_build_that_ends_while_a_snapshot_is_written_leaves_it_what_it_names(saved, monkeypatch):
    vectors, write = reopened(saved), Folder.write
    vectors.remove(range(60))
    assert vectors.settle(120)

    def write_then_build(*args, **kwargs):
        write(*args, **kwargs)
        vectors.remove(range(60, 110))
        assert vectors.settle(120)

    monkeypatch.setattr(Folder, "write", write_then_build)
    named = vectors.generation
    assert vectors.save(mark=2)
    assert vectors.generation != named
    assert reopened(saved).keys() == list(range(60, 120))


def test_a_snapshot_begun_before_a_build_ends_holds_what_was_removed_by_neither(saved, monkeypatch):
    vectors, write = reopened(saved), Folder.write
    begun = []

    def change_then_write(*args, **kwargs):
        begun.append(vectors.generation)
        if len(begun) == 1:
            vectors.remove(range(60))
            assert vectors.settle(120)
            vectors.remove([70])
        write(*args, **kwargs)

    monkeypatch.setattr(Folder, "write", change_then_write)
    assert vectors.save(mark=2)
    assert begun[0] != begun[-1]
    assert reopened(saved).keys() == [*range(60, 70), *range(71, 120)]


def test_what_is_saved_while_rows_come_and_go_is_right(tmp_path):
    """Row n comes, row n - 100 goes: of what was there at the mark, all that stayed is in the snapshot, and right."""
    rows = unit_rows(20_000, 16)
    vectors = Vectors(16, folder=tmp_path / "v", stamp="s", flat_below=SMALL)
    reached, over = [0], threading.Event()

    def change():
        while not over.is_set() and reached[0] < 19_000:
            n = reached[0]
            vectors.add(range(n, n + 5), rows[n : n + 5])
            vectors.remove(range(n - 100, n - 95) if n >= 100 else [])
            reached[0] = n + 5

    changer = threading.Thread(target=change)
    changer.start()
    try:
        for _ in range(30):
            mark = reached[0]
            assert vectors.save(mark=mark)
            latest = reached[0] + 5
            found = Vectors.open(tmp_path / "v", stamp="s", flat_below=SMALL)
            stayed = set(range(max(0, latest - 100), mark))
            assert stayed <= set(found.keys())
            lost = [key for key in found.keys()[::5] if found.search(rows[key], 1)[0] != (key, pytest.approx(1.0))]
            assert lost == []
            found.close()
    finally:
        over.set()
        changer.join(60)
    assert vectors.settle(120)
    assert vectors.build_error is None


def test_a_whole_save_leaves_nothing_removed_on_the_disk(saved):
    vectors = reopened(saved)
    secret = POOL[50].tobytes()
    assert any(secret in path.read_bytes() for path in saved.iterdir())
    fresh = POOL[110].tobytes()
    assert any(fresh in path.read_bytes() for path in saved.iterdir())
    vectors.remove([50, 110])
    assert vectors.save(mark=2, whole=True)
    assert not any(secret in path.read_bytes() or fresh in path.read_bytes() for path in saved.iterdir())
    assert 50 not in reopened(saved)


def test_what_ended_processes_left_is_removed_but_not_what_others_may_be_writing(saved):
    long_ago = time.time() - 10_000
    for name in ("base-old.rows", "base-old.lists", ".snapshot.1.ab.tmp"):
        (saved / name).write_bytes(b"x")
        os.utime(saved / name, (long_ago, long_ago))
    (saved / "base-new.rows").write_bytes(b"x")
    assert reopened(saved).save(mark=3)
    assert {
        path.name for path in saved.iterdir() if "-new" in path.name or "old" in path.name or "tmp" in path.name
    } == {"base-new.rows"}
    assert len(reopened(saved)) == 115


def test_a_full_disk_harms_neither_lookups_nor_the_old_snapshot(tmp_path):
    code = """
import resource, sys
from pathlib import Path
import numpy as np
from chainops.core.errors import StoreUnavailable
from chainops.stores.vectors import Vectors
rows = np.random.default_rng(0).standard_normal((2000, 64)).astype(np.float32)
vectors = Vectors(64, folder=Path(sys.argv[1]), flat_below=1000)
vectors.add(range(10), rows[:10])
assert vectors.save(mark=1)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
vectors.add(range(2000), rows)
assert vectors.settle(120)
assert isinstance(vectors.build_error, StoreUnavailable), vectors.build_error
try:
    vectors.save(mark=2)
except StoreUnavailable:
    pass
else:
    raise SystemExit("saved")
assert all(vectors.search(rows[n], 1)[0].key == n for n in range(0, 2000, 50))
print(len(Vectors.open(Path(sys.argv[1]))), Vectors.open(Path(sys.argv[1])).mark)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "v")], capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["10", "1"], done.stderr
    assert sorted(path.name for path in (tmp_path / "v").iterdir()) == ["lock", "snapshot"]


NURSERY = """
import os, sys
from pathlib import Path
import numpy as np
import faiss
from chainops.stores.vectors import IndexStale, Vectors

def live(folder, said):
    try:
        vectors = Vectors.open(folder, stamp="s", flat_below=100)
    except IndexStale:
        vectors = Vectors(16, folder=folder, stamp="s", flat_below=100)
    rows = np.random.default_rng(5).standard_normal((20_000, 16)).astype(np.float32)
    n = int(vectors.mark or 0)
    while True:
        vectors.add(range(n, n + 30), rows[n:n + 30])
        vectors.remove([*range(n, n + 10), *range(max(0, n - 300), max(0, n - 270))])
        n += 30
        if n % 90 == 0:
            assert vectors.settle(120)
        assert vectors.save(mark=n, whole=n % 120 == 0)
        os.write(said, b"%d\\n" % n)

for line in sys.stdin:
    out = os.open(line.strip(), os.O_WRONLY | os.O_CREAT)
    if (child := os.fork()) == 0:
        live(Path(sys.argv[1]), out)
    os.close(out)
    print(child, flush=True)
    os.waitpid(child, 0)
    print("ended", flush=True)
"""


def kill_writers(tmp_path, lives):
    """Kill a process that adds, removes, builds and saves; all that it acknowledged has to be there."""
    rows = np.random.default_rng(5).standard_normal((20_000, 16)).astype(np.float32)
    nursery = subprocess.Popen(
        [sys.executable, "-c", NURSERY, str(tmp_path / "v")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    rng, acknowledged, reached = random.Random(1), 0, set()
    try:
        for life in range(lives):
            said = tmp_path / f"said {life}"
            nursery.stdin.write(f"{said}\n")
            nursery.stdin.flush()
            child = int(nursery.stdout.readline())
            while not said.exists() or said.read_text().count("\n") < 1 + life % 4:
                time.sleep(0.001)
            time.sleep(rng.random() * 0.03)
            os.kill(child, 9)
            assert nursery.stdout.readline() == "ended\n"
            acknowledged = max([acknowledged, *map(int, said.read_text().split("\n")[:-1])])
            found = Vectors.open(tmp_path / "v", stamp="s", flat_below=100)
            assert found.mark >= acknowledged
            assert found.keys() == [key for key in range(max(0, found.mark - 300), found.mark) if key % 30 >= 10]
            for key in found.keys()[life % 7 :: 7]:
                assert found.search(rows[key], 1)[0] == (key, pytest.approx(1.0))
            reached.add(found.generation)
            found.close()
            found.settle(120)
    finally:
        nursery.stdin.close()
        nursery.wait(60)
    assert len(reached) > lives / 4, "too few builds to say anything about them"


def test_killed_writers_leave_one_whole_snapshot(tmp_path):
    kill_writers(tmp_path, 20)


@pytest.mark.slow
def test_a_hundred_killed_writers_leave_one_whole_snapshot(tmp_path):
    kill_writers(tmp_path, 100)
