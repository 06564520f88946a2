from __future__ import annotations

import asyncio

import numpy as np
import pytest

from chainops.core.errors import InvalidInput
from chainops.testing import WordVectors


def test_texts_that_share_words_are_near_each_other_and_rows_have_unit_length():
    same, other, more, none = WordVectors(dimensions=256).embed(
        ["When is the zoo open?", "trains to Rome", "when is the zoo closed", ""]
    )
    assert same.dtype == np.float32
    assert np.allclose([same @ same, other @ other, more @ more, none @ none], [1, 1, 1, 0])
    assert same @ more == pytest.approx(0.8)
    assert same @ other == 0


def test_it_is_an_embedder_that_remembers_what_it_was_given():
    words = WordVectors("other weights", dimensions=8)
    assert (words.digest, words.dimensions, words.embed(["a", "b"]).shape) == ("other weights", 8, (2, 8))
    assert words.embed_query("c") == asyncio.run(words.aembed_query("c"))
    assert words.embedded == ["a", "b", "c", "c"]
    assert words.embed([]).shape == (0, 8)
    assert np.array_equal(words.embed(["half \ud83d"]), words.embed(["half ?"]))
    with pytest.raises(InvalidInput):
        words.embed([3])
