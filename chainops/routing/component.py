"""Send each question to the route that fits it, and say why."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field, model_validator

from chainops.core.component import AnyRunnable, Component
from chainops.core.errors import ChainopsError, DeadlineExceeded
from chainops.core.run import Run
from chainops.core.steps import Do, Forward, Plan
from chainops.models.failures import classify
from chainops.routing.records import Asking, Choice, Chooser, NoRouteFits, RouteChosen, question_of


class Route(Component[Any, Any]):
    """Asks a chooser, and forwards to the route it names: any Runnable.

    When choosing itself fails (an embedding server is down) the default answers, and the report says so.

    Raises:
        NoRouteFits: None of the routes fits, and there is no default.
    """

    kind: ClassVar[str] = "route"

    routes: dict[str, AnyRunnable] = Field(min_length=1)
    """By the name the chooser calls them."""
    chooser: Any
    """A `Chooser`."""
    default: str | None = None
    """The route of a question that fits none, or that has no words."""

    @model_validator(mode="after")
    def _knows_its_routes(self) -> Route:
        chooser: Chooser = self.chooser
        named = [*chooser.names, *([] if self.default is None else [self.default])]
        unknown = sorted({name for name in named if name not in self.routes})
        if unknown:
            raise ValueError(f"no such route: {', '.join(unknown)}; expected one of {', '.join(self.routes)}")
        return self

    def plan(self, value: Any, run: Run) -> Plan[Any]:
        choice = yield from self._choice(value, run)
        route = choice.route or self.default
        if route is None:
            raise NoRouteFits(run.stage.name, choice.why)
        told = RouteChosen(
            route=route,
            by=self.chooser.by,
            why=choice.why,
            score=choice.score,
            runners_up=dict(choice.runners_up),
        )
        run.emit(told)
        run.stage.facts |= {"route": route, "by": told.by, "why": told.why, **choice.facts}
        began = run.clock.monotonic()
        try:
            answer = yield Forward(self.routes[route], value, kwargs=run.kwargs)
        except Exception as error:
            if isinstance(error, DeadlineExceeded) or classify(error).kind in ("retryable", "next_route"):
                self.chooser.learn(route, None)  # not for a request that is wrong on every route
            raise
        self.chooser.learn(route, run.clock.monotonic() - began)
        return answer

    def _choice(self, value: Any, run: Run) -> Plan[Choice]:
        chooser: Chooser = self.chooser
        question = question_of(value)
        if question is None:
            return Choice(None, "there is no question to go by")
        prepared = None
        if chooser.is_slow:
            try:
                prepared = yield Do(lambda: chooser.prepare(question))
            except DeadlineExceeded:
                raise
            except (ChainopsError, ConnectionError, TimeoutError) as error:
                if self.default is None or (isinstance(error, ChainopsError) and not error.retryable):
                    raise  # examples or a key that are wrong: the same for every question
                run.report.reasons.append(f"not routed: {error}")
                return Choice(None, f"choosing failed ({type(error).__name__})")
        return chooser.choose(Asking(question, run.caller, prepared))
