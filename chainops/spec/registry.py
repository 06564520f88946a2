"""The closed list of what a pipeline may hold. A chain file names words, never Python."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from langchain_core.runnables import Runnable
from pydantic import BaseModel

from chainops.cache.settings import CacheSettings
from chainops.resilience.breaker.policy import BreakerSettings
from chainops.resilience.budgets.policy import BudgetSettings
from chainops.resilience.component import FallbackSettings
from chainops.resilience.deadline import DeadlineSettings
from chainops.resilience.hedging import HedgeSettings
from chainops.resilience.limits.component import LimitsSettings
from chainops.resilience.retrying import RetrySettings
from chainops.spec import budgeting, resilient, routing_settings
from chainops.spec.routing_settings import RouteSettings

if TYPE_CHECKING:
    from chainops.spec.build import Rest, Site

PLUGINS = "chainops.wrappers"
"""Entry point group: an installed package may add a word by naming a `Wrapper` there."""


@dataclass(frozen=True)
class Wrapper:
    """A word of the pipeline."""

    word: str
    settings: type[BaseModel]
    build: Callable[[Any, Site, Rest], Runnable[Any, Any]]
    says: str
    """One line for people: what it does."""
    alone: str | None = None
    """The setting whose value may stand alone: `fallback: [a, b]` means `fallback: {routes: [a, b]}`."""
    models_named: Callable[[Any], Iterable[tuple[tuple[str | int, ...], str]]] = lambda _: ()
    """The models it names, each with its path inside the settings: checked against `models`."""
    chains_named: Callable[[Any], Iterable[tuple[tuple[str | int, ...], str]]] = lambda _: ()
    """The chain files it names as routes, likewise: what they say is part of what answers inside it."""
    files_named: Callable[[Any], Iterable[tuple[tuple[str | int, ...], str]]] = lambda _: ()
    """Other files it reads, from the folder of the chain file: the same."""
    wrappers_named: Callable[[Any], Iterable[tuple[tuple[str | int, ...], str]]] = lambda _: ()
    """The wrappers that have to be in the pipeline too, each with the path of the setting that needs it."""

    def prepared(self, value: Any) -> Any:
        """The settings' full form, from what the file says."""
        if self.alone is None or value is None or isinstance(value, Mapping):
            return value
        return {self.alone: value}

    @staticmethod
    def words() -> list[str]:
        return sorted({*_BUILT_IN, *_plugins()})


def wrapper(word: str) -> Wrapper | None:
    """The wrapper behind a word; None for an unknown one. Only installed plugins are ever imported."""
    return _BUILT_IN.get(word) or _plugins().get(word)


@functools.cache
def _plugins() -> dict[str, Wrapper]:
    found = {}
    for point in entry_points(group=PLUGINS):
        plugin = point.load()
        if not isinstance(plugin, Wrapper):
            raise TypeError(f"entry point {point.name!r} of {PLUGINS} ({point.value}) is no chainops Wrapper")
        found[plugin.word] = plugin
    return found


def _cache(settings: CacheSettings, site: Site, rest: Rest) -> Runnable[Any, Any]:
    from chainops.spec.caching import cache

    return cache(settings, site, rest)


def _route(settings: RouteSettings, site: Site, rest: Rest) -> Runnable[Any, Any]:
    from chainops.spec.routing import route

    return route(settings, site, rest)


def _limits(settings: LimitsSettings, site: Site, rest: Rest) -> Runnable[Any, Any]:
    from chainops.spec.limiting import limit

    return limit(settings, site, rest)


def _models_of_cache(settings: CacheSettings) -> Iterable[tuple[tuple[str | int, ...], str]]:
    if settings.compare not in ("auto", "exact"):
        yield ("compare",), settings.compare
    if settings.follow_ups not in ("rules", "exact"):
        yield ("follow_ups",), settings.follow_ups


_BUILT_IN = {
    each.word: each
    for each in (
        Wrapper(
            "cache",
            CacheSettings,
            _cache,
            "serves repeated and similar questions from what was answered before",
            models_named=_models_of_cache,
        ),
        Wrapper(
            "fallback",
            FallbackSettings,
            resilient.fallback,
            "asks the next route when one fails",
            alone="routes",
            models_named=resilient.models_of_fallback,
            chains_named=resilient.chains_of_fallback,
            wrappers_named=resilient.wrappers_of_fallback,
        ),
        Wrapper("retry", RetrySettings, resilient.retry, "asks again what failed for a reason that passes"),
        Wrapper(
            "hedge",
            HedgeSettings,
            resilient.hedge,
            "asks a second model when the first is slow",
            models_named=resilient.models_of_hedge,
        ),
        Wrapper(
            "deadline",
            DeadlineSettings,
            resilient.deadline,
            "bounds the time of an answer and of its stages",
            alone="within_s",
        ),
        Wrapper(
            "route",
            RouteSettings,
            _route,
            "asks the route that fits, and says why",
            models_named=routing_settings.models_named,
            chains_named=routing_settings.chains_named,
            files_named=routing_settings.files_named,
        ),
        Wrapper("limits", LimitsSettings, _limits, "lets in so many requests, tokens and calls at a time"),
        Wrapper(
            "budget",
            BudgetSettings,
            budgeting.budget,
            "bounds what may be spent",
            models_named=budgeting.models_of_budget,
        ),
        Wrapper("breaker", BreakerSettings, budgeting.breaker, "leaves a model alone that is known to be broken"),
    )
}
