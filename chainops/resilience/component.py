"""Answer from the first route that does not fail."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

from langchain_core.messages import AIMessage
from pydantic import Discriminator, Field, Tag

from chainops.core.component import AnyRunnable, Component
from chainops.core.errors import AllRoutesFailed
from chainops.core.run import Run
from chainops.core.settings import Settings
from chainops.core.steps import Forward, Plan, Restart, Say
from chainops.resilience.continuing import Joint, can_be_continued, joined
from chainops.resilience.policy import can_mend, judge
from chainops.resilience.records import Continued, FellBack, Restarted, Truncated

OnCut = Literal["truncate", "continue", "restart"]
"""What becomes of a stream that breaks off after its first words. `truncate`: it ends there, marked. `continue`: the
next model is handed the text and goes on from it. `restart`: the next route begins anew, where the caller said that it
can take that (`chainops.caller(restarts=True)`). Where nothing is left to go on, it ends marked."""


class SaySettings(Settings):
    """A fixed sentence as a route: it cannot fail."""

    say: str = Field(min_length=1)


class ChainRoute(Settings):
    """Another chain file as a route, with its own models, documents and cache."""

    chain: str = Field(min_length=1)
    """Its path, from the folder of this chain file."""


class StaleRoute(Settings):
    """What the chain's cache still holds of an answer that is out of date."""

    stale_cache: Literal[True]


class ReviewRoute(Settings):
    """A person: the question is kept for the review queue."""

    review: str = Field(min_length=1)
    """What the asker is told meanwhile."""


def _kind_of(value: Any) -> str:
    """Which kind of route is meant, by its word; what has none of them is told as a mistaken `say`."""
    if isinstance(value, str):
        return "model"
    words = value if isinstance(value, Mapping) else getattr(value, "model_fields_set", ())
    return next((word for word in ("chain", "stale_cache", "review") if word in words), "say")


Route = Annotated[
    Annotated[str, Tag("model")]
    | Annotated[SaySettings, Tag("say")]
    | Annotated[ChainRoute, Tag("chain")]
    | Annotated[StaleRoute, Tag("stale_cache")]
    | Annotated[ReviewRoute, Tag("review")],
    Discriminator(_kind_of),
]


def name_of(route: Route) -> str:
    """What reports call a route."""
    if isinstance(route, ChainRoute):
        return route.chain
    return route if isinstance(route, str) else _kind_of(route)


class FallbackSettings(Settings):
    """What a chain file may say about a fallback; a plain list of routes will do."""

    routes: tuple[Route, ...] = Field(min_length=1)
    """In the order they are tried: names of models (the rest of the chain, answered by that model),
    `{chain: other.yaml}`, `{stale_cache: true}`, `{review: "…"}`, and at the end perhaps `{say: "…"}`."""
    on_cut: OnCut = "truncate"
    """What becomes of a stream that breaks off after its first words."""


class Sentence(Component[Any, AIMessage]):
    """Says one fixed sentence: the last route of a fallback."""

    kind: ClassVar[str] = "say"
    answers_late: ClassVar[bool] = True

    text: str

    def plan(self, value: Any, run: Run) -> Plan[AIMessage]:  # noqa: ARG002
        run.report.served_by = "a fixed sentence"
        run.report.may_cache = run.report.may_remember = False
        message = AIMessage(content=self.text)
        yield Say(message)
        return message


