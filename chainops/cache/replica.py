"""What this process holds of the cache: recent exact entries, one vector index per scope, and what was learned.

All of it is derived from the store and may be dropped at any time.
"""

from __future__ import annotations

import contextlib
import functools
import math
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from chainops.cache.background import UPKEEP
from chainops.cache.counts import Counts
from chainops.cache.evidence import NAMES
from chainops.cache.judge import Judge, Label
from chainops.cache.partitions import Neighbour, Partitions
from chainops.cache.policy import Key
from chainops.cache.records import CacheStore, Entry, Limits, Outline, Where
from chainops.cache.rejected import Rejected
from chainops.cache.sharing.leases import Leases
from chainops.core.errors import ChainopsError, StoreError, StoreUnavailable
from chainops.core.forking import reset_in_child

if TYPE_CHECKING:
    import numpy as np

    from chainops.models.embeddings import Embedder

FRESH_S = 1.0
"""How long an entry held in process is trusted before the store is asked again whether it still exists."""
HELD_WHILE_DOWN_S = 300.0
"""The same while the store cannot be reached: a deletion elsewhere cannot be heard of then."""
_RETRY_S = (0.25, 5.0)
"""After a failure the store is left alone this long: first, and at most."""
_EXACT_HELD = 4096
_EXACT_HELD_CHARS = 64_000_000
"""Of answers held in process, together: long ones are read from the store each time."""


