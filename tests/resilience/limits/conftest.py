"""Pools driven by hand, scripted models, and one process's view of a shared limit."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from chainops.core.caller import Caller
from chainops.core.steps import Do, Hear, Plan, Wait
from chainops.models.model import Model
from chainops.testing.chat import Reply, ScriptedChatModel
from chainops.testing.listening import ManualClock
from chainops.testing.servers import redis_server


def usage(tokens: int) -> dict[str, int]:
    return {"input_tokens": tokens - 10, "output_tokens": 10, "total_tokens": tokens}


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(1000.0)


@pytest.fixture
def run_of():
    """A run as far as a pool looks at it."""

    def make(clock: Any, deadline_s: float | None = None, **caller: Any) -> Any:
        events: list[Any] = []
        until = None if deadline_s is None else clock.monotonic() + deadline_s
        return SimpleNamespace(
            clock=clock,
            caller=Caller(**caller),
            remaining_s=None if until is None else max(0.0, until - clock.monotonic()),
            emit=events.append,
            events=events,
            stage=SimpleNamespace(facts={}),
        )

    return make


@pytest.fixture
def play():
    """Drive a plan in this thread: stores are asked, time on a manual clock passes, and news is awaited."""

    def drive(plan: Plan[Any], clock: Any = None) -> Any:
        reply = None
        while True:
            try:
                step = plan.send(reply)
            except StopIteration as stop:
                return stop.value
            reply = None
            if isinstance(step, Do):
                step.work()
            elif isinstance(step, Wait):
                clock.sleep(step.seconds)
            else:
                assert isinstance(step, Hear)
                reply = step.signal.wait_beyond(step.since, step.timeout_s)

    return drive


@pytest.fixture
def model():
    """A metered model that uses so many tokens at each call, whatever was asked."""

    def make(*replies: Any, tokens: int = 100, expected: int = 200, **more: Any) -> Model:
        said = replies or (Reply("one two three", usage=usage(tokens), chunks=("one ", "two ", "three")),)
        chat = ScriptedChatModel(replies=list(said), loop=True)
        return Model(chat=lambda: chat, model="openai:scripted", name="small", expected_output_tokens=expected, **more)

    return make


@pytest.fixture(scope="session")
def redis():
    with redis_server() as server:
        yield server
