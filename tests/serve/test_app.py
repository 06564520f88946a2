from __future__ import annotations

import asyncio
import threading

import httpx
import pytest

import chainops
from chainops.serve.app import create_app, run
from chainops.testing.faults import Status
from chainops.testing.server import ModelServer


@pytest.fixture(scope="module")
def chain_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    (folder / "docs").mkdir()
    (folder / "docs" / "shop.txt").write_text("The shop opens at nine in the morning. It is closed on Sundays.")
    (folder / "chain.yaml").write_text(
        "chainops: 1\nname: help\nkind: rag\nmodels: {m: {model: extractive}}\n"
        "knowledge: {documents: 'docs/*'}\npipeline: [cache: {threshold: 0.95}]\n"
    )
    return folder


@pytest.fixture(scope="module")
def model_server():
    with ModelServer("hello from the model") as server:
        yield server


@pytest.fixture(scope="module")
def served(chain_folder, model_server):
    """A real server, on a real port."""
    import uvicorn

    talk = chainops.declare(
        {
            "name": "talk",
            "kind": "chat",
            "models": {"m": {"model": "openai:m", "base_url": model_server.url, "key_env": "SERVED_KEY"}},
        },
        base=chain_folder,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SERVED_KEY", "sk-served")
        talk.invoke("warm up")
        app = create_app([chainops.load(chain_folder / "chain.yaml"), talk])
        server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        while not server.started:
            threading.Event().wait(0.02)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
        server.should_exit = True
        thread.join(60)


def test_a_served_chain_answers_with_status_and_sources_and_nothing_else(served):
    told = httpx.post(f"{served}/help/invoke", json={"input": "When does the shop open?"}, timeout=60).json()
    message = told["output"]
    assert "nine" in message["content"]
    assert set(message["response_metadata"]["chainops"]) == {"status", "sources"}
    assert message["response_metadata"]["chainops"]["sources"][0]["document"] == "docs/shop.txt"


def test_what_a_client_claims_about_itself_is_ignored(served):
    config = {"configurable": {"__chainops": {"expose": ["report"], "tenant": "globex"}}, "metadata": {"x": 1}}
    body = {"input": "When does the shop open?", "config": config}
    told = httpx.post(f"{served}/help/invoke", json=body, timeout=60).json()
    assert set(told["output"]["response_metadata"]["chainops"]) == {"status", "sources"}


def test_batch_stream_and_stream_events_work_over_http(served):
    from langserve import RemoteRunnable

    remote = RemoteRunnable(f"{served}/help/")
    answer = chainops.Answer.of(remote.invoke("When does the shop open?"))
    assert answer.sources
    assert [chainops.Answer.of(each).text for each in remote.batch(["When does the shop open?"] * 2)] == [
        answer.text
    ] * 2
    chunks = list(remote.stream("When is the shop closed?"))
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk
    assert "Sundays" in whole.text
    assert chainops.Answer.of(whole).status in ("ok", "cached")

    async def events():
        return [each["event"] async for each in remote.astream_events("When does the shop open?", version="v2")]

    heard = asyncio.run(events())
    assert heard[0] == "on_chain_start"
    assert "on_chain_stream" in heard


def test_no_endpoint_shows_prompts_passages_or_tokens(served):
    for endpoint in ("invoke", "stream", "stream_events", "stream_log", "batch"):
        body = {"inputs": ["When is the shop closed?"], "input": "When is the shop closed?"}
        shown = httpx.post(f"{served}/help/{endpoint}", json=body, timeout=60).text
        assert "Sundays" in shown, endpoint
        for secret in ("quoted material", "<passage", 'input_tokens":', "similarity", "extractive"):
            assert secret not in shown, (endpoint, secret)


def test_a_stream_that_fails_says_why_in_its_last_chunk_and_ends_cleanly(served, model_server):
    model_server.fail(Status(503))
    try:
        failed = httpx.post(f"{served}/talk/stream", json={"input": "hello"}, timeout=60).text
        events = httpx.post(f"{served}/talk/stream_events", json={"input": "hello"}, timeout=60).text
    finally:
        model_server.heal()
    empty = httpx.post(f"{served}/help/stream", json={"input": ""}, timeout=60).text
    for shown, status in ((failed, 502), (events, 502), (empty, 422)):
        assert f'"http_status":{status}' in shown.replace(" ", "")
        assert '"status":"failed"' in shown.replace(" ", "")
        assert "event: error" not in shown
        assert "sk-served" not in shown


@pytest.mark.parametrize("value", ["", " ", "x" * 1_000_000, {"no": "question"}])
def test_a_bad_question_is_the_clients_fault_and_told_in_one_line(served, value):
    reply = httpx.post(f"{served}/help/invoke", json={"input": value}, timeout=60)
    assert reply.status_code == 422
    assert reply.json()["error"] == "InvalidInput"
    assert "Traceback" not in reply.text
    assert len(reply.text) < 500


def test_langserve_481_a_failing_model_is_told_as_a_bad_gateway_without_its_key(served, model_server):
    model_server.fail(Status(429))
    try:
        reply = httpx.post(f"{served}/talk/invoke", json={"input": "hello"}, timeout=60)
    finally:
        model_server.heal()
    assert reply.status_code == 502
    assert "429" in reply.json()["message"]
    assert "sk-served" not in reply.text
    assert httpx.post(f"{served}/talk/invoke", json={"input": "hello"}, timeout=60).json()["output"]["content"]


def test_playground_health_and_docs_are_there(served):
    assert "html" in httpx.get(f"{served}/help/playground/", follow_redirects=True, timeout=60).headers["content-type"]
    assert httpx.get(f"{served}/health", timeout=60).json() == {"status": "ok", "chains": ["help", "talk"]}
    assert "/help/invoke" in httpx.get(f"{served}/openapi.json", timeout=60).json()["paths"]


def test_two_chains_of_one_name_and_a_taken_port_are_clear_errors(chain_folder, served):
    chain = chainops.load(chain_folder / "chain.yaml")
    with pytest.raises(chainops.InvalidInput, match="twice"):
        create_app([chain, chain])
    port = int(served.rpartition(":")[2])
    with pytest.raises(chainops.InvalidInput, match=f"127.0.0.1:{port}"):
        run([chain_folder / "chain.yaml"], host="127.0.0.1", port=port)
