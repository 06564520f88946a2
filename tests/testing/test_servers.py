from chainops.testing import servers


def test_no_port_is_given_out_twice(monkeypatch):
    """Also not before its server listens, or while that is down."""
    monkeypatch.setattr(servers, "_PORTS", range(21_900, 21_940))
    given = [servers.free_port() for _ in range(20)]
    assert len(set(given)) == 20
