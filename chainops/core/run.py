"""The request in flight: what its root holds, and what each component at work in it sees."""

from __future__ import annotations

import itertools
import os
from asyncio import CancelledError
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import var_child_runnable_config

from chainops.core.answer import KEY, Answer, AnswerChunk, RestartChunk
from chainops.core.attempts import Attempt, Attempts, Expected, Gate
from chainops.core.caller import STATE_KEY, Caller
from chainops.core.clock import Clock, current_clock
from chainops.core.errors import ChainopsError, DeadlineExceeded
from chainops.core.events import CleanupFailed, Event, Listener, ListenerFailed, RequestEnded, current_listeners
from chainops.core.report import Report, Stage
from chainops.core.steps import Plan


class Request:
    """One call from outside, shared by every component that works on it. Made by the outermost driver."""

    __slots__ = (
        "_ended",
        "_ids",
        "_listeners",
        "attempts",
        "caller",
        "chain",
        "clock",
        "deadline",
        "events",
        "id",
        "is_late_allowed",
        "keeps_values",
        "memo",
        "report",
        "stages",
        "started",
        "started_at",
        "versions",
        "waiting",
    )

    def __init__(self, caller: Caller, listeners: Iterable[Listener]) -> None:
        self.id = os.urandom(16).hex()
        self.caller = caller
        self.clock: Clock = current_clock()
        self.started_at = self.clock.time()
        self.started = self.clock.monotonic()
        self._ended: float | None = None
        self.deadline = None if caller.deadline_s is None else self.started + caller.deadline_s
        """On the clock's monotonic time; None for no limit."""
        self.is_late_allowed = False
        """Whether an answer is given however late: it is there, or needs no time."""
        self.chain: str | None = None
        self.versions: dict[str, Any] = {}
        """What answered: digests and versions of prompts, models, knowledge. Plain JSON."""
        self.memo: dict[Any, Any] = {}
        """What pure stages found, so that a second attempt does not find it again."""
        self.stages: list[Stage] = []
        self.events: list[tuple[float, int | None, Event]] = []
        self.waiting: Counter[int | None] = Counter()
        """By stage: how many of its children are awaiting something, with the deadline running."""
        self._ids = itertools.count()
        self._listeners = (*current_listeners(), *listeners)
        self.keeps_values = any(getattr(each, "keeps_values", False) for each in self._listeners)
        """Whether a listener (a trace writer) wants the stages' inputs and outputs."""
        self.attempts = Attempts(
            self.clock,
            lambda event: self.tell(event, None),
            purpose=caller.purpose,
            most=caller.max_attempts,
            failed_cleanup=lambda who, error: self.tell(CleanupFailed(component=who, error=repr(error)), None),
        )
        self.report = Report(self)

    @property
    def listeners(self) -> tuple[Listener, ...]:
        """Who hears its events: for work that goes on after it ended."""
        return self._listeners

    @property
    def duration_s(self) -> float:
        """Until now, or until the request ended."""
        return (self.clock.monotonic() if self._ended is None else self._ended) - self.started

    @property
    def has_ended(self) -> bool:
        return self._ended is not None

    def open_stage(self, parent: int | None, name: str, kind: str) -> Stage:
        stage = Stage(next(self._ids), parent, name, kind, self.clock.monotonic() - self.started)
        self.stages.append(stage)
        return stage

    def close_stage(self, stage: Stage, error: BaseException | None) -> None:
        stage.duration_s = self.clock.monotonic() - self.started - stage.start_s
        if isinstance(error, GeneratorExit | CancelledError | KeyboardInterrupt):
            stage.error = "cancelled: the caller went away"
        elif error is not None:
            stage.error = f"{type(error).__name__}: {error}"[:500]

    def tell(self, event: Event, stage: int | None) -> None:
        """Record an event and let the listeners hear it."""
        self.events.append((self.clock.monotonic() - self.started, stage, event))
        self._notify(event)

    def _notify(self, event: Event) -> None:
        for listener in self._listeners:
            try:
                listener(event)
            except Exception as error:  # noqa: BLE001 (a listener must not stop a request; it is recorded)
                failed = ListenerFailed(listener=getattr(listener, "__qualname__", repr(listener)), error=repr(error))
                self.events.append((self.clock.monotonic() - self.started, None, failed))

    def events_as_dicts(self) -> list[dict[str, Any]]:
        return [{"at_s": round(at, 6), "stage": stage, **event.to_dict()} for at, stage, event in self.events]

    def end(self, output: Any, error: BaseException | None) -> None:
        """Close the books and tell the listeners. Called once, by the outermost driver."""
        self.attempts.close()
        if self._ended is None:
            self._ended = self.clock.monotonic()
        if isinstance(error, ChainopsError):
            error.__dict__.setdefault("report", self.report.to_dict())
        self._notify(RequestEnded(request=self, output=output, error=error))


