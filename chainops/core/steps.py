"""What a plan may ask for. A driver does it and sends the result back, or throws the error in."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any, Protocol, TypeVar

from langchain_core.runnables import Runnable

from chainops.core.chunks import merge
from chainops.core.signal import Signal

Output = TypeVar("Output")


class Cancelled(BaseException):
    """The caller went away. Plans may clean up with `Do`; anything else they ask is answered with this again."""


class Filter(Protocol):
    """Looks at a forwarded answer through a window and decides what is let out, and when."""

    def feed(self, chunk: Any) -> Iterable[Any]:
        """Take the next chunk; give what may be released now."""

    def finish(self) -> Iterable[Any]:
        """No more is coming; give what was held back."""


class Forward:
    """Call `runnable`; its answer is the caller's answer, and its chunks are the caller's chunks.

    The plan is sent the whole message. After a failure `received` holds what had already reached
    the caller: None means that nothing has, and another route may still be taken unseen.
    """

    __slots__ = ("came", "filter", "is_sent", "kwargs", "released", "runnable", "value")

    def __init__(
        self,
        runnable: Runnable[Any, Any],
        value: Any,
        *,
        filter: Filter | None = None,  # noqa: A002
        kwargs: dict[str, Any] | None = None,
    ) -> None:
        self.runnable, self.value, self.filter = runnable, value, filter
        self.kwargs = kwargs or {}
        self.released: list[Any] = []
        self.is_sent = False
        """Whether the call was made: not where the deadline had passed before."""
        self.came: Any = None
        """The whole answer of a call that came too late to be given to anybody, but was made and paid for."""

    @property
    def received(self) -> Any:
        return merge(self.released)


class Race:
    """Call the first of `calls`; the next one too when nothing was heard for `after_s`, or when it failed in a way that
    another may mend. Who speaks first is forwarded, as by `Forward`; the others are cancelled, and what they consumed
    is counted.

    The plan is sent the winner's whole message; `winner` is its position. When all fail, the first error is thrown in.
    A sync call cannot be broken off: a loser in a thread goes on to its next chunk, or to its own time-out.

    Args:
        calls: Two or more.
        after_s: Seconds, of real time, without a word until the next one is called as well.
        purpose: What calls by all but the first are entered for in the ledger.
        can_mend: Whether another may mend a failure of the first. One that none can is thrown in at once.
    """

    __slots__ = ("after_s", "calls", "can_mend", "errors", "purpose", "spoke_after_s", "winner")

    def __init__(
        self,
        calls: Sequence[Forward],
        *,
        after_s: float,
        purpose: str = "hedge",
        can_mend: Callable[[Exception], bool] = lambda _: True,
    ) -> None:
        self.can_mend = can_mend
        self.calls, self.after_s, self.purpose = tuple(calls), after_s, purpose
        self.winner: int | None = None
        self.errors: dict[int, Exception] = {}
        """By position: who failed before anybody spoke."""
        self.spoke_after_s: float | None = None
        """Seconds until the first word of anybody."""

    @property
    def released(self) -> list[Any]:
        """What the winner has said to the caller."""
        return [] if self.winner is None else self.calls[self.winner].released

    @property
    def received(self) -> Any:
        return merge(self.released)


class Ask:
    """Call `runnable` for the plan alone: a classifier, a judge, a rewrite. Nobody sees its chunks."""

    __slots__ = ("kwargs", "runnable", "value")

    def __init__(self, runnable: Runnable[Any, Any], value: Any, *, kwargs: dict[str, Any] | None = None) -> None:
        self.runnable, self.value = runnable, value
        self.kwargs = kwargs or {}


class AskAll:
    """Call several runnables at the same time; the results come in the order asked.

    Args:
        return_exceptions: False: all run to their end, then the first error in order is thrown in.
            True: an error stands in its place in the list.
    """

    __slots__ = ("asks", "return_exceptions")

    def __init__(self, asks: Sequence[Ask], *, return_exceptions: bool = False) -> None:
        self.asks, self.return_exceptions = tuple(asks), return_exceptions


class Do:
    """Run a function: a store, a file, a computation.

    Args:
        blocks: Whether it may take longer than some 100 µs. Async drivers then run it in a thread;
            in-process lookups say False and run where they are.
    """

    __slots__ = ("blocks", "work")

    def __init__(self, work: Callable[[], Any], *, blocks: bool = True) -> None:
        self.work, self.blocks = work, blocks


class Wait:
    """Let `seconds` pass, or the request's deadline, which is then thrown in."""

    __slots__ = ("seconds",)

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds


class Hear:
    """Wait for news of `signal`, or for the request's deadline, which is then thrown in.

    The plan is sent True when there is news after `since`, False when `timeout_s` ran out first, and None
    when it may not wait here. No thread is occupied in async drivers. The time-out is real time, whatever the
    request's clock says; the deadline is the clock's.

    Args:
        since: `signal.seen`, read before looking at what the news is about.
        timeout_s: None: until there is news, or the deadline.
        may_block: False where those who would tell may need this very thread, its event loop: a sync driver
            that would hold it up only looks, and sends None.
    """

    __slots__ = ("may_block", "signal", "since", "timeout_s")

    def __init__(self, signal: Signal, since: int, timeout_s: float | None = None, *, may_block: bool = True) -> None:
        self.signal, self.since, self.timeout_s, self.may_block = signal, since, timeout_s, may_block


class Say:
    """Speak to the caller directly: a replayed hit, a held-back window, a fixed sentence."""

    __slots__ = ("chunk",)

    def __init__(self, chunk: Any) -> None:
        self.chunk = chunk


class Restart:
    """Take back what this plan has said: another answer follows from its beginning.

    In a stream the caller is sent a chunk that says so, and must have said that it can take one
    (`run.caller.restarts`); a whole answer simply begins anew.
    """

    __slots__ = ()


Step = Forward | Race | Ask | AskAll | Do | Wait | Hear | Say | Restart
Plan = Generator[Step, Any, Output]
