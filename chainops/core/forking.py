"""What belongs to a process, and not to the child it forks."""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class OfThisProcess(Protocol):
    """Begins anew in a forked child: what it knew is at work in the parent."""

    def reset(self) -> None:
        """Forget everything, locks included: a thread the child does not have may hold them."""


_known: weakref.WeakSet[OfThisProcess] = weakref.WeakSet()


def reset_in_child(thing: OfThisProcess) -> None:
    """Call `thing.reset()` in every child that is forked while it lives."""
    _known.add(thing)


def _after_fork() -> None:
    for thing in list(_known):
        thing.reset()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
