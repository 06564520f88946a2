import threading
from contextlib import ExitStack

import httpx
import pytest

from chainops.testing import ManualClock, ModelServer, Stall
from chainops.testing.limits import Limiter, Limits, duration

ONE = {"Authorization": "Bearer sk-key-one1"}
TWO = {"Authorization": "Bearer sk-key-two2"}


@pytest.fixture
def client():
    with httpx.Client(timeout=60, trust_env=False) as open_client:
        yield open_client


def ask(client, server, headers=ONE, text="one two three", **more):
    body = {"model": "m", "messages": [{"role": "user", "content": text}], **more}
    return client.post(f"{server.url}/chat/completions", json=body, headers=headers)


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0.12, "120ms"), (1, "1s"), (0, "0ms"), (360, "6m0s"), (3600, "1h0m0s"), (61.5, "1m1.5s"), (59.9999, "1m0s")],
)
def test_durations_are_written_as_openai_writes_them(seconds, told):
    assert duration(seconds) == told


def test_more_requests_than_a_minute_may_hold_get_429_and_come_through_after_the_wait_told(client):
    clock = ManualClock()
    with ModelServer("x", limits=Limits(requests_per_minute=3), clock=clock) as server:
        assert [ask(client, server).status_code for _ in range(4)] == [200, 200, 200, 429]
        refused = ask(client, server)
        assert refused.json()["error"]["code"] == "rate_limit_exceeded"
        assert refused.json()["error"]["type"] == "requests"
        assert refused.headers["retry-after"] == "20"
        clock.advance(float(refused.headers["retry-after-ms"]) / 1000)
        assert ask(client, server).status_code == 200
        assert ask(client, server).status_code == 429


def test_tokens_are_limited_by_what_was_used_and_max_tokens_must_fit(client):
    with ModelServer("four five", limits=Limits(tokens_per_minute=12), clock=ManualClock()) as server:
        assert ask(client, server).headers["x-ratelimit-remaining-tokens"] == "7"
        assert ask(client, server, max_tokens=5).status_code == 429  # 3 + 5 > 7
        assert ask(client, server, max_tokens=2).status_code == 200
        refused = ask(client, server)
        assert refused.json()["error"]["type"] == "tokens"
        assert float(refused.headers["retry-after-ms"]) == pytest.approx(5000)


def test_each_key_has_its_own_limit_and_the_keys_are_counted(client):
    limits = Limits(requests_per_minute=1)
    with ModelServer("x", keys=("sk-key-one1", "sk-key-two2"), limits=limits, clock=ManualClock()) as server:
        assert [ask(client, server, key).status_code for key in (ONE, ONE, TWO, TWO)] == [200, 429, 200, 429]
        assert ask(client, server, {"Authorization": "Bearer other"}).status_code == 401
        assert server.wait_idle(60)
        assert {key: (each.accepted, each.refused) for key, each in server.tally.items()} == {
            "one1": (1, 1),
            "two2": (1, 1),
        }
        assert len(server.calls(key="sk-key-two2")) == 2
        assert len(server.calls(key="sk-key-two2", status=429)) == 1


def test_headers_tell_what_is_left(client):
    limits = Limits(requests_per_minute=60, tokens_per_minute=6000, is_enforced=False)
    with ModelServer("four five", limits=limits, clock=ManualClock()) as server:
        told = {name: value for name, value in ask(client, server).headers.items() if name.startswith("x-ratelimit")}
        assert told == {
            "x-ratelimit-limit-requests": "60",
            "x-ratelimit-remaining-requests": "59",
            "x-ratelimit-reset-requests": "1s",
            "x-ratelimit-limit-tokens": "6000",
            "x-ratelimit-remaining-tokens": "5995",
            "x-ratelimit-reset-tokens": "50ms",
        }
        assert {ask(client, server).status_code for _ in range(70)} == {200}


def test_too_many_at_once_are_refused_and_a_request_that_is_over_makes_room(client):
    with ModelServer("x y z", limits=Limits(concurrency=2)) as server, ExitStack() as open_streams:
        server.fail(Stall(1), times=2)
        body = {"model": "m", "messages": [{"role": "user", "content": "one"}], "stream": True}
        for _ in range(2):
            stream = client.stream("POST", f"{server.url}/chat/completions", json=body, headers=ONE)
            open_streams.enter_context(stream)
        assert ask(client, server).status_code == 429
        open_streams.close()
        assert server.wait_idle(60)
        assert ask(client, server).status_code == 200
        assert server.wait_idle(60)
        assert (server.tally["one1"].most_open, server.tally["one1"].open) == (2, 0)
        assert [each.state for each in server.requests] == ["cancelled", "cancelled", "finished", "finished"]


@pytest.mark.parametrize("stream", [False, True])
def test_whoever_has_the_whole_answer_may_ask_again_at_once(stream):
    class Slow(ModelServer):
        def settle(self, received, ending):
            self.closing.wait(0.2)
            super().settle(received, ending)

    with Slow("x y", limits=Limits(concurrency=1)) as server:
        for _ in range(3):
            with httpx.Client(timeout=60, trust_env=False) as own:
                assert ask(own, server, stream=stream).status_code == 200


def test_no_more_than_the_limit_is_let_in_by_many_threads():
    limiter = Limiter(Limits(requests_per_minute=100), ManualClock())
    let_in = []

    def many():
        let_in.extend(limiter.admit("k", 1) is None for _ in range(50))

    threads = [threading.Thread(target=many) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(let_in) == 100
    assert limiter.tallies()["k"].refused == 300
