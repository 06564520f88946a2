"""Asks two model servers through what others offer: the peers that `resilience.py` compares with. Needs no chainops.

    python benchmarks/resilience_peers.py langchain|litellm FIRST_URL SECOND_URL

LangChain: `ChatOpenAI.with_retry().with_fallbacks()`. LiteLLM: its `Router` with a fallback; run it by an interpreter
of its own (pip install litellm langchain-openai). Both try each server three times, wait little between tries, have
the same time-out, and otherwise keep their defaults. Reads one JSON command a line from standard input, writes one
JSON answer a line. `run`, `overhead` and `answer_to` are used by `resilience.py` too, so that all are asked alike.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol

AT_ONCE = 8
TIMEOUT_S = 1.0
TRIES = 3
BASE_WAIT_S, MAX_WAIT_S = 0.02, 0.2


class Said(NamedTuple):
    """One answer as its caller got it."""

    text: str
    is_told: bool
    """Whether it says that it is not whole: marked as truncated, or ended for a reason that is not "stop"."""


class Asker(Protocol):
    def whole(self, question: str) -> Said: ...

    def stream(self, question: str) -> Iterator[Said]:
        """One for each chunk."""

    def batch(self, questions: list[str]) -> list[Said | BaseException]: ...


def answer_to(server: str, question: str) -> str:
    """What each server answers: it names the question, so that nobody can pass for another."""
    return f"{server} server to {question}: one two three four five six seven eight"


def outcome_of(question: str, said: Said) -> str:
    for server, outcome in (("first", "answered"), ("second", "degraded")):
        if said.text == answer_to(server, question):
            return outcome
    return "told" if said.is_told else "wrong"


def run(asker: Asker, mode: str, questions: list[str]) -> dict[str, Any]:
    """Ask all of them, some at once: what became of each, and how long it took."""
    began = time.perf_counter()
    if mode == "batch":
        results = [
            "refused" if isinstance(each, BaseException) else outcome_of(question, each)
            for question, each in zip(questions, asker.batch(questions), strict=True)
        ]
        spent: list[float] = []
    else:
        ask = _whole if mode == "invoke" else _streamed
        with ThreadPoolExecutor(AT_ONCE) as pool:
            pairs = list(pool.map(lambda question: ask(asker, question), questions))
        results, spent = [outcome for outcome, _ in pairs], [ms for _, ms in pairs]
    each_ms = (time.perf_counter() - began) * 1000 / len(questions)
    return {"outcomes": results, "ms": spent, "each_ms": each_ms}


def _whole(asker: Asker, question: str) -> tuple[str, float]:
    began = time.perf_counter()
    try:
        outcome = outcome_of(question, asker.whole(question))
    except Exception:
        outcome = "refused"
    return outcome, (time.perf_counter() - began) * 1000


def _streamed(asker: Asker, question: str) -> tuple[str, float]:
    began, text, is_told = time.perf_counter(), "", False
    try:
        for said in asker.stream(question):
            text += said.text
            is_told = is_told or said.is_told
        outcome = outcome_of(question, Said(text, is_told))
    except Exception:
        outcome = "told" if text else "refused"
    return outcome, (time.perf_counter() - began) * 1000


def overhead(bare: Callable[[], Any], wrapped: Callable[[], Any], calls: int) -> dict[str, float]:
    """µs per call that `wrapped` takes more than `bare`, taking turns in one thread, wall and CPU."""
    for _ in range(20):
        bare(), wrapped()
    spent: dict[str, list[tuple[float, float]]] = {"bare": [], "wrapped": []}
    for _ in range(calls):
        for name, call in (("bare", bare), ("wrapped", wrapped)):
            cpu, began = time.thread_time(), time.perf_counter()
            call()
            spent[name].append((time.perf_counter() - began, time.thread_time() - cpu))
    told = {}
    for position, clock in enumerate(("wall", "cpu")):
        bare_us, wrapped_us = (
            statistics.quantiles((each[position] for each in spent[n]), n=4)[0] * 1e6 for n in ("bare", "wrapped")
        )
        told |= {f"bare_{clock}_us": round(bare_us), f"{clock}_us": round(wrapped_us - bare_us)}
    return told


def chat_openai(url: str) -> Any:
    from langchain_openai import ChatOpenAI

    return ChatOpenAI(
        model="gpt-4o-mini", base_url=url, api_key="sk-test", max_retries=0, timeout=TIMEOUT_S, stream_usage=True
    )


def of_message(message: Any) -> Said:
    reason = message.response_metadata.get("finish_reason")
    return Said(str(message.content), reason not in ("stop", None))


class LangChain:
    def __init__(self, urls: list[str]) -> None:
        patient = [
            chat_openai(url).with_retry(
                stop_after_attempt=TRIES,
                exponential_jitter_params={"initial": BASE_WAIT_S, "max": MAX_WAIT_S, "jitter": BASE_WAIT_S},
            )
            for url in urls
        ]
        self.chain = patient[0].with_fallbacks(patient[1:])

    def whole(self, question: str) -> Said:
        return of_message(self.chain.invoke(question))

    def stream(self, question: str) -> Iterator[Said]:
        return map(of_message, self.chain.stream(question))

    def batch(self, questions: list[str]) -> list[Said | BaseException]:
        answers = self.chain.batch(questions, {"max_concurrency": AT_ONCE}, return_exceptions=True)
        return [each if isinstance(each, BaseException) else of_message(each) for each in answers]


class LiteLLM:
    def __init__(self, urls: list[str]) -> None:
        # Read when it is imported. Without the first it asks the internet for prices.
        os.environ |= {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR"}
        os.environ |= {
            "INITIAL_RETRY_DELAY": str(BASE_WAIT_S),
            "MAX_RETRY_DELAY": str(MAX_WAIT_S),
            "JITTER": str(BASE_WAIT_S),
        }
        import litellm

        litellm.suppress_debug_info = True
        litellm.telemetry = False
        shared = {"model": "openai/gpt-4o-mini", "api_key": "sk-test", "max_retries": 0}
        fallbacks = [{"first": ["second"]}]
        self.router = litellm.Router(
            model_list=[
                {"model_name": name, "litellm_params": {**shared, "api_base": url}}
                for name, url in zip(("first", "second"), urls, strict=True)
            ],
            num_retries=TRIES - 1,
            timeout=TIMEOUT_S,
            fallbacks=fallbacks,
            context_window_fallbacks=fallbacks,
            content_policy_fallbacks=fallbacks,
        )

    def _ask(self, question: str, *, stream: bool) -> Any:
        return self.router.completion("first", [{"role": "user", "content": question}], stream=stream)

    def whole(self, question: str) -> Said:
        return self._of(self._ask(question, stream=False).choices[0], "message")

    def stream(self, question: str) -> Iterator[Said]:
        for chunk in self._ask(question, stream=True):
            if chunk.choices:
                yield self._of(chunk.choices[0], "delta")

    def batch(self, questions: list[str]) -> list[Said | BaseException]:
        def one(question: str) -> Said | BaseException:
            try:
                return self.whole(question)
            except Exception as error:
                return error

        with ThreadPoolExecutor(AT_ONCE) as pool:
            return list(pool.map(one, questions))

    @staticmethod
    def _of(choice: Any, field: str) -> Said:
        return Said(getattr(choice, field).content or "", choice.finish_reason not in ("stop", None))


def main() -> None:
    import logging

    logging.disable(logging.CRITICAL)
    name, *urls = sys.argv[1:]
    asker: Asker = {"langchain": LangChain, "litellm": LiteLLM}[name](urls)
    bare = chat_openai(urls[0])
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever else prints, prints elsewhere
    for line in sys.stdin:
        command = json.loads(line)
        if "calls" in command:
            told = overhead(lambda: bare.invoke("q-0"), lambda: asker.whole("q-0"), command["calls"])
        else:
            told = run(asker, command["mode"], command["questions"])
        print(json.dumps(told), file=out, flush=True)


if __name__ == "__main__":
    main()
