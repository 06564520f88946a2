"""From the words of a chain file to what keeps a chain answering: fallback, retry, hedge, deadline."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from chainops.core.lazy import Lazy
from chainops.resilience.component import (
    ChainRoute,
    Fallback,
    FallbackSettings,
    ReviewRoute,
    Route,
    SaySettings,
    Sentence,
    StaleRoute,
    name_of,
)
from chainops.resilience.deadline import Deadline, DeadlineSettings
from chainops.resilience.hedging import Hedge, HedgeSettings, Patience
from chainops.resilience.retrying import Retry, RetrySettings

if TYPE_CHECKING:
    from langchain_core.runnables import Runnable

    from chainops.review.component import AskPeople
    from chainops.spec.build import Rest, Site

Named = Iterable[tuple[tuple[str | int, ...], str]]


def models_of_fallback(settings: FallbackSettings) -> Named:
    for position, route in enumerate(settings.routes):
        if isinstance(route, str):
            yield ("routes", position), route


def chains_of_fallback(settings: FallbackSettings) -> Named:
    for position, route in enumerate(settings.routes):
        if isinstance(route, ChainRoute):
            yield ("routes", position, "chain"), route.chain


def wrappers_of_fallback(settings: FallbackSettings) -> Named:
    for position, route in enumerate(settings.routes):
        if isinstance(route, StaleRoute):
            yield ("routes", position, "stale_cache"), "cache"


def fallback(settings: FallbackSettings, site: Site, rest: Rest) -> Fallback:
    """Begins with the model that a wrapper further out chose, listed here or not; the others follow in their order."""
    routes = list(settings.routes)
    if rest.model is not None:
        routes = [rest.model, *(each for each in routes if each != rest.model)]
    return Fallback(
        routes=tuple(_route(route, site, rest) for route in routes),
        names=tuple(map(name_of, routes)),
        on_cut=settings.on_cut,
        name="fallback",
    )


def _route(route: Route, site: Site, rest: Rest) -> Runnable[Any, Any]:
    match route:
        case str():
            return rest(route)
        case SaySettings():
            return Sentence(text=route.say, name="say")
        case ChainRoute():
            return site.chain(route.chain)
        case StaleRoute():
            return site.stale_answers(rest.position, rest.model)
        case ReviewRoute():
            return people(site, route.review)


def people(site: Site, text: str) -> AskPeople:
    """Hands the question to people and says `text`."""
    from chainops.review.component import AskPeople
    from chainops.review.records import Reviews

    return AskPeople(reviews=Lazy(lambda: Reviews(site.store())), text=text, name="review")


def retry(settings: RetrySettings, _: Site, rest: Rest) -> Retry:
    return Retry(
        inner=rest(), attempts=settings.attempts, base_s=settings.base_s, max_wait_s=settings.max_wait_s, name="retry"
    )


def models_of_hedge(settings: HedgeSettings) -> Named:
    yield ("model",), settings.model


def hedge(settings: HedgeSettings, site: Site, rest: Rest) -> Hedge:
    first = rest.model or next(iter(site.declared.models))
    return Hedge(
        inner=rest(),
        other=rest(settings.model),
        names=(first, settings.model),
        after_s=None if settings.after == "p95" else settings.after,
        patience=Patience(settings.at_first_s),
        name="hedge",
    )


def deadline(settings: DeadlineSettings, _: Site, rest: Rest) -> Deadline:
    return Deadline(inner=rest(), within_s=settings.within_s, shares=settings.shares, name="deadline")
