import json
import threading
import time

import httpx
import pytest

from chainops.testing import Cut, Drip, Hang, ManualClock, ModelServer, Nonsense, Refuse, Status
from chainops.testing.faults import Reset
from chainops.testing.script import always, sometimes

ASKED = {
    "model": "m",
    "messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello you"}],
}


@pytest.fixture
def server():
    with ModelServer() as running:
        yield running


@pytest.fixture
def client():
    with httpx.Client(timeout=60, trust_env=False) as open_client:
        yield open_client


def chat(client, server, **more):
    return client.post(f"{server.url}/chat/completions", json={**ASKED, **more})


def said(response):
    return response.json()["choices"][0]["message"]["content"]


def test_it_echoes_the_last_user_message_unless_told_otherwise(server, client):
    assert said(chat(client, server)) == "Hello you"


def test_it_answers_with_a_text_or_a_function_of_the_messages(client):
    with ModelServer("Always this.") as fixed:
        assert said(chat(client, fixed)) == "Always this."
    with ModelServer(lambda messages: f"{len(messages)} messages") as counting:
        assert said(chat(client, counting)) == "2 messages"


def test_an_answer_function_may_call_tools(client):
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    with ModelServer(lambda _: {"content": None, "tool_calls": [call]}) as calling:
        assert chat(client, calling).json()["choices"][0]["message"]["tool_calls"] == [call]


def test_an_answer_function_that_raises_is_a_server_error_and_the_server_lives_on(client):
    with ModelServer(lambda messages: messages[99]) as broken:
        response = chat(client, broken)
        assert response.status_code == 500
        assert "IndexError" in response.json()["error"]["message"]
        assert client.get(f"{broken.url}/models").status_code == 200


def test_streams_arrive_whole(server, client):
    with client.stream("POST", f"{server.url}/chat/completions", json={**ASKED, "stream": True}) as response:
        assert response.headers["content-type"] == "text/event-stream"
        lines = [line for line in response.iter_lines() if line]
    assert lines[-1] == "data: [DONE]"
    text = "".join(json.loads(line[6:])["choices"][0]["delta"].get("content") or "" for line in lines[:-1])
    assert text == "Hello you"


def test_it_lists_its_models_and_knows_no_others(client):
    with ModelServer(models=["small", "large"]) as server:
        listed = client.get(f"{server.url}/models").json()["data"]
        assert [model["id"] for model in listed] == ["small", "large"]
        assert chat(client, server, model="small").status_code == 200
        refused = chat(client, server, model="huge")
        assert refused.status_code == 404
        assert refused.json()["error"]["code"] == "model_not_found"


def test_without_the_key_nothing_is_answered_and_the_key_is_nowhere_to_be_seen(client):
    with ModelServer(key="sk-planted-secret-123") as server:
        assert chat(client, server).status_code == 401
        headers = {"Authorization": "Bearer sk-planted-secret-123"}
        assert client.post(f"{server.url}/chat/completions", json=ASKED, headers=headers).status_code == 200
        assert "planted" not in repr(server) + repr(server.requests)


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/chat/completions", b"not json", 400),
        ("/chat/completions", b'{"model": "m"}', 400),
        ("/chat/completions", b'{"messages": [{}]}', 400),
        ("/chat/completions", b'{"model": "m", "messages": "text"}', 400),
        ("/embeddings", b'{"model": "m", "input": []}', 400),
        ("/nowhere", b"{}", 404),
    ],
)
def test_a_bad_request_gets_openais_error(server, client, path, body, status):
    response = client.post(server.url + path, content=body)
    assert response.status_code == status
    assert set(response.json()["error"]) == {"message", "type", "param", "code"}


def test_embeddings_are_the_same_for_the_same_text_and_may_be_real(server, client):
    def vectors(where, texts):
        body = client.post(f"{where.url}/embeddings", json={"model": "e", "input": texts}).json()
        return [item["embedding"] for item in body["data"]]

    assert vectors(server, "a b") == vectors(server, ["a b", "c"])[:1]
    assert len(vectors(server, [1, 2, 3])) == 1  # token numbers of one text
    with ModelServer(embed=lambda texts: [[float(len(text))] for text in texts]) as real:
        assert vectors(real, ["abc", "d"]) == [[3.0], [1.0]]


