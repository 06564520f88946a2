"""Answer from the first route that does not fail."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from langchain_core.messages import AIMessage
from pydantic import Discriminator, Field, Tag

from chainops.core.component import AnyRunnable, Component
from chainops.core.errors import DeadlineExceeded
from chainops.core.run import Run
from chainops.core.settings import Settings
from chainops.core.steps import Forward, Plan, Say
from chainops.resilience.policy import can_mend, judge
from chainops.resilience.records import AllRoutesFailed, FellBack, Truncated


class SaySettings(Settings):
    """A fixed sentence as a route: it cannot fail."""

    say: str = Field(min_length=1)


Route = Annotated[
    Annotated[str, Tag("model")] | Annotated[SaySettings, Tag("say")],
    Discriminator(lambda value: "model" if isinstance(value, str) else "say"),
]


class FallbackSettings(Settings):
    """What a chain file may say about a fallback; a plain list of routes will do."""

    routes: tuple[Route, ...] = Field(min_length=1)
    """Names of models, tried in this order, and at the end perhaps `{say: "…"}`.
    A model name means: the rest of the chain, answered by that model."""


class Sentence(Component[Any, AIMessage]):
    """Says one fixed sentence: the last route of a fallback."""

    kind: ClassVar[str] = "say"

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
    missed deadline or a programming error is raised at once (after a missed deadline a fixed
    sentence still answers). In a stream a route is replaced only before its first words; after
    them the stream ends with status `truncated`.

    Raises:
        AllRoutesFailed: With each failure, in order.
    """

    kind: ClassVar[str] = "fallback"

    routes: tuple[AnyRunnable, ...] = Field(min_length=1)
    names: tuple[str, ...] = ()
    """What reports call the routes; by default their own names."""

    def plan(self, value: Any, run: Run) -> Plan[Any]:
        names = self.names or tuple(route.get_name() for route in self.routes)
        failures: list[tuple[str, Exception]] = []
        late: DeadlineExceeded | None = None
        left = list(zip(names, self.routes, strict=True))
        for position, (name, route) in enumerate(left):
            if late is not None:
                if not isinstance(route, Sentence):
                    continue
                run.waive_deadline()
            call = Forward(route, value, kwargs=run.kwargs)
            try:
                answer = yield call
            except Exception as error:
                failure = judge(error)
                if not can_mend(failure):
                    raise
                if call.received is not None:
                    return cut_off(run, name, failure.reason, call.received)
                late = error if isinstance(error, DeadlineExceeded) else late
                failures.append((name, error))
                run.report.start_over()
                to = next((n for n, r in left[position + 1 :] if late is None or isinstance(r, Sentence)), None)
                if to is not None:
                    run.emit(FellBack(route=name, to=to, failure=failure.kind, reason=failure.reason))
            else:
                run.stage.facts["route"] = name
                if failures:
                    reasons = "; ".join(f"{failed}: {judge(error).reason}" for failed, error in failures)
                    run.report.mark("degraded", f"answered by {name} because {reasons}")
                return answer
        if late is not None:
            raise late
        raise AllRoutesFailed(failures)


def cut_off(run: Run, route: str, reason: str, received: Any) -> Any:
    """End a stream that broke off after its first words: what was said stands, and is marked."""
    run.emit(Truncated(route=route, reason=reason))
    run.report.mark("truncated", f"{route} broke off: {reason}")
    return received
