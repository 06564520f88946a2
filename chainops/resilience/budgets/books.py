"""The books of a chain: totals and the list of calls, written in the background."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import replace

from chainops.core.background import Background
from chainops.core.clock import current_clock
from chainops.core.errors import StoreError
from chainops.core.forking import reset_in_child
from chainops.resilience.budgets.policy import Amount, Window
from chainops.resilience.budgets.records import Counters, Hold, Ledger, Reserved, Spend

LOST_AFTER_S = 3_600.0
"""A hold older than this was left behind: its call is noted as lost, with the estimate for its cost."""
_CATCH_UP_S = 0.05
"""How long the next call waits for what the last ones took to be written down: after one another, that is at once; many
at the same time go on with estimates that are too high for a moment."""
_PATIENCE_S = 5.0
"""How long a call waits for it that would be refused, or go another way, because of these estimates."""
_LOOK_EVERY_S = 600.0
_AT_ONCE = 500
_TRIES, _PAUSE_S = 3, 0.2


class Books:
    """What may be spent is checked at once, what was spent is noted soon; thread-safe.

    Every call is set aside in the totals before it is made, with all that will be noted of it. So nothing is lost when
    a process ends in between: its calls count with their estimates, and after an hour are noted as `lost`. A call that
    takes longer than that stays noted so.
    """

    def __init__(self, counters: Counters, ledger: Ledger, *, waiting_at_most: int = 10_000) -> None:
        self._counters, self._ledger, self._most = counters, ledger, waiting_at_most
        self.reset()
        reset_in_child(self)
        self._writer = Background("chainops spending", waiting_at_most=10_000, finishes=True)
        self._looked = float("-inf")
        self._forgotten: dict[tuple[str, str | None], float] = {}
        """User and tenant (None: any), and until when calls that were begun are nobody's."""
        self.problem: str | None = None
        """What is wrong with the store, until something was written again."""
        self.unwritable = 0
        """Calls that no store would take."""

    def reset(self) -> None:
        """For a forked child: what waits is written by its parent."""
        # Re-entrant: a forgotten stream is closed by the garbage collector, perhaps in the middle of this.
        self._lock = threading.RLock()
        self._waiting: deque[tuple[str, Amount, Spend | None]] = deque()
        self._settled = self._written = 0
        self._is_writing = False

    def reserve(self, hold: Hold, windows: Sequence[Window], *, enforces_tokens: bool = True) -> Reserved:
        """Set a call's estimate aside, or not. Blocks.

        Raises:
            StoreError: It is not known what has been spent.
        """
        now = hold.call.at
        if now - self._looked > _LOOK_EVERY_S:
            self._looked = now
            self._writer.submit(lambda: self._adopt_quietly(now))
        # What calls that have ended really took, so that their estimates count no more.
        is_current = self._catch_up(_CATCH_UP_S)
        reserved = self._counters.reserve(hold, windows, enforces_tokens=enforces_tokens)
        if reserved.refused is not None and not is_current and self._is_soon_current():
            return self._counters.reserve(hold, windows, enforces_tokens=enforces_tokens)
        return reserved

    def totals(self, budget: str, key: str, windows: Sequence[Window]) -> list[Amount]:
        """Spent and set aside, which may be too much for a moment where no soft limit is reached. Blocks.

        Raises:
            StoreError: It is not known what has been spent.
        """
        names = [each.id for each in windows]
        is_current = self._catch_up(_CATCH_UP_S)
        found = self._counters.totals(budget, key, names)
        is_soft = any(each.limit.is_reached(total, each.soft) for each, total in zip(windows, found, strict=True))
        if is_soft and not is_current and self._is_soon_current():
            return self._counters.totals(budget, key, names)
        return found

    def settle_later(self, hold: str, actual: Amount, call: Spend | None) -> bool:
        """Put the truth in place of a hold, and note the call (None: it was not made). Never blocks.

        Returns:
            False when too much is waiting: the hold stays, until it is noted as lost.
        """
        with self._lock:
            if len(self._waiting) >= self._most:
                return False
            self._waiting.append((hold, actual, call))
            self._settled += 1
        self._write_soon()
        return True

    def flush(self, timeout_s: float = 10.0) -> bool:
        """Wait until all is written; False when the time ran out, or the store cannot be reached."""
        until = time.monotonic() + timeout_s
        while self._is_behind():
            self._write_soon()
            if time.monotonic() >= until:
                return False
            time.sleep(0.002)
        return True

    def adopt_lost(self, now: float) -> int:
        """Note calls that nobody settled within an hour as lost; how many. Raises `StoreError`."""
        lost = self._counters.holds(before=now - LOST_AFTER_S)
        if lost:
            self._note([(each.id, each.call) for each in lost])
            if nobodys := [each.call.id for each in lost if each.call.user is None]:
                self._ledger.take_names_off(nobodys)  # whoever began to note it may have known whose it was
            self._counters.settle([(each.id, each.amount) for each in lost])
        return len(lost)

    def forget(self, user: str, tenant: str | None = None, *, wait_s: float = 10.0) -> int:
        """Take a user's name off everything; the number of calls noted so far. Totals hold no names.

        Calls that are under way, here or in another process, or still to be written, are noted as nobody's. Blocks, for
        `wait_s` until they are written, so that they count, and for the store.

        Raises:
            StoreError: Something is left; call it again.
        """
        self.flush(wait_s)
        with self._lock:
            self._forgotten[user, tenant] = current_clock().time()
        self._counters.forget(user, tenant)
        return self._ledger.forget(user, tenant)

    def _adopt_quietly(self, now: float) -> None:
        try:
            self.adopt_lost(now)
            self._counters.tidy(now)
        except StoreError as error:
            self.problem = str(error)

    def _catch_up(self, timeout_s: float) -> bool:
        """Wait until all is written that was settled until now."""
        settled, until = self._settled, time.monotonic() + timeout_s
        while self._written < settled:
            self._write_soon()
            if time.monotonic() >= until:
                return False
            time.sleep(0.002)
        return True

    def _is_soon_current(self) -> bool:
        """Wait for it with patience, unless it is known that nothing can be written."""
        return self.problem is None and self._catch_up(_PATIENCE_S)

    def _is_behind(self) -> bool:
        with self._lock:  # a batch that failed goes back and the writing ends, both in one step
            return bool(self._waiting) or self._is_writing

    def _write_soon(self) -> None:
        with self._lock:
            if self._is_writing or not self._waiting:
                return
            self._is_writing = True
        if not self._writer.submit(self._write):
            self._is_writing = False

    def _write(self) -> None:
        tries = 0
        while True:
            with self._lock:
                batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), _AT_ONCE))]
                if not batch:
                    self._is_writing = False
                    return
            try:
                self._write_all(batch)
                self._written += len(batch)  # in this thread alone
                tries = 0
            except StoreError as error:
                self.problem = str(error)
                tries += 1
                with self._lock:
                    self._waiting.extendleft(reversed(batch))
                    if tries >= _TRIES:  # the next call, or `flush`, tries again
                        self._is_writing = False
                        return
                time.sleep(_PAUSE_S)

    def _write_all(self, batch: list[tuple[str, Amount, Spend | None]]) -> None:
        """The list first: a hold that is gone can no longer be noted as lost. Both may be repeated."""
        try:
            if calls := [(hold, call) for hold, _, call in batch if call is not None]:
                self._note(calls)
            self._counters.settle([(hold, actual) for hold, actual, _ in batch])
        except StoreError:
            raise
        except Exception:  # noqa: BLE001 (one that no store takes must not keep back the others; it is counted)
            if len(batch) == 1:
                self.unwritable += 1
                return
            for each in batch:
                self._write_all([each])
            return
        self.problem = None

    def _note(self, calls: Sequence[tuple[str, Spend]]) -> None:
        """List calls by their holds; those of a user who was forgotten since they began are nobody's.

        Whether one was is asked after they are listed and before their holds are gone: a forgetting takes the name off
        the holds first and off the list last, so it finds the call listed or is found on its hold. May be repeated.
        """
        self._ledger.add([replace(call, user=None) if self._is_forgotten(call) else call for _, call in calls])
        named = {hold: call for hold, call in calls if call.user is not None}
        nameless = set(self._counters.nameless(list(named))) if named else set()
        if gone := [call.id for hold, call in named.items() if hold in nameless or self._is_forgotten(call)]:
            self._ledger.take_names_off(gone)

    def _is_forgotten(self, call: Spend) -> bool:
        if call.user is None:
            return False
        with self._lock:
            until = [self._forgotten.get((call.user, tenant), float("-inf")) for tenant in {None, call.tenant}]
        return call.at <= max(until)
