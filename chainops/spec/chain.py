"""A declared chain: one Runnable, from a file or from the same words in Python."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from langchain_core.messages import BaseMessage
from langchain_core.prompt_values import PromptValue
from langchain_core.runnables import Runnable

from chainops.core.answer import Answer
from chainops.core.component import Component
from chainops.core.errors import ChainopsError, InvalidInput
from chainops.core.events import Listener
from chainops.core.run import Run
from chainops.core.steps import Do, Forward, Plan
from chainops.spec import yaml as chain_yaml
from chainops.spec.build import Site, build
from chainops.spec.chainfile import ChainFile, understand
from chainops.spec.errors import Problem

if TYPE_CHECKING:
    from chainops.cache.cache import Cache
    from chainops.knowledge.indexing import IndexReport
    from chainops.resilience.budgets.records import By
    from chainops.resilience.budgets.spending import Spending
    from chainops.review.records import Waiting

ROLES = {"human": "user", "ai": "assistant", "user": "user", "assistant": "assistant"}


class Chain(Component[Any, Answer]):
    """A chain file come to life. Made by `chainops.load` and `chainops.declare`.

    Takes a question as a string, as `{"question": str, "history": [...], ...}`, or as messages; gives
    an `Answer`. A rag chain indexes its documents at its first question; `index()` does it before, and
    again when documents changed.

    Raises:
        InvalidInput: The question is empty, too long, or no question.
    """

    kind: ClassVar[str] = "chain"

    site: Site
    inner: Runnable[Any, Any]

    @property
    def declared(self) -> ChainFile:
        return self.site.declared

    @property
    def cache(self) -> Cache:
        """The chain's cache, the outermost where it has several: what it did, why, and how to correct it.

        Raises:
            InvalidInput: The chain declares none.
        """
        from chainops.cache.cache import Cache
        from chainops.spec.progress import shown_progress

        if not self.site.caches:
            raise InvalidInput("chain", f"{self.declared.name}, without a cache", "one with `cache` in its pipeline")
        return Cache(self.site.caches[min(self.site.caches)], progress=shown_progress)

    def spending(self, by: By = "user", since: datetime | timedelta | None = None) -> Spending:
        """What this chain has spent, and on whom: every call under a `budget`, failed and cancelled ones too.

        Args:
            by: user, tenant, feature, model, day, chain, purpose, outcome or key_name.
            since: From this time on, or so far back; None: all there is.
        """
        from chainops.resilience.budgets.spending import spending
        from chainops.spec.budgeting import written

        written(self.site)  # by this process: the calls of answers just given are still on their way
        return spending(self.site.store(), self.declared.name, by, since)

    def waiting(self, *, limit: int = 100) -> list[Waiting]:
        """The questions that were kept for people (`review`), the oldest first."""
        from chainops.review.records import Reviews

        return Reviews(self.site.store()).waiting(self.declared.name, limit=limit)

    def listeners(self) -> tuple[Listener, ...]:
        tracer = self.site.tracer
        return () if tracer is None else (tracer,)

    def plan(self, value: Any, run: Run) -> Plan[Any]:
        request = normal(value, max_chars=self.declared.max_question_chars)
        if run.caller.budget_usd is not None:
            from chainops.resilience.budgets.gate import gate_of_caller

            gate = gate_of_caller(run)
            if gate not in run.terms.gates:
                run.terms = replace(run.terms, gates=(*run.terms.gates, gate))
        is_outermost = run.request.chain is None
        if is_outermost:
            run.request.chain = self.declared.name
        if self.declared.knowledge is not None:
            for event in (yield Do(lambda: self.site.ready(self), blocks=not self.site.is_ready)):
                run.emit(event)
                run.report.reasons += [f"not read: {each}" for each in getattr(event, "skipped", ())]
        if is_outermost:
            run.request.versions = self._versions()
        else:  # a route of another chain, whose cache cannot see when these documents change: this one's own does
            run.stage.facts["versions"] = self._versions()
            run.report.may_cache = self.declared.knowledge is None
        if not self.site.is_warm:
            yield Do(self.site.warm)  # before a declared deadline begins: the first import of a client takes seconds
        call = Forward(self.inner, request, kwargs=run.kwargs)
        try:
            return (yield call)
        except Exception as error:
            from chainops.resilience.component import cut_off
            from chainops.resilience.policy import can_mend, judge

            failure = judge(error)
            if call.received is None or not can_mend(failure) or run.terms.are_cuts_mended:
                raise
            return cut_off(run, self.declared.name, failure.reason, call.received)

    def index(self, progress: Callable[[Any], None] | None = None, **options: Any) -> Any:
        """Read the documents and bring the index up to date: only what changed is read in again.

        Args:
            progress: Called with each step; None draws a bar in terminals and notebooks.

        Returns:
            An `IndexReport`: what was added, changed, removed and skipped.

        Raises:
            InvalidInput: The chain declares no knowledge.
            EmptyCorpus: No document could be read.
        """
        from chainops.knowledge.loaders import load as load_documents
        from chainops.spec.progress import shown_progress

        settings = self.declared.knowledge
        if settings is None:
            raise InvalidInput("chain", f"{self.declared.name}, a {self.declared.kind} chain", "one with `knowledge`")
        sources = settings.documents if self.site.documents is None else self.site.documents
        corpus = load_documents(list(sources), self.site.base)
        if progress is not None:
            report = self.site.knowledge().index(corpus, progress=progress, **options)
        else:
            with shown_progress(f"indexing {self.declared.name}") as show:
                report = self.site.knowledge().index(corpus, progress=show, **options)
        self._drop_outdated(report)
        return report

    def _drop_outdated(self, report: IndexReport) -> None:
        """Take out the cached answers that used documents as they were. A cache that cannot be reached now finds them
        when they are next asked for.
        """
        from chainops.cache.cache import Cache

        touched = {*report.changed, *report.removed}
        if not touched or not self.site.caches:
            return
        digests = self.site.knowledge().document_digests()
        for component in self.site.caches.values():
            with suppress(ChainopsError):
                Cache(component).documents_changed({name: digests.get(name) for name in touched})

    def _versions(self) -> dict[str, Any]:
        """What answers, for the report: digests are shortened to 12 characters."""
        site, prompt = self.site, self.site.prompt
        told: dict[str, Any] = {
            "chain": site.digest[:12],
            "prompt": {"name": prompt.name, "version": prompt.version, "digest": prompt.digest[:12]},
        }
        if self.declared.knowledge is not None:
            told["knowledge"] = site.knowledge().seen_version[:12]
            told["embeddings"] = {"name": self.declared.embeddings, "digest": site.embedder().digest[:12]}
        if site.tracer is None:
            told["traces"] = "not written: switched off, or MLflow is not installed"
        return told

    def to_yaml(self) -> str:
        """The chain file that declares this chain. Comments are not kept; variables are filled in.

        Raises:
            InvalidInput: It reads Python objects, which no file can name.
        """
        import yaml

        if self.site.documents is not None:
            raise InvalidInput("documents", "Python objects", "paths, for a chain that can be written to a file")
        words = _escaped(self.declared.words())
        return yaml.safe_dump(words, sort_keys=False, allow_unicode=True, width=110)

    def _repr_html_(self) -> str:
        from chainops.spec.show import chain_html

        return chain_html(self)

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        from chainops.spec.show import chain_text

        printer.text("Chain(...)" if cycle else chain_text(self))

    def __str__(self) -> str:
        return repr(self)

    def __repr__(self) -> str:
        return f"Chain({self.declared.name!r}, kind={self.declared.kind!r})"


def _escaped(words: Any) -> Any:
    """`$` as a chain file writes it, where `${NAME}` would be a variable."""
    if isinstance(words, dict):
        return {name: _escaped(each) for name, each in words.items()}
    if isinstance(words, list):
        return [_escaped(each) for each in words]
    return words.replace("$", "$$") if isinstance(words, str) else words


def load(path: str | Path) -> Chain:
    """The chain that a file declares. Nothing is asked, indexed or opened yet.

    Raises:
        ChainFileError: Every problem of the file, with line, column and the nearest valid word.
        PromptInvalid, PromptNotFound: The prompt it names cannot be used.
    """
    return _read(Path(path))


def load_route(path: Path, named_by: tuple[Path, ...]) -> Chain:
    """The chain of a file that others name as a route. It keeps no conversation: that is the outermost chain's.

    Args:
        named_by: The files that lead to it, the outermost first.

    Raises:
        ChainFileError: As for `load`.
    """
    return _read(path, named_by, is_route=True)


def _read(path: Path, named_by: tuple[Path, ...] = (), *, is_route: bool = False) -> Chain:
    return _chain(chain_yaml.read(path), path.parent, None, files=(*named_by, path.resolve()), is_route=is_route)


def declare(words: Mapping[str, Any], *, base: str | Path = ".", documents: Sequence[Any] | None = None) -> Chain:
    """The same in Python: the words of a chain file as a dict. `chainops: 1` may be left out.

    Args:
        base: The folder that paths are relative to and beside which state is kept.
        documents: Python objects to answer from (LangChain documents, `(id, text)` pairs) instead of paths.

    Raises:
        ChainFileError: As for `load`, without lines.
    """
    said = {"chainops": 1, **words}
    if documents is not None:
        said["knowledge"] = {"documents": [], **said.get("knowledge", {})}
    return _chain(chain_yaml.Source("declared chain", said), Path(base), documents)


def _chain(
    source: chain_yaml.Source,
    base: Path,
    documents: Sequence[Any] | None,
    *,
    files: tuple[Path, ...] = (),
    is_route: bool = False,
) -> Chain:
    declared = understand(source, base, files)
    site = Site(declared, base.resolve(), documents, files=files)
    _check_prompt(site, source)
    inner = build(site)
    memory = declared.memory
    if not is_route and (memory is not None or declared.kind == "chat"):
        from chainops.memory.component import MemorySettings, Remember

        inner = Remember(inner=inner, sessions=site.sessions, window=(memory or MemorySettings()).window, name="memory")
    return Chain(site=site, inner=inner, name=declared.name)


def _check_prompt(site: Site, source: chain_yaml.Source) -> None:
    """A prompt that leaves out the question, or the passages, would be answered all the same: wrongly."""
    needed = {"question"} if site.declared.knowledge is None else {"question", "context"}
    if missing := sorted(needed - site.prompt.variables):
        places = " and ".join(f"{{{{{name}}}}}" for name in missing)
        found = f"{site.prompt.source} without {places}"
        expected = f"a {site.declared.kind} prompt with a place for each"
        line, column = source.at(("prompt",))
        raise source.error([Problem(key="prompt", found=found, expected=expected, line=line, column=column)])


def normal(value: Any, *, max_chars: int) -> dict[str, Any]:
    """Any accepted input as `{"question": str, "history": [{"role", "text"}], ...}`.

    Raises:
        InvalidInput: Naming what was found.
    """
    if isinstance(value, PromptValue):
        value = value.to_messages()
    if isinstance(value, BaseMessage):
        value = [value]
    if isinstance(value, str):
        request: dict[str, Any] = {"question": value, "history": []}
    elif isinstance(value, Mapping) and "question" in value:
        history = value.get("history") or ()
        if not isinstance(history, list | tuple):
            raise InvalidInput("history", type(history).__name__, "a list of turns")
        request = {**value, "history": [_turn(each) for each in history]}
    elif isinstance(value, list | tuple) and value and all(isinstance(each, BaseMessage) for each in value):
        turns = [_turn(each) for each in value]
        request = {"question": turns[-1]["text"], "history": turns[:-1]}
    else:
        raise InvalidInput("question", type(value).__name__, 'a string, {"question": "..."}, or messages')
    question = request["question"]
    if not isinstance(question, str):
        raise InvalidInput("question", type(question).__name__, "a string")
    question = question.encode("utf-8", "replace").decode()  # half a surrogate pair cannot be stored or sent
    if not question.strip():
        raise InvalidInput("question", "nothing but white space" if question else "an empty string", "a question")
    if len(question) > max_chars:
        raise InvalidInput(
            "question",
            f"{len(question):,} characters",
            f"at most {max_chars:,}; raise `max_question_chars` in the chain file if this is meant",
        )
    request["question"] = question
    return request


def _turn(turn: Any) -> dict[str, str]:
    """One past turn, reduced to who said what."""
    if isinstance(turn, BaseMessage):
        turn = {"role": turn.type, "text": str(turn.text)}
    if isinstance(turn, tuple | list) and len(turn) == 2:
        turn = {"role": turn[0], "text": turn[1]}
    if isinstance(turn, Mapping):
        role, text = ROLES.get(str(turn.get("role"))), turn.get("text", turn.get("content"))
        if role is not None and isinstance(text, str):
            return {"role": role, "text": text}
    raise InvalidInput("history", repr(turn)[:80], '{"role": "user" or "assistant", "text": "..."}, or messages')


__all__ = ["Chain", "ChainopsError", "declare", "load", "normal"]
