"""Keep leases alive while the work they stand for goes on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from chainops.core.forking import reset_in_child

LeaseKey = TypeVar("LeaseKey", bound=Hashable)
_Hold = tuple[float, Callable[[], None] | None]
"""Since when a lease is known to live, and whom to tell when it is lost."""


class Heartbeat(Generic[LeaseKey]):
    """Renews all leases this process holds at one place every third of their time to live.

    One daemon thread does it, from the first `hold` until nothing is held. A process that dies stops renewing,
    and others get its leases when their time is over. After a fork the child holds none: they are the parent's.

    A lease is lost when `renew` says so, or when it could not be renewed for its whole time to live.

    Args:
        renew: Called with all keys held, in the thread; gives those that are lost. It may raise: it is then
            tried again, and `error` tells.
        ttl_s: How long a lease lives without being renewed, in seconds. More than 0.
    """

    def __init__(self, renew: Callable[[list[LeaseKey]], set[LeaseKey]], *, ttl_s: float) -> None:
        self._renew, self.ttl_s = renew, ttl_s
        self.error: Exception | None = None
        """Why the last renewal failed; None when it did not."""
        self.reset()
        reset_in_child(self)

    def reset(self) -> None:
        """Hold nothing. For a forked child: the leases are its parent's."""
        self._changed = threading.Condition(threading.RLock())  # re-entrant, see `Signal`
        self._held: dict[LeaseKey, _Hold] = {}
        self._thread: threading.Thread | None = None

    def __len__(self) -> int:
        """Leases held."""
        return len(self._held)

    @property
    def is_beating(self) -> bool:
        """Whether the thread is at work."""
        thread = self._thread
        return thread is not None and thread.is_alive()

    def hold(self, key: LeaseKey, *, on_lost: Callable[[], None] | None = None) -> None:
        """Renew this lease, which was just taken, until it is released.

        Args:
            on_lost: Called once, in the heartbeat's thread, when the lease is lost. It must not raise or block.
        """
        with self._changed:
            self._held[key] = time.monotonic(), on_lost
            if not self.is_beating:
                self._thread = threading.Thread(target=self._beat, name="chainops-heartbeat", daemon=True)
                self._thread.start()

    def release(self, key: LeaseKey) -> bool:
        """Renew it no more. False when it was not held: it had been lost."""
        with self._changed:
            was_held = self._held.pop(key, None) is not None
            if not self._held:
                self._changed.notify_all()
            return was_held

    def _beat(self) -> None:
        while self._pause():
            with self._changed:
                held = dict(self._held)
            asked_at = time.monotonic()  # a lease lives from when the store was asked, not from when it answered
            lost: set[LeaseKey] = set()
            try:
                lost = self._renew(list(held))
                self.error = None
            except Exception as error:  # noqa: BLE001 (kept as a fact; leases that grow too old are lost)
                self.error = error
            self._note(held, lost, asked_at)

    def _pause(self) -> bool:
        """Let a third of the time to live pass; False, and the thread is over, when nothing is held any more."""
        with self._changed:
            self._changed.wait_for(lambda: not self._held, self.ttl_s / 3)
            if self._held:
                return True
            self._thread = None  # under the lock: a `hold` from now on starts another
            return False

    def _note(self, asked: dict[LeaseKey, _Hold], lost: set[LeaseKey], asked_at: float) -> None:
        told: list[Callable[[], None]] = []
        with self._changed:
            for key, hold in asked.items():
                if self._held.get(key) is not hold:
                    continue  # released meanwhile, or even taken anew: that was not asked about
                alive_since, on_lost = hold
                if self.error is None and key not in lost:
                    self._held[key] = max(asked_at, alive_since), on_lost
                elif key in lost or time.monotonic() - alive_since >= self.ttl_s:
                    del self._held[key]
                    told += [] if on_lost is None else [on_lost]
        for tell in told:
            tell()
