"""Whether an answer would still be given from the same passages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from chainops.cache.records import Entry


@runtime_checkable
class Sources(Protocol):
    """What answers are made from, beside models and prompts. The chain's builder hands it to the cache."""

    def version(self) -> str:
        """Changes whenever any document does. Cheap: asked at every request."""

    def uses(self, question: str) -> Mapping[str, Mapping[str, str]]:
        """What a question would be answered from now: `document` (id to digest) and `passage` (id to document), the
        best passage first. May take some ms.
        """


def is_current(entry: Entry, sources: Sources, version: str) -> bool:
    """Whether an answer still stands on its documents.

    It does when the passages it rests on would be found again, out of unchanged documents, and nothing that its model
    had not seen would now be found before the last of them. So a changed or removed document takes its answers along,
    and a new one those that it would have had a say in. An answer that did not know is out of date with any change.
    """
    if entry.knowledge == version:
        return True
    if entry.knowledge is None or entry.is_unknown:
        return False
    now = sources.uses(entry.question)
    digests, found = now.get("document", {}), list(now.get("passage", {}))
    rests_on, had_seen = entry.uses.get("passage", {}), entry.uses.get("seen", {})
    if any(digests.get(name) != digest for name, digest in entry.uses.get("document", {}).items()):
        return False
    if any(passage not in found for passage in rests_on):
        return False
    last = max((found.index(passage) for passage in rests_on), default=len(found))
    return all(passage in rests_on or passage in had_seen for passage in found[:last])
