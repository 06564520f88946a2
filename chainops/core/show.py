"""How answers and reports draw themselves: HTML in notebooks, plain text everywhere else."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Any

# No var(--jp-...) anywhere: JupyterLab strips it from notebooks it does not trust yet, such as those just cloned.
DIM = "opacity:.7"
LINE = "rgba(128,128,128,.4)"
_BAR = {"model": "#7c5cd6", "retrieve": "#2a8f86", "cache": "#c98a1b", "fallback": "#b4637a"}
_STATUS = {"ok": "#2e8b57", "cached": "#c98a1b", "degraded": "#c2571a", "truncated": "#c2571a"}
_GRAVE = "#b3261e"

BOX = "font-family:system-ui,sans-serif;font-size:13px;line-height:1.45"


def dollars(cost_usd: float | None) -> str:
    """USD for people: `unknown` when no price is known, four decimals below ten cents."""
    if cost_usd is None:
        return "cost unknown"
    return f"${cost_usd:.2f}" if cost_usd >= 0.1 else f"${cost_usd:.6f}".rstrip("0").rstrip(".") if cost_usd else "$0"


def seconds(duration_s: float | None) -> str:
    """A duration for people, in µs, ms or s."""
    if duration_s is None:
        return "–"
    if duration_s < 0.001:
        return f"{duration_s * 1e6:.0f} µs"
    return f"{duration_s * 1e3:.1f} ms" if duration_s < 1 else f"{duration_s:.2f} s"


class ShownReport:
    """A request's report: plain JSON that draws itself as a waterfall."""

    def __init__(self, told: dict[str, Any]) -> None:
        self._told = told

    def to_dict(self) -> dict[str, Any]:
        return self._told

    def __getitem__(self, name: str) -> Any:
        return self._told[name]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ShownReport) and self._told == other._told

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return waterfall_text(self._told)

    def _repr_html_(self) -> str:
        return f'<div style="{BOX}">{waterfall_html(self._told)}</div>'


