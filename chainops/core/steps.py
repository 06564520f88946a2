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

    __slots__ = ("filter", "kwargs", "released", "runnable", "value")

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


Step = Forward | Ask | AskAll | Do | Wait | Hear | Say
Plan = Generator[Step, Any, Output]
