"""The one in a process that talks to a bank, for all accounts leased from it."""

from __future__ import annotations

import atexit
import contextlib
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from chainops.core.clock import Clock, current_clock
from chainops.core.errors import StoreError
from chainops.resilience.limits.records import Bank
from chainops.stores import fork

if TYPE_CHECKING:
    from chainops.resilience.limits.leasing import LeasedAccount

BEAT_S = 0.4
"""How often a process tells the bank what it holds, gives back what it does not need, and leases ahead."""
_SOONEST_S = 0.02
_AT_ONCE = 100
"""Keys in one step: a store answers nobody else meanwhile."""


class Keeper:
    """Asks the bank, one question at a time, and keeps what is leased alive.

    One daemon thread does the keeping, from the first permit until nothing is held any more. When the process ends,
    all goes back; when it is killed, its seats are free after `exchange.TTL_MS`, and what it had not used of its
    blocks lapses with the window.

    Args:
        has_thread: False: nothing is kept but by calls of `exchange`; for tests.
    """

    def __init__(self, bank: Bank, clock: Clock | None = None, *, has_thread: bool = True) -> None:
        self.bank, self._has_thread = bank, has_thread
        self.clock = clock or current_clock()
        self._begin()
        fork.watch(self)
        atexit.register(_close, weakref.ref(self))

    def _begin(self) -> None:
        self._asking = threading.Lock()
        self._lock = threading.RLock()
        self._accounts: set[LeasedAccount] = set()
        self._thread: threading.Thread | None = None
        self._hurry = threading.Event()
        self._is_closed = False

    def watch(self, account: LeasedAccount) -> None:
        """Something is held for this account from now on."""
        if account in self._accounts:
            return
        with self._lock:
            self._accounts.add(account)
            if self._thread is None and self._has_thread and not self._is_closed:
                self._thread = threading.Thread(target=self._beat, name="chainops-limits", daemon=True)
                self._thread.start()

    def hurry(self) -> None:
        """There is something that others wait for."""
        self._hurry.set()

    def exchange(self, accounts: Sequence[LeasedAccount], now: Callable[[], float] | None = None) -> None:
        """Tell and ask the bank, for these accounts. Blocks.

        Args:
            now: Asked when it is their turn: a permit's time does not run while others ask.
        """
        with self._asking:
            self._exchange(accounts, now or self.clock.monotonic)
        for account in accounts:
            account.changed(self.clock.monotonic())

    def _exchange_if_open(self, accounts: Sequence[LeasedAccount]) -> None:
        """After the farewell nothing is leased ahead."""
        with self._asking:
            if self._is_closed:
                return
            self._exchange(accounts, self.clock.monotonic)
        for account in accounts:
            account.changed(self.clock.monotonic())

    def _exchange(self, accounts: Sequence[LeasedAccount], now: Callable[[], float]) -> None:
        asked_at = now()
        asks = [(account.key, account.ask(asked_at)) for account in accounts]
        try:
            given = self.bank.exchange(asks)
        except StoreError as error:
            for account, (_, ask) in zip(accounts, asks, strict=True):
                account.lost(ask, str(error))
        else:
            heard_at = self.clock.monotonic()
            for account, (_, ask), each in zip(accounts, asks, given, strict=True):
                account.hear(ask, each, asked_at, heard_at)

    def close(self) -> None:
        """Give all back. Blocks."""
        with self._lock:
            self._is_closed = True
            accounts = list(self._accounts)
            self._accounts.clear()
        self._hurry.set()
        if accounts:
            with self._asking, contextlib.suppress(StoreError):  # it lapses by itself
                self.bank.exchange([(account.key, account.farewell(self.clock.monotonic())) for account in accounts])

    def _beat(self) -> None:
        try:
            self._keep()
        except BaseException:  # a bug: whoever takes a permit next starts another thread
            with self._lock:
                self._accounts, self._thread = set(), None
            raise

    def _keep(self) -> None:
        while True:
            is_hurried = self._hurry.wait(BEAT_S)
            if is_hurried:
                self._hurry.clear()
                time.sleep(_SOONEST_S)  # several at once are one
            held = self._still_busy(is_regular=not is_hurried)
            with self._lock:
                if self._is_closed:
                    return
                if not self._accounts:
                    self._thread = None  # under the lock: a `watch` from now on starts another
                    return
            for start in range(0, len(held), _AT_ONCE):
                self._exchange_if_open(held[start : start + _AT_ONCE])

    def _still_busy(self, *, is_regular: bool) -> list[LeasedAccount]:
        with self._lock:
            watched = list(self._accounts)
        busy = [account for account in watched if account.beat(is_regular=is_regular)]
        for account in set(watched).difference(busy):
            with self._lock:
                self._accounts.discard(account)
            if account.is_busy:  # since this very moment, and whoever took the permit still saw it watched
                self.watch(account)
        return busy

    # For `stores.fork`, which calls these around a fork

    def connections_in_use(self) -> int:
        return 0

    def close_idle(self) -> None:
        """Nothing is open here."""

    def reset_after_fork(self, *, usable: bool) -> None:  # noqa: ARG002 (there is nothing to use)
        """The child is another holder; what is leased is the parent's."""
        self._begin()


def _close(keeper: weakref.ref[Keeper]) -> None:
    if (alive := keeper()) is not None:
        alive.close()
