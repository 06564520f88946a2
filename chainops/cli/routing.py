"""`chainops route`: what a router learnt, and where a question goes."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from chainops.core.errors import InvalidInput

if TYPE_CHECKING:
    from chainops.routing.meaning import Meaning

app = typer.Typer(help="A chain's router: fit it, and see why it decides as it does.", no_args_is_help=True)

ChainPath = Annotated[Path, typer.Argument(help="The chain file.", exists=True, dir_okay=False, show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")]


@app.command()
def fit(chain: ChainPath, as_json: AsJson = False) -> None:
    """Fit a router by meaning on its examples, and judge it by cross-validation."""
    chooser, settings = _router(chain)
    if settings.by != "meaning":
        raise InvalidInput(str(chain), f"a router by {settings.by}", "one by meaning: the others have nothing to fit")
    began = time.perf_counter()
    fitted = chooser.fitted()
    told = _told(chooser, time.perf_counter() - began)
    if fitted.not_kept:
        typer.echo(f"note: the fit could not be kept: {fitted.not_kept}", err=True)
    typer.echo(json.dumps(told, ensure_ascii=False) if as_json else "\n".join(_table(told)))


@app.command()
def explain(
    chain: ChainPath,
    question: Annotated[str, typer.Argument(help="The question.")],
    user: Annotated[str | None, typer.Option(help="As asked by this user.")] = None,
    session: Annotated[str | None, typer.Option(help="As asked in this session.")] = None,
    as_json: AsJson = False,
) -> None:
    """Where a question would go, and why. Nothing is answered."""
    from chainops.core.caller import Caller
    from chainops.routing.records import Asking

    chooser, settings = _router(chain)
    if settings.by == "confidence":
        raise InvalidInput(str(chain), "a router by confidence", "`chainops ask`: the first answer decides")
    if not question.strip():
        raise InvalidInput("question", "no words", "a question")
    prepared = chooser.prepare(question) if chooser.is_slow else None
    choice = chooser.choose(Asking(question, Caller(user=user, session=session), prepared))
    route = choice.route or ("none" if settings.none is not None else None)
    told = {
        "route": route,
        "answered_by": None if route is None else _answers(settings, route),
        "by": settings.by,
        "why": choice.why,
        "score": choice.score,
        "runners_up": dict(choice.runners_up),
        **choice.facts,
    }
    typer.echo(json.dumps(told, ensure_ascii=False) if as_json else "\n".join(_lines(told)))


def _router(path: Path) -> tuple[Any, Any]:
    """The chain's outermost router: its chooser (None by confidence) and its settings."""
    from chainops.spec.chain import load
    from chainops.spec.routing import chooser

    loaded = load(path)
    for position, entry in enumerate(loaded.declared.pipeline):
        if entry.word == "route":
            made = None if entry.settings.by == "confidence" else chooser(entry.settings, loaded.site, position)
            return made, entry.settings
    raise InvalidInput(str(path), "no router", "a chain with `route` in its pipeline")


def _answers(settings: Any, route: str) -> str:
    to = settings.named().get(route, settings.none)
    return to if isinstance(to, str) else f"chain {to.chain}"


def _told(chooser: Meaning, took_s: float) -> dict[str, Any]:
    fitted = chooser.fitted()
    nearest, validation = fitted.nearest, fitted.validation
    thresholds = dict(zip(nearest.groups, nearest.thresholds.tolist(), strict=True))
    return {
        "examples": sum(map(len, chooser.examples.values())),
        "is_new": fitted.is_new,
        "took_s": round(took_s, 2),
        "folds": validation.folds,
        "accuracy": _rounded(validation.accuracy),
        "false_rejects": _rounded(validation.false_rejects),
        "none_recall": _rounded(validation.none_recall),
        "routes": {
            route: {
                "examples": len(chooser.examples[route]),
                "accuracy": _rounded(judged[1]),
                "false_rejects": _rounded(judged[2]),
                "threshold": _rounded(thresholds[route]),
            }
            for route in chooser.names
            for judged in [validation.by_group.get(route, (0, None, None))]
        },
        "confusions": [list(each) for each in validation.confusions[:10]],
    }


def _rounded(value: float | None) -> float | None:
    """None for what is not known, or not finite: no example was left to judge it by."""
    return round(value, 4) if value is not None and abs(value) < float("inf") else None


def _table(told: dict[str, Any]) -> list[str]:
    state = f"fitted in {told['took_s']} s" if told["is_new"] else "as fitted before; the examples are the same"
    lines = [f"{len(told['routes'])} routes, {told['examples']} examples: {state}"]
    if told["accuracy"] is None:
        lines.append("not judged: cross-validation needs two examples of a route at least")
    else:
        none = "" if told["none_recall"] is None else f", of those of no route {told['none_recall']:.1%}"
        lines.append(
            f"on examples it did not see ({told['folds']} folds): {told['accuracy']:.1%} to their own route, "
            f"{told['false_rejects']:.1%} turned away{none}"
        )
    width = max(5, *map(len, told["routes"]))
    lines.append(f"{'route':<{width}}{'examples':>10}{'accuracy':>10}{'turned away':>13}{'threshold':>11}")
    for name, each in told["routes"].items():
        cells = (("accuracy", 10), ("false_rejects", 13), ("threshold", 11))
        shown = "".join(f"{'-' if each[key] is None else format(each[key], '.3f'):>{size}}" for key, size in cells)
        lines.append(f"{name:<{width}}{each['examples']:>10}{shown}")
    if told["confusions"]:
        lines.append("taken for another: " + ", ".join(f"{a} for {b} ({n})" for a, b, n in told["confusions"]))
    return lines


def _lines(told: dict[str, Any]) -> list[str]:
    lines = [f"{told['route'] or 'no route'}" + (f" ({told['answered_by']})" if told["answered_by"] else "")]
    lines.append(f"because {told['why']}")
    if told["runners_up"]:
        others = (f"{name}" + ("" if score is None else f" {score:g}") for name, score in told["runners_up"].items())
        lines.append("runners-up: " + ", ".join(others))
    lines += [
        f"  {name:<24}{value:+.4f}"
        for name, value in sorted(told.get("features", {}).items(), key=lambda each: -abs(each[1]))
    ]
    return lines
