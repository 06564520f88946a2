"""The closed list of what a pipeline may hold. A chain file names words, never Python."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from langchain_core.runnables import Runnable
from pydantic import BaseModel

from chainops.cache.settings import CacheSettings
from chainops.resilience.component import Fallback, FallbackSettings, SaySettings, Sentence

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
    prepared: Callable[[Any], Any] = lambda value: value
    """Turns a shorthand into the settings' full form."""
    models_named: Callable[[Any], Iterable[tuple[tuple[str | int, ...], str]]] = lambda _: ()
    """The models it names, each with its path inside the settings: checked against `models`."""

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


def _models_of_cache(settings: CacheSettings) -> Iterable[tuple[tuple[str | int, ...], str]]:
    if settings.compare not in ("auto", "exact"):
        yield ("compare",), settings.compare
    if settings.follow_ups not in ("rules", "exact"):
        yield ("follow_ups",), settings.follow_ups


def _routes(value: Any) -> Any:
    return {"routes": value} if isinstance(value, list | tuple) else value


def _fallback(settings: FallbackSettings, _: Site, rest: Rest) -> Runnable[Any, Any]:
    routes = [
        Sentence(text=route.say, name="say") if isinstance(route, SaySettings) else rest(route)
        for route in settings.routes
    ]
    names = tuple("say" if isinstance(route, SaySettings) else route for route in settings.routes)
    return Fallback(routes=tuple(routes), names=names, name="fallback")


def _named_routes(settings: FallbackSettings) -> Iterable[tuple[tuple[str | int, ...], str]]:
    for position, route in enumerate(settings.routes):
        if isinstance(route, str):
            yield (position,), route


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
            _fallback,
            "asks the next model when one fails",
            prepared=_routes,
            models_named=_named_routes,
        ),
    )
}
