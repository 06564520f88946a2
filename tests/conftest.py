"""What every test stands on: no network, no key, no state of the person who runs it."""

from __future__ import annotations

import os
import time

import hypothesis
import pytest

# How long an example takes, or takes to be drawn, depends on what else the machine does.
hypothesis.settings.register_profile("chainops", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("chainops")

os.environ |= {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "TOKENIZERS_PARALLELISM": "false",
    "LANGSMITH_TRACING": "false",
    "CHAINOPS_TRACES": "off",  # each place would start a process; the tests that are about traces switch them on
}


@pytest.fixture(autouse=True)
def _nobodys_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if (
            name.startswith(("OPENAI_", "MLFLOW_TRACKING", "CHAINOPS_HOME", "CHAINOPS_MODEL_"))
            or name == "CHAINOPS_MODEL"
        ):
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _patient_caches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chains wait for their cache's database as long as a busy disk needs; a user's goes on without it after 0.25 s."""
    monkeypatch.setattr("chainops.cache.opening.WAIT_S", 60.0)
    monkeypatch.setattr("chainops.resilience.limits.opening._WAIT_S", 60.0)


@pytest.fixture
def eventually():
    """Waits until something holds that others bring about in their own time: `eventually(lambda: server.requests)`."""

    def wait(is_so, within_s=60.0):
        until = time.monotonic() + within_s
        while not is_so():
            assert time.monotonic() < until, "it never came to that"
            time.sleep(0.002)

    return wait


@pytest.fixture
def patient_redis(monkeypatch):
    """Chains wait for Redis as long as a busy machine needs; a user's chain goes on without it after 0.25 s."""
    from chainops.stores import redis

    opened = redis.redis_store
    monkeypatch.setattr(redis, "redis_store", lambda url, *, timeout_s=30.0: opened(url, timeout_s=timeout_s))
