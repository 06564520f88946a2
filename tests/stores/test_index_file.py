import errno
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chainops.core.errors import StoreCorrupted, StoreUnavailable
from chainops.stores.index_file import IndexStale, read, write

KEYS = ["a", "zwei", "三"]
VECTORS = np.arange(6, dtype=np.float32).reshape(3, 2)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("index") / "index"
    write(path, keys=KEYS, vectors=VECTORS, stamp="s")
    return path.read_bytes()


def read_bytes(content):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "index"
        path.write_bytes(content)
        return read(path, stamp="s")


def test_every_single_changed_byte_is_noticed(whole):
    for place in range(len(whole)):
        for flip in (0x01, 0x80, 0xFF):
            changed = bytearray(whole)
            changed[place] ^= flip
            with pytest.raises((StoreCorrupted, IndexStale)):
                read_bytes(bytes(changed))


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_cut_spliced_or_overwritten_files_are_refused_or_unchanged(whole, data):
    start = data.draw(st.integers(0, len(whole)))
    end = data.draw(st.integers(start, len(whole)))
    changed = whole[:start] + data.draw(st.binary(max_size=40)) + whole[end:]
    try:
        keys, vectors = read_bytes(changed)
    except (StoreCorrupted, IndexStale):
        return
    assert keys == KEYS
    assert np.array_equal(vectors, VECTORS)


@pytest.mark.parametrize("count", [0, 1, 1000])
def test_what_is_written_is_read(tmp_path, count):
    vectors = np.random.default_rng(0).standard_normal((count, 300)).astype(np.float32)
    keys = [f"key {n}" for n in range(count)]
    write(tmp_path / "deep" / "er" / "index", keys=keys, vectors=vectors, stamp="s")
    found, back = read(tmp_path / "deep" / "er" / "index", stamp="s")
    assert found == keys
    assert np.array_equal(back, vectors)
    assert [path.name for path in (tmp_path / "deep" / "er").iterdir()] == ["index"]


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "index"
    write(path, keys=KEYS, vectors=VECTORS, stamp="s")
    code = """
import resource, sys
from pathlib import Path
import numpy as np
from chainops.core.errors import StoreUnavailable
from chainops.stores.index_file import write
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
try:
    write(Path(sys.argv[1]), keys=["k"] * 1000, vectors=np.zeros((1000, 100), np.float32), stamp="s")
except StoreUnavailable as error:
    print(error.next_move)
"""
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "free some space" in done.stdout
    assert read(path, stamp="s")[0] == KEYS
    assert [found.name for found in tmp_path.iterdir()] == ["index"]


def test_a_folder_in_place_of_the_file_is_unavailable(tmp_path):
    (tmp_path / "index").mkdir()
    with pytest.raises(StoreUnavailable, match=os.strerror(errno.EISDIR)):
        read(tmp_path / "index", stamp="s")
    with pytest.raises(StoreUnavailable):
        write(tmp_path / "index", keys=KEYS, vectors=VECTORS, stamp="s")
    assert [found.name for found in tmp_path.iterdir()] == ["index"]
