"""The examples a router by meaning is fitted on: read, and checked."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from chainops.routing.records import BadExamples

NONE = "none"
"""In a file of examples: what belongs to no route (so does an empty or missing `route`)."""

Examples = dict[str | None, tuple[str, ...]]
"""By route; None: of what belongs to none of them."""


def checked(examples: Mapping[str | None, Iterable[str]], place: str = "examples") -> Examples:
    """The examples without repetitions.

    Raises:
        BadExamples: Fewer than two routes, a route without an example, one without words, or the same in two routes.
    """
    kept: Examples = {}
    seen: dict[str, str | None] = {}
    for route, texts in examples.items():
        if isinstance(texts, str):
            raise BadExamples(place, f"route {route!r} has a string", "write a list of examples")
        mine: list[str] = []
        for text in texts:
            same = " ".join(text.lower().split()) if isinstance(text, str) else ""
            if not same:
                raise BadExamples(place, f"route {route!r} has an example without words", "take it out")
            if same in seen and seen[same] != route:
                both = f"{seen[same] or NONE!r} and {route or NONE!r}"
                raise BadExamples(place, f"{text!r} is an example of both {both}", "leave it in one of them")
            if same not in seen:
                mine.append(text)
            seen[same] = route
        if not mine and route is not None:
            raise BadExamples(place, f"route {route!r} has no examples", "give it three or more")
        if mine:
            kept[route] = tuple(mine)
    routes = [each for each in kept if each is not None]
    if not routes:
        raise BadExamples(place, "there are no examples", "give each route three or more")
    if len(routes) < 2 and None not in kept:
        raise BadExamples(place, f"there is only one route, {routes[0]!r}", "declare another one, or no router at all")
    return kept


def read(path: Path) -> Examples:
    """Examples from a file: JSON lines with `route` and `text`, or CSV with these columns.

    Raises:
        BadExamples: No such file, or a line that is not one.
    """
    if not path.is_file():
        raise BadExamples(str(path), "there is no such file", "name one beside the chain file, .jsonl or .csv")
    rows = _csv_rows(path) if path.suffix.lower() == ".csv" else _json_rows(path)
    found: dict[str | None, list[str]] = {}
    for number, row in rows:
        text, route = row.get("text"), row.get("route")
        if not isinstance(text, str) or not (route is None or isinstance(route, str)):
            problem = f"line {number} has no `text`" if not isinstance(text, str) else f"line {number}: route {route!r}"
            raise BadExamples(str(path), problem, 'write {"route": "billing", "text": "..."}')
        found.setdefault(None if route in (None, "", NONE) else route, []).append(text)
    return checked(found, str(path))


def _json_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError:
                row = None
            if not isinstance(row, dict):
                raise BadExamples(str(path), f"line {number} is no JSON object", "write one object per line")
            yield number, row


def _csv_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    with path.open(encoding="utf-8", newline="") as file:
        yield from enumerate(csv.DictReader(file), start=2)


def flat(examples: Examples) -> tuple[list[str], list[str | None]]:
    """All texts, and the route of each, in a fixed order."""
    order: Sequence[str | None] = sorted(examples, key=lambda route: (route is None, route or ""))
    pairs = [(text, route) for route in order for text in examples[route]]
    return [text for text, _ in pairs], [route for _, route in pairs]
