"""MLflow as the place finished traces go to. All that is said to MLflow about traces is said here."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from chainops.observe.spans import TraceDraft


class Backend:
    """MLflow, reached through the calls its own exporter makes for a finished trace."""

    def __init__(self, tracking_uri: str, experiment: str) -> None:
        self._uri, self._experiment = tracking_uri, experiment
        self._experiment_id = ""

    def connect(self) -> None:
        """Find the experiment, or make it, and with it the schema of a new SQLite file.

        Raises:
            Exception: whatever MLflow raises when the place cannot be used now.
        """
        from mlflow.tracking import MlflowClient

        file = sqlite_file(self._uri)
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            # A write-ahead log makes a trace's commits 3 times cheaper and lets the UI read meanwhile.
            with closing(sqlite3.connect(file, timeout=5)) as database, suppress(sqlite3.OperationalError):
                database.execute("PRAGMA journal_mode=WAL")  # refused while others use it: then it stays as it is
        client = MlflowClient(tracking_uri=self._uri, registry_uri=self._uri)
        found = client.get_experiment_by_name(self._experiment)
        if found is None:
            # Beside the database, not in whatever directory the program was started from.
            artifacts = None if file is None else (file.parent / "mlflow-artifacts" / self._experiment).as_uri()
            self._experiment_id = client.create_experiment(self._experiment, artifact_location=artifacts)
        elif found.lifecycle_stage != "active":
            raise RuntimeError(f"experiment {self._experiment!r} is deleted; restore it in MLflow or name another")
        else:
            self._experiment_id = found.experiment_id

    def write(self, drafts: Sequence[TraceDraft]) -> None:
        """Store finished traces. Repeating it after a failure leaves one of each.

        Raises:
            Exception: whatever MLflow raises; none, some or all may be stored then.
        """
        from mlflow.entities import Span
        from mlflow.entities.trace_info import TraceInfo
        from mlflow.entities.trace_location import TraceLocation
        from mlflow.entities.trace_state import TraceState
        from mlflow.tracing.client import TracingClient
        from mlflow.tracking import MlflowClient

        if not self._experiment_id:
            self.connect()
        tracing = TracingClient(self._uri)
        for draft in drafts:
            tracing.start_trace(
                TraceInfo(
                    trace_id=draft.trace_id,
                    client_request_id=draft.request_id,
                    trace_location=TraceLocation.from_experiment_id(self._experiment_id),
                    request_time=draft.started_ms,
                    execution_duration=draft.duration_ms,
                    state=TraceState.ERROR if draft.failed else TraceState.OK,
                    request_preview=draft.request_preview,
                    response_preview=draft.response_preview,
                    trace_metadata=draft.metadata,
                    tags=draft.tags,
                )
            )
        spans = [Span.from_dict(span) for draft in drafts for span in draft.spans]
        tracing.log_spans(self._experiment_id, spans)
        client = MlflowClient(tracking_uri=self._uri, registry_uri=self._uri)
        for draft in drafts:
            if draft.prompts:
                client.link_prompt_versions_to_trace([_Linked(*one) for one in draft.prompts], draft.trace_id)


@dataclass(frozen=True, slots=True)
class _Linked:
    """What MLflow reads of a prompt version when it links one: spares a look-up of text nobody needs here."""

    name: str
    version: int


def sqlite_file(uri: str) -> Path | None:
    """The file behind a `sqlite:///` address; None for every other place, and for SQLite in memory."""
    prefix = "sqlite:///"
    path = uri[len(prefix) :].partition("?")[0] if uri.startswith(prefix) else ""
    return Path(path) if path and path != ":memory:" else None