def _in_order(report: dict[str, Any]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Stages with their depth, parents before children, in the order they began."""
    children: dict[int | None, list[dict[str, Any]]] = {}
    for stage in report["stages"]:
        children.setdefault(stage["parent"], []).append(stage)

    def walk(parent: int | None, depth: int) -> Iterator[tuple[int, dict[str, Any]]]:
        for stage in children.get(parent, ()):
            yield depth, stage
            yield from walk(stage["id"], depth + 1)

    return walk(None, 0)


def _passed_on(report: dict[str, Any]) -> set[int]:
    """Stages whose error is the very one of a stage inside them: it is told there, once."""
    failed = {stage["id"]: stage["error"] for stage in report["stages"] if stage.get("error")}
    return {
        stage["parent"]
        for stage in report["stages"]
        if stage["id"] in failed and failed.get(stage["parent"]) == failed[stage["id"]]
    }


def _says(stage: dict[str, Any], passed_on: set[int]) -> str:
    said = [f"{name} {value}" for name, value in stage.get("facts", {}).items() if not isinstance(value, dict | list)]
    if stage.get("model"):
        said.insert(0, stage["model"])
    if usage := stage.get("usage"):
        said.append(f"{usage['input_tokens']}+{usage['output_tokens']} tokens")
    if stage.get("cost_usd") is not None:
        said.append(dollars(stage["cost_usd"]))
    if stage.get("error"):
        said.append("failed" if stage["id"] in passed_on else stage["error"])
    return ", ".join(said)


def _total(report: dict[str, Any]) -> str:
    usage = report.get("usage")
    tokens = f"{usage['input_tokens']}+{usage['output_tokens']} tokens" if usage else "no tokens"
    return f"{seconds(report['duration_s'])}, {tokens}, {dollars(report['cost_usd'])}"


def waterfall_text(report: dict[str, Any], width: int = 24) -> str:
    """The stages as indented lines with bars of `width` characters for the whole request."""
    whole, passed_on = max(report["duration_s"], 1e-9), _passed_on(report)
    lines = [f"{report.get('chain') or 'request'}: {_total(report)}"]
    for depth, stage in _in_order(report):
        start = min(width - 1, int(stage["start_s"] / whole * width))
        length = max(1, min(width - start, round((stage["duration_s"] or 0) / whole * width)))
        bar = (" " * start + "█" * length).ljust(width)
        name = "  " * depth + stage["name"]
        lines.append(f"  {name:<26} |{bar}| {seconds(stage['duration_s']):>9}  {_says(stage, passed_on)}".rstrip())
    return "\n".join(lines)


def waterfall_html(report: dict[str, Any]) -> str:
    """The same as an HTML table; no script, no style sheet, readable in light and dark."""
    whole, passed_on = max(report["duration_s"], 1e-9), _passed_on(report)
    rows = []
    for depth, stage in _in_order(report):
        left = min(99.0, stage["start_s"] / whole * 100)
        width = max(0.8, min(100 - left, (stage["duration_s"] or 0) / whole * 100))
        color = _GRAVE if stage.get("error") else _BAR.get(stage["kind"], "#5b7fb5")
        rows.append(
            f'<tr style="background:none"><td style="padding:1px 10px 1px {depth * 14}px;text-align:left;white-space:nowrap">'
            f'{escape(stage["name"])}</td><td style="width:220px;padding:1px 0"><div style="margin-left:{left:.2f}%;'
            f'width:{width:.2f}%;height:9px;border-radius:2px;background:{color}"></div></td>'
            f'<td style="padding:1px 8px;text-align:right;white-space:nowrap">{seconds(stage["duration_s"])}</td>'
            f'<td style="padding:1px 4px;text-align:left;{DIM}">{escape(_says(stage, passed_on))}</td></tr>'
        )
    return (
        f'<div style="{DIM};margin:2px 0">{escape(_total(report))}</div>'
        f'<table style="border-collapse:collapse;font-size:12px;margin:0">{"".join(rows)}</table>'
    )


def _source_line(source: dict[str, Any]) -> str:
    start, end = source["span"]
    return f"[{source['n']}] {source['title']} ({source['document']}, characters {start}–{end})"


def answer_text(answer: Any) -> str:
    """Text, status, sources and waterfall of an answer, for a terminal."""
    lines = [str(answer.text), ""]
    lines.append("status: " + (answer.status or "–") + "".join(f"\n  {reason}" for reason in answer.reasons))
    lines += [f"  {_source_line(source)}" for source in answer.sources]
    if answer.report is not None:
        lines.append(repr(answer.report))
    return "\n".join(lines)


def answer_html(answer: Any) -> str:
    """Text, status, sources with their quotes, and the waterfall folded below."""
    status = answer.status or "–"
    badge = (
        f'<span style="background:{_STATUS.get(status, _GRAVE)};color:white;border-radius:3px;padding:0 7px">'
        f"{escape(status)}</span>"
    )
    reasons = "".join(f'<div style="{DIM}">{escape(reason)}</div>' for reason in answer.reasons)
    sources = "".join(
        f'<li style="margin:2px 0">{escape(_source_line(each))}<div style="{DIM};border-left:2px solid {LINE};'
        f'padding-left:8px">{escape(each.get("quote", ""))}</div></li>'
        for each in answer.sources
    )
    listed = f'<ul style="list-style:none;padding:0;margin:6px 0">{sources}</ul>' if sources else ""
    drawn = ""
    if answer.report is not None:
        drawn = (
            f'<details style="margin-top:6px"><summary style="cursor:pointer;{DIM}">where the time went</summary>'
            f"{waterfall_html(answer.report.to_dict())}</details>"
        )
    served = f' <span style="{DIM}">by {escape(answer.served_by)}</span>' if answer.served_by else ""
    return (
        f'<div style="{BOX};max-width:900px"><div style="font-size:14px;white-space:pre-wrap">{escape(str(answer.text))}'
        f'</div><div style="margin-top:6px">{badge}{served}</div>{reasons}{listed}{drawn}</div>'
    )
