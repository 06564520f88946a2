import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from chainops.core.errors import InvalidInput
from chainops.stores import vector_live, vector_rows
from chainops.stores.vector_live import Live
from chainops.stores.vector_parts import Base
from chainops.stores.vectors import Vectors

SMALL = 40  # rows from which lists are used in these tests


def unit_rows(count, dimensions=8, seed=0):
    rows = np.random.default_rng(seed).standard_normal((count, dimensions)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def exact(held, query, k):
    """The k nearest of a dict of rows, by the plainest way there is."""
    double = np.asarray(query, np.float64) / np.linalg.norm(np.asarray(query, np.float64))
    scored = [
        (-float(np.dot(row.astype(np.float64), double) / np.linalg.norm(row.astype(np.float64))), key)
        for key, row in held.items()
    ]
    return sorted(scored)[:k]


POOL = unit_rows(200)
KEYS = st.integers(0, 90)


class AgreesWithADictionary(RuleBasedStateMachine):
    """Up to 91 keys: so few that every list is looked into, and the answer has to be the exact one."""

    @initialize(folder=st.booleans())
    def begin(self, folder):
        import tempfile
        from pathlib import Path

        self.home = tempfile.TemporaryDirectory() if folder else None
        self.folder = Path(self.home.name) / "v" if folder else None
        self.vectors = Vectors(8, folder=self.folder, stamp="s", flat_below=SMALL)
        self.held, self.saved, self.log = {}, None, []

    @rule(keys=st.lists(KEYS, max_size=60), start=st.integers(0, 199))
    def add(self, keys, start):
        rows = POOL[(start + np.arange(len(keys))) % 200]
        self.vectors.add(keys, rows)
        self.held.update(zip(keys, rows, strict=True))

    @rule(keys=st.lists(KEYS, max_size=30))
    def remove(self, keys):
        assert self.vectors.remove(keys) == len(set(keys) & self.held.keys())
        for key in keys:
            self.held.pop(key, None)

    @rule(query=st.integers(0, 199), k=st.integers(0, 5))
    def search(self, query, k):
        found = self.vectors.search(POOL[query], k)
        wanted = exact(self.held, POOL[query], k)
        assert [round(near.similarity, 9) for near in found] == [round(-score, 9) for score, _ in wanted]
        assert len({near.key for near in found}) == len(found)
        for near in found:
            assert near.similarity == pytest.approx(float(self.held[near.key] @ POOL[query]), abs=1e-6)

    @rule()
    def settle(self):
        assert self.vectors.settle(120)
        assert self.vectors.build_error is None

    @rule(whole=st.booleans(), mark=st.integers())
    def save(self, whole, mark):
        assert self.vectors.save(mark=mark, whole=whole) is (self.folder is not None)
        if self.folder is not None:
            self.saved = (mark, dict(self.held))

    @rule()
    def reopen(self):
        if self.saved is not None:
            self.vectors.close()
            self.vectors = Vectors.open(self.folder, stamp="s", flat_below=SMALL)
            mark, self.held = self.saved[0], dict(self.saved[1])
            assert self.vectors.mark == mark

    @invariant()
    def holds_the_same_keys(self):
        if hasattr(self, "vectors"):
            assert len(self.vectors) == len(self.held)
            assert self.vectors.keys() == sorted(self.held)
            assert all((key in self.vectors) is (key in self.held) for key in (0, 45, 90))

    def teardown(self):
        if hasattr(self, "vectors"):
            self.vectors.close()
            self.vectors.settle(120)
            if self.home is not None:
                self.home.cleanup()


AgreesWithADictionary.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
TestAgreesWithADictionary = AgreesWithADictionary.TestCase


@pytest.fixture(params=["memory", "folder"])
def folder(request, tmp_path):
    return tmp_path / "v" if request.param == "folder" else None


def test_nothing_is_found_in_nothing():
    vectors = Vectors(8)
    assert vectors.search(POOL[0], 3) == []
    assert vectors.keys() == []
    assert vectors.remove([1]) == 0
    vectors.add([], np.zeros((0, 8), np.float32))
    assert len(vectors) == 0


def test_equal_similarities_come_in_the_order_of_keys_and_k_may_exceed_what_is_stored(folder):
    vectors = Vectors(8, folder=folder, flat_below=SMALL)
    vectors.add([30, 10, 20], np.stack([POOL[0]] * 3))
    assert [near.key for near in vectors.search(POOL[0], 99)] == [10, 20, 30]
    vectors.add(range(100, 140), POOL[1:41])
    assert vectors.settle(120)
    assert [near.key for near in vectors.search(POOL[0], 3)] == [10, 20, 30]
    assert len(vectors.search(POOL[0], 99)) == 43


@pytest.mark.parametrize("dimensions", [3, 61, 385])
def test_equal_rows_are_equally_similar_wherever_they_lie(dimensions):
    drawn = np.random.default_rng(0)
    rows = drawn.standard_normal((41, dimensions))
    rows[::2] = rows[0]
    vectors = Vectors(dimensions)
    vectors.add(range(41), rows)
    for query in drawn.standard_normal((20, dimensions)):
        similarity = {near.key: near.similarity for near in vectors.search(query, 41)}
        assert len({similarity[key] for key in range(0, 41, 2)}) == 1


def test_similarity_is_the_cosine_whatever_the_lengths():
    vectors = Vectors(2)
    vectors.add([1, 2, 3], [[3e-30, 0], [1e18, 1e18], [0, -2]])
    found = vectors.search([5, 0], 3)
    assert [near.key for near in found] == [1, 2, 3]
    assert [near.similarity for near in found] == pytest.approx([1, 0.5**0.5, 0], abs=1e-7)


def test_of_a_key_given_twice_the_last_row_counts():
    vectors = Vectors(8)
    vectors.add([7, 8, 7], POOL[:3])
    assert len(vectors) == 2
    assert vectors.search(POOL[2], 1)[0] == (7, pytest.approx(1.0))
    vectors.add([7], POOL[3:4])
    assert vectors.search(POOL[3], 1)[0] == (7, pytest.approx(1.0))
    assert len(vectors) == 2


@pytest.mark.parametrize(
    ("keys", "rows"),
    [
        ([1], np.ones((1, 7))),
        ([1], np.ones(8)),
        ([1, 2], np.ones((1, 8))),
        ([1], np.full((1, 8), np.nan)),
        ([1], np.full((1, 8), np.inf)),
        ([1], np.full((1, 8), 1e300)),
        ([1], np.zeros((1, 8))),
        ([-1], np.ones((1, 8))),
        (["a"], np.ones((1, 8))),
        ([1.5], np.ones((1, 8))),
        ([2**64 - 1], np.ones((1, 8))),
        ([1], [["x"] * 8]),
        ([1], None),
    ],
)
def test_what_cannot_be_stored_is_refused_and_nothing_is(keys, rows):
    vectors = Vectors(8)
    with pytest.raises(InvalidInput):
        vectors.add([0, *keys], np.concatenate([POOL[:1], rows]) if np.shape(rows)[1:] == (8,) else rows)
    assert len(vectors) == 0


@pytest.mark.parametrize("query", [np.ones(7), np.ones((1, 8)), np.full(8, np.nan), np.zeros(8), "text"])
def test_a_query_that_cannot_be_compared_is_refused(query):
    vectors = Vectors(8)
    vectors.add([1], POOL[:1])
    with pytest.raises(InvalidInput):
        vectors.search(query, 1)


def test_rows_of_one_direction_only_can_be_indexed(folder):
    vectors = Vectors(8, folder=folder, flat_below=SMALL)
    vectors.add(range(2000), np.repeat(POOL[:1], 2000, axis=0))
    assert vectors.settle(120)
    assert vectors.build_error is None
    assert [near.similarity for near in vectors.search(POOL[0], 5)] == pytest.approx([1.0] * 5)


def clustered(count, dimensions=64, seed=0):
    rng = np.random.default_rng(seed)
    middles = unit_rows(300, dimensions, 9)
    return unit_rows(count, dimensions, seed) * 0.6 + middles[rng.integers(300, size=count)]


def test_beyond_the_small_sizes_nearly_all_nearest_are_found(folder):
    rows, queries = clustered(20_000), clustered(300, seed=1)
    vectors = Vectors(64, folder=folder, flat_below=1000)
    vectors.add(range(19_000), rows[:19_000])
    assert vectors.settle(120)
    vectors.add(range(19_000, 20_000), rows[19_000:])  # beside the lists
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    truth = (queries @ unit.T).argmax(axis=1)
    found = [vectors.search(query, 1)[0].key for query in queries]
    assert np.mean(found == truth) >= 0.99


def test_removed_rows_hide_no_others():
    """All that are nearer to the query than the rest are removed: the rest has to be found."""
    near = POOL[0] + 0.05 * unit_rows(500, seed=3)
    vectors = Vectors(8, flat_below=SMALL)
    vectors.add(range(1000, 3000), unit_rows(2000, seed=4))
    vectors.add(range(500), near)
    assert vectors.settle(120)
    vectors.remove(range(500))
    assert [hit.key >= 1000 for hit in vectors.search(POOL[0], 10)] == [True] * 10


def disk_bytes(folder):
    return 0 if folder is None else sum(path.stat().st_size for path in folder.iterdir())


def test_removing_gives_memory_back(folder):
    vectors = Vectors(64, folder=folder, flat_below=SMALL)
    vectors.add(range(4000), unit_rows(4000, 64))
    assert vectors.settle(120)
    vectors.save(mark=0)
    before = vectors.size_bytes, vectors.mapped_bytes
    disk = disk_bytes(folder)
    vectors.remove(range(3800))
    assert vectors.settle(120)
    vectors.save(mark=1)
    assert vectors.mapped_bytes <= before[1] / 10
    assert vectors.size_bytes <= before[0] / 3
    assert disk_bytes(folder) <= disk / 10
    vectors.remove(range(4000))
    assert vectors.settle(120)
    assert (len(vectors), vectors.mapped_bytes) == (0, 0)
    vectors.save(mark=2)
    assert disk_bytes(folder) < 1000


def test_few_rows_give_memory_back_without_a_build():
    vectors = Vectors(64)
    vectors.add(range(2000), unit_rows(2000, 64))
    before = vectors.size_bytes
    vectors.remove(range(1900))
    assert vectors.size_bytes < before / 4


def test_adding_the_same_again_changes_nothing():
    vectors = Vectors(8, flat_below=SMALL)
    vectors.add(range(200), POOL)
    assert vectors.settle(120)
    size = vectors.size_bytes
    for _ in range(5):
        vectors.add(range(200), POOL)
    assert vectors.size_bytes == size


def test_many_new_rows_lie_in_a_file_and_are_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(vector_rows, "_SCRATCH_ROWS", 100)
    tmp_path.joinpath("v").mkdir()
    vectors, rows = Vectors(64, folder=tmp_path / "v"), unit_rows(3000, 64)
    for start in range(0, 3000, 70):
        vectors.add(range(start, min(3000, start + 70)), rows[start : start + 70])
    assert vectors.mapped_bytes == rows.nbytes
    for number in (0, 99, 100, 1500, 2999):
        assert vectors.search(rows[number], 1)[0] == (number, pytest.approx(1.0))
    assert list((tmp_path / "v").iterdir()) == []


def test_a_build_that_ends_in_the_middle_of_a_removal_does_not_disturb_it(monkeypatch):
    begun, may_end = threading.Event(), threading.Event()

    def build(*args):
        begun.set()
        assert may_end.wait(60)
        raise InvalidInput("rows", "this build", "another one")

    class Meddled(Live):
        """A remover that has seen that a build goes on is held up before it tells that build."""

        marks = None

        @property
        def _removed(self):
            seen = self.marks
            if seen is not None and threading.current_thread() is threading.main_thread():
                may_end.set()
                self._builder.join(0.2)
            return seen

        @_removed.setter
        def _removed(self, marks):
            self.marks = marks

    monkeypatch.setattr(Base, "build", build)
    vectors = Vectors(8, flat_below=SMALL)
    vectors._live.__class__ = Meddled
    vectors.add(range(100), POOL[:100])
    assert begun.wait(60)
    assert vectors.remove(range(10)) == 10
    assert vectors.settle(120)
    assert vectors.keys() == list(range(10, 100))


def test_whoever_waits_for_a_build_waits_for_one_that_is_just_being_started_too(monkeypatch):
    starting, may_start, start = threading.Event(), threading.Event(), threading.Thread.start

    def slowly(thread):
        if thread.name == vector_live._NAME:
            starting.set()
            may_start.wait(0.2)  # it settles now, where nothing keeps it from that
        start(thread)

    vectors = Vectors(8, flat_below=SMALL)
    with ThreadPoolExecutor(2) as pool:
        monkeypatch.setattr(threading.Thread, "start", slowly)
        adding = pool.submit(vectors.add, range(50), POOL[:50])
        assert starting.wait(60)
        assert vectors.settle(120)
        may_start.set()
        adding.result()
    assert vectors._live.parts.base is not None


def test_what_is_due_when_a_build_has_just_ended_is_built(monkeypatch):
    ending, may_end = threading.Event(), threading.Event()
    monkeypatch.setattr(vector_live, "_give_back_memory", lambda: (ending.set(), may_end.wait(60)))
    vectors = Vectors(8, flat_below=SMALL)
    vectors.add(range(50), POOL[:50])
    assert ending.wait(60)
    vectors.add(range(50, 100), POOL[50:100])
    may_end.set()
    assert vectors.settle(120)
    assert vectors._live.parts.changed() == 0


def test_lookups_are_right_while_rows_come_and_go_and_lists_are_built(folder, eventually):
    """Rows 0..99 stay: each is found by itself at every moment. What a thread has removed, it never sees again."""
    rows = unit_rows(6000, 32)
    vectors = Vectors(32, folder=folder, flat_below=500)
    vectors.add(range(100), rows[:100])
    over, wrong, looked = threading.Event(), [], [0, 0]

    def look(number):
        rng = np.random.default_rng(number)
        while not over.is_set():
            key = int(rng.integers(100))
            if vectors.search(rows[key], 1)[0].key != key:
                wrong.append(("not found", key))
            looked[number] += 1

    def change(number):
        try:
            for start in range(100 + number * 100, 6000, 200):
                keys = range(start, start + 100)
                vectors.add(keys, rows[start : start + 100])
                vectors.remove(keys[:60])
                seen = {near.key for key in keys[:60:20] for near in vectors.search(rows[key], 5)}
                wrong.extend(("seen", key) for key in seen & set(keys[:60]))
                if not all(vectors.search(rows[key], 1)[0].key == key for key in keys[60:]):
                    wrong.append(("new not found", start))
                if number == 0 and folder is not None and start % 1000 == 100:
                    vectors.save(mark=start)
        except Exception as error:
            wrong.append(error)

    lookers = [threading.Thread(target=look, args=[n]) for n in range(2)]
    changers = [threading.Thread(target=change, args=[n]) for n in range(2)]
    for thread in [*lookers, *changers]:
        thread.start()
    for thread in changers:
        thread.join(400)
    try:
        eventually(lambda: all(looked) or wrong)
    finally:
        over.set()
    for thread in lookers:
        thread.join(60)
    assert vectors.settle(120)
    assert wrong == []
    assert vectors.build_error is None
    expected = [key for key in range(6000) if key < 100 or (key - 100) % 100 >= 60]
    assert vectors.keys() == expected
