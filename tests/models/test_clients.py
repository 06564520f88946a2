import asyncio
import gc
import itertools

import pytest

from chainops.models import clients
from chainops.models.clients import async_client, sync_client
from chainops.models.failures import classify
from chainops.models.providers import ModelSettings, chat_model
from chainops.testing import Drip, Hang, ModelServer


@pytest.fixture
def server():
    with ModelServer("one two three") as running:
        yield running


@pytest.fixture
def model(server, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-none-but-long-enough")
    return chat_model(ModelSettings(model="openai:m", base_url=server.url, timeout_s=60))


@pytest.fixture
def impatient(server, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-none-but-long-enough")
    return chat_model(ModelSettings(model="openai:m", base_url=server.url, timeout_s=0.3))


async def _all(stream):
    return [chunk async for chunk in stream]


CALLS = {
    "invoke": lambda model, **kw: model.invoke("q", **kw),
    "stream": lambda model, **kw: list(model.stream("q", **kw)),
    "ainvoke": lambda model, **kw: asyncio.run(model.ainvoke("q", **kw)),
    "astream": lambda model, **kw: asyncio.run(_all(model.astream("q", **kw))),
}


@pytest.mark.parametrize("way", CALLS)
@pytest.mark.parametrize("fault", [Hang(), Drip(0.02)])
def test_silence_and_a_slow_drip_both_end_at_the_timeout(server, impatient, way, fault, eventually):
    server.fail(fault)

    def is_asked():
        with pytest.raises(Exception, match="timed out") as caught:
            CALLS[way](impatient)
        assert classify(caught.value).reason == "timeout"
        return server.requests

    eventually(is_asked)  # on a busy machine the time may be over before anything was sent
    assert server.wait_idle(60)
    assert server.requests[0].is_cancelled


@pytest.mark.parametrize("way", CALLS)
def test_a_call_may_bring_a_shorter_timeout_of_its_own(server, monkeypatch, way):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-none-but-long-enough")
    patient = chat_model(ModelSettings(model="openai:m", base_url=server.url, timeout_s=600))
    server.fail(Drip(0.02))
    with pytest.raises(Exception, match="timed out"):
        CALLS[way](patient, timeout=0.1)


@pytest.mark.parametrize("way", ["stream", "astream"])
def test_a_stream_that_takes_longer_than_the_timeout_goes_on_while_chunks_come(monkeypatch, way):
    class Hurried:
        """Each look at the clock is 50 s later: the whole stream takes minutes, and no chunk comes late."""

        monotonic = itertools.count(0.0, 50.0).__next__

    monkeypatch.setenv("OPENAI_API_KEY", "sk-none-but-long-enough")
    monkeypatch.setattr(clients, "time", Hurried)
    with ModelServer("a b c d e f g h", chunk_delay_s=0.02) as slow:  # each chunk is read by itself
        model = chat_model(ModelSettings(model="openai:m", base_url=slow.url, timeout_s=60))
        assert "".join(chunk.content for chunk in CALLS[way](model)) == "a b c d e f g h"


def test_one_model_may_be_used_in_many_event_loops(model):
    for _ in range(4):
        assert asyncio.run(model.ainvoke("q")).content == "one two three"
        assert len(asyncio.run(_all(model.astream("q")))) > 3


def test_dead_loops_are_forgotten(model):
    for _ in range(5):
        asyncio.run(model.ainvoke("q"))
    gc.collect()
    assert len(async_client()._per_loop) <= 2


def test_all_models_share_their_clients(server, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-none-but-long-enough")
    first, second = (chat_model(ModelSettings(model=f"openai:{name}", base_url=server.url)) for name in "ab")
    assert first.http_client is second.http_client is sync_client()
