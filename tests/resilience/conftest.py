"""What the tests of resilience share: models on a real server, and every driver's answer."""

from __future__ import annotations

import asyncio

import pytest

import chainops
from chainops.models.model import Model
from chainops.models.providers import ModelSettings, chat_model


def _sum(chunks):
    total = chunks[0]
    for chunk in chunks[1:]:
        total += chunk
    return chainops.Answer.of(total)


def _ask(driver, runnable, value="hello", config=None):
    if driver == "invoke":
        return runnable.invoke(value, config)
    if driver == "ainvoke":
        return asyncio.run(runnable.ainvoke(value, config))
    if driver == "stream":
        return _sum(list(runnable.stream(value, config)))

    async def collect():
        return [chunk async for chunk in runnable.astream(value, config)]

    return _sum(asyncio.run(collect()))


@pytest.fixture(params=["invoke", "ainvoke", "stream", "astream"])
def driver(request):
    return request.param


@pytest.fixture
def ask():
    """Asks a runnable by the named driver: `ask(driver, runnable, value, config)`."""
    return _ask


@pytest.fixture
def served(monkeypatch):
    """Makes a model answered by a `ModelServer`."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")

    def make(server, name="gpt-4o-mini", timeout_s=30.0, **fields):
        settings = ModelSettings(model=f"openai:{name}", base_url=server.url, timeout_s=timeout_s)
        chat = chat_model(settings)
        return Model(chat=lambda: chat, model=settings.model, timeout_s=timeout_s, name=name, **fields)

    return make
