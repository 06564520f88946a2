from pathlib import Path

import pytest

from chainops.observe.backend import Backend, sqlite_file


def test_a_deleted_experiment_is_named_rather_than_written_to(uri, record):
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    client.delete_experiment(client.create_experiment("chainops"))
    with pytest.raises(RuntimeError, match="'chainops' is deleted; restore it"):
        Backend(uri, "chainops").connect()


@pytest.mark.parametrize(
    ("uri", "file"),
    [
        ("sqlite:////var/x.db", Path("/var/x.db")),
        ("sqlite:///x.db?timeout=3", Path("x.db")),
        ("sqlite:///:memory:", None),
        ("http://x", None),
    ],
)
def test_the_file_behind_an_address(uri, file):
    assert sqlite_file(uri) == file
