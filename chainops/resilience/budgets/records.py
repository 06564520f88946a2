"""What budgets tell, and what is kept of every call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from chainops.core.errors import CallRefused
from chainops.core.events import Event
from chainops.core.show import dollars
from chainops.resilience.budgets.policy import NANO, Amount, Limit, Unit, Window


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetSoft(Event):
    """Most of a budget is used up. Told once for each window and each whose budget it is."""

    budget: str
    per: str
    of: str | None
    """The user, tenant or feature."""
    window: str
    spent_usd: float
    limit_usd: float | None
    spent_tokens: int
    limit_tokens: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class OverBudget(Event):
    """Nothing inside could answer within the budget."""

    budget: str
    window: str
    unit: str
    instead: str
    """What was done: refuse, say, route or review."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetUnchecked(Event):
    """A call was let through although the store of the budget cannot be reached, as declared."""

    budget: str
    problem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SpendingUnwritten(Event):
    """A call was not noted: too much waits for the store. Its estimate stays in the totals, and it is noted as lost
    later.
    """

    budget: str
    model: str


class BudgetExceeded(CallRefused):
    """A call was not made because it could go beyond what may be spent.

    Attributes:
        budget: Its name.
        window: `request`, `day` or `month`.
        unit: `usd` or `tokens`.
        spent: In that unit, with what calls under way are expected to take.
        limit: In that unit.
        expected: What this call was expected to take.
    """

    def __init__(
        self, model: str, budget: str, window: str, unit: Unit, *, told: Spent, retry_after_s: float | None
    ) -> None:
        self.budget, self.window, self.unit = budget, window, unit
        self.spent, self.limit, self.expected = told.of(unit)
        shown = [dollars(each) if unit == "usd" else f"{each:,.0f} tokens" for each in told.of(unit)]
        again = f"; it begins anew in {_duration(retry_after_s)}" if retry_after_s is not None else ""
        where = f"the {window}'s budget" if window != "request" else "the request's budget"
        super().__init__(
            model,
            "over budget",
            f"{where} of {shown[1]} would not do: {shown[0]} spent or set aside, this call may take {shown[2]}{again}",
            retry_after_s=retry_after_s,
        )


class PriceUnknown(CallRefused):
    """A call was not made because money is limited and nobody knows what the model costs."""

    def __init__(self, model: str, budget: str) -> None:
        self.budget = budget
        super().__init__(
            model,
            "price unknown",
            "money is limited and its price is not known; give the model a price, or the budget an "
            "unknown_price_usd_per_million_tokens",
        )


class BudgetUnreachable(CallRefused):
    """A call was not made because nobody can tell what has been spent."""

    def __init__(self, model: str, budget: str, problem: str) -> None:
        self.budget, self.store_problem = budget, problem
        super().__init__(model, "budget unknown", f"the store of its budget does not answer ({problem})")


@dataclass(frozen=True, slots=True)
class Spent:
    """A limit and what stands against it."""

    spent: Amount
    limit: Limit
    expected: Amount

    def of(self, unit: Unit) -> tuple[float, float, float]:
        """Spent, limit and expected, in USD or tokens."""
        if unit == "usd":
            money = (self.spent.nano_usd, self.limit.nano_usd or 0, self.expected.nano_usd)
            return (money[0] / NANO, money[1] / NANO, money[2] / NANO)
        return self.spent.tokens, self.limit.tokens or 0, self.expected.tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Spend:
    """One settled call to a model."""

    id: str
    """The same for all budgets that note it: it is listed once."""
    at: float
    """Seconds since 1970, when it was reserved."""
    chain: str
    user: str | None
    tenant: str | None
    feature: str | None
    model: str
    key_name: str | None
    """The variable that holds the key, where the model has several."""
    purpose: str
    outcome: str
    """ok, failed, cancelled, or lost: nobody told what became of it, and the numbers are the estimate."""
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    usd: float | None
    """None: its price is not known."""
    request: str


@dataclass(frozen=True, slots=True)
class Hold:
    """What one budget has set aside for a call under way, and, should nobody settle it, what is known of it."""

    id: str
    budget: str
    key: str
    windows: tuple[str, ...]
    amount: Amount
    call: Spend
    """With the estimate for numbers, and `lost` for outcome."""


@dataclass(frozen=True, slots=True)
class Reserved:
    """What came of setting an amount aside."""

    totals: tuple[Amount, ...]
    """Spent and set aside, for each window: without this amount where it was refused."""
    refused: tuple[int, Unit] | None = None
    """The window, by position, and the limit that it would break."""
    newly_soft: tuple[int, ...] = ()
    """The windows, by position, that it took over their soft limit."""


class Counters(Protocol):
    """Running totals. What is set aside counts as spent, so a process that is killed leaves its estimates behind."""

    place: str

    def reserve(self, hold: Hold, windows: Sequence[Window], *, enforces_tokens: bool = True) -> Reserved:
        """Set the hold's amount aside in all windows, or in none: one step for everybody. Raises `StoreError`."""

    def settle(self, settled: Sequence[tuple[str, Amount]]) -> None:
        """Put what calls have really cost in place of what was set aside. Does nothing for a hold that is not (or no
        longer) there, so it may be repeated.
        """

    def totals(self, budget: str, key: str, windows: Sequence[str]) -> list[Amount]:
        """Spent and set aside in each window."""

    def holds(self, *, before: float, limit: int = 500) -> list[Hold]:
        """Those set aside before a time and not settled, oldest first."""

    def forget(self, user: str, tenant: str | None = None) -> None:
        """Take a user's name off all holds."""

    def nameless(self, holds: Sequence[str]) -> list[str]:
        """Those among them that are there, and on which no user's name is."""

    def tidy(self, now: float) -> None:
        """Delete the totals of windows that ended long ago."""


class Ledger(Protocol):
    """All settled calls."""

    def add(self, calls: Sequence[Spend]) -> None:
        """Note calls; those that are there already stay as they are. Raises `StoreError`."""

    def forget(self, user: str, tenant: str | None = None) -> int:
        """Take a user's name off all calls, which stay; how many there were."""

    def take_names_off(self, calls: Sequence[str]) -> None:
        """Make these calls nobody's; unknown ones are ignored. Raises `StoreError`: repeat it."""


By = Literal["user", "tenant", "feature", "model", "day", "chain", "purpose", "outcome", "key_name"]


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7_200 else f"{seconds / 3600:.0f} h"