def test_requests_are_recorded(server, client):
    chat(client, server)
    server.fail(Status(503))
    chat(client, server, stream=True)
    assert server.wait_idle(60)
    first, second = server.requests
    assert (first.path, first.model, first.body, first.fault) == ("/v1/chat/completions", "m", ASKED, None)
    assert first.is_finished
    assert first.at <= second.at
    assert second.fault == Status(503)


def test_a_fault_lasts_for_its_times_or_until_healed(server, client):
    server.fail(Status(500), times=2)
    assert [chat(client, server).status_code for _ in range(3)] == [500, 500, 200]
    server.fail(Status(429))
    assert [chat(client, server).status_code for _ in range(3)] == [429] * 3
    server.heal()
    assert chat(client, server).status_code == 200


def test_no_request_comes_through_between_one_fault_and_the_next(server, client, monkeypatch):
    statuses = []

    def slowly(*args, **kwargs):
        statuses.append(chat(client, server).status_code)
        return always(*args, **kwargs)

    server.fail(Status(503))
    monkeypatch.setattr("chainops.testing.server.always", slowly)
    server.fail(Status(429))
    assert [*statuses, chat(client, server).status_code] == [503, 429]


def test_a_failing_request_does_not_run_the_answer_function(client):
    asked = []
    with ModelServer(lambda messages: asked.append(messages) or "x") as server:
        server.fail(Status(500), times=1)
        chat(client, server)
        assert asked == []


def test_refused_connections_are_refused_on_open_connections_too_and_healing_keeps_the_port(server, client):
    chat(client, server)
    url = server.url
    for _ in range(3):
        server.fail(Refuse())
        with pytest.raises(httpx.ConnectError):
            chat(client, server)
        server.heal()
        assert chat(client, server).status_code == 200
    assert server.url == url


def test_refusals_cannot_be_counted(server):
    with pytest.raises(ValueError, match="cannot be counted"):
        server.fail(Refuse(), times=1)


def test_a_hang_says_nothing_until_the_client_hangs_up(server, client, eventually):
    server.fail(Hang())
    with pytest.raises(httpx.ReadTimeout):
        client.post(f"{server.url}/chat/completions", json=ASKED, timeout=httpx.Timeout(60, read=0.1))
    eventually(lambda: server.requests)
    assert server.wait_idle(60)
    assert server.requests[0].is_cancelled


def test_a_short_hang_ends_in_the_answer(server, client):
    server.fail(Hang(0.05))
    assert said(chat(client, server)) == "Hello you"


def test_a_drip_arrives_whole_in_the_end(server, client):
    server.fail(Drip(0.0, step_bytes=9))
    assert said(chat(client, server)) == "Hello you"
    with client.stream("POST", f"{server.url}/chat/completions", json={**ASKED, "stream": True}) as response:
        assert response.read().endswith(b"data: [DONE]\n\n")
    assert server.wait_idle(60)
    assert all(request.is_finished for request in server.requests)


@pytest.mark.parametrize("stream", [False, True])
def test_a_cut_is_a_broken_connection(server, client, stream):
    server.fail(Cut(after_chunks=1))
    with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
        chat(client, server, stream=stream)
    assert server.wait_idle(60)
    assert server.requests[0].state == "cut"


def test_chunks_before_the_cut_arrive(server, client):
    server.fail(Cut(after_chunks=1))
    got = b""
    with (  # noqa: PT012 - what came before the cut matters
        pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)),
        client.stream("POST", f"{server.url}/chat/completions", json={**ASKED, "stream": True}) as response,
    ):
        for data in response.iter_bytes():
            got += data
    assert b'"Hello "' in got
    assert b"you" not in got


def test_a_stream_cut_in_silence_looks_complete_to_http(server, client):
    server.fail(Cut(after_chunks=1, how="end"))
    assert b"[DONE]" not in chat(client, server, stream=True).content
    assert server.wait_idle(60)
    assert server.requests[0].state == "cut"


def test_nonsense_html_is_a_page(server, client):
    server.fail(Nonsense("html"))
    assert chat(client, server).headers["content-type"].startswith("text/html")


