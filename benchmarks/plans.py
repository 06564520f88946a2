"""What a plan costs: µs per step in each driver, and what six layers add to a call and to the first token.

Run `python benchmarks/plans.py`. Needs no data. Times are CPU seconds of this process (other work on the machine
does not count), the best of several rounds; the ratios come from one run.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from langchain_core.messages import AIMessageChunk
from langchain_core.runnables import Runnable, RunnableGenerator, RunnableLambda

from chainops.core.component import AnyRunnable, Component
from chainops.core.drive import child_config
from chainops.core.steps import Ask, Do, Forward

STEPS = 20
LAYERS = 6
DRIVERS = ("invoke", "ainvoke", "stream", "astream")


class Bare(Runnable[Any, Any]):
    """A child that does nothing at all, so that what is left is ours."""

    def invoke(self, input: Any, config: Any = None, **kwargs: Any) -> Any:  # noqa: A002
        return input

    async def ainvoke(self, input: Any, config: Any = None, **kwargs: Any) -> Any:  # noqa: A002
        return input


class Through(Component[Any, Any]):
    """One layer: forwards what comes."""

    inner: AnyRunnable

    def plan(self, value, run):
        return (yield Forward(self.inner, value))


class Steps(Component[Any, Any]):
    """Asks the same child several times."""

    child: AnyRunnable
    times: int

    def plan(self, value, run):
        for _ in range(self.times):
            yield Ask(self.child, value)
        return value


class Works(Component[Any, Any]):
    """Does nothing several times."""

    times: int
    blocks: bool = False

    def plan(self, value, run):
        for _ in range(self.times):
            yield Do(int, blocks=self.blocks)
        return value


class Direct(Component[Any, Any]):
    """The same calls without steps: the child itself, each time with a child config."""

    child: AnyRunnable
    times: int

    def plan(self, value, run):
        for _ in range(self.times):
            self.child.invoke(value, child_config(run, watched=False))
        return value
        yield  # a plan is a generator


def layers(inner: Any, count: int) -> Any:
    for _ in range(count):
        inner = Through(inner=inner)
    return inner


async def _drain(chunks: Any) -> None:
    async for _ in chunks:
        pass


def calls(runnable: Any, driver: str) -> Callable[[], Any]:
    """One whole call by this driver; an async one gives a coroutine."""
    if driver == "stream":
        return lambda: list(runnable.stream("q"))
    if driver == "astream":
        return lambda: _drain(runnable.astream("q"))
    return lambda: getattr(runnable, driver)("q")


def cost_us(*subjects: Callable[[], Any], rounds: int, per_round: int) -> list[float]:
    """CPU µs per call of each subject, best round; subjects take turns, so that drift hits all alike."""

    async def one(subject: Callable[[], Awaitable[Any]]) -> float:
        before = time.process_time()
        for _ in range(per_round):
            await subject()
        return time.process_time() - before

    def timed(subject: Callable[[], Any]) -> float:
        result = subject()  # warm, and tells whether it is a coroutine
        if asyncio.iscoroutine(result):
            result.close()
            return asyncio.run(one(subject))
        before = time.process_time()
        for _ in range(per_round):
            subject()
        return time.process_time() - before

    best = [float("inf")] * len(subjects)
    gc.collect()
    gc.disable()
    try:
        for _ in range(rounds):
            best = [min(so_far, timed(subject)) for so_far, subject in zip(best, subjects, strict=True)]
            gc.collect()
    finally:
        gc.enable()
    return [seconds / per_round * 1e6 for seconds in best]


def table(title: str, columns: tuple[str, ...], rows: dict[str, list[float]]) -> None:
    print(f"\n{title}")
    print(f"  {'':<44}" + "".join(f"{column:>10}" for column in columns))
    for name, values in rows.items():
        print(f"  {name:<44}" + "".join(f"{'' if value is None else format(value, '.1f'):>10}" for value in values))


async def _echo(value: Any) -> Any:
    return value


def streamed(chunks: int) -> RunnableGenerator[Any, Any]:
    """A child that streams messages as a model does."""

    def say(inputs: Iterator[Any]) -> Iterator[Any]:
        list(inputs)
        for _ in range(chunks):
            yield AIMessageChunk(content="word ")

    async def asay(inputs: Any) -> Any:
        async for _ in inputs:
            pass
        for _ in range(chunks):
            yield AIMessageChunk(content="word ")

    return RunnableGenerator(say, asay)


def measure_steps(rounds: int, per_round: int) -> dict[str, list[float]]:
    """µs for one more step of a plan, by driver, and for the same call without a step."""
    bare = Bare()
    kinds: dict[str, Callable[[int], Any]] = {
        "Ask of a child that does nothing": lambda times: Steps(child=bare, times=times),
        "Do, where it stands": lambda times: Works(times=times),
        "Do, blocking (async: in a thread)": lambda times: Works(times=times, blocks=True),
        "the same Ask by hand, with a child config": lambda times: Direct(child=bare, times=times),
    }
    rows: dict[str, list[float]] = {}
    for name, make in kinds.items():
        rows[name] = []
        for driver in DRIVERS if "by hand" not in name else DRIVERS[:1]:
            many, none = cost_us(calls(make(STEPS), driver), calls(make(0), driver), rounds=rounds, per_round=per_round)
            rows[name].append((many - none) / STEPS)
    return rows


def measure_calls(rounds: int, per_round: int) -> dict[str, list[float]]:
    """µs per whole call, ours beside LangChain's own ways of putting runnables together."""
    leaf = RunnableLambda(lambda value: value, _echo)
    sequence: Any = leaf
    for _ in range(LAYERS):
        sequence = sequence | leaf
    nested: Any = leaf
    for _ in range(LAYERS):
        nested = nested.with_fallbacks([leaf])
    subjects = {
        "RunnableLambda": leaf,
        "one component around it": layers(leaf, 1),
        "RunnableLambda.with_fallbacks": leaf.with_fallbacks([leaf]),
        "RunnableSequence of two": leaf | leaf,
        f"{LAYERS} components around it": layers(leaf, LAYERS),
        f"with_fallbacks, {LAYERS} deep": nested,
        f"RunnableSequence of {LAYERS + 1}": sequence,
    }
    columns = [
        cost_us(*(calls(each, driver) for each in subjects.values()), rounds=rounds, per_round=per_round)
        for driver in DRIVERS
    ]
    return {name: [column[place] for column in columns] for place, name in enumerate(subjects)}


