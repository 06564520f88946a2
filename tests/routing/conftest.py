from __future__ import annotations

import asyncio

import pytest

from chainops.core.answer import Answer
from chainops.models.model import Model
from chainops.testing.chat import ScriptedChatModel
from chainops.testing.embedding import WordVectors


@pytest.fixture
def embedder():
    return WordVectors(dimensions=256)


EXAMPLES = {
    "billing": (
        "my invoice is wrong", "the invoice is too high", "why is my invoice so high", "refund my payment",
        "refund the wrong payment", "my payment is wrong", "why is my payment so high",
    ),
    "tech": (
        "the app crashes", "the app crashes on start", "my app does not start", "login does not work",
        "the login crashes", "the app does not work", "my login does not start",
    ),
}  # fmt: skip


@pytest.fixture
def examples():
    return dict(EXAMPLES)


@pytest.fixture
def scripted():
    def make(*replies, name="scripted", loop=True):
        chat = ScriptedChatModel(replies=list(replies), loop=loop)
        return Model(chat=lambda: chat, model=f"openai:{name}", name=name)

    return make


def _sum(chunks):
    total = chunks[0]
    for chunk in chunks[1:]:
        total += chunk
    return Answer.of(total)


@pytest.fixture
def everywhere():
    """The answer of each driver, from the same component."""

    def run(runnable, value, config=None):
        async def astream():
            return [chunk async for chunk in runnable.astream(value, config)]

        return {
            "invoke": runnable.invoke(value, config),
            "ainvoke": asyncio.run(runnable.ainvoke(value, config)),
            "stream": _sum(list(runnable.stream(value, config))),
            "astream": _sum(asyncio.run(astream())),
        }

    return run
