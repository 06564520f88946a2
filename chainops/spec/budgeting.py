"""The budget and the breakers of a declared chain: what they share, and what answers instead."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from langchain_core.runnables import Runnable

from chainops.core.lazy import Lazy
from chainops.resilience.breaker.circuit import Circuit
from chainops.resilience.breaker.component import Breaker
from chainops.resilience.breaker.policy import BreakerSettings
from chainops.resilience.budgets.books import Books
from chainops.resilience.budgets.component import Budget
from chainops.resilience.budgets.policy import BudgetSettings, Reviewing, Routing, Saying
from chainops.resilience.component import Sentence

if TYPE_CHECKING:
    from chainops.resilience.breaker.records import Circuits
    from chainops.resilience.budgets.records import Counters
    from chainops.spec.build import Rest, Site
    from chainops.stores.sql import SqlStore

ASKED = "A colleague will answer this."
"""What is said when a person is asked instead."""
_lock = threading.Lock()
_books: dict[tuple[str, str], Books] = {}
"""One for each pair of places in this process, whose writer they share."""


def budget(settings: BudgetSettings, site: Site, rest: Rest) -> Budget:
    """The wrapper at `rest`'s position."""
    at_soft, at_hard = settings.at_soft, settings.at_hard
    otherwise: Runnable[Any, Any] | None = None
    if isinstance(at_hard, Saying):
        otherwise = Sentence(text=at_hard.say, name="say")
    elif isinstance(at_hard, Routing):
        otherwise = rest(at_hard.route)
    elif at_hard != "refuse":
        from chainops.spec.resilient import people

        otherwise = people(site, at_hard.review if isinstance(at_hard, Reviewing) else ASKED)
    same = [position for position, each in enumerate(site.declared.pipeline) if each.word == "budget"]
    return Budget(
        inner=rest(),
        books=Lazy(lambda: open_books(settings, site)),
        settings=settings,
        chain=site.declared.name,
        cheaper=rest(at_soft.route) if isinstance(at_soft, Routing) else None,
        otherwise=otherwise,
        name="budget" if rest.position == same[0] else f"budget {same.index(rest.position) + 1}",
    )


def models_of_budget(settings: BudgetSettings) -> Iterable[tuple[tuple[str | int, ...], str]]:
    """The models it names, for `Wrapper.models_named`."""
    for word, said in (("at_soft", settings.at_soft), ("at_hard", settings.at_hard)):
        if isinstance(said, Routing):
            yield (word, "route"), said.route


def breaker(settings: BreakerSettings, site: Site, rest: Rest) -> Breaker:
    """The wrapper at `rest`'s position, for the model that answers inside. However often one is built for a model,
    they share its circuit.
    """
    model = rest.model or next(iter(site.declared.models))
    name = f"{site.declared.name}/{model}"
    with _lock:
        known = site.circuits
        if (circuit := known.get((rest.position, model))) is None:
            circuit = known[rest.position, model] = Circuit(name, settings, Lazy(lambda: open_circuits(settings, site)))
    return Breaker(inner=rest(), settings=settings, circuit=circuit, name=f"breaker of {model}")


def open_books(settings: BudgetSettings, site: Site) -> Books:
    """Where a budget's spending is kept: one object for one place, within this process."""
    from chainops.resilience.budgets.sql_counters import SqlCounters
    from chainops.resilience.budgets.sql_ledger import SqlLedger

    calls = site.store()
    place = settings.store or calls.url
    if "://" not in place:
        place = str(site.base / place)
    with _lock:
        if (found := _books.get((place, calls.url))) is None:
            counters: Counters
            if _is_redis(place):
                from chainops.resilience.budgets.redis_counters import RedisCounters
                from chainops.stores.redis import redis_store

                counters = RedisCounters(redis_store(place))
            else:
                counters = SqlCounters(_sql(settings.store, site))
            found = _books[place, calls.url] = Books(counters, SqlLedger(calls))
    return found


def written(site: Site, timeout_s: float = 2.0) -> None:
    """Wait for what this process has still to write down of this chain's calls. An unreachable store is waited for no
    longer than `timeout_s`.
    """
    place = site.store().url
    with _lock:
        open_now = [books for (_, calls), books in _books.items() if calls == place]
    for books in open_now:
        books.flush(timeout_s)


def open_circuits(settings: BreakerSettings, site: Site) -> Circuits:
    """Where breakers of several processes meet."""
    if settings.store is not None and _is_redis(settings.store):
        from chainops.resilience.breaker.redis_circuits import RedisCircuits
        from chainops.stores.redis import redis_store

        return RedisCircuits(redis_store(settings.store))
    from chainops.resilience.breaker.sql_circuits import SqlCircuits

    return SqlCircuits(_sql(settings.store, site))


def _sql(declared: str | None, site: Site) -> SqlStore:
    from chainops.stores.sql import open_store

    if declared is None:
        return site.store()
    return open_store(declared if "://" in declared else site.base / declared)


def _is_redis(place: str) -> bool:
    return place.startswith(("redis://", "rediss://", "unix://"))
