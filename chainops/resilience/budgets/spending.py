"""What was spent, and on whom: a table of the settled calls."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from html import escape
from typing import Any, get_args

from chainops.core.errors import InvalidInput
from chainops.core.show import BOX, DIM, dollars
from chainops.resilience.budgets.records import By
from chainops.resilience.budgets.sql_ledger import SqlLedger
from chainops.stores.sql import SqlStore

_HEAD = ("calls", "requests", "tokens in", "cached", "tokens out", "cost")
_CELL = "padding:1px 12px 1px 0"
_BAR = "height:8px;background:#7c5cd6"


@dataclass(frozen=True)
class Spending:
    """A table that draws itself in notebooks. `rows` are plain dicts."""

    by: str
    since: datetime | None
    rows: list[dict[str, Any]]

    @property
    def usd(self) -> float:
        """In all, without calls whose price is not known."""
        return float(sum(row["usd"] for row in self.rows))

    def to_dict(self) -> dict[str, Any]:
        since = None if self.since is None else self.since.isoformat()
        return {"by": self.by, "since": since, "usd": self.usd, "rows": self.rows}

    def __str__(self) -> str:
        if not self.rows:
            return _NOTHING
        table = self._table()
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        return "\n".join(
            "  ".join(
                (row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)))
            )
            for row in table
        )

    __repr__ = __str__

    def _repr_html_(self) -> str:
        if not self.rows:
            return f'<div style="{BOX}">{_NOTHING}</div>'
        head, *body, total = self._table()
        dearest = max(row["usd"] for row in self.rows) or 1.0
        lines = [_line(head, f"{_CELL};{DIM}")]
        for cells, row in zip(body, self.rows, strict=True):
            lines.append(_line(cells, _CELL, 120 * row["usd"] / dearest))
        lines.append(_line(total, f"{_CELL};{DIM}"))
        return f'<div style="{BOX}"><table style="border-collapse:collapse">{"".join(lines)}</table></div>'

    def _table(self) -> list[tuple[str, ...]]:
        """Head, rows, total."""
        return [(self.by, *_HEAD), *map(_cells, self.rows), _cells(self._total())]

    def _total(self) -> dict[str, Any]:
        names = ("calls", "requests", "input_tokens", "cached_tokens", "output_tokens", "usd", "unpriced")
        total: dict[str, Any] = {name: sum(row[name] for row in self.rows) for name in names}
        if self.by not in ("user", "tenant", "feature", "day", "chain"):
            total["requests"] = None  # one request may stand in several rows
        return {"what": "all"} | total


_NOTHING = "nothing was spent under a budget: calls are noted where the chain's pipeline has one"


def spending(
    store: SqlStore, chain: str | None, by: By = "user", since: datetime | timedelta | float | None = None
) -> Spending:
    """What a chain has spent, added up.

    Args:
        chain: Its name; None: all chains that share the store.
        by: `user`, `tenant`, `feature`, `model`, `day` (in UTC), `chain`, `purpose`, `outcome` or `key_name`.
        since: A time (without time zone: UTC; or seconds since 1970), or how far back from now; None: from the start.

    Raises:
        InvalidInput: `by` is none of those.
        StoreError: The store cannot be read.
    """
    if by not in get_args(By):
        raise InvalidInput("by", repr(by), ", ".join(get_args(By)))
    began = _began(since)
    rows = SqlLedger(store).sums(chain, by, 0.0 if began is None else began.timestamp(), float("inf"))
    return Spending(by, began, rows)


def _began(since: datetime | timedelta | float | None) -> datetime | None:
    if isinstance(since, timedelta):
        return datetime.fromtimestamp(time.time(), UTC) - since
    if isinstance(since, datetime):
        return since if since.tzinfo else since.replace(tzinfo=UTC)
    return None if since is None else datetime.fromtimestamp(since, UTC)


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    cost = dollars(row["usd"]) + (f" + {row['unpriced']:,} of unknown price" if row["unpriced"] else "")
    names = ("calls", "requests", "input_tokens", "cached_tokens", "output_tokens")
    counts = ("" if row[name] is None else f"{row[name]:,}" for name in names)
    return ("(nobody)" if row["what"] is None else row["what"], *counts, cost)


def _line(cells: Sequence[str], style: str, bar_px: float | None = None) -> str:
    sides = ("left", *["right"] * (len(cells) - 1))
    told = "".join(
        f'<td style="{style};text-align:{side}">{escape(cell)}</td>' for cell, side in zip(cells, sides, strict=True)
    )
    bar = "" if bar_px is None else f'<td><div style="{_BAR};width:{bar_px:.0f}px"></div></td>'
    return f"<tr>{told}{bar}</tr>"
