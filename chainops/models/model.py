"""A chat model as a component: metered, bounded in time, its failures told in one language."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.messages.ai import UsageMetadata

from chainops.core.attempts import Expected, Gate
from chainops.core.component import Component
from chainops.core.errors import ChainopsError, DeadlineExceeded
from chainops.core.run import Run
from chainops.core.steps import Cancelled, Do, Forward, Plan
from chainops.models.failures import (
    EmptyAnswer,
    Failure,
    MissingKey,
    ModelFailed,
    ModelUnavailable,
    classify,
    cut_short,
    empty_answer,
    wrap,
)
from chainops.models.key_pool import KEY_FAILURES, KeyPool, ModelKey
from chainops.models.known import EXTRACTIVE
from chainops.models.prices import Cost, Price, cost_usd, estimate_tokens

EXPECTED_OUTPUT_TOKENS = 500
"""What is set aside for an answer of unknown length, where the model's `max_tokens` is not declared."""


class Model(Component[Any, AIMessage]):
    """Calls a chat model through the request's ledger.

    Every call is reserved before it starts and settled once, with what was consumed, also when it
    fails or the caller hangs up. The request's deadline, when nearer than `timeout_s`, becomes the
    client's own timeout.

    Raises:
        ModelFailed: The provider failed, refused or answered nonsense; `kind` says whether the same
            call, another model, or only another request can help. Bugs pass through as they are.
    """

    kind: ClassVar[str] = "model"

    chat: Callable[[], BaseChatModel]
    """Gives the chat model; opened at the first question, because provider packages are slow to import."""
    model: str
    """`provider:name`, as reports and price tables know it."""
    timeout_s: float = 30.0
    base_url: str | None = None
    """The server, where it is not the provider's own: what that charges is not in the price table."""
    price: Price | None = None
    """The declared price, for models that no table knows; wins over the table."""
    expected_output_tokens: int = EXPECTED_OUTPUT_TOKENS
    """What limits and budgets set aside for an answer until its length is known; `max_tokens` where it is declared."""
    keys: KeyPool | None = None
    """Several keys, or one whose provider's limits are heeded; each brings its own chat model, in place of `chat`."""
    gates: tuple[Gate, ...] = ()
    """What calls to this model must pass, whoever makes them: its limits, its breaker."""

    def plan(self, value: Any, run: Run) -> Plan[AIMessage]:
        run.stage.model = self.model
        kwargs = dict(run.kwargs)
        value = self._continued(value, run)
        key = None if self.keys is None else self.keys.choose(run.clock.monotonic())
        opener = self.chat if key is None else key.chat
        try:
            chat: BaseChatModel = yield Do(lambda: self._opened(opener), blocks=not getattr(opener, "is_made", True))
        except ChainopsError as error:  # no key, no package: another model may still answer
            failure = self._or_another_key(wrap(error, self.model), key, run)
            if failure is error:
                raise
            raise failure from error
        gates = self.gates if key is None else (*self.gates, *key.gates, key)
        attempt = yield from run.attempt(
            self.model, expect=lambda: self._expected(value), key=None if key is None else key.name, gates=gates
        )
        # Its time begins now, not before: it may have stood in a queue.
        outer, share_s = run.terms, run.terms.shares.get("attempt")
        if share_s is not None:
            run.limit_time(share_s, {})
        remaining_s = run.remaining_s
        if remaining_s is not None and remaining_s < self.timeout_s and self.model.startswith("openai:"):
            kwargs["timeout"] = max(remaining_s, 0.001)  # the one client known to take it with each call
        call = Forward(chat, value, kwargs=kwargs)
        message: AIMessage | None = None
        try:
            message = yield call
            if message.response_metadata.get("finish_reason") == "content_filter":
                raise ModelFailed(self.model, _FILTERED, next_move="rephrase the request, or use another model")
            if empty_answer(message):
                raise EmptyAnswer(self.model)
            if cut_short(message):
                raise ModelUnavailable(self.model, Failure("retryable", "cut off"), next_move="ask again")
        except (Exception, Cancelled, GeneratorExit) as error:
            # Who hangs up or runs late has still been read: the question was paid for, and what came of the answer.
            heard = message or call.received or call.came
            left = isinstance(error, Cancelled | GeneratorExit | DeadlineExceeded)
            is_paid = heard is not None or (left and call.is_sent)
            usage, cost = self._spent(value, heard, run) if is_paid else (None, None)
            run.terms = outer
            if isinstance(error, DeadlineExceeded) and share_s is not None and run.remaining_s != 0:
                slow = Failure("retryable", "timeout", detail=f"no whole answer in its share of {share_s:g} s")
                failure = ModelUnavailable(self.model, slow, next_move="ask again, or another model")
            elif run.remaining_s == 0 and classify(error).reason == "timeout":  # the client's name for our deadline
                failure = run.late()
            else:
                failure = wrap(error, self.model, key_env=None if key is None else key.name)
            if key is not None and not self.model.startswith("openai:"):
                key.heard_of(error)  # of other clients' answers we see no headers, except in their errors
            cancelled = isinstance(error, Cancelled | GeneratorExit)
            attempt.settle("cancelled" if cancelled else "failed", usage=usage, cost_usd=cost, error=failure)
            failure = self._or_another_key(failure, key, run)
            if failure is error:
                raise
            raise failure from error
        usage, cost = self._spent(value, message, run)
        attempt.settle("ok", usage=usage, cost_usd=cost)
        if (
            message.response_metadata.get("finish_reason") or message.response_metadata.get("stop_reason")
        ) in _TOO_LONG:
            run.report.mark("truncated", f"{self.model} stopped at its limit of tokens")
        run.report.used("model", self.model, str(message.response_metadata.get("model_name") or self.model))
        if not run.report.served_by:
            run.report.served_by = self.model
        return message

    def _continued(self, value: Any, run: Run) -> Any:
        """The messages to answer: with what another route had said, where this one is to go on from there."""
        said = run.terms.continues
        if said is None:
            return value
        run.report.may_cache = False  # half of it is somebody else's
        if self.model == EXTRACTIVE:
            failure = Failure("next_route", "cannot continue", detail="it finds sentences, and says them whole")
            raise ModelFailed(self.model, failure, next_move="use another model")
        return [*_messages(value), AIMessage(content=said), HumanMessage(content=CONTINUE)]

    def _expected(self, value: Any) -> Expected:
        asked = _estimate(value, None)
        usage = UsageMetadata(
            input_tokens=asked["input_tokens"],
            output_tokens=self.expected_output_tokens,
            total_tokens=asked["input_tokens"] + self.expected_output_tokens,
        )
        return Expected(usage["input_tokens"], usage["output_tokens"], self.cost(usage).usd)

    def cost(self, usage: UsageMetadata) -> Cost:
        """What a call that consumes this costs now."""
        elsewhere = self.base_url or (os.environ.get("OPENAI_BASE_URL") if self.model.startswith("openai:") else None)
        return cost_usd(self.model, usage, price=self.price, base_url=elsewhere)

    def _or_another_key(self, failure: BaseException, key: ModelKey | None, run: Run) -> BaseException:
        """A key that is refused says nothing about the others: where one is free, the same call may work at once.
        It is an attempt of its own, made by whoever retries.
        """
        if isinstance(failure, MissingKey):
            judged = classify(failure)
            failure_of_key = ModelFailed(self.model, judged, next_move="set the variable")
            if key is not None:
                key.failed(failure_of_key, run.clock.monotonic())
        elif isinstance(failure, ModelFailed):
            judged = classify(failure)
        else:
            return failure
        if key is None or self.keys is None or judged.reason not in KEY_FAILURES:
            return failure
        other = self.keys.another(key, run.clock.monotonic())
        if other is None:
            return failure
        again = replace(judged, kind="retryable", retry_after_s=0.0)
        return ModelUnavailable(self.model, again, next_move=f"ask again: the key in {other.name} is free")

    def _opened(self, opener: Callable[[], BaseChatModel]) -> BaseChatModel:
        """The chat model; the first time also the price table, whose import would stop an event loop for 0.15 s."""
        if not getattr(opener, "is_made", True):
            cost_usd(self.model, _NOTHING, price=self.price, base_url=self.base_url)
        return opener()

    def _spent(self, value: Any, message: AIMessage | None, run: Run) -> tuple[UsageMetadata, float | None]:
        """Tokens and USD of a whole or broken-off answer. Without the provider's count, a stated estimate."""
        usage = None if message is None else message.usage_metadata
        if usage is None or not _is_likely(usage, message):
            usage = _estimate(value, message)
            run.stage.facts["tokens"] = "estimated"
        cost = self.cost(usage)
        run.stage.usage, run.stage.cost_usd = usage, cost.usd
        if cost.usd is None:
            run.stage.facts["price"] = cost.source
        return usage, cost.usd


