"""What the tests of core share: children to call, a plan to play, and listeners for LangChain's callbacks."""

from __future__ import annotations

import asyncio
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler
from langchain_core.runnables import RunnableGenerator

from chainops.core.component import Component
from chainops.core.run import Run
from chainops.core.steps import Plan


class Played(Component[Any, Any]):
    """A component whose plan is the function it is given."""

    script: Callable[..., Any]

    def plan(self, value: Any, run: Run) -> Plan[Any]:
        return (yield from self.script(value, run))


@pytest.fixture
def play() -> Callable[..., Played]:
    """Makes a component out of a generator function `(value, run)`."""

    def make(script: Callable[..., Any], name: str = "Played") -> Played:
        return Played(script=script, name=name)

    return make


class Child:
    """A streaming runnable that knows whether it was closed. `fail_after` counts chunks; None never fails."""

    def __init__(self, *chunks: Any, fail_after: int | None = None, error: BaseException | None = None) -> None:
        self.chunks, self.fail_after = chunks, fail_after
        self.error = error or ConnectionError("child broke")
        self.opened = self.closed = self.finished = 0

    def _say(self) -> Iterator[Any]:
        for position, chunk in enumerate(self.chunks):
            if position == self.fail_after:
                raise self.error
            yield chunk
        if self.fail_after is not None and self.fail_after >= len(self.chunks):
            raise self.error
        self.finished += 1

    def transform(self, inputs: Iterator[Any]) -> Iterator[Any]:
        for _ in inputs:
            pass
        self.opened += 1
        try:
            yield from self._say()
        finally:
            self.closed += 1

    async def atransform(self, inputs: Any) -> Any:
        async for _ in inputs:
            pass
        self.opened += 1
        try:
            for chunk in self._say():
                await asyncio.sleep(0)
                yield chunk
        finally:
            self.closed += 1

    @property
    def runnable(self) -> RunnableGenerator[Any, Any]:
        return RunnableGenerator(self.transform, self.atransform, name="child")


@pytest.fixture
def child() -> type[Child]:
    return Child


class Traced:
    """LangChain's runs as a tree of names, outcomes and custom events."""

    def __init__(self) -> None:
        self.nodes: dict[Any, dict[str, Any]] = {}
        self.told: list[tuple[str, Any]] = []

    def start(self, run_id: Any, parent: Any, name: str, metadata: Any) -> None:
        self.nodes[run_id] = {"name": name, "parent": parent, "end": None, "events": [], "metadata": metadata}

    def end(self, run_id: Any, how: str) -> None:
        self.nodes[run_id]["end"] = how

    def custom(self, run_id: Any, name: str, data: Any) -> None:
        self.nodes[run_id]["events"].append(name)
        self.told.append((name, data))

    def tree(self, *, in_order: bool = True) -> list[Any]:
        def below(parent: Any) -> list[Any]:
            found = [
                [node["name"], node["end"], node["events"], below(run_id)]
                for run_id, node in self.nodes.items()
                if node["parent"] == parent
            ]
            return found if in_order else sorted(found, key=repr)

        return below(None)


class SyncTracer(Traced, BaseCallbackHandler):
    run_inline = True

    def on_chain_start(self, serialized, inputs, *, run_id, parent_run_id=None, metadata=None, name="", **kwargs):
        self.start(run_id, parent_run_id, name, metadata)

    def on_chat_model_start(self, serialized, messages, *, run_id, parent_run_id=None, metadata=None, name="", **kw):
        self.start(run_id, parent_run_id, name, metadata)

    def on_chain_end(self, outputs, *, run_id, **kwargs):
        self.end(run_id, "ended")

    def on_llm_end(self, response, *, run_id, **kwargs):
        self.end(run_id, "ended")

    def on_chain_error(self, error, *, run_id, **kwargs):
        self.end(run_id, f"failed: {type(error).__name__}")

    def on_llm_error(self, error, *, run_id, **kwargs):
        self.end(run_id, f"failed: {type(error).__name__}")

    def on_custom_event(self, name, data, *, run_id, **kwargs):
        self.custom(run_id, name, data)


class AsyncTracer(Traced, AsyncCallbackHandler):
    async def on_chain_start(self, serialized, inputs, *, run_id, parent_run_id=None, metadata=None, name="", **kwargs):
        self.start(run_id, parent_run_id, name, metadata)

    async def on_chain_end(self, outputs, *, run_id, **kwargs):
        self.end(run_id, "ended")

    async def on_chain_error(self, error, *, run_id, **kwargs):
        self.end(run_id, f"failed: {type(error).__name__}")

    async def on_custom_event(self, name, data, *, run_id, **kwargs):
        self.custom(run_id, name, data)


@pytest.fixture
def tracer() -> type[SyncTracer]:
    return SyncTracer


@pytest.fixture
def async_tracer() -> type[AsyncTracer]:
    return AsyncTracer


async def _all(chunks: Any) -> list[Any]:
    return [chunk async for chunk in chunks]


DRIVERS: dict[str, Callable[..., Any]] = {
    "invoke": lambda runnable, value, config=None: runnable.invoke(value, config),
    "ainvoke": lambda runnable, value, config=None: asyncio.run(runnable.ainvoke(value, config)),
    "stream": lambda runnable, value, config=None: list(runnable.stream(value, config)),
    "astream": lambda runnable, value, config=None: asyncio.run(_all(runnable.astream(value, config))),
}


@pytest.fixture(params=DRIVERS)
def drive_by(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Each of the four drivers: `drive_by(runnable, value, config)`. Streams come as lists of chunks."""
    return DRIVERS[request.param]


@pytest.fixture
def drivers() -> dict[str, Callable[..., Any]]:
    return DRIVERS


@pytest.fixture
def leaves_nothing() -> Iterator[None]:
    """Fails when threads are left behind, or coroutines that nobody awaited."""
    before = set(threading.enumerate())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", ResourceWarning)  # files that other tests left to the collector
        yield
    for thread in set(threading.enumerate()) - before:
        thread.join(60)
        assert not thread.is_alive(), thread
