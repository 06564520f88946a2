"""What the drivers share in calling a child: its config, what of it reaches the caller, and how long it may take."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from langchain_core.runnables import RunnableConfig

from chainops.core.caller import STATE_KEY
from chainops.core.chunks import as_chunk, as_whole, has_substance, merge
from chainops.core.run import Run, Scope
from chainops.core.steps import Forward


def child_config(run: Run, scope: Scope) -> RunnableConfig:
    """The config for a call made by this component: nested traces, the same request."""
    config: RunnableConfig = {**run.config, "configurable": {**run.config["configurable"], STATE_KEY: scope}}
    config.pop("run_name", None)
    config.pop("run_id", None)
    if run.manager is not None:
        config["callbacks"] = run.manager.get_child()
    return config


def watched(run: Run) -> RunnableConfig:
    """For a child whose answer is the caller's answer."""
    return child_config(run, run.scope(watched=True))


def unwatched(run: Run) -> RunnableConfig:
    """For a child that answers the plan alone."""
    return child_config(run, run.scope(watched=False))


def through(step: Forward, reply: Any) -> Any:
    """A whole reply as the caller gets it: a message, never a chunk, and past the filter."""
    if step.filter is None:
        return as_whole(reply)
    return merge([*step.filter.feed(as_chunk(reply)), *step.filter.finish()])


def released(step: Forward, held: list[Any], chunk: Any) -> list[Any]:
    """What goes out now that `chunk` has come."""
    chunk = as_chunk(chunk)  # a child that does not stream gives its whole message
    held.extend((chunk,) if step.filter is None else step.filter.feed(chunk))
    if not step.released and not any(map(has_substance, held)):
        return []
    out, held[:] = held[:], []
    step.released.extend(out)
    return out


def rest(step: Forward, held: list[Any]) -> list[Any]:
    """What goes out at the end, words or no words."""
    out = held if step.filter is None else [*held, *step.filter.finish()]
    step.released.extend(out)
    return out


async def in_time(run: Run, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Await `call(...)`, and end it when the request's deadline passes.

    Every stage above waits with a deadline too, the same one. The innermost is the one that ends, so that its
    plan can still answer: a stage whose child is waiting itself looks again a little later.
    """
    if run.deadline is None:
        return await call(*args, **kwargs)
    run.check_deadline()
    timer = asyncio.timeout(None)
    loop = asyncio.get_running_loop()
    later: asyncio.TimerHandle

    def look() -> None:
        nonlocal later
        remaining = run.remaining_s
        if remaining is None:  # the deadline was waived
            return
        if remaining > 0 or run.request.waiting.get(run.stage.id):
            later = loop.call_later(max(remaining, _AGAIN_S), look)
        else:
            timer.reschedule(loop.time())

    later = loop.call_later(run.remaining_s or 0.0, look)
    try:
        with run.waits():
            async with timer:
                return await call(*args, **kwargs)
    except TimeoutError:
        if timer.expired():
            raise run.late() from None
        raise
    finally:
        later.cancel()


_AGAIN_S = 0.02
