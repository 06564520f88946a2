"""Ask the cheap route first; ask the strong one when the answer cannot be relied on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from pydantic import Field

from chainops.core.chunks import merge
from chainops.core.component import AnyRunnable, Component
from chainops.core.run import Run
from chainops.core.steps import Ask, AskAll, Forward, Plan, Say
from chainops.models.failures import classify
from chainops.routing import arithmetic, scoring
from chainops.routing.records import Judge, RouteChosen, question_of


class _Held:
    """Keeps a whole answer back until it is judged."""

    def __init__(self) -> None:
        self.chunks: list[Any] = []

    def feed(self, chunk: Any) -> Iterable[Any]:
        self.chunks.append(chunk)
        return ()

    def finish(self) -> Iterable[Any]:
        return ()


def _may_pass(error: Exception) -> bool:
    """Whether another route, or the same one later, may answer: no bug, and no request that is wrong everywhere."""
    return classify(error).kind in ("retryable", "next_route")


class Cascade(Component[Any, Any]):
    """Says the first route's answer when its score is high enough, else the second route's.

    The first answer is held back until it is judged, also in a stream: its words then come at once. What the first
    route cost is in the report either way. When it fails in a way that another route may mend, the second one answers.
    """

    kind: ClassVar[str] = "cascade"

    first: AnyRunnable
    then: AnyRunnable
    names: tuple[str, str] = ("first", "then")
    """What reports call the two."""
    judge: Judge = "auto"
    """`grounding`: support by the cited passages. `agreement`: the first route is asked again, `samples` times.
    `logprobs`: the tokens' mean probability, where the provider gives it. `arithmetic`: whether the answer's own sums
    hold. `auto`: arithmetic where there is any, else logprobs where they came, else grounding where there are sources
    or nothing was found, else agreement. A cache inside the first route would agree with itself: put it outside."""
    at_least: float = Field(default=0.7, ge=0, le=1)
    """Score from which the first answer is said."""
    samples: int = Field(default=2, ge=1, le=10)

    def plan(self, value: Any, run: Run) -> Plan[Any]:
        held = _Held()
        cheap, strong = self.names
        status, reasons = run.report.status, list(run.report.reasons)
        try:
            yield Forward(self.first, value, kwargs=run.kwargs, filter=held)
        except Exception as error:
            if not _may_pass(error):
                raise
            why, score = f"{cheap} failed: {classify(error).reason}", None
        else:
            answer = merge(held.chunks)
            by, score = yield from self._scored(value, answer, run)
            shown = "could not be judged" if score is None else f"scored {score:.2f}"
            if score is not None and score >= self.at_least:
                why = f"{cheap}'s answer {shown} by {by}, enough for {self.at_least:g}"
                self._tell(run, cheap, why, score, {strong: None})
                yield Say(answer)
                return answer
            why = f"{cheap}'s answer {shown} by {by}, below {self.at_least:g}"
        self._tell(run, strong, why, score, {cheap: score})
        run.report.start_over()
        run.report.status, run.report.reasons = status, reasons  # what was wrong with an answer that nobody sees
        return (yield Forward(self.then, value, kwargs=run.kwargs))

    def _scored(self, value: Any, answer: Any, run: Run) -> Plan[tuple[str, float | None]]:
        """By what the answer was judged, and its score."""
        text, sources = scoring.text_of(answer), run.report.sources
        if getattr(answer, "tool_calls", None):
            return "its tool calls", 1.0  # nothing is claimed yet
        if not text.strip() or run.report.status in ("truncated", "refused"):
            return "its status", 0.0
        by = self.judge
        if by == "auto":
            by = self._fitting(text, answer, run)
        if by == "arithmetic":
            return by, arithmetic.likelihood(question_of(value) or "", text)[0]
        if by == "logprobs":
            return by, scoring.confidence(answer)
        if by == "grounding":
            score = 0.0 if run.report.is_unknown else scoring.grounding(text, [each["quote"] for each in sources])
            return by, score
        asks = [Ask(self.first, value, kwargs=run.kwargs) for _ in range(self.samples)]
        others = yield AskAll(asks, return_exceptions=True)
        for each in others:
            if isinstance(each, Exception) and not _may_pass(each):
                raise each
        texts = [scoring.text_of(each) for each in others if not isinstance(each, Exception)]
        return by, scoring.agreement(text, texts) if texts else None

    @staticmethod
    def _fitting(text: str, answer: Any, run: Run) -> Judge:
        if arithmetic.is_arithmetic(text):
            return "arithmetic"
        if scoring.confidence(answer) is not None:
            return "logprobs"
        return "grounding" if run.report.sources or run.report.is_unknown else "agreement"

    @staticmethod
    def _tell(run: Run, route: str, why: str, score: float | None, others: dict[str, float | None]) -> None:
        rounded = None if score is None else round(score, 4)
        run.emit(RouteChosen(route=route, by="confidence", why=why, score=rounded, runners_up=others))
        run.stage.facts |= {"route": route, "by": "confidence", "why": why}
