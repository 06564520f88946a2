"""The cache of a declared chain: its store, its judge, and the documents that its answers come from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from chainops.cache.component import SemanticCache
from chainops.cache.opening import open_comparer
from chainops.cache.settings import CacheSettings
from chainops.core.lazy import Lazy

if TYPE_CHECKING:
    from pathlib import Path

    from chainops.cache.replica import Replica
    from chainops.spec.build import Rest, Site


class ChainSources:
    """The chain's documents, as the cache looks at them (`cache.freshness.Sources`)."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def version(self) -> str:
        return self._site.knowledge().seen_version

    def uses(self, question: str) -> Mapping[str, Mapping[str, str]]:
        return self._site.retrieve.found(question).uses()


def cache(settings: CacheSettings, site: Site, rest: Rest) -> SemanticCache:
    """The wrapper at `rest`'s position. Those of one position share what they hold, whichever model answers inside."""
    replica = site.replicas.setdefault(rest.position, Lazy(lambda: _replica(settings, site, rest.position)))
    models = site.models
    component = SemanticCache(
        inner=rest(),
        replica=replica,
        settings=settings,
        answered_by=rest.answered_by,
        comparer=Lazy(lambda: open_comparer(settings, site.embedder)),
        judge_model=models.get(settings.compare),
        condenser=models.get(settings.follow_ups),
        sources=None if site.declared.knowledge is None else ChainSources(site),
        name="cache",
    )
    site.caches_of[rest.position, rest.model] = component
    site.caches.setdefault(rest.position, component)  # the first route's, where it is built for several
    return component


def _replica(settings: CacheSettings, site: Site, position: int) -> Replica:
    from chainops.cache.opening import open_replica

    owner = site.declared.name if position == min(site.replicas) else f"{site.declared.name}/{position}"
    declared = settings.store
    place: str | Path = site.store().url
    if declared is not None and "://" not in declared:
        settings, place = settings.model_copy(update={"store": None}), site.base / declared
    return open_replica(settings, site.embedder, owner=owner, place=place, folder=site.home / "cache")
