"""What is made when first needed is made once."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from chainops.core.lazy import Lazy


def test_it_is_made_once_however_many_need_it_at_once():
    made = []

    def make():
        time.sleep(0.01)
        made.append(1)
        return object()

    lazy = Lazy(make)
    assert not lazy.is_made
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(lambda _: lazy(), range(8)))
    assert (len(found), made, lazy.is_made) == (1, [1], True)


def test_none_is_a_value_too():
    made = []
    lazy = Lazy(lambda: made.append(1))
    assert (lazy(), lazy(), made) == (None, None, [1])


def test_a_failure_is_not_remembered():
    results = iter([OSError("disk"), "good"])

    def make():
        result = next(results)
        if isinstance(result, Exception):
            raise result
        return result

    lazy = Lazy(make)
    with pytest.raises(OSError):
        lazy()
    assert lazy() == "good"
