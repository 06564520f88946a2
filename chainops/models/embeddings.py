"""Embedding models by name: `minilm`, `openai:NAME`, `sentence-transformers:NAME`, or a local folder."""

from __future__ import annotations

import asyncio
import difflib
import hashlib
import os
import threading
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langchain_core.embeddings import Embeddings
from pydantic import SecretStr

from chainops.core.errors import ChainopsError, InvalidInput
from chainops.core.extras import require
from chainops.core.settings import model_home
from chainops.models.compile import Compiled, OnProgress, compiled_model, folder_digest, open_compiled
from chainops.models.failures import MissingKey
from chainops.models.weights import MINILM, WeightsNotFound, find_in_hub, find_published

if TYPE_CHECKING:
    import numpy as np

_EXAMPLES = ("minilm", "openai:text-embedding-3-small", "openai:text-embedding-3-large", "sentence-transformers:NAME")
_OPENAI_DIMENSIONS = {
    # https://platform.openai.com/docs/models, 2025-06
    "text-embedding-3-small": 1536,
    "text-embedding-3-large": 3072,
    "text-embedding-ada-002": 1536,
}
_OPENAI_BATCH = 512
"""Texts in one request; the API's own limit is 2,048 texts and 300,000 tokens."""


class UnknownEmbedder(ChainopsError, ValueError):
    """No embedding model answers to this name."""

    def __init__(self, name: str) -> None:
        self.name = name
        near = difflib.get_close_matches(name, _EXAMPLES, n=1, cutoff=0.5)
        self.nearest = near[0] if near else None
        hint = f"; did you mean {self.nearest!r}?" if near else ""
        super().__init__(
            f"embedding model {name!r} is not known{hint} "
            f"Expected one of {', '.join(_EXAMPLES)}, or the path of a model folder that exists"
        )


class BadEmbeddings(ChainopsError):
    """What came back from an embedding server is not one usable vector per text."""

    retryable = True

    def __init__(self, name: str, problem: str) -> None:
        self.name, self.problem = name, problem
        super().__init__(
            f"{name}: the embedding server answered nonsense: {problem}; check its base URL and model name"
        )


class Embedder(Embeddings):
    """A LangChain embedding model that also speaks arrays. Any number of threads may share one.

    Raises (every method):
        InvalidInput: a text is not a string.
    """

    name: str
    """As `embedder(name)` was called."""
    digest: str
    """64 hex digits that change whenever the same text could get another vector: part of every cache and index key."""

    @property
    @abstractmethod
    def dimensions(self) -> int:
        """Length of every vector."""

    @abstractmethod
    def _rows(self, texts: Sequence[str]) -> np.ndarray:
        """Unit rows for at least one text."""

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Shape (len(texts), dimensions), float32, rows of unit length, in the order of the texts."""
        import numpy as np

        if isinstance(texts, str):
            raise InvalidInput("texts to embed", "one string", "a list of strings")
        for at, text in enumerate(texts):
            if not isinstance(text, str):
                raise InvalidInput(f"text {at} to embed", type(text).__name__, "a string")
        if not texts:
            return np.empty((0, self.dimensions), dtype=np.float32)
        # Half a surrogate pair is no text for a tokenizer or a server; it is read as a question mark.
        return self._rows([text.encode("utf-8", "replace").decode() for text in texts])

    async def aembed(self, texts: Sequence[str]) -> np.ndarray:
        """As `embed`, in a thread: the event loop goes on meanwhile."""
        return await asyncio.to_thread(self.embed, texts)

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        rows: list[list[float]] = self.embed(texts).tolist()
        return rows

    def embed_query(self, text: str) -> list[float]:
        row: list[float] = self.embed([text])[0].tolist()
        return row

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        return await asyncio.to_thread(self.embed_documents, texts)

    async def aembed_query(self, text: str) -> list[float]:
        return await asyncio.to_thread(self.embed_query, text)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, digest={self.digest[:12]!r})"


class OnnxEmbedder(Embedder):
    """A compiled sentence-transformers model, run by ONNX Runtime.

    Texts are cut to the model's own limit (256 tokens for `minilm`), as sentence-transformers does.
    `embed` adds no instruction; `embed_query` and `embed_documents` put the model's own prompts first, if it has any.

    Args:
        name: As people call the model.
        compiled: An opened folder.
        threads: At most this many cores for one list of texts; None means one each, up to four.
    """

    def __init__(self, name: str, compiled: Compiled, *, threads: int | None = None) -> None:
        from chainops.models.onnx import OnnxRunner

        self.name = name
        self.compiled = compiled
        # Of what was compiled, not of the ONNX file: exporters differ between versions, the vectors do not.
        identity = f"{compiled.meta.weights} {compiled.meta.vocabulary} {compiled.meta.max_tokens}"
        self.digest = hashlib.sha256(identity.encode()).hexdigest()
        self._runner = OnnxRunner(compiled, threads=threads)

    @property
    def dimensions(self) -> int:
        return self.compiled.meta.dimensions

    def _rows(self, texts: Sequence[str]) -> np.ndarray:
        return self._runner.rows(texts)

    def count_tokens(self, text: str) -> int:
        """Tokens of a whole text, by this model's tokenizer, however long it is."""
        return self._runner.count_tokens(text)

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        prompt = self.compiled.meta.document_prompt
        return super().embed_documents([prompt + text for text in texts] if prompt else texts)

    def embed_query(self, text: str) -> list[float]:
        prompt = self.compiled.meta.query_prompt
        return super().embed_query(prompt + text if prompt else text)


