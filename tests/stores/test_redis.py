"""Connections to a real Redis server, and what it says when it cannot serve."""

from __future__ import annotations

import pickle
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from chainops.core.errors import InvalidInput, StoreError, StoreUnavailable
from chainops.stores.redis import RedisStore, redis_store
from chainops.testing.servers import redis_server

SECRET = "s3cret-Pa55"


@pytest.fixture(scope="module")
def server():
    with redis_server() as running:
        yield running


@pytest.fixture(scope="module")
def locked():
    with redis_server("--requirepass", SECRET) as running:
        yield running


@pytest.fixture
def store(server):
    store = redis_store(server.url, timeout_s=10)
    with store.client() as client:
        client.flushall()
    yield store
    store.close()


def ping(store):
    with store.client() as client:
        return client.ping()


@pytest.mark.parametrize(
    "url", ["", "redis", "http://host", "postgresql://host/db", "redis://host:port", "redis://h:99999999", 5]
)
def test_what_is_no_redis_url_is_refused_without_being_shown(url):
    with pytest.raises(InvalidInput) as caught:
        RedisStore(f"{url}?password={SECRET}" if isinstance(url, str) else url)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "place"),
    [
        (f"redis://ann:{SECRET}@host", "redis://host:6379/0"),
        (f"rediss://:{SECRET}@host:7000/3", "rediss://host:7000/3"),
        (f"unix://ann:{SECRET}@/run/redis.sock?db=1", "unix:///run/redis.sock"),
    ],
)
def test_a_place_shows_no_login(url, place):
    store = redis_store(url)
    assert store.place == place
    assert SECRET not in repr(store)


def test_nothing_is_opened_before_it_is_used():
    assert redis_store("redis://no.such.host.example").place


def test_a_password_in_the_environment_logs_in(locked, monkeypatch):
    monkeypatch.setenv("REDIS_PASSWORD", SECRET)
    assert ping(redis_store(f"redis://127.0.0.1:{locked.port}", timeout_s=10))


def test_a_password_in_the_url_logs_in(locked):
    store = redis_store(locked.url, timeout_s=10)
    assert ping(store)
    assert SECRET not in store.place


@pytest.mark.parametrize(
    ("login", "said"),
    [("", "wants a password"), ("ann:no@", "refused the login"), (":no@", "refused the login")],
)
def test_a_login_that_fails_is_told_without_the_password(locked, login, said):
    store = redis_store(f"redis://{login}127.0.0.1:{locked.port}", timeout_s=10)
    with pytest.raises(StoreUnavailable) as caught:
        ping(store)
    assert said in str(caught.value)
    assert SECRET not in repr(caught.value)
    assert str(locked.port) in caught.value.place


def test_a_user_without_a_permission_is_told(server, store):
    with store.client() as client:
        client.execute_command("ACL", "SETUSER", "reader", "on", ">pw", "~*", "+get", "+ping")
    reader = redis_store(f"redis://reader:pw@127.0.0.1:{server.port}", timeout_s=10)
    with pytest.raises(StoreUnavailable, match="lacks a permission"), reader.client() as client:
        client.set("a", 1)


def test_no_server_is_told_and_a_new_one_used():
    with redis_server() as own:
        store = redis_store(own.url, timeout_s=10)
        assert ping(store)
        own.kill()
        with pytest.raises(StoreUnavailable, match="cannot be reached") as caught:
            ping(store)
        assert caught.value.retryable
        assert pickle.loads(pickle.dumps(caught.value)).place == store.place
        own.start()
        assert ping(redis_store(own.url, timeout_s=10))
        store.close()


def test_idle_connections_to_a_restarted_server_are_replaced_without_an_error():
    with redis_server() as own:
        store = redis_store(own.url, timeout_s=10)
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(lambda _: ping(store), range(64)))
        own.restart()
        assert all(ping(store) for _ in range(40))


def test_a_server_that_does_not_answer_is_given_up():
    with redis_server() as own:
        store = redis_store(own.url, timeout_s=5)
        assert ping(store)
        own.pause()
        try:
            with pytest.raises(StoreUnavailable, match="no answer within 5 s"):
                ping(store)
        finally:
            own.resume()


def test_a_late_answer_is_not_taken_for_the_next_ones():
    with redis_server() as own:
        store = redis_store(own.url, timeout_s=5)
        with store.client() as client:
            client.set("a", "first")
        own.pause()
        with pytest.raises(StoreUnavailable), store.client() as client:
            client.get("a")
        own.resume()
        patient = redis_store(own.url, timeout_s=10)
        with patient.client() as client:
            client.set("b", "second")
        with store.client() as client:
            assert client.get("b") == b"second"


def test_too_many_at_once_wait_for_a_connection(store):
    with ThreadPoolExecutor(64) as threads:
        assert all(threads.map(lambda _: ping(store), range(500)))


def test_connections_that_stay_busy_are_told(server):
    store = redis_store(server.url, timeout_s=5)
    together, done = threading.Barrier(33, timeout=60), threading.Event()

    def hold():
        connection = store._client.connection_pool.get_connection()
        together.wait()
        done.wait(60)
        store._client.connection_pool.release(connection)

    with ThreadPoolExecutor(32) as threads:
        for _ in range(32):
            threads.submit(hold)
        together.wait()
        try:
            with pytest.raises(StoreUnavailable, match="connections are in use"):
                ping(store)
        finally:
            done.set()


def test_a_key_of_another_kind_is_told(store):
    with store.client() as client:
        client.set("a", 1)
    with pytest.raises(StoreError, match="something of another kind") as caught, store.client() as client:
        client.lpush("a", 2)
    assert not isinstance(caught.value, StoreUnavailable)


def test_a_full_server_is_told_also_from_inside_a_script(store):
    script = store.script("return redis.call('SET', KEYS[1], ARGV[1])")
    with store.client() as client:
        client.config_set("maxmemory", 1)
    try:
        with pytest.raises(StoreUnavailable, match="memory limit"):
            store.run(script, ["a"], ["x"])
    finally:
        with store.client() as client:
            client.config_set("maxmemory", 0)
    assert store.run(script, ["a"], ["x"]) == b"OK"


def test_a_broken_script_is_a_store_error(store):
    with pytest.raises(StoreError, match="refused it"):
        store.run(store.script("return nonsense.here"), [], [])


def test_an_error_of_the_callers_own_stays_what_it_is(store):
    with pytest.raises(KeyError), store.client():
        raise KeyError


def test_a_forked_child_gets_connections_of_its_own(server):
    code = """
import os, sys
from chainops.stores.redis import redis_store
store = redis_store(sys.argv[1], timeout_s=10)
with store.client() as client:
    client.set("who", "parent")
child = os.fork()
for n in range(200):
    with store.client() as client:
        assert client.echo(f"{os.getpid()}") == str(os.getpid()).encode()
if child:
    assert os.waitpid(child, 0)[1] == 0
"""
    done = subprocess.run([sys.executable, "-c", code, server.url], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr


def test_importing_chainops_stores_does_not_import_redis():
    code = "import sys, chainops.stores.redis; assert 'redis' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=240)


def test_times_out_quickly_by_default():
    assert redis_store("redis://host").timeout_s == 0.25
