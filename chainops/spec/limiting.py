"""The limits of a declared chain: its own, and those of its models' keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chainops.core.lazy import Lazy
from chainops.models.limits import ModelLimits
from chainops.models.providers import ModelSettings, key_pool
from chainops.resilience.limits.component import KeyGate, Limits, LimitsSettings, Pools, amounts_of, limits
from chainops.resilience.limits.opening import open_keeper
from chainops.resilience.limits.permits import Queue

if TYPE_CHECKING:
    from chainops.models.key_pool import KeyPool
    from chainops.resilience.limits.keeper import Keeper
    from chainops.spec.build import Rest, Site


def limit(settings: LimitsSettings, site: Site, rest: Rest) -> Limits:
    """The wrapper at `rest`'s position. However many routes it is built for, what it counts is one."""
    built = site.limits
    first = built.get(rest.position)
    if first is None:
        name = f"{site.declared.name}/{rest.position}"
        first = built[rest.position] = limits(rest(), settings, name=name, keeper=_keeper(settings.store, site))
        return first
    return first.model_copy(update={"inner": rest()})


def limits_of(site: Site) -> tuple[Limits, ...]:
    """Those built so far, from the outside in: for `stats()`."""
    return tuple(each for _, each in sorted(site.limits.items()))


def limited_keys(settings: ModelSettings, site: Site) -> KeyPool | None:
    """A model's keys, each behind its own limits. What the provider says counts also where nothing is declared."""
    pool = key_pool(settings)
    if pool is None:
        return None
    declared = settings.limits or ModelLimits(store="process")  # nothing but what the provider says of each key
    amounts = amounts_of(declared.requests_per_minute, declared.tokens_per_minute, declared.concurrency)
    queue = Queue(declared.queue.most, declared.queue.wait_s)
    # In a shared store a key has one limit, whichever chain or name of a model it is used by.
    pools = Pools(f"{settings.model} {settings.base_url or ''}", amounts, queue, _keeper(declared.store, site))
    for key in pool.keys:
        gate = KeyGate(pools.of(key.name, key.name, ceiling=key))
        key.gates, key.load = (gate,), gate.load
        key.changed.append(gate.pool.pump)
    return pool


def _keeper(store: str, site: Site) -> Lazy[Keeper] | None:
    if store == "process":
        return None
    return Lazy(lambda: open_keeper(site.store().url if store == "chain" else store))