def test_a_client_that_leaves_a_stream_is_noticed():
    with (
        ModelServer("word " * 1000, chunk_delay_s=0.05) as server,
        httpx.Client(timeout=60, trust_env=False) as client,
    ):
        with client.stream("POST", f"{server.url}/chat/completions", json={**ASKED, "stream": True}) as response:
            next(response.iter_bytes())
        assert server.wait_idle(60)
        assert server.requests[0].is_cancelled


def test_closing_the_server_ends_what_hangs(client):
    server = ModelServer().start()
    server.fail(Hang())
    errors = []

    def ask():
        try:
            chat(client, server)
        except httpx.TransportError as error:
            errors.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    while not server.requests:
        time.sleep(0.001)
    server.close()
    asking.join(60)
    assert len(errors) == 1


def test_many_at_once_are_each_answered_their_own(server):
    answers = {}

    def ask(number):
        with httpx.Client(trust_env=False, timeout=60) as own:
            body = {"model": "m", "messages": [{"role": "user", "content": f"number {number}"}]}
            answers[number] = said(own.post(f"{server.url}/chat/completions", json=body))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {number: f"number {number}" for number in range(16)}


def test_it_starts_again_after_it_was_closed(client):
    server = ModelServer("again")
    for _ in range(2):
        with server:
            assert said(chat(client, server)) == "again"
    assert len(server.requests) == 2


def test_rules_look_at_the_request_and_the_first_that_applies_is_played(server, client):
    server.rule(lambda r: r.model == "small", Status(503))
    server.rule(lambda r: r.is_stream, Status(500))
    assert chat(client, server).status_code == 200
    assert chat(client, server, model="small", stream=True).status_code == 503
    assert chat(client, server, stream=True).status_code == 500
    server.heal()
    assert chat(client, server, model="small").status_code == 200


def test_a_rule_that_raises_is_a_server_error_and_the_server_lives_on(server, client):
    server.rule(lambda r: r.body["nothing"], Status(503))
    assert "KeyError" in chat(client, server).json()["error"]["message"]
    server.heal()
    assert chat(client, server).status_code == 200


def test_an_outage_is_played_by_requests(server, client):
    server.script([(2, None), (3, Status(503)), (1, sometimes(1.0, Status(429)))])
    statuses = [chat(client, server).status_code for _ in range(8)]
    assert statuses == [200, 200, 503, 503, 503, 429, 200, 200]
    assert [request.status for request in server.requests] == statuses


def test_an_outage_is_played_by_the_clock(server, client):
    clock = ManualClock()
    server.script([(20, None), (30, Status(503))], clock=clock)
    statuses = []
    for _ in range(6):
        statuses.append(chat(client, server).status_code)
        clock.advance(10)
    assert statuses == [200, 200, 503, 503, 503, 200]


def test_a_reset_breaks_the_connection_without_a_byte(server, client):
    server.fail(Reset(), times=1)
    with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
        chat(client, server)
    assert chat(client, server).status_code == 200
    assert server.wait_idle(60)
    assert [(r.status, r.state) for r in server.requests] == [(0, "cut"), (200, "finished")]


def test_requests_are_found_by_what_they_asked_and_how_they_ended(server, client):
    chat(client, server, model="a")
    server.fail(Status(503), times=1)
    chat(client, server, model="b")
    chat(client, server, model="b")
    assert server.wait_idle(60)
    assert [r.number for r in server.calls(model="b")] == [2, 3]
    assert [r.number for r in server.calls(model="b", status=200, state="finished")] == [3]
    first, failed, _ = server.requests
    assert first.usage == {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
    assert failed.usage is None
    assert first.at <= first.ended


def test_of_several_keys_each_opens_and_only_its_end_is_kept(client):
    with ModelServer(keys=["sk-first-aaaa", "sk-second-bbbb"]) as server:
        for key in ("sk-first-aaaa", "sk-second-bbbb", "sk-third-cccc"):
            client.post(f"{server.url}/chat/completions", json=ASKED, headers={"Authorization": f"Bearer {key}"})
        assert [(r.key, r.status) for r in server.requests] == [("aaaa", 200), ("bbbb", 200), ("cccc", 401)]
        assert "sk-" not in repr(server) + repr(server.requests)
