"""The base of every chainops Runnable: its logic is one plan, its calls are all driven by it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from contextvars import copy_context
from typing import Annotated, Any, ClassVar, TypeVar, cast

from langchain_core.callbacks.manager import ahandle_event, handle_event
from langchain_core.runnables import Runnable, RunnableConfig, RunnableSerializable
from langchain_core.runnables.base import coerce_to_runnable
from langchain_core.runnables.config import (
    ensure_config,
    get_async_callback_manager_for_config,
    get_callback_manager_for_config,
    get_config_list,
)
from langchain_core.tracers._streaming import _StreamingCallbackHandler
from pydantic import BeforeValidator, ConfigDict

from chainops.core.drive import Talk, adrive, drive
from chainops.core.errors import PlanError
from chainops.core.events import Listener
from chainops.core.run import Run
from chainops.core.steps import Plan

Input = TypeVar("Input")
Output = TypeVar("Output")


def _coerce(value: Any) -> Any:
    return value if isinstance(value, Runnable) else coerce_to_runnable(value)


AnyRunnable = Annotated[Runnable[Any, Any], BeforeValidator(_coerce)]
"""A field that takes a Runnable, a function or a dict of them, as LangChain's `|` does."""


class Component(RunnableSerializable[Input, Output]):
    """A Runnable whose logic is a plan (see `core/steps.py`).

    `invoke`, `ainvoke`, `stream`, `astream`, `batch` and `abatch` follow from `plan` and behave alike.
    Instances are frozen and refuse unknown fields.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True, protected_namespaces=())

    kind: ClassVar[str] = "component"
    """The word for this component in reports and traces."""

    def plan(self, value: Input, run: Run) -> Plan[Output]:
        """The logic: yield steps, receive their results, return the output.

        A plan that forwards or says something must return exactly what was said: a stream cannot
        take words back. `PlanError` tells it otherwise, in every driver.
        """
        raise NotImplementedError

    def listeners(self) -> tuple[Listener, ...]:
        """Who else hears the events of requests that begin at this component."""
        return ()

    # The drivers

    def invoke(self, input: Input, config: RunnableConfig | None = None, **kwargs: Any) -> Output:  # noqa: A002
        run, talk = self._open(input, config, kwargs)
        error: BaseException | None = None
        try:
            self._start(run, input)
            for _ in drive(talk, streaming=False, tell=_teller(run)):
                pass
            output: Output = run.finished(talk.output)
            talk.output = output
            return output
        except BaseException as raised:
            error = raised
            raise
        finally:
            self._close(run, talk, error)

    async def ainvoke(self, input: Input, config: RunnableConfig | None = None, **kwargs: Any) -> Output:  # noqa: A002
        run, talk = self._open(input, config, kwargs)
        error: BaseException | None = None
        try:
            await self._astart(run, input)
            async with aclosing(adrive(talk, streaming=False, tell=_ateller(run))) as chunks:
                async for _ in chunks:
                    pass
            output: Output = run.finished(talk.output)
            talk.output = output
            return output
        except BaseException as raised:
            error = raised
            raise
        finally:
            await self._aclose(run, talk, error)

    def stream(self, input: Input, config: RunnableConfig | None = None, **kwargs: Any) -> Iterator[Output]:  # noqa: A002
        run, talk = self._open(input, config, kwargs)
        error: BaseException | None = None
        chunks = drive(talk, streaming=True, tell=_teller(run))
        try:
            self._start(run, input)
            yield from _tapped(run, chunks)
            talk.output = run.finished(talk.output)
        except BaseException as raised:
            error = raised
            raise
        finally:
            try:
                chunks.close()
            finally:
                self._close(run, talk, error)

    async def astream(
        self,
        input: Input,  # noqa: A002
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[Output]:
        run, talk = self._open(input, config, kwargs)
        error: BaseException | None = None
        chunks = adrive(talk, streaming=True, tell=_ateller(run))
        try:
            await self._astart(run, input)
            async with aclosing(_atapped(run, chunks)) as tapped:
                async for chunk in tapped:
                    yield chunk
            talk.output = run.finished(talk.output)
        except BaseException as raised:
            error = raised
            raise
        finally:
            try:
                await chunks.aclose()
            finally:
                await self._aclose(run, talk, error)

    def batch(
        self,
        inputs: list[Input],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[Output]:
        """One call per input, `config["max_concurrency"]` at a time (8 when it is not set).

        An error belongs to its item and the others finish. Then it stands in the list, or, with
        `return_exceptions=False`, the first in order is raised.
        """

        def one(value: Input, config: RunnableConfig) -> Any:
            try:
                return self.invoke(value, config, **kwargs)
            except Exception as error:  # noqa: BLE001 (this item's result)
                return error

        if not inputs:
            return []
        configs = get_config_list(config, len(inputs))
        pool = ThreadPoolExecutor(max_workers=min(len(inputs), _concurrency(configs)))
        try:
            futures = [
                pool.submit(copy_context().run, one, value, each) for value, each in zip(inputs, configs, strict=True)
            ]
            results = [future.result() for future in futures]
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
        return _settled(results, return_exceptions=return_exceptions)

    async def abatch(
        self,
        inputs: list[Input],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[Output]:
        """As `batch`, on the event loop."""
        if not inputs:
            return []
        configs = get_config_list(config, len(inputs))
        places = asyncio.Semaphore(_concurrency(configs))

        async def one(value: Input, config: RunnableConfig) -> Any:
            async with places:
                try:
                    return await self.ainvoke(value, config, **kwargs)
                except Exception as error:  # noqa: BLE001 (this item's result)
                    return error

        calls = (one(value, each) for value, each in zip(inputs, configs, strict=True))
        results = await asyncio.gather(*calls, return_exceptions=True)  # also when cancelled: all end first
        return _settled(results, return_exceptions=return_exceptions)

    # What the drivers share

    def _open(self, value: Input, config: RunnableConfig | None, kwargs: dict[str, Any]) -> tuple[Run, Talk]:
        ensured = ensure_config(config)
        name = ensured.get("run_name") or self.name or type(self).__name__
        run = Run(name, self.kind, ensured, kwargs, self.listeners())
        if run.request.keeps_values:
            run.stage.input = value
        return run, Talk(self._begin(value, run), run)

    def _begin(self, value: Input, run: Run) -> Plan[Output]:
        plan = self.plan(value, run)
        if not isinstance(plan, Generator):
            raise PlanError(f"{run.stage.name}: plan() must be a generator: it has no yield")
        return plan

    def _start(self, run: Run, value: Input) -> None:
        callbacks = get_callback_manager_for_config(run.config)
        if callbacks.handlers:  # nobody listens otherwise, and a run nobody sees needs no id
            run.manager = callbacks.on_chain_start(
                None, _shown(value), name=run.stage.name, run_id=run.config.get("run_id")
            )

    async def _astart(self, run: Run, value: Input) -> None:
        callbacks = get_async_callback_manager_for_config(run.config)
        if callbacks.handlers:
            run.manager = await callbacks.on_chain_start(
                None, _shown(value), name=run.stage.name, run_id=run.config.get("run_id")
            )

    def _close(self, run: Run, talk: Talk, error: BaseException | None) -> None:
        output = talk.output if error is None else None
        run.close(output, error)
        if run.manager is not None:
            if error is None:
                run.manager.on_chain_end(_shown(output))
            else:
                run.manager.on_chain_error(error)

    async def _aclose(self, run: Run, talk: Talk, error: BaseException | None) -> None:
        output = talk.output if error is None else None
        run.close(output, error)
        if run.manager is not None:
            if error is None:
                await run.manager.on_chain_end(_shown(output))
            else:
                await run.manager.on_chain_error(error)


def _shown(value: Any) -> Any:
    """What callbacks are shown of an input or output."""
    return value if value is not None else {}


def _concurrency(configs: list[RunnableConfig]) -> int:
    return max(1, configs[0].get("max_concurrency") or 8)


def _settled(results: list[Any], *, return_exceptions: bool) -> list[Any]:
    for result in results:
        if isinstance(result, BaseException) and not (return_exceptions and isinstance(result, Exception)):
            raise result
    return results


def _teller(run: Run) -> Callable[[], None]:
    def tell() -> None:
        if run.manager is None:
            return
        for event in run.take_queued():
            told = event.to_dict()
            handle_event(
                run.manager.handlers,
                "on_custom_event",
                "ignore_custom_event",
                told.pop("kind"),
                told,
                run_id=run.manager.run_id,
                tags=run.manager.tags,
                metadata=run.manager.metadata,
            )

    return tell


def _ateller(run: Run) -> Callable[[], Any]:
    async def tell() -> None:
        if run.manager is None:
            return
        for event in run.take_queued():
            told = event.to_dict()
            await ahandle_event(
                run.manager.handlers,
                "on_custom_event",
                "ignore_custom_event",
                told.pop("kind"),
                told,
                run_id=run.manager.run_id,
                tags=run.manager.tags,
                metadata=run.manager.metadata,
            )

    return tell


def _tap(run: Run) -> _StreamingCallbackHandler[Any] | None:
    """LangChain's collector of stream chunks (`astream_events`, `astream_log`), when one listens."""
    handlers = () if run.manager is None else run.manager.handlers
    return next((each for each in handlers if isinstance(each, _StreamingCallbackHandler)), None)


def _tapped(run: Run, chunks: Iterator[Any]) -> Iterator[Any]:
    tap = _tap(run)
    return chunks if tap is None else tap.tap_output_iter(run.manager.run_id, chunks)


def _atapped(run: Run, chunks: AsyncGenerator[Any, None]) -> AsyncGenerator[Any, None]:
    tap = _tap(run)
    if tap is None:
        return chunks
    return cast("AsyncGenerator[Any, None]", tap.tap_output_aiter(run.manager.run_id, chunks))
