"""The router of a declared chain: from its settings to a Runnable."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from langchain_core.runnables import Runnable

from chainops.resilience.component import ChainRoute, name_of
from chainops.spec.routing_settings import RouteSettings, same_names

if TYPE_CHECKING:
    from chainops.routing.component import Route
    from chainops.routing.records import Chooser
    from chainops.spec.build import Rest, Site


def route(settings: RouteSettings, site: Site, rest: Rest) -> Runnable[Any, Any]:
    """The router at `rest`'s position.

    Raises:
        BadExamples: See `routing.examples`.
        ChainFileError: A chain named as a route cannot be read.
    """
    built: dict[str, Runnable[Any, Any]] = {}

    def runnable(to: str | ChainRoute) -> Runnable[Any, Any]:
        """One for all routes that name the same model."""
        key = name_of(to)
        if key not in built:
            built[key] = site.chain(to.chain) if isinstance(to, ChainRoute) else rest(to)
        return built[key]

    named = {name: runnable(to) for name, to in settings.named().items()}
    if settings.by == "confidence":
        from chainops.routing.cascade import Cascade

        assert settings.first is not None
        assert settings.then is not None
        return Cascade(
            first=runnable(settings.first),
            then=runnable(settings.then),
            names=(name_of(settings.first), name_of(settings.then)),
            judge=settings.judge,
            at_least=settings.at_least,
            samples=settings.samples,
            name="route",
        )
    default = _default(settings, named, runnable)
    return _router(named, chooser(settings, site, rest.position), default)


def _router(named: dict[str, Runnable[Any, Any]], chooser: Chooser, default: str | None) -> Route:
    from chainops.routing.component import Route

    return Route(routes=named, chooser=chooser, default=default, name="route")


def _default(
    settings: RouteSettings,
    named: dict[str, Runnable[Any, Any]],
    runnable: Callable[[str | ChainRoute], Runnable[Any, Any]],
) -> str | None:
    """Who answers when nothing fits. Adds that route where it is none of the others."""
    if settings.by != "meaning":
        return next(iter(named))
    if settings.none is None:
        return None
    named.setdefault("none", runnable(settings.none))
    return "none"


def chooser(settings: RouteSettings, site: Site, position: int) -> Chooser:
    """What decides, for every `by` but confidence."""
    if settings.by == "meaning":
        return _meaning(settings, site, position)
    if settings.by == "complexity":
        from chainops.routing.complexity import ByComplexity

        assert settings.simple is not None
        assert settings.complex is not None
        names = name_of(settings.simple), name_of(settings.complex)
        return ByComplexity(*names, above=settings.above, embedder=site.embedder if settings.topic else None)
    if settings.by == "weight":
        from chainops.routing.weight import Weight

        experiment = settings.experiment or site.declared.name
        return Weight(settings.weights or {}, experiment=experiment, per=settings.per)
    from chainops.routing.moving import ByRecord

    assert settings.by in ("cost", "latency")
    return ByRecord(
        settings.named(),
        by="cost" if settings.by == "cost" else "latency",
        usd=_prices(settings, site),
        max_s=settings.max_s,
        explore=settings.explore,
    )


def _meaning(settings: RouteSettings, site: Site, position: int) -> Chooser:
    from chainops.routing.examples import NONE, read
    from chainops.routing.meaning import Meaning

    if isinstance(settings.examples, str):
        examples = read(site.base / settings.examples)
        try:
            same_names([name for name in examples if name is not None], settings.routes or {})
        except ValueError as error:
            from chainops.routing.records import BadExamples

            raise BadExamples(str(site.base / settings.examples), str(error), "name each route in both") from None
    else:
        examples = {None if name == NONE else name: texts for name, texts in (settings.examples or {}).items()}
    name = re.sub(r"[^A-Za-z0-9._-]", "_", site.declared.name)
    path = site.home / "routing" / f"{name}-{position}.npz"
    return Meaning(site.embedder, examples, path=path, false_rejects=settings.false_rejects)


_TYPICAL = {"input_tokens": 1000, "output_tokens": 300, "total_tokens": 1300}
"""Of a call that routes are compared by: a question with some passages, and a paragraph."""


def _prices(settings: RouteSettings, site: Site) -> dict[str, float | None]:
    """USD of a typical call of each route that is a model."""
    from chainops.models.prices import cost_usd

    models = site.declared.models
    return {
        name: cost_usd(models[to].model, _TYPICAL, price=models[to].price, base_url=models[to].base_url).usd
        for name, to in settings.named().items()
        if isinstance(to, str)
    }