class Fallback(Component[Any, Any]):
    """Try each route until one answers; say that the answer is degraded when it was not the first.

    Only failures that another route may mend are recovered: a request that is wrong everywhere, a
    missed deadline or a programming error is raised at once (after a missed deadline the routes that take no
    time, such as a fixed sentence, still answer). In a stream the first words are the commit point: before
    them a route is replaced unseen; after them `on_cut` says what becomes of a stream that breaks off.

    Raises:
        AllRoutesFailed: With each failure, in order.
    """

    kind: ClassVar[str] = "fallback"

    routes: tuple[AnyRunnable, ...] = Field(min_length=1)
    names: tuple[str, ...] = ()
    """What reports call the routes; by default their own names."""
    on_cut: OnCut = "truncate"

    def plan(self, value: Any, run: Run) -> Plan[Any]:
        names = self.names or tuple(route.get_name() for route in self.routes)
        left = deque(zip(names, self.routes, strict=True))
        run.terms = outer = replace(run.terms, are_cuts_mended=True)
        failures: list[tuple[str, Exception]] = []
        said: AIMessage | None = None
        """What routes that broke off had said, where the next one goes on from it."""
        void: AIMessage | None = None
        """What was taken back, for the next one to begin anew."""
        while left:
            name, route = left.popleft()
            run.terms, call = outer, Forward(route, value, kwargs=run.kwargs)
            if said is not None:
                text = f"{outer.continues or ''}{said.content}"
                run.terms, call.filter = replace(outer, continues=text), Joint(text)
            try:
                with run.without_deadline() if _answers_late(route) else nullcontext():
                    answer = yield call
            except Exception as error:
                failure = judge(error)
                is_ours = said is not None and failure.kind == "caller"  # not the request: how it is asked to go on
                if not can_mend(failure) and not is_ours:
                    raise
                failures.append((name, error))
                said = _with(said, call.received)
                _drop_hopeless(left, is_late=run.remaining_s == 0, said=said)
                to = left[0][0] if left else None
                if said is None:
                    if to is not None:
                        run.emit(FellBack(route=name, to=to, failure=failure.kind, reason=failure.reason))
                elif to is not None and self._may_restart(run):
                    run.emit(Restarted(route=name, to=to, reason=failure.reason))
                    void, said = said, None
                    yield Restart()
                elif to is not None and self.on_cut == "continue" and can_be_continued(said):
                    run.emit(Continued(route=name, to=to, said_chars=len(str(said.content)), reason=failure.reason))
                else:
                    return _ended(run, failures, said)
                run.report.start_over()
            else:
                run.stage.facts["route"] = name
                if failures:
                    reasons = "; ".join(f"{failed}: {judge(error).reason}" for failed, error in failures)
                    verb = "answered" if said is None else "finished"
                    run.report.mark("degraded", f"{verb} by {name} because {reasons}")
                return answer if said is None else joined(said, answer)
        if void is not None:  # nobody began anew: half an answer is better than none
            yield Say(void)
            return _ended(run, failures, void)
        if run.remaining_s == 0:
            raise run.late() from failures[-1][1]
        raise AllRoutesFailed(failures)

    def _may_restart(self, run: Run) -> bool:
        """Not where a part of the answer is another's: that could not be taken back with it."""
        return self.on_cut == "restart" and run.caller.restarts and run.terms.continues is None


def _with(said: AIMessage | None, more: Any) -> Any:
    if more is None:
        return said
    return more if said is None else joined(said, more)


def _drop_hopeless(left: deque[tuple[str, AnyRunnable]], *, is_late: bool, said: Any) -> None:
    """Skip the routes that cannot help now: after the deadline all but those that need no time, such as a fixed
    sentence; and those are worth less than what was already said.
    """
    for name, route in tuple(left):
        if (said is not None) if _answers_late(route) else is_late:
            left.remove((name, route))


def _answers_late(route: AnyRunnable) -> bool:
    """Whether a route is worth taking when the request's time is over: `answers_late` of its class says so."""
    return bool(getattr(route, "answers_late", False))


def _ended(run: Run, failures: list[tuple[str, Exception]], said: Any) -> Any:
    """End with what was said by the first who broke off; why nobody else went on is told, too."""
    (name, error), *others = failures
    reasons = [judge(error).reason, *(f"{each}: {judge(failure).reason}" for each, failure in others)]
    return cut_off(run, name, "; ".join(reasons), said)


def cut_off(run: Run, route: str, reason: str, received: Any) -> Any:
    """End a stream that broke off after its first words: what was said stands, and is marked."""
    run.emit(Truncated(route=route, reason=reason))
    run.report.mark("truncated", f"{route} broke off: {reason}")
    return received
