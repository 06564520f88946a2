"""Answer in two steps, with the model's call made elsewhere in between: what a provider's batch API needs."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from typing import Any, ClassVar

from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.runnables import RunnableConfig

from chainops.core.answer import Answer
from chainops.core.component import Component
from chainops.core.errors import ChainopsError, InvalidInput
from chainops.core.events import Listener
from chainops.core.run import Run
from chainops.core.steps import Plan, Say
from chainops.models.failures import EmptyAnswer, empty_answer
from chainops.models.model import Model
from chainops.models.prices import cost_usd
from chainops.spec.build import recipe
from chainops.spec.chain import Chain


@dataclass(frozen=True, slots=True)
class Given:
    """What the model answered elsewhere."""

    message: AIMessage
    asked: str
    """Digest of the messages it was asked with."""
    price_share: float
    """What part of the usual price was paid."""


class Rendering:
    """Takes a chain's question to the messages for its model, and the model's message to the chain's answer.

    What stands between (retrieval, prompt, citing) is the chain's own. Wrappers of the pipeline are not: they look
    at answers, decide which model is asked, or ask again, and none of that can be done here.

    Raises:
        InvalidInput: The chain has wrappers, and they are not to be left out.
    """

    def __init__(self, chain: Chain, *, skip_wrappers: bool = False) -> None:
        words = [entry.word for entry in chain.declared.pipeline]
        if words and not skip_wrappers:
            found = f"{', '.join(f'`{word}`' for word in words)}, which cannot work when the model is asked elsewhere"
            expected = "none; leave them out with --skip-wrappers (skip_wrappers=True)"
            raise InvalidInput("pipeline", found, expected)
        self._chain = chain
        self.model: Model = next(iter(chain.site.models.values()))
        """The first declared one: it answers."""

    async def messages(self, value: Any, config: RunnableConfig) -> list[BaseMessage] | Answer:
        """What the model is to be asked; or the answer, where none is needed (nothing was retrieved)."""
        site = self._chain.site
        asking = _Unheard(site=site, inner=recipe(site, Elsewhere(model=self.model, name=self.model.name)))
        try:
            return await asking.ainvoke(value, config)
        except NotYetAnswered as rendered:
            return rendered.messages

    async def answer(self, value: Any, config: RunnableConfig, given: Given) -> Answer:
        """The chain's answer, made of what its model said.

        Where the documents changed since the model was asked, the answer is marked degraded and cites nothing: its
        citations count passages that are no longer these.

        Raises:
            EmptyAnswer: The model said nothing.
        """
        site, told = self._chain.site, Elsewhere(model=self.model, given=given, name=self.model.name)
        try:
            return await self._chain.model_copy(update={"inner": recipe(site, told)}).ainvoke(value, config)
        except AskedOtherwise:
            return await self._chain.model_copy(update={"inner": told}).ainvoke(value, config)


class NotYetAnswered(ChainopsError):
    """Not a failure: says what the model is to be asked."""

    def __init__(self, messages: list[BaseMessage]) -> None:
        self.messages = messages
        super().__init__("the model is asked elsewhere")


class AskedOtherwise(ChainopsError):
    """The messages are not those that the model was asked with."""


class Elsewhere(Component[Any, AIMessage]):
    """Stands where the model stands: tells what it is asked, or says what it answered.

    Asked by a chain directly, without messages, it says the answer and that it cannot be cited.
    """

    kind: ClassVar[str] = "model"

    model: Model
    given: Given | None = None

    def plan(self, value: Any, run: Run) -> Plan[AIMessage]:
        given, name = self.given, self.model.model
        run.stage.model = name
        if given is None:
            raise NotYetAnswered(value)
        if isinstance(value, dict):
            run.report.mark("degraded", "the documents changed after the model was asked: its sources cannot be told")
        elif digest_of(value) != given.asked:
            raise AskedOtherwise("the documents changed")
        message = given.message
        usage = message.usage_metadata
        server = self.model.base_url or os.environ.get("OPENAI_BASE_URL")
        usd = cost_usd(name, usage, price=self.model.price, base_url=server).usd
        run.stage.usage, run.stage.cost_usd = usage, None if usd is None else usd * given.price_share
        empty = EmptyAnswer(name) if empty_answer(message) else None
        attempt = run.attempts.reserve(name)
        attempt.settle("failed" if empty else "ok", usage=usage, cost_usd=run.stage.cost_usd, error=empty)
        if empty is not None:
            raise empty
        if message.response_metadata.get("finish_reason") == "length":
            run.report.mark("truncated", f"{name} stopped at its limit of tokens")
        run.report.used("model", name, str(message.response_metadata.get("model_name") or name))
        run.report.served_by = f"{name} (batch)"
        yield Say(message)
        return message


class _Unheard(Chain):
    """A chain on the way to its model: nothing was answered yet, so there is nothing to trace."""

    def listeners(self) -> tuple[Listener, ...]:
        return ()


def digest_of(messages: list[BaseMessage]) -> str:
    """16 hexadecimal digits that tell requests apart."""
    told = json.dumps([[each.type, each.content] for each in messages], sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()[:16]
