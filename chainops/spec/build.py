"""From declared words to Runnables: opens what a chain needs when it is needed, and puts the onion together."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langchain_core.runnables import Runnable

from chainops.core.component import Component
from chainops.core.errors import ChainopsError
from chainops.core.lazy import Lazy
from chainops.core.settings import home
from chainops.spec.chainfile import ChainFile
from chainops.spec.registry import wrapper

if TYPE_CHECKING:
    from chainops.cache.component import SemanticCache
    from chainops.cache.replica import Replica
    from chainops.core.events import Event
    from chainops.knowledge.base import KnowledgeBase
    from chainops.knowledge.component import Retrieve
    from chainops.memory.records import Sessions
    from chainops.models.embeddings import Embedder
    from chainops.models.model import Model
    from chainops.models.providers import ModelSettings
    from chainops.observe.listener import TraceListener
    from chainops.prompts.prompt import Prompt
    from chainops.resilience.breaker.circuit import Circuit
    from chainops.resilience.limits.component import Limits
    from chainops.spec.chain import Chain
    from chainops.stores.sql import SqlStore

PROMPTS = Path(__file__).parent / "prompts"


class Site:
    """Where a declared chain is built: its folder, its state, and what its parts share.

    Nothing is opened before it is used, so loading a chain is quick.
    """

    def __init__(
        self,
        declared: ChainFile,
        base: Path,
        documents: Sequence[Any] | None = None,
        *,
        files: tuple[Path, ...] = (),
    ) -> None:
        self.declared, self.base = declared, base
        self.files = files
        """The chain file it was read from, after those that name it as a route."""
        self.chains: dict[str, Chain] = {}
        """Chain files that are routes of this one, by the path it gives."""
        self.home = home(base)
        self.documents = documents
        """Python objects to index instead of the declared paths."""
        self._indexing = threading.Lock()
        self._objects_seen = self._is_warm = False
        self.store: Lazy[SqlStore] = Lazy(self._open_store)
        self.embedder: Lazy[Embedder] = Lazy(self._open_embedder)
        self.knowledge: Lazy[KnowledgeBase] = Lazy(self._open_knowledge)
        self.sessions: Lazy[Sessions] = Lazy(self._open_sessions)
        self.limits: dict[int, Limits] = {}
        """By the place in the pipeline."""
        self.circuits: dict[tuple[int, str], Circuit] = {}
        """By the place of a breaker in the pipeline, and the model."""
        self.replicas: dict[int, Lazy[Replica]] = {}
        """By the place of a cache in the pipeline."""
        self.caches: dict[int, SemanticCache] = {}
        """The same."""
        self.caches_of: dict[tuple[int, str | None], SemanticCache] = {}
        """The same, by the model that a route further out chose, too."""

    def chain(self, path: str) -> Chain:
        """The chain of another file, as a route of this one.

        Raises:
            ChainFileError: It cannot be read or understood.
        """
        from chainops.spec.chain import load_route

        if path not in self.chains:
            self.chains[path] = load_route(self.base / path, self.files)
        return self.chains[path]

    def stale_answers(self, position: int, model: str | None) -> Runnable[Any, Any]:
        """What the nearest cache outside the wrapper at `position` still holds, else the nearest inside it. A pipeline
        without a cache was refused when its words were read.
        """
        from chainops.cache.stale import StaleAnswers

        places = [place for place, each in enumerate(self.declared.pipeline) if each.word == "cache"]
        place = max((each for each in places if each < position), default=places[0])
        return StaleAnswers(cache=lambda: self.caches_of.get((place, model)) or self.caches[place], name="stale_cache")

    @property
    def is_ready(self) -> bool:
        """Whether `ready` would return at once."""
        if not self.knowledge.is_made or (self.documents is not None and not self._objects_seen):
            return False
        return self.knowledge().is_fresh and not self.knowledge().notices

    @property
    def is_warm(self) -> bool:
        """Whether the clients of all models are open, where a deadline is declared: it would be spent on that."""
        return self._is_warm or not any(each.word == "deadline" for each in self.declared.pipeline)

    def warm(self) -> None:
        """Open the clients of all models. One that cannot be opened is told when it is asked."""
        for model in self.models.values():
            with suppress(ChainopsError):
                (model.chat if model.keys is None else model.keys.keys[0].chat)()
        self._is_warm = True  # only now: until then, other requests wait with this one

    def ready(self, chain: Chain) -> list[Event]:
        """See what was indexed meanwhile; index the documents if nobody has. Blocks. Gives what there is to tell."""
        from chainops.knowledge.base import NotIndexed
        from chainops.knowledge.component import Indexed, KnowledgeNotice

        events: list[Event] = []
        with self._indexing:
            try:
                _ = self.knowledge().version
                # Python objects may be others than last time; looking at unchanged ones costs next to nothing.
                is_current = self.documents is None or self._objects_seen
            except NotIndexed:
                is_current = False
            if not is_current:
                events.append(Indexed.of(chain.index()))
                self._objects_seen = True
                self.knowledge().notices.clear()  # making a new index is no repair
        notices = self.knowledge().notices
        with suppress(IndexError):  # no more, or another request has just taken the last one
            while True:
                events.append(KnowledgeNotice(notice=notices.popleft()))
        return events

    def _open_store(self) -> SqlStore:
        from chainops.stores.sql import open_store

        declared = self.declared.store
        if declared is not None and "://" not in declared:
            return open_store(self.base / declared)
        return open_store(declared or self.home)

    def _open_embedder(self) -> Embedder:
        from chainops.models.embeddings import embedder

        return embedder(self.declared.embeddings)

    def _open_knowledge(self) -> KnowledgeBase:
        from chainops.knowledge.base import KnowledgeBase

        settings = self.declared.knowledge
        assert settings is not None
        return KnowledgeBase(
            self.store(),
            self.embedder(),
            name=self._knowledge_name(settings.documents),
            home=self.home,
            size_tokens=settings.passage_tokens,
        )

    def _knowledge_name(self, documents: Sequence[str]) -> str:
        """What the index is kept under: the chain's name and what is indexed, so that other documents, or another
        folder's chain of the same name, never answer. In a declared (shared) store the folder does not count.
        """
        is_beside = self.home.parent == self.base or self.declared.store is not None
        told = [list(documents), "" if is_beside else self.base.as_posix(), self.documents is not None]
        return f"{self.declared.name}-{hashlib.sha256(json.dumps(told).encode()).hexdigest()[:12]}"

    def _open_sessions(self) -> Sessions:
        from chainops.memory.records import Sessions
        from chainops.stores.sql import SqlStore

        return Sessions(SqlStore(self.store().url, wait_s=2.0))

    @cached_property
    def digest(self) -> str:
        """Of the whole declaration, its prompt, and the chains that are its routes."""
        told = [self.declared.digest(), self.prompt.digest, json.dumps(self._files_inside(-1), sort_keys=True)]
        return hashlib.sha256(":".join(told).encode()).hexdigest()

    @cached_property
    def tracking_uri(self) -> str:
        """Where prompts and traces live."""
        declared = self.declared.mlflow or os.environ.get("MLFLOW_TRACKING_URI")
        return declared or f"sqlite:///{(self.home / 'mlflow.db').as_posix()}"

    @cached_property
    def prompt(self) -> Prompt:
        from chainops.prompts.files import read_prompt
        from chainops.prompts.references import load_prompt

        if self.declared.prompt is None:
            return read_prompt(PROMPTS / f"{self.declared.kind}.md")
        return load_prompt(self.declared.prompt, base=self.base, tracking_uri=self.tracking_uri)

    @cached_property
    def retrieve(self) -> Retrieve:
        """One for all routes: what it found for a request is used by every model that is tried."""
        from chainops.knowledge.component import Retrieve

        settings = self.declared.knowledge
        assert settings is not None
        return Retrieve(
            knowledge=self.knowledge,
            retrieve=settings.retrieve,
            rerank=settings.rerank,
            token_budget=settings.token_budget,
            name="retrieve",
        )

    @cached_property
    def models(self) -> dict[str, Model]:
        from chainops.models.model import EXPECTED_OUTPUT_TOKENS, Model
        from chainops.models.providers import chat_model
        from chainops.spec.limiting import limited_keys

        def opener(settings: Any) -> Lazy[Any]:
            return Lazy(lambda: chat_model(settings))

        return {
            name: Model(
                chat=opener(settings),
                model=settings.model,
                timeout_s=settings.timeout_s,
                price=settings.price,
                base_url=settings.base_url,
                keys=limited_keys(settings, self),
                expected_output_tokens=settings.max_tokens or EXPECTED_OUTPUT_TOKENS,
                name=name,
            )
            for name, settings in self.declared.models.items()
        }

    @cached_property
    def tracer(self) -> TraceListener | None:
        """Writes MLflow traces; None when they are off or MLflow is not installed."""
        from chainops.core.errors import MissingExtra
        from chainops.observe.listener import TraceListener

        wanted = self.declared.traces
        if wanted == "off" or (wanted == "auto" and os.environ.get("CHAINOPS_TRACES") == "off"):
            return None
        try:
            return TraceListener(self.tracking_uri, log_file=self.home / "traces.log")
        except MissingExtra:
            if self.declared.traces == "on":
                raise
            return None

    def answered_by(self, position: int, model: str | None) -> Callable[[], str]:
        """Digest of all that answers inside the pipeline's wrapper at `position`: models and their servers, the model
        chosen further out, prompt, which knowledge (not its state: that is what an answer depends on), and the
        wrappers further in.
        """
        declared = self.declared
        told = declared.model_dump(mode="json", include={"name", "kind"})
        told["models"] = {name: _answering(settings) for name, settings in declared.models.items()}
        if declared.knowledge is not None:
            told |= declared.model_dump(mode="json", include={"embeddings", "knowledge"})
            told["base"] = self._knowledge_name(declared.knowledge.documents)
        told["pipeline"] = [
            {each.word: each.settings.model_dump(mode="json")} for each in declared.pipeline[position + 1 :]
        ]
        told["prompt"] = self.prompt.digest
        if files := self._files_inside(position):
            told["files"] = files
        told["model"] = model
        told["servers"] = {
            name: each.base_url or os.environ.get("OPENAI_BASE_URL")
            for name, each in declared.models.items()
            if each.provider == "openai"
        }
        fixed = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
        return lambda: fixed

    def _files_inside(self, position: int) -> dict[str, str]:
        """Digests of the files that wrappers inside the one at `position` name: chains that are routes, examples."""
        told: dict[str, str] = {}
        for each in self.declared.pipeline[position + 1 :]:
            known = wrapper(each.word)
            assert known is not None
            told |= {path: self.chain(path).site.digest for _, path in known.chains_named(each.settings)}
            told |= {path: _digest_of(self.base / path) for _, path in known.files_named(each.settings)}
        return told


def _answering(settings: ModelSettings) -> dict[str, Any]:
    """What of a model's settings its answers depend on."""
    return settings.model_dump(mode="json", exclude={"keys", "key_env", "limits", "timeout_s", "price"})


