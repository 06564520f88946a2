"""What stands before each call to a model: is there money for it, and the note of what it took."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

from chainops.core.attempts import Attempt
from chainops.core.errors import StoreError
from chainops.core.run import Run
from chainops.core.steps import Do, Plan
from chainops.resilience.budgets.books import Books
from chainops.resilience.budgets.policy import (
    NANO,
    Amount,
    BudgetSettings,
    Window,
    actual_amount,
    expected_amount,
    key_of,
    limits_usd,
    of_request,
    windows,
)
from chainops.resilience.budgets.records import (
    BudgetExceeded,
    BudgetSoft,
    BudgetUnchecked,
    BudgetUnreachable,
    Hold,
    PriceUnknown,
    Reserved,
    Spend,
    SpendingUnwritten,
    Spent,
)
from chainops.resilience.budgets.sql_ledger import clean


class BudgetGate:
    """One request's gate of one budget. What the request spends is counted here, what days and months do in the books.

    Args:
        books: Opens the books, when first needed; None: only the request's own limits are kept.
        budget: What its totals are kept under.
        chain: What calls are listed under, where the request does not say which chain it asks.
    """

    def __init__(
        self,
        settings: BudgetSettings,
        run: Run,
        books: Callable[[], Books] | None = None,
        *,
        budget: str = "budget",
        chain: str = "",
    ) -> None:
        self.settings, self.budget = settings, budget
        self.enforces_tokens = True
        """False for what answers instead when a budget is used up: only money is refused then."""
        self._books, self._chain, self._run = books, chain, run
        self._limit, self._key = of_request(settings, run.caller), key_of(settings.per, run.caller)
        self._needs_price = limits_usd(settings, run.caller)
        self._lock = threading.RLock()  # re-entrant, as that of the books
        self._spent = Amount()
        self._under_way: dict[Attempt, tuple[Amount, Hold | None]] = {}

    def enter(self, attempt: Attempt, run: Run) -> Plan[None]:
        """Set aside what the call will probably take.

        Raises:
            BudgetExceeded: There is not enough left.
            PriceUnknown: Money is limited, and what the model costs is not known.
            BudgetUnreachable: The store does not answer.
        """
        amount = expected_amount(attempt.expected, self.settings, is_usd_limited=self._needs_price)
        if amount is None:
            raise PriceUnknown(attempt.model, self.budget)
        self._take(attempt, amount)
        if self._books is None:
            self._under_way[attempt] = amount, None
            return
        try:
            hold = yield from self._reserve(self._books, attempt, amount, run)
        except BaseException:
            self._give_back(amount)
            raise
        self._under_way[attempt] = amount, hold

    def leave(self, attempt: Attempt) -> None:
        """Note what the call has really taken."""
        reserved, hold = self._under_way.pop(attempt)
        actual = actual_amount(attempt, reserved, self.settings)
        self._give_back(reserved - actual)
        if hold is None or self._books is None:
            return
        call = None if attempt.outcome == "refused" else _settled(hold.call, attempt, actual)
        if not self._books().settle_later(hold.id, actual, call):
            told = SpendingUnwritten(budget=self.budget, model=attempt.model)
            self._run.request.tell(told, self._run.stage.id)

    def totals(self, now: float) -> list[tuple[Window, Amount]]:
        """How the windows stand. Blocks. Raises `StoreError`."""
        found = windows(self.settings, now)
        assert self._books is not None
        return list(zip(found, self._books().totals(self.budget, self._key, found), strict=True))

    def _take(self, attempt: Attempt, amount: Amount) -> None:
        with self._lock:
            unit = self._limit.broken_by(self._spent, amount)
            if unit == "usd" or (unit == "tokens" and self.enforces_tokens):
                told = Spent(self._spent, self._limit, amount)
                raise BudgetExceeded(attempt.model, self.budget, "request", unit, told=told, retry_after_s=None)
            self._spent += amount

    def _give_back(self, amount: Amount) -> None:
        with self._lock:
            self._spent -= amount

    def _reserve(
        self, open_books: Callable[[], Books], attempt: Attempt, amount: Amount, run: Run
    ) -> Plan[Hold | None]:
        now = run.clock.time()
        concerned = windows(self.settings, now)
        call = _expected(self._chain, attempt, run, now)
        names = tuple(each.id for each in concerned)
        hold = Hold(f"{call.id} {self.budget}", self.budget, self._key, names, amount, call)
        opened: list[Books] = []
        is_given_up = threading.Event()

        def reserve() -> Reserved:
            opened.append(open_books())
            reserved = opened[0].reserve(hold, concerned, enforces_tokens=self.enforces_tokens)
            if is_given_up.is_set():
                undo()
            return reserved

        def undo() -> None:
            """Does nothing where it was not set aside. After a time-out it may have been."""
            if opened:
                opened[0].settle_later(hold.id, Amount(), None)

        try:
            reserved: Reserved = yield Do(reserve)
        except StoreError as error:
            if self.settings.when_unreachable == "refuse":
                undo()
                raise BudgetUnreachable(attempt.model, self.budget, str(error)) from error
            run.emit(BudgetUnchecked(budget=self.budget, problem=str(error)))
            return hold  # settling it notes the call, when the store is back
        except BaseException:  # the caller went away while it was being set aside, or just after
            is_given_up.set()
            undo()
            raise
        if reserved.refused is not None:
            position, unit = reserved.refused
            window = concerned[position]
            told = Spent(reserved.totals[position], window.limit, amount)
            again_s = max(0.0, round(window.ends - now, 3))
            raise BudgetExceeded(attempt.model, self.budget, window.name, unit, told=told, retry_after_s=again_s)
        for position in reserved.newly_soft:
            run.emit(self._soft(concerned[position], reserved.totals[position], run))
        return hold

    def _soft(self, window: Window, total: Amount, run: Run) -> BudgetSoft:
        limit, per = window.limit, self.settings.per
        return BudgetSoft(
            budget=self.budget,
            per=per,
            of=None if per == "chain" else getattr(run.caller, per),
            window=window.name,
            spent_usd=total.nano_usd / NANO,
            limit_usd=None if limit.nano_usd is None else limit.nano_usd / NANO,
            spent_tokens=total.tokens,
            limit_tokens=limit.tokens,
        )


def gate_of_caller(run: Run) -> BudgetGate:
    """What keeps the caller's own `budget_usd`: one for the whole request, however many chains work on it."""
    known = ("budget", "caller")
    gate: BudgetGate | None = run.request.memo.get(known)
    if gate is None:  # in one step: calls at the same time have one gate
        gate = run.request.memo.setdefault(known, BudgetGate(BudgetSettings(), run, budget="caller"))
    return gate


