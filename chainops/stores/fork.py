"""Keep SQLite connections out of forked children.

SQLite's file locks belong to the process that took them, yet a child inherits the memory that says they are held.
A child that merely opens the same file again would trust that memory, and can destroy the parent's log. So nothing may
be open at the moment of a fork: idle connections are closed just before it, and a child that was forked while one
was in use is told so (https://sqlite.org/howtocorrupt.html, section 2.6).
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from typing import Protocol

_PATIENCE_S = 1.0  # how long a fork waits for transactions to end; those of the forking thread itself never do


class Forkable(Protocol):
    """What this module needs of a store."""

    def connections_in_use(self) -> int: ...
    def close_idle(self) -> None: ...
    def reset_after_fork(self, *, usable: bool) -> None: ...


_stores: weakref.WeakSet[Forkable] = weakref.WeakSet()
_in_use: set[int] = set()  # ids of the stores that had a connection in use when the fork began
_forking: dict[int, threading.Event] = {}  # by the thread that forks; set when its fork is over


def watch(store: Forkable) -> None:
    """Look after a store's connections at every fork from now on, for as long as it lives."""
    _stores.add(store)


def wait_while_forking() -> None:
    """Hold back a new transaction while another thread forks."""
    if _forking:
        for over in list(_forking.values()):
            over.wait(2 * _PATIENCE_S)


def _watched() -> list[Forkable]:
    while True:
        try:
            return list(_stores)
        except RuntimeError:  # another thread has just opened one
            continue


def _before() -> None:
    _forking[threading.get_ident()] = threading.Event()
    deadline = time.monotonic() + _PATIENCE_S
    stores = _watched()
    while any(store.connections_in_use() for store in stores) and time.monotonic() < deadline:
        time.sleep(0.001)
    _in_use.clear()
    for store in stores:
        if store.connections_in_use():
            _in_use.add(id(store))
        store.close_idle()


def _after_in_parent() -> None:
    over = _forking.pop(threading.get_ident(), None)
    if over is not None:
        over.set()


def _after_in_child() -> None:
    _forking.clear()
    for store in list(_stores):
        # The second test is for a thread that slipped past `wait_while_forking`.
        store.reset_after_fork(usable=id(store) not in _in_use and not store.connections_in_use())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