class OpenAIEmbedder(Embedder):
    """Embeddings from OpenAI, or any server that speaks its protocol, through langchain-openai.

    Its own silent retries are off: retrying is the chain's business, where it is counted. Errors of the
    `openai` package (connection, status, timeout) pass through as they are.

    Args:
        model: The server's name for the model, such as `text-embedding-3-small`.
        base_url: The server; None means `OPENAI_BASE_URL`, else OpenAI itself.
        api_key: None means `OPENAI_API_KEY`. Never shown.
        dimensions: Ask for shorter vectors; None means the model's own length.
        timeout_s: For one request.
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        api_key: SecretStr | None = None,
        dimensions: int | None = None,
        timeout_s: float = 30.0,
    ) -> None:
        from langchain_openai import OpenAIEmbeddings

        self.name = f"openai:{model}"
        self.base_url = base_url or os.environ.get("OPENAI_BASE_URL") or None
        key = api_key or _environment_key()
        if key is None:
            raise MissingKey(self.name, "OPENAI_API_KEY", self.base_url)
        self._asked = dimensions
        self._dimensions = dimensions or (_OPENAI_DIMENSIONS.get(model) if self.base_url is None else None)
        identity = f"{self.name} {self.base_url or ''} {dimensions or ''}"
        self.digest = hashlib.sha256(identity.encode()).hexdigest()
        self._client = OpenAIEmbeddings(
            model=model,
            openai_api_base=self.base_url,
            openai_api_key=key,
            dimensions=dimensions,
            max_retries=0,
            request_timeout=timeout_s,
            chunk_size=_OPENAI_BATCH,
            # True would fetch tiktoken's word list over the network, and send token ids other servers do not know.
            check_embedding_ctx_length=False,
        )

    @property
    def dimensions(self) -> int:
        """Length of every vector; asks the server once when it cannot be known."""
        if self._dimensions is None:
            self._dimensions = int(self._rows(["dimensions"]).shape[1])
        return self._dimensions

    def _rows(self, texts: Sequence[str]) -> np.ndarray:
        try:
            raw = self._client.embed_documents(list(texts))
        except Exception as error:
            raise self._told(error) from error
        return self._unit(raw, len(texts))

    def _told(self, error: Exception) -> BaseException:
        """A failure of the server in our words; a bug as it is."""
        from chainops.models.failures import wrap

        return wrap(error, self.name)

    async def aembed(self, texts: Sequence[str]) -> np.ndarray:
        """As `embed`, over the async HTTP client: no thread waits."""
        if isinstance(texts, str) or not all(isinstance(text, str) for text in texts) or not texts:
            return await super().aembed(texts)  # the same errors, and the same empty answer
        try:
            raw = await self._client.aembed_documents([text.encode("utf-8", "replace").decode() for text in texts])
        except Exception as error:
            raise self._told(error) from error
        return self._unit(raw, len(texts))

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        rows: list[list[float]] = (await self.aembed(texts)).tolist()
        return rows

    async def aembed_query(self, text: str) -> list[float]:
        row: list[float] = (await self.aembed([text]))[0].tolist()
        return row

    def _unit(self, raw: list[list[float]], wanted: int) -> np.ndarray:
        import numpy as np

        if len(raw) != wanted:
            raise BadEmbeddings(self.name, f"{len(raw)} vectors for {wanted} texts")
        try:
            rows = np.asarray(raw, dtype=np.float32)
        except (TypeError, ValueError) as error:
            raise BadEmbeddings(self.name, f"vectors of different lengths, or not numbers ({error})") from error
        if rows.ndim != 2 or rows.shape[1] == 0:
            raise BadEmbeddings(self.name, f"an array of shape {rows.shape}")
        if self._dimensions is not None and rows.shape[1] != self._dimensions:
            raise BadEmbeddings(self.name, f"{rows.shape[1]} dimensions where {self._dimensions} were expected")
        length = np.linalg.norm(rows, axis=1, keepdims=True)
        if not (np.isfinite(length).all() and (length > 0).all()):
            raise BadEmbeddings(self.name, "a vector of length zero, or with a number that is not finite")
        unit: np.ndarray = rows / length
        return unit


_lock = threading.Lock()
_known: dict[tuple[Any, ...], Embedder] = {}


def embedder(
    name: str = "minilm",
    *,
    base_url: str | None = None,
    api_key: str | SecretStr | None = None,
    dimensions: int | None = None,
    threads: int | None = None,
    timeout_s: float = 30.0,
    on_progress: OnProgress | None = None,
) -> Embedder:
    """The embedding model of this name; one object per process and settings.

    Args:
        name: `minilm` (all-MiniLM-L6-v2, 384 dimensions, 256 tokens, compiled on first use), `openai:NAME`,
            `sentence-transformers:NAME`, or the path of a sentence-transformers or compiled folder.
        base_url: For `openai:` only, as are `api_key`, `dimensions` and `timeout_s`.
        api_key: None means the environment's.
        dimensions: None means the model's own.
        threads: For models that run here: cores for one list of texts.
        timeout_s: For one request.
        on_progress: Told in one line when something takes seconds.

    Raises:
        UnknownEmbedder: the name is none of these.
        MissingKey: `openai:` without a key.
        MissingExtra: the model is not compiled yet and the `embed` extra is not installed.
        WeightsNotFound, WeightsMismatch, CompileFailed, StoreCorrupted, StoreUnavailable: see `models.compile`.
    """
    if not isinstance(name, str):
        raise InvalidInput("embedding model", type(name).__name__, "a name such as 'minilm'")
    if name.startswith("openai:"):
        given = SecretStr(api_key) if isinstance(api_key, str) else api_key
        key = given or _environment_key()
        url = base_url or os.environ.get("OPENAI_BASE_URL") or None
        # The key's digest, so that a changed key makes a new client and no key is kept beside the cache.
        mark = hashlib.sha256(key.get_secret_value().encode()).hexdigest() if key else None
        return _shared(
            (name, url, mark, dimensions, timeout_s),
            lambda: OpenAIEmbedder(
                name.removeprefix("openai:"), base_url=url, api_key=key, dimensions=dimensions, timeout_s=timeout_s
            ),
        )
    return _shared(
        (name, threads, str(model_home())),
        lambda: OnnxEmbedder(name, _compiled(name, on_progress), threads=threads),
    )


def _shared(identity: tuple[Any, ...], make: Any) -> Embedder:
    found = _known.get(identity)
    if found is None:
        with _lock:
            found = _known.get(identity)
            if found is None:
                found = _known[identity] = make()
    return found


def _environment_key() -> SecretStr | None:
    key = os.environ.get("OPENAI_API_KEY")
    return SecretStr(key) if key else None


def _compiled(name: str, on_progress: OnProgress | None) -> Compiled:
    repo = name.removeprefix("sentence-transformers:")
    repo = repo if "/" in repo else f"sentence-transformers/{repo}"
    if name == "minilm" or (name.startswith("sentence-transformers:") and repo == MINILM.repo):
        return compiled_model(name, MINILM.sha256, lambda: find_published(name, MINILM), on_progress=on_progress)
    if name.startswith("sentence-transformers:"):
        require("sentence_transformers", extra="embed")
        folder = find_in_hub(repo)
    else:
        folder = Path(name).expanduser()
        if not folder.is_dir():
            raise UnknownEmbedder(name)
        if ready := _already(folder):
            return ready
    if not (folder / "modules.json").is_file() and not (folder / "config.json").is_file():
        raise WeightsNotFound(name, (str(folder),), "the folder holds no sentence-transformers model")
    return compiled_model(name, folder_digest(folder), lambda: folder, on_progress=on_progress)


def _already(folder: Path) -> Compiled | None:
    return open_compiled(folder) if (folder / "meta.json").is_file() and (folder / "model.onnx").is_file() else None