class Replica:
    """One cache as this process sees it. Thread-safe; what other processes store is seen within a tenth of a second.

    Args:
        owner: Names the cache in its store.
        embedder: Gives the embedding model; opened when a similar question is first looked for.
        judge: Decides what may be served; fed here with what every process learned.
        folder: Where snapshots of large indexes lie; None: they are read from the store each time.
    """

    def __init__(
        self,
        store: CacheStore,
        embedder: Callable[[], Embedder],
        *,
        owner: str,
        judge: Judge,
        folder: Path | None = None,
    ) -> None:
        embedder = functools.cache(embedder)  # which one is meant takes longer to find out than a statement
        self.store, self._embedder, self.owner, self.judge = store, embedder, owner, judge
        self.notices: deque[str] = deque(maxlen=100)
        """What was repaired or could not be done on the side, such as a snapshot that was not written."""
        self.partitions = Partitions(store, embedder, owner=owner, folder=folder, notices=self.notices)
        self.counts = Counts(store, owner)
        self.leases = Leases(store, owner)
        self._rejected = Rejected(store, owner)
        self._begin()
        reset_in_child(self)

    def reset(self) -> None:
        """For a forked child: what a thread of its parent's may be changing is read anew."""
        self.judge.reset()
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._learning = threading.Lock()
        self._exact: OrderedDict[tuple[str, str], tuple[Entry, float]] = OrderedDict()
        self._held_chars = 0
        self._drops = 0
        """How often entries were taken out: what was read before is not held any more."""
        self._learned, self._learned_at = 0, float("-inf")
        self._kept = 0
        self._down: tuple[float, float, float] | None = None
        """Since when the store is down, when to try again, and how long to leave it alone after that."""

    # The store's health

    @property
    def is_down(self) -> bool:
        """Whether the store failed lately and is left alone for now."""
        down = self._down
        return down is not None and time.monotonic() < down[1]

    @contextlib.contextmanager
    def guarded(self) -> Iterator[None]:
        """Around calls to the store: fails at once while it is known to be down.

        Raises:
            StoreUnavailable: It cannot be reached, or could not be a moment ago.
        """
        if self.is_down:
            raise StoreUnavailable(self.store.place, "it could not be reached a moment ago", "it is tried again soon")
        down = self._down
        try:
            yield
        except StoreError:
            now = time.monotonic()
            with self._lock:
                if self._down in (down, None):  # of several that fail at the same moment only the first counts
                    since, _, pause = self._down or (now, now, _RETRY_S[0] / 2)
                    pause = min(pause * 2, _RETRY_S[1])
                    self._down = (since, now + pause, pause)
            raise

    @property
    def trouble(self) -> object:
        """What is known of the store's failure, for `recovered`; None when it did not fail."""
        return self._down

    def recovered(self, trouble: object) -> float | None:
        """After a call that went well: how long the store was down, told once; None if it was not.

        Args:
            trouble: What was known when the call began: it says nothing of a failure since.
        """
        if trouble is None:
            return None
        with self._lock:
            if self._down is not trouble:
                return None
            down, self._down = self._down, None
            self._forget_all()  # what was deleted elsewhere meanwhile is not known
        self.partitions.look_again()
        return None if down is None else time.monotonic() - down[0]

    def take_notices(self) -> list[str]:
        """What there is to tell, once."""
        taken = []
        with contextlib.suppress(IndexError):  # another thread may take the last one
            while self.notices:
                taken.append(self.notices.popleft())
        return taken

    # Exact repeats

    def held(self, key: Key, *, now_s: float) -> Entry | None:
        """An exact entry this process verified within the last second. Never blocks.

        Args:
            now_s: Monotonic.
        """
        with self._lock:
            found = self._exact.get((key.scope, key.exact))
        if found is None or now_s - found[1] >= (HELD_WHILE_DOWN_S if self.is_down else FRESH_S):
            return None
        return found[0]

    def exact(self, key: Key, *, now_s: float) -> Entry | None:
        """The entry of the same question, from the store."""
        drops = self._drops
        entry = self.store.exact(key.scope, key.exact)
        if entry is not None:
            self.hold(entry, now_s, drops=drops)
        return entry

    def hold(self, entry: Entry, now_s: float, *, drops: int | None = None) -> None:
        """Serve this to exact repeats for a while.

        Args:
            drops: `_drops` before it was read or stored; if entries were taken out since, it may be one of them.
        """
        size = _size(entry)
        if size > _EXACT_HELD_CHARS // 16:
            return
        with self._lock:
            if drops is not None and drops != self._drops:
                self._let_go(entry.scope, entry.exact)
                return
            held = self._exact.get((entry.scope, entry.exact))
            if held is not None and 0 < entry.seq < held[0].seq:
                return  # read before the one that is held took its place; what no store has (0) is the newest
            self._let_go(entry.scope, entry.exact)
            self._exact[entry.scope, entry.exact] = (entry, now_s)
            self._held_chars += size
            while len(self._exact) > _EXACT_HELD or self._held_chars > _EXACT_HELD_CHARS:
                self._let_go(*next(iter(self._exact)))

    def _let_go(self, scope: str, exact: str) -> None:
        held = self._exact.pop((scope, exact), None)
        if held is not None:
            self._held_chars -= _size(held[0])

    def _forget_all(self) -> None:
        self._exact.clear()
        self._held_chars = 0
        self._drops += 1

    # Similar questions

    def embed(self, question: str) -> np.ndarray | None:
        """The question's unit vector, shape (d,); None when the model gave numbers that are none."""
        try:
            vector = self._embedder().embed([question])[0]
        except ChainopsError:
            raise
        except Exception as error:  # noqa: BLE001 (whatever a model's own code raises costs similar hits, not the answer)
            self.notices.append(f"the embedding model failed: {error!r}")
            return None
        square = float(vector @ vector)
        return vector if math.isfinite(square) and square > 0.0 else None

    def embed_all(self, texts: list[str]) -> np.ndarray:
        """Shape (n, d), unit rows."""
        return self._embedder().embed(texts)

    @property
    def embedder_digest(self) -> str:
        return self._embedder().digest

    def neighbours(self, scope: str, vector: np.ndarray) -> list[Neighbour]:
        """The nearest stored questions of a scope, best first."""
        return self.partitions.nearest(scope, vector)

    def entry(self, outline: Outline, scope: str) -> Entry | None:
        """The whole entry, as the store has it now."""
        return self.store.entry_at(scope, outline.seq)

    # Keeping and dropping

    def keep(
        self,
        entry: Entry,
        vector: np.ndarray | None,
        *,
        now_s: float,
        limits: Limits,
        label: Label | None = None,
        over: int | None = None,
    ) -> tuple[Entry, list[str]] | None:
        """Store an answer. Blocks. Gives what was stored, and the ids of entries that had to make room.

        Args:
            over: Only in place of the entry with this number, or of none (0); None when that has changed.
        """
        drops = self._drops
        seq = self.store.put(entry, vector, label=label, over=over)
        if not seq:
            return None
        entry = replace(entry, seq=seq)
        self.hold(entry, now_s, drops=drops)
        told = (entry.question, entry.group, entry.tenant, entry.is_verified, entry.created_at, entry.knowledge)
        self.partitions.outlines.hold(entry.scope, [Outline(seq, entry.id, *told)])
        self.partitions.look_again(entry.scope)
        UPKEEP.submit(lambda: self.partitions.look_behind(entry.scope))
        if label is not None:
            self.learn()
        with self._lock:
            counts = self._kept % max(1, min(64, limits.entries // 100)) == 0
            self._kept += 1
        return entry, self.store.enforce(self.owner, limits, now=entry.created_at) if counts else []

    def learn_of(self, entry: Entry, *, group: str | None, label: Label | None) -> None:
        """Note what comparing a stored entry came to: whose answer it has, and what that teaches."""
        with self.guarded():
            if group is not None and self.store.update(entry.id, group=group):
                self.partitions.outlines.regroup(entry.scope, entry.seq, group)
            if label is not None:
                self.store.add_label(self.owner, label, tenant=entry.tenant, user=entry.user)
                self.learn()

    def rejects(self, mark: str) -> bool:
        """Whether this answer to this question was reported as wrong (`policy.rejected`). Blocks now and then."""
        return self._rejected.has(mark)

    def drop(self, where: Where, *, reason: str, now: float) -> list[str]:
        """Take entries out, here and in the store; their ids."""
        with self._rejected.dropping():
            gone = self.store.drop(self.owner, where, reason=reason, now=now)
        self.forget_held(set(gone))
        return gone

    def forget_held(self, ids: set[str]) -> None:
        """Drop what is held in process of these entries."""
        with self._lock:
            self._drops += 1
            for key in [key for key, (entry, _) in self._exact.items() if entry.id in ids]:
                self._let_go(*key)
        self.partitions.look_again()

    def clear(self) -> int:
        gone = self.store.clear(self.owner)
        with self._lock:
            self._forget_all()
        self.partitions.let_go()
        return gone

    def forget(self, *, user: str, tenant: str | None, now: float) -> int:
        """Delete what one user's requests left, here, in the store, and in snapshots. How many things that were."""
        gone = self.store.forget(user=user, tenant=tenant, now=now)
        with self._lock:
            self._forget_all()
        self.partitions.let_go(snapshots=gone > 0)  # files may hold vectors of what is gone: they are made again
        return gone

    # What was learned

    def learn(self) -> None:
        """Feed the judge what all processes learned since last time."""
        with self._learning:
            if numbered := self.store.labels(self.owner, self._learned):
                # Labels of other features were left by another version: they say nothing to this one.
                self.judge.learn_all(label for _, label in numbered if len(label.features) == len(NAMES))
                self._learned = numbered[-1][0]
            self._learned_at = time.monotonic()

    def catch_up_learning(self) -> None:
        """Learn what other processes learned, if that was not done within the last second."""
        if time.monotonic() - self._learned_at >= FRESH_S:
            self.learn()


def _size(entry: Entry) -> int:
    """About how many characters an entry's answer has."""
    said = entry.message.get("content", entry.message.get("text", ""))
    beside = {name: each for name, each in entry.message.items() if each is not said}
    return (
        len(entry.question)
        + len(said if isinstance(said, str) else str(said))
        + len(str(beside))
        + len(str(entry.facts))
    )
