"""One migrated MLflow database for all tests of the room, copied for each."""

import os
import shutil
import socket

import pytest

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"


@pytest.fixture(scope="session")
def migrated_registry(tmp_path_factory):
    from mlflow.tracking import MlflowClient

    file = tmp_path_factory.mktemp("migrated") / "mlflow.db"
    MlflowClient(tracking_uri=f"sqlite:///{file}").search_experiments()
    return file


@pytest.fixture
def uri(migrated_registry, tmp_path):
    shutil.copy(migrated_registry, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


@pytest.fixture
def gone():
    """An address where nothing listens, with a password in it; kept, so that nobody else comes to listen there."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://ann:hush-hush@127.0.0.1:{taken.getsockname()[1]}"


@pytest.fixture
def hanging():
    """The address of something that takes connections and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(16)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
