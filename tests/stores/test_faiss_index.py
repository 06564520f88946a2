import sys
import threading
from concurrent.futures import ThreadPoolExecutor, wait

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from chainops.core.errors import InvalidInput
from chainops.stores.faiss_index import FaissIndex, Neighbour
from chainops.testing.stores import VectorIndexSuite


class TestFaissIndex(VectorIndexSuite):
    @pytest.fixture
    def index(self):
        return FaissIndex(4)


def unit(rng, count, dimensions=32):
    vectors = rng.standard_normal((count, dimensions)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def by_hand(stored, query, k, floor):
    """What search must give: `stored` is a dict in the order of first addition."""
    scored = [
        Neighbour(key, float((vector * np.asarray(query, np.float32).astype(np.float64)).sum()))
        for key, vector in stored.items()
    ]
    return sorted((found for found in scored if found.similarity >= floor), key=lambda found: -found.similarity)[:k]


numbers = st.one_of(
    st.sampled_from([0.0, 1.0, -1.0, 0.5, 1e-30, 1e18, -1e18, 1e-45]),
    st.floats(-2, 2, width=32),
)
vectors = arrays(np.float32, 3, elements=numbers)
keys = st.sampled_from("abcdefghijkl")
steps = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.lists(st.tuples(keys, vectors), max_size=8)), st.tuples(st.just("remove"), keys)
    ),
    max_size=12,
)


@settings(max_examples=300, deadline=None)
@given(steps, vectors, st.integers(0, 15), st.sampled_from([-1e38, -1.0, 0.0, 0.5]))
def test_any_sequence_of_changes_is_searched_as_by_hand(steps, query, k, floor):
    index, stored = FaissIndex(3), {}
    for kind, what in steps:
        if kind == "add":
            index.add([key for key, _ in what], np.array([vector for _, vector in what]).reshape(-1, 3))
            stored.update((key, vector) for key, vector in what)
        else:
            assert index.remove([what]) == (stored.pop(what, None) is not None)
    assert index.keys() == list(stored)
    assert index.search(query, k, floor=floor) == by_hand(stored, query, k, floor)


@pytest.mark.parametrize("copies", [1, 3, 50])
def test_many_near_equals_are_told_apart_exactly(copies):
    rng = np.random.default_rng(5)
    near = unit(rng, 1, 384) + 1e-7 * rng.standard_normal((2000 // copies, 384)).astype(np.float32)
    near = np.repeat(near, copies, axis=0)
    index = FaissIndex(384)
    index.add([f"{n}" for n in range(len(near))], near)
    stored = {f"{n}": vector for n, vector in enumerate(near)}
    for query in near[:3]:
        assert index.search(query, 5) == by_hand(stored, query, 5, -1)


def test_one_query_and_many_give_the_same():
    rng = np.random.default_rng(1)
    index = FaissIndex(32)
    index.add([f"{n}" for n in range(3000)], unit(rng, 3000))
    queries = unit(rng, 50)
    assert index.search_many(queries, 7) == [index.search(query, 7) for query in queries]


def test_removing_gives_memory_back():
    index = FaissIndex(32)
    names = [f"{n}" for n in range(10_000)]
    index.add(names, unit(np.random.default_rng(0), 10_000))
    full = index.size_bytes
    assert index.remove(names[100:]) == 9900
    assert index.size_bytes < full / 20
    index.remove(names)
    assert (len(index), index.size_bytes) == (0, 0)


def test_a_failed_add_of_a_batch_adds_none_of_it():
    index = FaissIndex(2)
    for keys, given_vectors in (
        (["a", 1], [[1, 0]] * 2),
        (["a"], [[1, 0]] * 2),
        (["a", "b"], [[1, 0], [float("nan"), 0]]),
    ):
        with pytest.raises(InvalidInput):
            index.add(keys, given_vectors)
    assert len(index) == 0


def test_of_a_key_given_twice_the_last_vector_counts():
    index = FaissIndex(2)
    index.add(["a", "a"], [[1, 0], [0, 1]])
    assert index.search([0, 1], 5) == [("a", 1.0)]


@pytest.mark.parametrize("k", [-1, -5])
def test_a_negative_k_is_refused(k):
    with pytest.raises(InvalidInput, match="k: found"):
        FaissIndex(2).search([1, 0], k)


def test_searches_during_changes_see_whole_vectors_under_their_own_keys(eventually):
    dimensions = 256
    index = FaissIndex(dimensions)
    names = [f"{n}" for n in range(1000)]

    def vector(name, version):
        # The first number tells the key, all others the version: a torn or misplaced vector fits neither.
        return np.array([int(name) + 1] + [version] * (dimensions - 1), np.float32)

    index.add(names, [vector(name, 1) for name in names])
    query = np.array([1] + [1000] * (dimensions - 1), np.float32)
    stop, wrong, searched = threading.Event(), [], []

    def search():
        while not stop.is_set():
            for key, similarity in index.search(query, 30):
                if similarity not in {int(key) + 1 + 1000 * version * (dimensions - 1) for version in (1, 2)}:
                    wrong.append((key, similarity))
            searched.append(1)

    def change(worker):
        for n in range(1000):
            name = names[(n * 7 + worker * 100) % 1000]
            index.remove([names[(n * 5 + worker) % 1000]])
            index.add([name], [vector(name, 1 + n % 2)])

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # threads change places often, so that a missing lock shows
    try:
        with ThreadPoolExecutor(5) as threads:
            searchers = [threads.submit(search) for _ in range(2)]
            changers = [threads.submit(change, n) for n in range(3)]
            wait(changers)
            try:
                eventually(lambda: searched)
            finally:
                stop.set()
            for work in changers + searchers:
                work.result()
    finally:
        sys.setswitchinterval(interval)
    assert wrong == []
    assert sorted(index.keys()) == sorted(found.key for found in index.search(query, 2000))


def test_the_users_own_thread_setting_is_kept():
    before = faiss.omp_get_max_threads()
    try:
        faiss.omp_set_num_threads(3)
        index = FaissIndex(2)
        index.add(["a"], [[1, 0]])
        index.search([1, 0], 1)
        assert faiss.omp_get_max_threads() == 3
    finally:
        faiss.omp_set_num_threads(before)
