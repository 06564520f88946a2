"""A chain as a client may see it: its own events and words, and its failures told."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from typing import Any

from langchain_core.runnables import RunnableBinding, RunnableConfig

from chainops.core.answer import KEY, AnswerChunk
from chainops.core.errors import (
    AllRoutesFailed,
    CallRefused,
    ChainopsError,
    DeadlineExceeded,
    InvalidInput,
    StoreUnavailable,
)
from chainops.models.failures import ModelFailed
from chainops.resilience.budgets.records import BudgetExceeded, PriceUnknown
from chainops.resilience.limits.records import Overloaded

_STATUS: tuple[tuple[type[Exception], int], ...] = (
    (InvalidInput, 422),
    (DeadlineExceeded, 504),
    (Overloaded, 429),
    (BudgetExceeded, 429),
    (PriceUnknown, 500),
    (CallRefused, 503),
    (ModelFailed, 502),
    (StoreUnavailable, 503),
)


def http_status(error: Exception) -> int:
    """The HTTP status that says whose fault a failure is."""
    if isinstance(error, AllRoutesFailed):
        statuses = {http_status(each) for each in _flat(error)}
        return statuses.pop() if len(statuses) == 1 else 502
    if isinstance(error, ModelFailed) and error.kind == "caller":
        return 422
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


def told(error: ChainopsError) -> dict[str, Any]:
    """A failure for a client: its kind and one line. Of refusals only why: what was spent, what is allowed and which
    models there are is the operator's.
    """
    failures = _flat(error) if isinstance(error, AllRoutesFailed) else [error]
    reasons = list(dict.fromkeys(each.reason for each in failures if isinstance(each, CallRefused)))
    if not all(isinstance(each, CallRefused) for each in failures):
        return {"error": type(error).__name__, "message": str(error)}
    wait = retry_after(error).get("Retry-After")
    when = "later" if wait is None else f"in {wait} s"
    return {"error": type(error).__name__, "message": f"not answered: {'; '.join(reasons)}; try again {when}"}


def _flat(error: AllRoutesFailed) -> list[Exception]:
    """Why each route failed, those of routes inside routes too."""
    found: list[Exception] = []
    for _, each in error.failures:
        found += _flat(each) if isinstance(each, AllRoutesFailed) else [each]
    return found


def retry_after(error: Exception) -> dict[str, str]:
    """The header that tells a client when to come again, in whole seconds; none where that is not known."""
    failures = _flat(error) if isinstance(error, AllRoutesFailed) else [error]
    known = [each for failure in failures if (each := getattr(failure, "retry_after_s", None)) is not None]
    return {"Retry-After": str(math.ceil(min(known)))} if known and http_status(error) in (429, 502, 503) else {}


class Served(RunnableBinding[Any, Any]):  # type: ignore[no-redef]  # LangChain's field `kwargs` confuses mypy
    """A chain behind a route.

    LangServe's event and log streams hold the inputs and outputs of every step: prompts, passages.
    Here a client gets those of the chain as a whole, unless the chain exposes its report.

    A stream has sent HTTP 200 before it can fail, and LangServe then breaks the connection without a
    word. Here its last chunk says so: status `failed`, and the error with its HTTP status.
    """

    shows_all: bool = False

    async def astream(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> AsyncIterator[Any]:  # noqa: A002
        try:
            async for chunk in super().astream(input, config, **kwargs):
                yield chunk
        except ChainopsError as error:
            yield _failed(error)

    async def astream_events(  # type: ignore[override]  # its overloads for versions nobody serves
        self, *args: Any, **kwargs: Any
    ) -> AsyncIterator[Any]:
        whole: dict[str, Any] | None = None
        try:
            async for event in super().astream_events(*args, **kwargs):
                whole = whole or dict(event)
                if self.shows_all or (event["run_id"] == whole["run_id"] and event["event"].startswith("on_chain")):
                    yield event
        except ChainopsError as error:
            if whole is None:
                raise
            yield {**whole, "event": "on_chain_stream", "data": {"chunk": _failed(error)}}

    async def astream_log(self, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        async for patch in super().astream_log(*args, **kwargs):
            if not self.shows_all:
                patch.ops = [op for op in patch.ops if not op["path"].startswith("/logs/")]
            if patch.ops:
                yield patch


def _failed(error: ChainopsError) -> AnswerChunk:
    said = told(error)
    facts = {"status": "failed", "reasons": [said["message"]], "error": {**said, "http_status": http_status(error)}}
    return AnswerChunk(content="", response_metadata={KEY: facts}, chunk_position="last")