def _digest_of(path: Path) -> str:
    """Of a file's content; of its absence, too: whoever needs it will say so."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""


class Rest:
    """What lies inside one wrapper of the pipeline, ready to be built for any model."""

    def __init__(self, site: Site, position: int, model: str | None) -> None:
        self._site, self.position, self.model = site, position, model
        """`model`: the one that a route further out chose; None where nobody has."""

    def __call__(self, model: str | None = None) -> Runnable[Any, Any]:
        """Build it, answered by `model`; None: by the model chosen further out, else the first declared."""
        return build(self._site, self.position + 1, model or self.model)

    @property
    def answered_by(self) -> Callable[[], str]:
        return self._site.answered_by(self.position, self.model)


def build(site: Site, position: int = 0, model: str | None = None) -> Runnable[Any, Any]:
    """The onion from the wrapper at `position` inwards."""
    entries = site.declared.pipeline
    if position < len(entries):
        entry = entries[position]
        known = wrapper(entry.word)
        assert known is not None
        return known.build(entry.settings, site, Rest(site, position, model))
    answering = site.models[model or next(iter(site.declared.models))]
    return recipe(site, answering)


def recipe(site: Site, model: Component[Any, Any]) -> Runnable[Any, Any]:
    """The innermost part of a chain, answered by `model`."""
    from chainops.spec.recipes import Chat, Rag

    if site.declared.knowledge is None:
        return Chat(prompt=site.prompt, model=model, name=f"chat by {model.name}")
    return Rag(prompt=site.prompt, model=model, retrieve=site.retrieve, name=f"rag by {model.name}")