@dataclass(frozen=True, slots=True)
class Terms:
    """What wrappers further out ask of all that is called inside them."""

    gates: tuple[Gate, ...] = ()
    """What calls to models must pass, outermost first."""
    is_repeat: bool = False
    """Whether a retry makes these calls. Side calls (`Ask`) are not counted among its repeats."""
    purpose: str | None = None
    """What calls are made for, where that is not the request's own purpose: `hedge`."""
    continues: str | None = None
    """What another route had said when it broke off: the answer is to go on from there."""
    are_cuts_mended: bool = False
    """Whether a wrapper further out decides what becomes of a stream that breaks off."""
    deadline: float | None = None
    """On the clock's monotonic time; the request's own counts too."""
    within_s: float | None = None
    """How long that was, for people."""
    shares: Mapping[str, float] = field(default_factory=dict)
    """Seconds that stages may take, by their kind: `retrieve`, `rerank`, `attempt`."""


class Errand:
    """Opens a request that another one leaves behind, such as an audit: on the same caller's behalf, under the same
    limits and budgets. Stands in a config where a caller would.
    """

    __slots__ = ("caller", "terms")

    def __init__(self, caller: Caller, terms: Terms) -> None:
        self.caller = caller
        self.terms = Terms(gates=terms.gates)

    def __repr__(self) -> str:
        return "<errand>"


class Scope:
    """Where in a request a call stands: rides in the config under the private key."""

    __slots__ = ("report", "request", "stage", "terms", "watched")

    def __init__(
        self, request: Request, report: Report, stage: int | None, *, watched: bool, terms: Terms = Terms()
    ) -> None:
        self.request, self.report, self.stage = request, report, stage
        self.watched = watched
        """True below a `Forward`: what is said here is part of the caller's answer."""
        self.terms = terms

    def __repr__(self) -> str:
        return "<request in flight>"  # never spill a caller's data into somebody's log of a config


