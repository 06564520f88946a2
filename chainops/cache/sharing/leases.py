"""Which process answers a question: one call across all that share a store."""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from typing import TYPE_CHECKING

from chainops.cache.records import CacheStore, Lease
from chainops.cache.sharing.heartbeat import Heartbeat
from chainops.core.errors import StoreError
from chainops.core.forking import reset_in_child

if TYPE_CHECKING:
    import numpy as np

TTL_S = 5.0
"""How long a lease outlives the process that held it: so long others wait before one takes over."""


class Leases:
    """The leases this process holds on one cache's questions, kept alive until they are released."""

    def __init__(self, store: CacheStore, owner: str, *, ttl_s: float = TTL_S) -> None:
        self._store, self._owner, self._ttl_s = store, owner, ttl_s
        self.reset()
        reset_in_child(self)
        self._heartbeat: Heartbeat[tuple[str, str]] = Heartbeat(self._renew, ttl_s=ttl_s)

    def reset(self) -> None:
        """For a forked child: it is another process than its parent."""
        self.holder = uuid.uuid4().hex
        """Names this process."""

    def take(self, scope: str, exact: str, *, question: str, vector: np.ndarray | None, now: float) -> Lease | None:
        """Take the lease, or give the one that another process holds."""
        kept = None if vector is None else vector.astype("<f4").tobytes()
        mine = Lease(scope, exact, self.holder, question, kept, now + self._ttl_s)
        other = self._store.lease(self._owner, mine, now=now)
        if other is None:
            self._heartbeat.hold((scope, exact))
        return other

    def release(self, scope: str, exact: str) -> None:
        """Give the lease back, if it is still held. Blocks."""
        if self._heartbeat.release((scope, exact)):
            self._store.release(self.holder, scope, exact)

    def let_go(self, scope: str, exact: str) -> None:
        """Give the lease back without waiting, for those who may not: a thread does it, or the end of its time."""
        if self._heartbeat.release((scope, exact)):
            threading.Thread(target=self._release, args=(scope, exact), daemon=True).start()

    def _release(self, scope: str, exact: str) -> None:
        with contextlib.suppress(StoreError):  # it ends by itself
            self._store.release(self.holder, scope, exact)

    def others(self, scope: str, *, now: float) -> list[Lease]:
        """What other processes are answering in this scope."""
        return [each for each in self._store.leases(scope, now=now) if each.holder != self.holder]

    def _renew(self, held: list[tuple[str, str]]) -> set[tuple[str, str]]:
        return self._store.renew(self.holder, held, until=time.time() + self._ttl_s)


def similarity(lease: Lease, vector: np.ndarray) -> float | None:
    """Cosine of a question being answered and another; None where it has no vector of the same kind."""
    import numpy as np

    if lease.vector is None:
        return None
    other = np.frombuffer(lease.vector, dtype="<f4")
    return float(other @ vector) if other.shape == vector.shape else None
