"""The Redis server of the tests, and what its operator does after it was killed."""

from __future__ import annotations

from chainops.stores.redis import redis_store
from chainops.testing.servers import redis_server


def commands(*commands):
    return b"".join(
        b"*%d\r\n" % len(each) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in each) for each in commands
    )


def keys(server):
    with redis_store(server.url, timeout_s=5).client() as client:
        return {key: client.get(key) for key in client.scan_iter()}


def test_a_repaired_file_has_every_whole_transaction_and_nothing_of_a_half_one():
    half = commands((b"MULTI",), (b"SET", b"c", b"3"))
    for broken in (half, half[:-3], commands((b"SET", b"c", b"3"))[:-4], b"*3\r\n$3"):
        with redis_server("--appendonly", "yes") as server:
            with redis_store(server.url, timeout_s=5).client() as client:
                client.set("a", "1")
                client.eval("redis.call('SET', 'b', '2') redis.call('SET', 'd', '4')", 0)
            before = keys(server)
            server.kill()
            with server.append_only_file.open("ab") as file:
                file.write(broken)
            server.repair()
            server.start()
            assert keys(server) == before == {b"a": b"1", b"b": b"2", b"d": b"4"}
            server.restart()
            assert keys(server) == before
