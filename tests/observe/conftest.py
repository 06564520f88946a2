"""One migrated MLflow database and one real server for all tests of the room."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

from chainops.testing.servers import free_port

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"


@pytest.fixture(scope="session")
def migrated(tmp_path_factory):
    """A database with MLflow's schema: making one takes seconds, copying it does not."""
    from mlflow.tracking import MlflowClient

    file = tmp_path_factory.mktemp("migrated") / "mlflow.db"
    MlflowClient(tracking_uri=f"sqlite:///{file}").search_experiments()
    return file


@pytest.fixture
def uri(migrated, tmp_path):
    shutil.copy(migrated, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


@pytest.fixture(scope="session")
def server(migrated, tmp_path_factory):
    """The address of a running `mlflow server`."""
    folder = tmp_path_factory.mktemp("server")
    shutil.copy(migrated, folder / "mlflow.db")
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"]
    settings = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, env=settings, stdout=log, stderr=log, start_new_session=True)
    try:
        for _ in range(1_800):
            assert process.poll() is None, (folder / "log").read_text()
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1).close()
                break
            except OSError:
                time.sleep(0.1)
        else:
            pytest.fail((folder / "log").read_text())
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, 15)
        process.wait()


@pytest.fixture
def hanging():
    """The address of something that takes connections and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def gone():
    """An address where nothing listens; kept, so that nobody else comes to listen there."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


@pytest.fixture(scope="session")
def record():
    def make(request_id="r1", **changes):
        usage = {"input_tokens": 100, "output_tokens": 20, "total_tokens": 120}
        small = {"id": 3, "parent": 1, "name": "small", "kind": "model", "start_s": 0.05, "duration_s": 0.2}
        small |= {"input": [{"role": "user", "text": "hi"}], "output": "Yes.", "model": "gpt-4o-mini"}
        small |= {"usage": usage, "cost_usd": 0.002, "error": None, "facts": {"attempt": 1}}
        return {
            "request_id": request_id,
            "chain": "python-help",
            "started_at": 1_700_000_000.25,
            "duration_s": 0.3,
            "status": "ok",
            "served_by": "small",
            "input": {"question": "What does yield do?"},
            "output": "Yes.",
            "error": None,
            "caller": {"user": "ann", "tenant": "acme", "session": "s1", "feature": "help"},
            "prompts": [],
            "cost_usd": 0.002,
            "usage": usage,
            "stages": [
                {"id": 1, "parent": None, "name": "cache", "kind": "cache", "start_s": 0.01, "duration_s": 0.28},
                {"id": 2, "parent": 1, "name": "documents", "kind": "retrieve", "start_s": 0.02, "duration_s": 0.02},
                small,
            ],
            "events": [{"kind": "FellBack", "stage": 3, "at_s": 0.1, "reason": "timeout", "tried": ["large"]}],
            **changes,
        }

    return make
