"""What a run came to."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from html import escape
from typing import Any

from chainops.batch.journal import Journal
from chainops.batch.records import FAILED, STATUSES
from chainops.core.show import BOX, DIM, dollars, seconds


@dataclass(slots=True)
class Summary:
    """What a run came to. Draws itself in a notebook."""

    out: str
    rows: int = 0
    """Rows that have a result, of this run and the ones it took up."""
    answered: int = 0
    failed: int = 0
    statuses: dict[str, int] = field(default_factory=dict)
    asked: int = 0
    """Rows asked this time."""
    taken_up: int = 0
    """Rows that had a result when this run began."""
    duration_s: float = 0.0
    """Of this run."""
    cost_usd: float | None = 0.0
    """Of all runs, failed rows and earlier tries included; of those rows whose cost is known. None: of no row."""
    cost_unknown: int = 0
    """Results whose cost is not known, and not in `cost_usd`."""
    input_tokens: int = 0
    output_tokens: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    """How often rows failed with which error, most frequent first."""
    is_stopped: bool = False
    """Whether it was interrupted: then there is no output yet."""
    next_move: str = ""
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def _lines(self) -> list[tuple[str, str]]:
        state = "stopped; not written yet" if self.is_stopped else self.out
        by_status = ", ".join(f"{count:,} {name}" for name, count in self.statuses.items() if count)
        rate = f", {self.asked / self.duration_s:,.1f} rows/s" if self.asked and self.duration_s else ""
        earlier = f", {self.taken_up:,} were done before" if self.taken_up else ""
        unknown = f" and {self.cost_unknown:,} rows of unknown cost" if self.cost_usd and self.cost_unknown else ""
        told = [
            ("output", state),
            ("rows", f"{self.rows:,}: {by_status or 'none'}"),
            ("this time", f"{self.asked:,} asked in {seconds(self.duration_s)}{rate}{earlier}"),
            ("spent", f"{dollars(self.cost_usd)}{unknown}; {self.input_tokens:,} + {self.output_tokens:,} tokens"),
        ]
        told += [("failed", f"{count:,} × {name}") for name, count in list(self.errors.items())[:5]]
        told += [("note", note) for note in self.notes]
        return [*told, ("next", self.next_move)] if self.next_move else told

    def __str__(self) -> str:
        return "\n".join(f"{name:<10} {value}" for name, value in self._lines())

    __repr__ = __str__

    def _repr_html_(self) -> str:
        rows = "".join(
            f'<tr><td style="{DIM};padding:1px 12px 1px 0;text-align:left;vertical-align:top">{escape(name)}</td>'
            f'<td style="text-align:left">{escape(value)}</td></tr>'
            for name, value in self._lines()
        )
        return f'<div style="{BOX}"><table style="border-collapse:collapse">{rows}</table></div>'


def summary_of(journal: Journal, *, is_limited: bool, **told: Any) -> Summary:
    """The summary of what a journal holds.

    Args:
        is_limited: Whether rows are left over.
        told: What the journal does not know: `out`, `asked`, `duration_s`, `notes`, `is_stopped`.
    """
    counts = {name: journal.count(name) for name in (*STATUSES, FAILED)}
    errors = Counter(f"{each['error']['type']} ({each['error']['kind']})" for each in journal.failures())
    summary = Summary(
        rows=journal.count(),
        answered=journal.count() - counts[FAILED],
        failed=counts[FAILED],
        statuses={name: count for name, count in counts.items() if count},
        taken_up=journal.taken_up,
        cost_usd=journal.known_cost_usd,
        cost_unknown=journal.cost_unknown,
        input_tokens=journal.input_tokens,
        output_tokens=journal.output_tokens,
        errors=dict(errors.most_common()),
        **told,
    )
    if summary.is_stopped:
        summary.next_move = "run the same again to go on"
    elif summary.failed and all(name.endswith("(caller)") for name in errors):
        summary.next_move = (
            "correct those rows, and run them as a file of their own: asked again as they are, they fail"
        )
    elif summary.failed:
        summary.next_move = "run the same with --retry-errors (retry_errors=True) to ask the failed rows again"
    elif is_limited:
        summary.next_move = "run the same without, or with a higher, --limit (limit) to go on"
    return summary
