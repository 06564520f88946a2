"""How a cache's statistics and explanations draw themselves: HTML in notebooks, plain text everywhere else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING

from chainops.core.show import BOX, DIM, LINE, dollars, seconds

if TYPE_CHECKING:
    from chainops.cache.cache import Explanation, Stats
    from chainops.cache.replay import Replay

_GOOD, _BAD = "#2e8b57", "#b3261e"
_WIDTH = 320
"""Pixels of the error bar."""


def stats_text(stats: Stats) -> str:
    return "\n".join(f"{name:<10} {value}" for name, value in _lines(stats))


def _lines(stats: Stats) -> Iterable[tuple[str, str]]:
    hits = ", ".join(f"{count:,} {kind}" for kind, count in stats.hits.items() if count) or "none"
    yield "rule", stats.rule
    yield "hits", f"{stats.hit_rate:.1%} of {stats.requests:,} requests: {hits}"
    if stats.would_serve:
        yield "shadow", f"{stats.would_serve:,} would have been served for a stored answer"
    yield "saved", f"{dollars(stats.saved_usd)} and {seconds(stats.saved_seconds)} of waiting"
    yield "error", _error(stats)
    if stats.audits:
        yield "audits", f"{stats.audits:,}, which cost {dollars(stats.audit_usd)}"
    yield "size", f"{stats.entries:,} entries, {stats.bytes / 1e6:,.1f} MB"


def _error(stats: Stats) -> str:
    standing = stats.standing
    if not stats.rule.startswith("threshold"):
        return str(standing)
    if not standing.audits:
        return "no bound is declared, and no audits yet"
    return (
        f"no bound is declared; {standing.wrong} of {standing.audits} audited answers wrong "
        f"({standing.lower:.2%} to {standing.upper:.2%} at 95%)"
    )


def stats_html(stats: Stats) -> str:
    rows = "".join(
        f'<tr><td style="{DIM};padding:1px 12px 1px 0;text-align:left;vertical-align:top">{escape(name)}</td>'
        f'<td style="text-align:left">{escape(value)}</td></tr>'
        for name, value in _lines(stats)
    )
    return f'<div style="{BOX}"><table style="border-collapse:collapse">{rows}</table>{_error_bar(stats)}</div>'


def _error_bar(stats: Stats) -> str:
    """The measured error with its interval, against the bound."""
    standing = stats.standing
    if not standing.audits:
        return ""
    most = min(1.0, max(2 * standing.bound, standing.upper) * 1.1) or 1.0
    scale = _WIDTH / most
    colour = _GOOD if standing.upper <= standing.bound else "#c98a1b" if standing.lower <= standing.bound else _BAD
    measured = standing.error_rate or 0.0
    return (
        f'<svg width="{_WIDTH + 70}" height="34" role="img" aria-label="error {measured:.2%}, between '
        f'{standing.lower:.2%} and {standing.upper:.2%}, bound {standing.bound:.2%}">'
        f'<line x1="0" y1="14" x2="{_WIDTH}" y2="14" stroke="{LINE}"/>'
        f'<line x1="{standing.lower * scale:.1f}" y1="14" x2="{standing.upper * scale:.1f}" y2="14" '
        f'stroke="{colour}" stroke-width="6" stroke-linecap="round" opacity=".55"/>'
        f'<circle cx="{measured * scale:.1f}" cy="14" r="4" fill="{colour}"/>'
        f'<line x1="{standing.bound * scale:.1f}" y1="3" x2="{standing.bound * scale:.1f}" y2="25" '
        f'stroke="currentColor" stroke-width="2"/>'
        f'<text x="{standing.bound * scale + 4:.1f}" y="33" font-size="10" fill="currentColor">'
        f"bound {standing.bound:g}</text></svg>"
    )


def explanation_text(told: Explanation) -> str:
    lines = [f"question   {told.question}"]
    if told.standalone != told.question:
        lines.append(f"alone      {told.standalone}")
    lines.append(f"decision   {_decision(told)}: {told.reason}")
    if told.answer is not None:
        lines.append(f"answer     {_short(told.answer, 300)}")
    if told.neighbours:
        lines.append("neighbours (* has the nearest one's answer)")
        lines += [
            f"  {each.similarity:6.3f} {'*' if each.same_answer else ' '} {_short(each.question, 90)}"
            for each in told.neighbours
        ]
    if told.contributions:
        lines.append("what speaks against it (+) and for it (-), in log odds of a wrong answer")
        lines += [f"  {value:+6.2f}  {name} = {told.features[name]:.3g}" for name, value in _weightiest(told)]
    lines += [f"would change it: {each}" for each in told.would_change[:5]]
    return "\n".join(lines)


def explanation_html(told: Explanation) -> str:
    parts = [f"<b>{escape(told.question)}</b>"]
    if told.standalone != told.question:
        parts.append(f'<div style="{DIM}">stands alone as: {escape(told.standalone)}</div>')
    colour = _GOOD if told.match else "inherit"
    parts.append(f'<div><b style="color:{colour}">{escape(_decision(told))}</b>: {escape(told.reason)}</div>')
    if told.answer is not None:
        parts.append(f"<blockquote>{escape(_short(told.answer, 600))}</blockquote>")
    if told.neighbours:
        rows = [
            (f"{each.similarity:.3f}", "same" if each.same_answer else "another", each.question)
            for each in told.neighbours
        ]
        parts.append(_table(("cosine", "answer", "stored question"), rows))
    if told.contributions:
        rows = [(f"{value:+.2f}", name, f"{told.features[name]:.3g}") for name, value in _weightiest(told)]
        parts.append(_table(("log odds of wrong", "feature", "value"), rows))
    if told.would_change:
        parts.append(f'<div style="{DIM}">would change it: {escape("; ".join(told.would_change[:5]))}</div>')
    return f'<div style="{BOX}">{"".join(parts)}</div>'


def replay_html(told: Replay) -> str:
    from chainops.cache.replay import HEADS, cells

    return f'<div style="{BOX}">{_table(HEADS, [cells(each) for each in told.scores])}</div>'


def _decision(told: Explanation) -> str:
    return "asked" if told.match is None else f"served ({told.match})"


def _weightiest(told: Explanation) -> list[tuple[str, float]]:
    return sorted(told.contributions.items(), key=lambda pair: -abs(pair[1]))[:8]


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    cell = f"padding:1px 10px 1px 0;text-align:left;border-bottom:1px solid {LINE}"
    head = "".join(f'<th style="{cell};{DIM};font-weight:normal">{escape(each)}</th>' for each in heads)
    body = "".join(
        "<tr>" + "".join(f'<td style="{cell}">{escape(each)}</td>' for each in row) + "</tr>" for row in rows
    )
    return f'<table style="border-collapse:collapse;margin:6px 0"><tr>{head}</tr>{body}</table>'


def _short(text: str, most: int) -> str:
    plain = " ".join(text.split())
    return plain if len(plain) <= most else f"{plain[: most - 1]}…"