def measure_answers(rounds: int, per_round: int) -> dict[str, list[float | None]]:
    """µs that six layers add around a model that streams 20 messages: whole, and until the first one is out."""
    model = streamed(20)
    around = layers(model, LAYERS)
    rows: dict[str, list[float | None]] = {"the whole answer": [], "until the first token": []}
    for driver in DRIVERS:
        alone, all_layers = cost_us(calls(model, driver), calls(around, driver), rounds=rounds, per_round=per_round)
        rows["the whole answer"].append(all_layers - alone)
        if driver not in ("stream", "astream"):
            rows["until the first token"].append(None)
            continue
        alone, all_layers = _until_first(model, around, driver, rounds, per_round)
        rows["until the first token"].append(all_layers - alone)
    return rows


def _until_first(model: Any, around: Any, driver: str, rounds: int, per_round: int) -> list[float]:
    """CPU µs from the call to the first token, without what closing the stream costs."""

    def one(runnable: Any) -> float:
        before = time.process_time()
        stream = runnable.stream("q")
        next(stream)
        spent = time.process_time() - before
        stream.close()
        return spent

    async def aone(runnable: Any) -> float:
        before = time.process_time()
        stream = runnable.astream("q")
        while not (await anext(stream)).content:
            pass
        spent = time.process_time() - before
        await stream.aclose()
        return spent

    async def amany(runnable: Any) -> list[float]:
        return [await aone(runnable) for _ in range(per_round)]

    def many(runnable: Any) -> list[float]:
        return [one(runnable) for _ in range(per_round)] if driver == "stream" else asyncio.run(amany(runnable))

    best = []
    for runnable in (model, around):
        best.append(min(sum(many(runnable)) / per_round for _ in range(rounds)) * 1e6)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", help="not used: this benchmark needs no data")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--calls", type=int, default=300, help="calls per round")
    told = parser.parse_args()

    steps = measure_steps(told.rounds, told.calls)
    whole = measure_calls(told.rounds, told.calls)
    answers = measure_answers(told.rounds, max(50, told.calls // 3))

    table("One more step of a plan (µs of CPU)", DRIVERS, steps)
    table("One whole call (µs of CPU)", DRIVERS, whole)
    leaf, six = whole["RunnableLambda"], whole[f"{LAYERS} components around it"]
    added = {"added by six layers": [ours - alone for ours, alone in zip(six, leaf, strict=True)]}
    added["added by one of the six"] = [each / LAYERS for each in added["added by six layers"]]
    table("Six layers around a RunnableLambda (µs of CPU, target 1000)", DRIVERS, added)
    table("Six layers around a model that streams 20 messages (µs of CPU, target 3000)", DRIVERS, answers)
    print(
        json.dumps(
            {
                "benchmark": "plans",
                "drivers": DRIVERS,
                "step_us": {name: [round(v, 2) for v in values] for name, values in steps.items()},
                "call_us": {name: [round(v, 1) for v in values] for name, values in whole.items()},
                "six_layers_us": [round(v, 1) for v in added["added by six layers"]],
                "first_token_us": [round(v, 1) for v in answers["until the first token"][2:]],
                "target_step_us": 20,
                "target_six_layers_us": 1000,
            }
        )
    )


if __name__ == "__main__":
    main()
