"""Errors that carry facts: attributes first, then one sentence with the next move."""

from __future__ import annotations

from typing import Any, ClassVar


def _rebuild(kind: type[BaseException], args: tuple[Any, ...], state: dict[str, Any]) -> BaseException:
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(state)
    return error


class ChainopsError(Exception):
    """Base of every error chainops raises on purpose.

    Subclasses take facts as arguments, keep them as attributes and pass one message on.
    They pickle whatever their signature is, because batch workers send errors home.
    """

    retryable: ClassVar[bool] = False
    """Whether the same call may succeed later without anything being changed."""

    def __reduce__(self) -> tuple[Any, ...]:
        state = {key: value for key, value in self.__dict__.items() if key != "__notes__"}
        return _rebuild, (type(self), self.args, state)


class MissingExtra(ChainopsError, ImportError):
    """A feature needs a package that is not installed."""

    def __init__(self, module: str, extra: str) -> None:
        self.module, self.extra = module, extra
        super().__init__(f"{module!r} is not installed; pip install 'chainops[{extra}]'")


class InvalidInput(ChainopsError, ValueError):
    """What the caller handed over cannot be worked with.

    Args:
        what: What was looked at, such as "question".
        found: What it was, shortened.
        expected: What would have been accepted.
    """

    def __init__(self, what: str, found: str, expected: str) -> None:
        self.what, self.found, self.expected = what, found, expected
        super().__init__(f"{what}: found {found}; expected {expected}")


class DeadlineExceeded(ChainopsError, TimeoutError):
    """The request's time ran out before this stage was done."""

    def __init__(self, stage: str, deadline_s: float) -> None:
        self.stage, self.deadline_s = stage, deadline_s
        super().__init__(
            f"{stage}: the deadline of {deadline_s:g} s has passed; "
            "give it more: chainops.caller(deadline_s=...), or `deadline` in the chain file"
        )


class CallRefused(ChainopsError):
    """A call to a model was not made: a limit, a budget or a breaker stands before it. Another route may answer.

    Attributes:
        model: The model that was not asked.
        reason: Two or three words, such as "over budget".
        retry_after_s: In how many seconds it may be let through; None when that is not known.
    """

    def __init__(self, model: str, reason: str, problem: str, *, retry_after_s: float | None = None) -> None:
        self.model, self.reason, self.problem, self.retry_after_s = model, reason, problem, retry_after_s
        super().__init__(f"{model}: not asked, {problem}")


class AttemptsExhausted(CallRefused):
    """The request has made all the calls it may make."""

    def __init__(self, model: str, problem: str) -> None:
        super().__init__(model, "no attempts left", problem)


class AllRoutesFailed(ChainopsError):
    """Every route failed in a way that another might have mended.

    Attributes:
        failures: Each route's name and failure, in the order tried.
    """

    def __init__(self, failures: list[tuple[str, Exception]]) -> None:
        self.failures = failures
        told = "; ".join(f"{name}: {error}" for name, error in failures)
        super().__init__(f'every route failed: {told}. End the list with {{say: "…"}} to answer all the same')


class PlanError(ChainopsError, RuntimeError):
    """A component's plan broke the rules of plans: a bug in the component, not in the request."""


class StoreError(ChainopsError):
    """A store cannot do what was asked."""

    def __init__(self, place: str, problem: str, next_move: str) -> None:
        self.place, self.problem, self.next_move = place, problem, next_move
        super().__init__(f"{place}: {problem}; {next_move}")


class StoreUnavailable(StoreError):
    """The store cannot be reached or written now: no server, full or read-only disk, locked."""

    retryable = True


class StoreCorrupted(StoreError):
    """What the store holds cannot be read."""


class StoreTooNew(StoreError):
    """The store was written by a newer chainops."""