def _expected(chain: str, attempt: Attempt, run: Run, now: float) -> Spend:
    """What will be noted if nobody says what became of the call."""
    return clean(
        Spend(
            id=f"{run.request.id}-{run.attempts.all.index(attempt)}",
            at=now,
            chain=run.request.chain or chain,
            user=run.caller.user,
            tenant=run.caller.tenant,
            feature=run.caller.feature,
            model=attempt.model,
            key_name=attempt.key,
            purpose=attempt.purpose,
            outcome="lost",
            input_tokens=attempt.expected.input_tokens,
            output_tokens=attempt.expected.output_tokens,
            cached_tokens=0,
            usd=attempt.expected.cost_usd,
            request=run.request.id,
        )
    )


def _settled(expected: Spend, attempt: Attempt, actual: Amount) -> Spend:
    outcome, usage = attempt.outcome or "lost", attempt.usage
    if usage is None and actual != Amount():  # nobody knows: the estimate stands
        return replace(expected, outcome=outcome)
    read = written = cached = 0
    if usage is not None:
        read, written = max(0, usage["input_tokens"]), max(0, usage["output_tokens"])
        cached = int((usage.get("input_token_details") or {}).get("cache_read") or 0)
    return replace(
        expected,
        outcome=outcome,
        input_tokens=read,
        output_tokens=written,
        cached_tokens=cached,
        usd=0.0 if usage is None else attempt.cost_usd,
    )