CONTINUE = (
    "Your answer was cut off there. Go on exactly where it ends, in the middle of the sentence if need be. "
    "Do not repeat anything, do not comment on this."
)
"""What a model is told that finishes another one's answer."""
_NOTHING = UsageMetadata(input_tokens=0, output_tokens=0, total_tokens=0)
_FILTERED = Failure("next_route", "content filter", detail="the provider's filter cut the answer")
_TOO_LONG = frozenset({"length", "max_tokens", "MAX_TOKENS"})
"""What providers call the end of an answer that had more to say."""


def _is_likely(usage: UsageMetadata, message: AIMessage | None) -> bool:
    """Whether these counts can be: not below nothing, and not nothing for an answer that is there."""
    said = message is not None and not empty_answer(message)
    return min(usage["input_tokens"], usage["output_tokens"]) >= 0 and not (said and usage["output_tokens"] == 0)


def _messages(value: Any) -> list[Any]:
    asked = value.to_messages() if hasattr(value, "to_messages") else value
    return asked if isinstance(asked, list) else [asked]


def _estimate(value: Any, message: AIMessage | None) -> UsageMetadata:
    texts = [str(each.text) if isinstance(each, BaseMessage) else str(each) for each in _messages(value)]
    read, written = sum(map(estimate_tokens, texts)), 0 if message is None else estimate_tokens(str(message.text))
    return UsageMetadata(input_tokens=read, output_tokens=written, total_tokens=read + written)
