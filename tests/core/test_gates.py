"""What stands before a call to a model: gates in order, each left once, and a number of calls that holds."""

from __future__ import annotations

import threading
from contextvars import copy_context
from dataclasses import replace
from typing import Any

import pytest
from langchain_core.messages import AIMessage

import chainops
from chainops.core.attempts import Expected
from chainops.core.component import AnyRunnable, Component
from chainops.core.errors import AttemptsExhausted, CallRefused
from chainops.core.run import Run
from chainops.core.steps import Ask, AskAll, Do, Forward
from chainops.testing.listening import capture_events

USAGE = {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}


class Recorder:
    """Notes who passes, and refuses where told to."""

    def __init__(self, name, log, *, refuses=False, breaks=False):
        self.name, self.log, self.refuses, self.breaks = name, log, refuses, breaks

    def enter(self, attempt, run):
        self.log.append(f"{self.name} asked about {attempt.model}")
        yield Do(lambda: None)
        if self.refuses:
            raise CallRefused(attempt.model, "shut", f"{self.name} is shut")

    def leave(self, attempt):
        self.log.append(f"{self.name} left: {attempt.outcome}")
        if self.breaks:
            raise RuntimeError("broken gate")


class Guarded(Component):
    inner: AnyRunnable
    gate: Recorder
    is_repeat: bool = False

    def plan(self, value, run: Run):
        run.terms = replace(run.terms, gates=(*run.terms.gates, self.gate), is_repeat=self.is_repeat)
        return (yield Forward(self.inner, value))


class Calls(Component):
    gates: tuple = ()
    expected: int = 0

    def plan(self, value, run: Run):
        attempt = yield from run.attempt("m", expect=lambda: Expected(self.expected, 0, None), gates=self.gates)
        attempt.settle("ok", usage=USAGE, cost_usd=0.5)
        return AIMessage(content="said")


def test_gates_are_passed_from_the_outside_in_and_left_from_the_inside_out():
    log: list[str] = []
    inner = Calls(gates=(Recorder("model", log),))
    chain = Guarded(inner=Guarded(inner=inner, gate=Recorder("in", log)), gate=Recorder("out", log))
    chain.invoke("x")
    assert log == [
        "out asked about m",
        "in asked about m",
        "model asked about m",
        "model left: ok",
        "in left: ok",
        "out left: ok",
    ]


def test_a_gate_that_refuses_lets_those_before_it_know_and_nothing_is_consumed():
    log: list[str] = []
    chain = Guarded(inner=Calls(gates=(Recorder("model", log, refuses=True),)), gate=Recorder("out", log))
    with capture_events() as events, pytest.raises(CallRefused, match="model is shut"):
        chain.invoke("x")
    assert log == ["out asked about m", "model asked about m", "out left: refused"]
    assert [each.outcome for each in events if type(each).__name__ == "Attempted"] == ["refused"]


def test_a_gate_that_breaks_when_left_is_recorded_and_the_others_are_left_all_the_same():
    log: list[str] = []
    chain = Guarded(inner=Calls(gates=(Recorder("model", log, breaks=True),)), gate=Recorder("out", log))
    answer = chain.invoke("x")
    assert log[-1] == "out left: ok"
    assert [each["kind"] for each in answer.report["events"]].count("CleanupFailed") == 1


def test_what_is_expected_is_worked_out_only_when_a_gate_asks():
    asked = []

    class Lazy(Component):
        def plan(self, value, run: Run):
            attempt = yield from run.attempt("m", expect=lambda: asked.append(1) or Expected(5, 6, 0.1))
            assert not asked
            assert attempt.expected.output_tokens == 6
            assert attempt.expected.input_tokens == 5
            attempt.settle("ok")
            return AIMessage(content="said")

    Lazy().invoke("x")
    assert asked == [1]


def test_a_request_makes_no_more_calls_than_its_caller_allows():
    class Twice(Component):
        def plan(self, value, run: Run):
            return (yield AskAll([Ask(Calls(), value) for _ in range(5)], return_exceptions=True))

    answers = Twice().invoke("x", chainops.caller(max_attempts=3))
    assert sum(isinstance(each, AttemptsExhausted) for each in answers) == 2
    with pytest.raises(AttemptsExhausted, match="may make 1 calls"):
        Pair().invoke("x", chainops.caller(max_attempts=1))


class Pair(Component):
    def plan(self, value, run: Run):
        yield Ask(Calls(), value)
        return (yield Forward(Calls(), value))


class Repeats(Component):
    """Calls `inner` again and again, as a retry would."""

    inner: AnyRunnable
    times: int
    log: Any

    def plan(self, value, run: Run):
        run.attempts.allow_repeats(2)
        for turn in range(self.times):
            run.terms = replace(run.terms, is_repeat=run.terms.is_repeat or turn > 0)
            try:
                answer = yield Forward(self.inner, f"{value} {turn}", kwargs={})
            except AttemptsExhausted as error:
                self.log.append(str(error))
                raise
            self.log.append("called")
        return answer


class Silent(Component):
    """Calls a model and says nothing, so that it can be called again."""

    def plan(self, value, run: Run):
        attempt = yield from run.attempt("m", expect=lambda: Expected(0, 0, None))
        attempt.settle("ok")
        return None


def test_repeats_of_several_retries_add_up_and_do_not_multiply():
    log: list[str] = []
    inner = Repeats(inner=Silent(), times=3, log=log)
    with pytest.raises(AttemptsExhausted, match="retries are used up"):
        Repeats(inner=inner, times=3, log=log).invoke("x")
    assert log.count("called") == 1 + 2 + 1  # a first call, two repeats, and the inner one that ended well


def test_side_calls_of_a_repeat_do_not_use_up_what_the_answer_needs():
    class WithSideCalls(Component):
        def plan(self, value, run: Run):
            yield Ask(Calls(), value)
            yield Ask(Calls(), value)
            return (yield Forward(Silent(), value))

    log: list[str] = []
    Repeats(inner=WithSideCalls(), times=3, log=log).invoke("x")
    assert log == ["called"] * 3


def test_a_call_that_outlives_its_request_passes_its_gates_all_the_same():
    class Leaves(Component):
        """Answers while a thread of its own goes on."""

        inner: AnyRunnable
        go: Any
        threads: Any

        def plan(self, value, run: Run):
            def start(inner):
                thread = threading.Thread(target=copy_context().run, args=(lambda: self.go.wait(60) and inner(value),))
                thread.start()
                self.threads.append(thread)

            yield Do(lambda: start(self.inner.invoke))
            return None

    log: list[str] = []
    go, threads = threading.Event(), []
    Guarded(inner=Leaves(inner=Calls(), go=go, threads=threads), gate=Recorder("out", log)).invoke("x")
    assert log == []
    go.set()
    threads[0].join(60)
    assert log == ["out asked about m", "out left: ok"]