class Run:
    """What a plan sees of its request.

    Attributes:
        request: Shared by all components of this call from outside.
        report: The facts of the answer in the making.
        stage: This component's line in the waterfall; `stage.facts` takes decisions and versions.
        kwargs: What the caller passed beside input and config, to hand on to a model.
        terms: What wrappers further out ask of this call. A wrapper that asks for more sets it before it calls on:
            `run.terms = replace(run.terms, gates=(*run.terms.gates, gate))`.
    """

    __slots__ = (
        "_closing",
        "_queued",
        "_told",
        "config",
        "is_root",
        "kwargs",
        "manager",
        "report",
        "request",
        "stage",
        "terms",
        "watched",
    )

    def __init__(
        self,
        component_name: str,
        kind: str,
        config: RunnableConfig,
        kwargs: dict[str, Any],
        listeners: Iterable[Listener],
    ) -> None:
        state = _state(config)
        self.is_root = not isinstance(state, Scope)
        if isinstance(state, Scope):
            self.request, self.report = state.request, state.report
            parent, self.watched, self.terms = state.stage, state.watched, state.terms
        else:
            errand = state if isinstance(state, Errand) else None
            caller = errand.caller if errand is not None else state
            self.request = Request(caller if isinstance(caller, Caller) else _NOBODY, listeners)
            self.report = self.request.report
            parent, self.watched, self.terms = None, False, _NO_TERMS if errand is None else errand.terms
        self.stage = self.request.open_stage(parent, component_name, kind)
        self.config = config
        self.kwargs = kwargs
        self.manager: Any = None
        self._closing: list[Callable[[], None]] = []
        self._queued: list[Event] = []
        self._told: dict[str, Any] | None = None

    # What plans use

    @property
    def caller(self) -> Caller:
        return self.request.caller

    @property
    def clock(self) -> Clock:
        return self.request.clock

    @property
    def attempts(self) -> Attempts:
        return self.request.attempts

    def attempt(
        self, model: str, *, expect: Callable[[], Expected], key: str | None = None, gates: tuple[Gate, ...] = ()
    ) -> Plan[Attempt]:
        """Enter a call to a model in the ledger and pass the gates before it: `attempt = yield from run.attempt(...)`.

        Args:
            expect: Works out what the call will probably consume.
            key: Name of the variable that holds the key, where the model has several.
            gates: The model's own, after those of the wrappers.

        Raises:
            CallRefused: A gate does not let it pass, or the request has no attempts left.
        """
        terms = self.terms
        # What a plan asks for itself (a question made to stand alone, a judge) would use up what the answer needs.
        is_repeat = terms.is_repeat and self.watched
        attempt = self.attempts.reserve(model, purpose=terms.purpose, expect=expect, is_repeat=is_repeat)
        attempt.key = key
        if terms.gates or gates:
            yield from attempt.passes((*terms.gates, *gates), self)
        return attempt

    @property
    def deadline(self) -> float | None:
        """On the clock's monotonic time: the request's, or a nearer one of a wrapper further out; None for no limit."""
        ours, all_ = self.terms.deadline, self.request.deadline
        if self.request.is_late_allowed:
            return None
        if ours is None or all_ is None:
            return all_ if ours is None else ours
        return min(ours, all_)

    @property
    def remaining_s(self) -> float | None:
        """Seconds until the deadline, at least 0; None for no deadline."""
        deadline = self.deadline
        return None if deadline is None else max(0.0, deadline - self.request.clock.monotonic())

    def check_deadline(self) -> None:
        deadline = self.deadline
        if deadline is not None and self.request.clock.monotonic() >= deadline:
            raise self.late()

    def limit_time(self, within_s: float, shares: Mapping[str, float]) -> None:
        """Let what is called from here take at most so many seconds from now, and its stages so many each. The nearer
        limit counts.
        """
        until, terms = self.request.clock.monotonic() + within_s, self.terms
        if terms.deadline is None or until < terms.deadline:
            terms = replace(terms, deadline=until, within_s=within_s)
        known = terms.shares
        nearer = {stage: min(share_s, known.get(stage, share_s)) for stage, share_s in shares.items()}
        self.terms = replace(terms, shares={**known, **nearer})

    @contextmanager
    def without_deadline(self) -> Iterator[None]:
        """Answer although it is late: what is called inside the block is not cut off. If that fails, the deadline
        counts again; an answer is handed on, however late.

        For a plan that has something quick to say: a fixed sentence.
        """
        self.request.is_late_allowed = True
        try:
            yield
        except BaseException:
            self.request.is_late_allowed = False
            raise

    def late(self) -> DeadlineExceeded:
        ours = self.terms.within_s if self.deadline == self.terms.deadline else None
        return DeadlineExceeded(self.stage.name, ours or self.request.caller.deadline_s or 0.0)

    def emit(self, event: Event) -> None:
        """Record what happened: report and listeners now, LangChain callbacks before the next step."""
        self.request.tell(event, self.stage.id)
        if self.manager is not None:
            self._queued.append(event)

    def on_close(self, work: Callable[[], None]) -> None:
        """Run `work` when this component is done, failed or cancelled: release a lease, a reservation.

        Last registered, first run. It must not block.
        """
        self._closing.append(work)

    # What drivers use

    @contextmanager
    def waits(self) -> Iterator[None]:
        """Tell the stages above that one below is awaiting something, with the deadline running."""
        parent = self.stage.parent
        self.request.waiting[parent] += 1
        try:
            yield
        finally:
            self.request.waiting[parent] -= 1

    def take_queued(self) -> list[Event]:
        queued, self._queued = self._queued, []
        return queued

    def scope(self, *, watched: bool, report: Report | None = None, terms: Terms | None = None) -> Scope:
        """The scope of a child call. A watched child writes this answer's facts, an unwatched one its own.

        Args:
            report: Where the child writes instead.
            terms: In place of this run's.
        """
        report = report or (self.report if watched else Report(self.request))
        return Scope(self.request, report, self.stage.id, watched=watched, terms=terms or self.terms)

    def close(self, output: Any, error: BaseException | None) -> None:
        for work in reversed(self._closing):
            try:
                work()
            except Exception as failure:  # noqa: BLE001 (one release must not stop the next; it is recorded)
                self.request.tell(CleanupFailed(component=self.stage.name, error=repr(failure)), self.stage.id)
        self._closing.clear()
        self.request.close_stage(self.stage, error)
        if self.request.keeps_values:
            self.stage.output = output
        if self.is_root:
            self.request.end(output, error)

    def finished(self, output: Any) -> Any:
        """An AI message that leaves this answer's outermost component, with its facts."""
        if self.watched or not isinstance(output, AIMessage) or isinstance(output, AIMessageChunk):
            return output
        kept = {name: getattr(output, name) for name in output.model_fields_set if name != "type"}
        kept["response_metadata"] = {**self._provider_facts(output), KEY: self._facts()}
        kept["usage_metadata"] = self._usage(output)
        return Answer(**kept)

    def outward(self, chunk: Any) -> Any:
        """A chunk that leaves the outermost component: usage and end marks wait for the last one."""
        if self.watched or not isinstance(chunk, AIMessageChunk) or isinstance(chunk, RestartChunk):
            return chunk
        kept = {name: getattr(chunk, name) for name in chunk.model_fields_set if name not in _LAST_ONLY}
        if chunk.response_metadata:  # facts of an answer made elsewhere: ours come last, and two do not add up
            kept["response_metadata"] = self._provider_facts(chunk)
        return AnswerChunk(**kept)

    def last_chunk(self, output: Any) -> AnswerChunk | None:
        """The chunk with the facts that ends a stream; None where a component further out gives it."""
        if self.watched or not isinstance(output, AIMessage):
            return None
        return AnswerChunk(
            content="",
            usage_metadata=self._usage(output),
            response_metadata={KEY: self._facts()},
            chunk_position="last",
        )

    @property
    def _tells_all(self) -> bool:
        """Whether this caller may see tokens and what the provider says of itself: as much as the report."""
        expose = self.caller.expose
        return not self.is_root or expose is None or "report" in expose

    def _provider_facts(self, message: AIMessage) -> dict[str, Any]:
        if not self._tells_all:
            return {}
        return {name: value for name, value in message.response_metadata.items() if name != KEY}

    def _usage(self, output: AIMessage) -> Any:
        if not self._tells_all:
            return None
        return (self.attempts.usage if self.is_root else None) or output.usage_metadata

    def _facts(self) -> dict[str, Any]:
        if self._told is not None:
            return self._told
        facts = self._told = self.report.facts()
        if self.is_root:
            self.attempts.close()
            self.request.close_stage(self.stage, None)  # as of now: what is left to do is handing over
            facts["report"] = self.report.to_dict()
            expose = self.caller.expose
            if expose is not None:
                facts = self._told = {name: value for name, value in facts.items() if name in expose}
        return facts


def _state(config: RunnableConfig) -> Any:
    """The scope to stand in, or the caller that opens a request; anything else is nobody's."""
    state = config["configurable"].get(STATE_KEY)
    if state is None and (around := var_child_runnable_config.get()):
        # A call made inside a function with a config of its own: LangChain drops what surrounds it.
        state = around.get("configurable", {}).get(STATE_KEY)
    if isinstance(state, Scope) and state.request.has_ended:
        # A thread or task outlived its request: what it calls is one of its own, within the same limits and budgets.
        return Errand(state.request.caller, state.terms)
    return state


_NOBODY = Caller()
_NO_TERMS = Terms()
_LAST_ONLY = frozenset({"type", "usage_metadata", "chunk_position"})
