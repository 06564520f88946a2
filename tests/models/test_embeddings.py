"""Embedding models by name."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from chainops.core.errors import InvalidInput
from chainops.models.embeddings import BadEmbeddings, Embedder, UnknownEmbedder, embedder
from chainops.models.failures import MissingKey, ModelFailed
from chainops.testing import ModelServer, Nonsense, Status

TEXTS = [
    "What does yield from do?",
    "",
    "naïve café 中文 🙂",
    "A generator delegates part of its work to another generator. " * 60,
    "for x in range(3): print(x)",
]


@pytest.fixture(scope="module")
def minilm() -> Embedder:
    return embedder("minilm")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-a-secret-that-nobody-may-see")
    with ModelServer() as running:
        yield running


def test_vectors_are_those_of_sentence_transformers(minilm: Embedder) -> None:
    from sentence_transformers import SentenceTransformer

    from chainops.models.weights import MINILM, find_published

    theirs = SentenceTransformer(str(find_published("minilm", MINILM)), device="cpu").encode(TEXTS)
    ours = minilm.embed(TEXTS)
    assert (ours * theirs).sum(axis=1).min() >= 0.99999
    assert np.allclose(np.linalg.norm(ours, axis=1), 1, atol=1e-5)
    assert ours.dtype == np.float32


def test_no_texts_give_no_rows(minilm: Embedder) -> None:
    assert minilm.embed([]).shape == (0, 384) == (0, minilm.dimensions)
    assert minilm.embed_documents([]) == []


@pytest.mark.parametrize("texts", ["one string", ["good", 3], [None]])
def test_what_is_no_text_is_refused(minilm: Embedder, texts: list[str]) -> None:
    with pytest.raises(InvalidInput, match="expected a"):
        minilm.embed(texts)


def test_a_text_has_the_same_vector_whatever_it_is_embedded_with(minilm: Embedder) -> None:
    together = minilm.embed(TEXTS)
    for row, text in zip(together, TEXTS, strict=True):
        assert np.array_equal(minilm.embed([text])[0], row)


def test_threads_share_one_model(minilm: Embedder) -> None:
    expected = minilm.embed(TEXTS)
    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(lambda _: minilm.embed(TEXTS[:3]), range(24)):
            assert np.array_equal(found, expected[:3])


def test_langchains_methods_agree_sync_and_async(minilm: Embedder) -> None:
    query, documents = minilm.embed_query(TEXTS[0]), minilm.embed_documents(TEXTS[:2])

    async def both() -> tuple[list[float], list[list[float]]]:
        return await minilm.aembed_query(TEXTS[0]), await minilm.aembed_documents(TEXTS[:2])

    assert asyncio.run(both()) == (query, documents)
    assert documents[0] == query
    assert isinstance(query[0], float)


def test_one_model_per_process_and_settings(minilm: Embedder) -> None:
    assert embedder("minilm") is embedder("minilm")
    assert embedder("minilm", threads=1) is not embedder("minilm")
    assert embedder("sentence-transformers:all-MiniLM-L6-v2").digest == minilm.digest


def test_a_name_nobody_knows_names_the_nearest() -> None:
    with pytest.raises(UnknownEmbedder, match="did you mean 'minilm'") as raised:
        embedder("minilmm")
    assert raised.value.nearest == "minilm"


def test_other_weights_have_another_digest(tiny_model: Path, model_home: Path, minilm: Embedder) -> None:
    tiny = embedder(str(tiny_model))
    assert tiny.dimensions == 16
    assert tiny.digest != minilm.digest
    compiled = next(model_home.iterdir())
    assert embedder(str(compiled)).digest == tiny.digest, "a compiled folder can be named directly"


def test_openai_vectors_are_asked_once_in_order_and_made_unit_rows(server: ModelServer) -> None:
    model = embedder("openai:any-name", base_url=server.url)
    rows = model.embed(["one", "two", "one"])
    assert np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    assert np.array_equal(rows[0], rows[2])
    assert len(server.requests) == 1
    assert rows.shape == (3, model.dimensions)
    assert np.allclose(asyncio.run(model.aembed(["one"])), rows[:1])


def test_a_refusal_is_not_retried_behind_our_back(server: ModelServer) -> None:
    model = embedder("openai:any-name", base_url=server.url)
    server.fail(Status(503))
    with pytest.raises(ModelFailed, match="503"):
        model.embed(["one"])
    assert len(server.requests) == 1


def test_nonsense_from_the_server_is_no_vector(server: ModelServer) -> None:
    model = embedder("openai:any-name", base_url=server.url)
    server.fail(Nonsense())
    with pytest.raises((BadEmbeddings, ModelFailed)):
        model.embed(["one"])


@pytest.mark.parametrize(
    ("vectors", "problem"),
    [([[0.0, 0.0]], "length zero"), ([[1.0, float("nan")]], "finite"), ([[1.0], [1.0]], "2 vectors for 1")],
)
def test_vectors_that_cannot_be_used_are_named(server: ModelServer, vectors: list[list[float]], problem: str) -> None:
    model = embedder("openai:other-name", base_url=server.url)
    with pytest.raises(BadEmbeddings, match=problem):
        model._unit(vectors, 1)


def test_a_key_is_never_shown(server: ModelServer) -> None:
    model = embedder("openai:any-name", base_url=server.url)
    shown = f"{model!r} {model.digest} {model._client!r}"
    assert "sk-a-secret" not in shown


def test_a_missing_key_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(MissingKey, match="OPENAI_API_KEY"):
        embedder("openai:text-embedding-3-small")


def test_servers_and_models_never_share_a_digest(server: ModelServer) -> None:
    digests = {
        embedder("openai:a", base_url=server.url).digest,
        embedder("openai:b", base_url=server.url).digest,
        embedder("openai:a", base_url="http://127.0.0.1:9/v1").digest,
        embedder("openai:a", base_url=server.url, dimensions=8).digest,
    }
    assert len(digests) == 4
