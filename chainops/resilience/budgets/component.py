"""Spend no more than declared, however many calls a request makes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar

from chainops.core.component import AnyRunnable, Component
from chainops.core.errors import AllRoutesFailed, StoreError
from chainops.core.run import Run
from chainops.core.steps import Do, Forward, Plan
from chainops.resilience.budgets.books import Books
from chainops.resilience.budgets.gate import BudgetGate
from chainops.resilience.budgets.policy import BudgetSettings
from chainops.resilience.budgets.records import BudgetExceeded, OverBudget


class Budget(Component[Any, Any]):
    """Checks every call to a model inside it, first tries, retries, fallbacks and side calls alike.

    In one step for all processes: what is spent, what calls under way are expected to take and what this call is
    expected to take together stay within the limits of the request, the day and the month, or the call is not made.
    So spending goes beyond a limit by no more than calls under way at that moment cost above their estimates. A
    free model is still asked when the money is spent. Calls of a process that was killed count with their estimates.

    When a call was refused and nothing inside could answer without it, `otherwise` does, or the refusal is raised.

    Raises:
        BudgetExceeded: With what is spent, the limit, and when it begins anew.
    """

    kind: ClassVar[str] = "budget"

    inner: AnyRunnable
    books: Callable[[], Books]
    """Opens where spending is kept."""
    settings: BudgetSettings = BudgetSettings()
    chain: str = ""
    """The chain that spends, as the list of calls names it. With the component's name, what totals are kept under."""
    cheaper: AnyRunnable | None = None
    """Answers from the soft limit on, where `at_soft` says so."""
    otherwise: AnyRunnable | None = None
    """Answers when nothing inside could: a sentence, a free model, a person."""

    def plan(self, value: Any, run: Run) -> Plan[Any]:
        outer = run.terms
        # One for the whole request: a retry or a fallback further out comes here again, with the same limits.
        known = ("budget", self.budget)
        gate = run.request.memo.get(known)
        if gate is None:  # in one step: routes that are at work at the same time have one gate
            new = BudgetGate(self.settings, run, self.books, budget=self.budget, chain=self.chain)
            gate = run.request.memo.setdefault(known, new)
        run.terms = replace(outer, gates=(*outer.gates, gate))
        inner = self.inner
        if self.cheaper is not None and (yield from self._is_soft(gate, run)):
            inner = self.cheaper
            run.stage.facts["route"] = "cheaper: most of the budget is used up"
        call = Forward(inner, value, kwargs=run.kwargs)
        try:
            answer = yield call
            if inner is self.cheaper:
                run.report.reasons.append("answered by the cheaper route: most of the budget is used up")
            return answer
        except Exception as error:
            over = refusal_of(error, self.budget)
            if over is None or call.received is not None:
                raise
            run.emit(OverBudget(budget=self.budget, window=over.window, unit=over.unit, instead=self._instead()))
            run.stage.facts["over"] = f"{over.window}: {over.problem}"
            if self.otherwise is None:
                if isinstance(error, AllRoutesFailed) and all(
                    refusal_of(each, self.budget) is not None for _, each in error.failures
                ):
                    raise over from error
                raise
        run.report.start_over()
        # No sums: callers see reasons.
        run.report.mark("degraded", f"what is left of the {over.window}'s budget would not do for this call")
        gate.enforces_tokens = False  # a free model may answer beyond them; money that is not there is not spent
        return (yield Forward(self.otherwise, value, kwargs=run.kwargs))

    @property
    def budget(self) -> str:
        """What its totals are kept under."""
        return "/".join(each for each in (self.chain, self.name or "budget") if each)

    def _is_soft(self, gate: BudgetGate, run: Run) -> Plan[bool]:
        now = run.clock.time()
        try:
            standing = yield Do(lambda: gate.totals(now))
        except StoreError:
            return False  # the gate tells, at the first call
        return any(window.limit.is_reached(total, window.soft) for window, total in standing)

    def _instead(self) -> str:
        at_hard = self.settings.at_hard
        if self.otherwise is None:
            return "refuse"
        return at_hard if isinstance(at_hard, str) else next(iter(at_hard.model_fields_set), "say")


def refusal_of(error: BaseException, budget: str) -> BudgetExceeded | None:
    """What a budget refused, if that is why there is no answer: itself, or among the failures of all routes."""
    if isinstance(error, BudgetExceeded):
        return error if error.budget == budget else None
    if isinstance(error, AllRoutesFailed):
        found = (refusal_of(each, budget) for _, each in error.failures)
        return next((each for each in found if each is not None), None)
    return None
