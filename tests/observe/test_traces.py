import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections import deque
from importlib import metadata
from pathlib import Path

import pytest

import chainops
from chainops.core.errors import InvalidInput, MissingExtra
from chainops.observe.spans import trace_id
from chainops.observe.traces import TraceWriter, shared_writer

ROOT = Path(chainops.__file__).parents[1]


@pytest.fixture
def writer(tmp_path):
    """Makes writers whose processes do not outlive the test by much."""
    made = []

    def make(uri, **options):
        made.append(TraceWriter(uri, log_file=tmp_path / "traces.log", **{"life_s": 2, **options}))
        return made[-1]

    yield make
    for one in made:
        one.close()


def run(script, *arguments, timeout=120):
    """A short program of a user, in a process of its own; ends within `timeout` seconds or the test fails."""
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n" + textwrap.dedent(script)
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=timeout, check=True
    )


def client_of(uri):
    from mlflow.tracking import MlflowClient

    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def check_trace(uri, written):
    trace = client_of(uri).get_trace(trace_id(written["request_id"], written["started_at"]))
    info, spans = trace.info, {span.name: span for span in trace.data.spans}
    assert info.client_request_id == written["request_id"]
    assert (info.request_time, info.execution_duration) == (1_700_000_000_250, 300)
    assert info.token_usage == {"input_tokens": 100, "output_tokens": 20, "total_tokens": 120}
    assert info.cost["total_cost"] == 0.002
    assert info.trace_metadata["mlflow.trace.user"] == "ann"
    assert info.trace_metadata["mlflow.trace.session"] == "s1"
    assert (info.tags["chainops.status"], info.tags["chainops.served_by"]) == ("ok", "small")
    assert info.tags["mlflow.traceName"] == "python-help"
    assert spans["python-help"].parent_id is None
    assert spans["cache"].parent_id == spans["python-help"].span_id
    assert spans["small"].parent_id == spans["documents"].parent_id == spans["cache"].span_id
    assert spans["small"].span_type == "CHAT_MODEL"
    assert spans["small"].start_time_ns == 1_700_000_000_300_000_000
    assert spans["small"].end_time_ns == 1_700_000_000_500_000_000
    assert spans["small"].model_name == "gpt-4o-mini"
    assert spans["small"].events[0].name == "FellBack"
    assert spans["python-help"].inputs == {"question": "What does yield do?"}
    assert spans["python-help"].outputs == "Yes."


def check_prompt_link(uri, written):
    client = client_of(uri)
    experiment = client.get_experiment_by_name("chainops").experiment_id
    for version, expected in (("qa/1", [written["request_id"]]), ("qa/2", [])):
        found = client.search_traces(locations=[experiment], filter_string=f"prompt = '{version}'")
        assert [one.info.client_request_id for one in found] == expected


@pytest.fixture(scope="module")
def delivered(migrated, record, tmp_path_factory):
    """A folder with a database in which one writer has stored r1 (twice), r2 and r3, and one bad record."""
    folder = tmp_path_factory.mktemp("delivered")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    shutil.copy(migrated, folder / "mlflow.db")
    (folder / "mlflow").mkdir()
    (folder / "json.py").write_text("raise SystemExit('shadowed')")
    client_of(uri).register_prompt("qa", "Answer {{question}}")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        traces = TraceWriter(uri, log_file=folder / "traces.log", life_s=2)
        traces.write(record(prompts=[{"name": "qa", "version": 1}]))
        assert traces.flush(120)
    bad = {"request_id": "no more than this"}
    for one in (record("r2"), bad, record("r3", tags=object()), record(prompts=[{"name": "qa", "version": 1}])):
        traces.write(one)
    assert traces.flush(120)
    traces.close()
    return folder, uri, traces


def test_a_request_is_read_back_from_sqlite_with_its_stages_tokens_cost_and_prompt(delivered, record):
    _, uri, _ = delivered
    check_trace(uri, record())
    check_prompt_link(uri, record())


def test_a_request_is_read_back_from_a_server_with_its_stages_tokens_cost_and_prompt(
    writer, server, record, monkeypatch
):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")  # a busy machine's server may take its time
    client_of(server).register_prompt("qa", "Answer {{question}}")
    traces, written = writer(server), record("over-http", prompts=[{"name": "qa", "version": 1}])
    assert traces.write(written)
    assert traces.flush(120), traces.problem
    check_trace(server, written)
    check_prompt_link(server, written)


def test_a_record_written_twice_is_one_trace(delivered):
    client = client_of(delivered[1])
    found = client.search_traces(locations=[client.get_experiment_by_name("chainops").experiment_id])
    assert sorted(one.info.client_request_id for one in found) == ["r1", "r2", "r3"]


def test_artifacts_go_beside_the_database_and_not_into_the_working_directory(delivered):
    folder, uri, _ = delivered
    assert client_of(uri).get_experiment_by_name("chainops").artifact_location.startswith(folder.as_uri())


def test_files_in_the_working_directory_are_not_taken_for_modules(delivered):
    folder, _, traces = delivered
    assert (folder / "json.py").exists()
    assert traces.written == 4


def test_one_bad_record_fails_alone_and_is_named(delivered):
    traces = delivered[2]
    assert (traces.written, traces.failed, traces.dropped) == (4, 1, 0)
    assert 'KeyError(\'started_at\') in b\'{"request_id": "no more than this"}' in traces.problem


def test_a_record_that_is_no_json_fails_without_starting_anything(writer, uri):
    traces, loop = writer(uri), {}
    loop["self"] = loop
    traces.write(loop)
    assert traces.flush(120)
    assert (traces.failed, traces._child) == (1, None)
    assert "cannot be written as JSON" in traces.problem


def test_a_stream_that_is_collected_while_another_trace_is_handed_over_is_handed_over_too(writer, gone, record):
    class Collects(deque):
        """As the garbage collector does, wherever something is made."""

        def append(self, handed):
            super().append(handed)
            if handed["request_id"] != "forgotten":
                traces.write(record("forgotten"))

    traces = writer(gone)
    traces._queue = Collects()
    writing = threading.Thread(target=traces.write, args=[record("r1")], daemon=True)
    writing.start()
    writing.join(30)
    assert not writing.is_alive()
    assert traces.waiting == 2


def test_a_record_with_a_value_that_cannot_be_told_fails_alone(writer, uri):
    class Broken:
        def __str__(self):
            raise KeyError("no name")

    traces = writer(uri)
    traces.write({"input": Broken()})
    assert traces.flush(60)
    traces.write({"input": Broken()})
    assert traces.flush(60)
    assert (traces.failed, traces._child) == (2, None)


@pytest.mark.parametrize("place", ["gone", "hanging"])
def test_without_a_server_nothing_waits_and_what_finds_no_room_is_counted(writer, place, request, record):
    lost = []
    traces = writer(request.getfixturevalue(place), max_waiting=20, on_dropped=lost.append)
    accepted = [traces.write(record(str(number))) for number in range(30)]
    assert accepted == [True] * 20 + [False] * 10
    assert (traces.waiting, traces.written, traces.dropped, sum(lost)) == (20, 0, 10, 10)
    assert not traces.flush(0.1)


def test_traces_written_while_the_server_was_away_arrive_when_it_comes_back(writer, record, tmp_path, migrated):
    place = tmp_path / "not-yet" / "mlflow.db"
    (tmp_path / "not-yet").write_text("a file where the folder should be")
    traces = writer(f"sqlite:///{place}", life_s=30)
    traces.write(record())
    while traces.problem is None:
        traces.flush(0.1)
    (tmp_path / "not-yet").unlink()
    place.parent.mkdir()
    shutil.copy(migrated, place)
    assert traces.flush(120)
    assert (traces.written, traces.dropped) == (1, 0)


def test_a_stalled_process_makes_writes_fail_fast_and_memory_stay_bounded(writer, uri, record):
    lost = []
    traces = writer(uri, max_waiting=50, on_dropped=lost.append)
    traces.write(record("first"))
    assert traces.flush(120)
    os.kill(traces._child.pid, signal.SIGSTOP)
    accepted = sum(traces.write(record(f"r{number}", input="x" * 20_000)) for number in range(1500))
    assert (accepted, traces.waiting, sum(lost)) == (50, 50, 1450)
    os.kill(traces._child.pid, signal.SIGCONT)
    assert traces.flush(120)
    assert (traces.written, traces.dropped) == (51, 1450)


def test_closing_while_the_process_is_stalled_counts_what_could_not_be_handed_over(writer, uri, record):
    lost = []
    traces = writer(uri, on_dropped=lost.append)
    traces.write(record("first"))
    assert traces.flush(120)
    pid = traces._child.pid
    os.kill(pid, signal.SIGSTOP)
    for number in range(200):
        traces.write(record(f"r{number}", input="x" * 20_000))
    traces.close(0.5)
    assert traces.dropped == sum(lost) > 0
    assert not traces.write(record("late"))
    os.kill(pid, signal.SIGKILL)
    assert traces.flush(120)
    assert (traces.written, traces.waiting, traces.dropped, sum(lost)) == (1, 0, 201, 201)


def test_who_waited_until_all_is_settled_has_heard_of_what_was_lost(writer, gone):
    lost, never = [], threading.Event()

    def slowly(count):
        never.wait(0.3)  # so much time to be told too late
        lost.append(count)

    traces = writer(gone, on_dropped=slowly)
    traces._waiting = 2
    settling = threading.Thread(target=traces._account, kwargs={"dropped": 2})
    settling.start()
    assert traces.flush(60)
    assert (traces.dropped, lost) == (2, [2])
    settling.join(60)


def test_a_process_that_dies_is_started_again_and_its_records_are_counted(writer, uri, record):
    traces = writer(uri)
    traces.write(record("r1"))
    assert traces.flush(120)
    os.kill(traces._child.pid, signal.SIGSTOP)
    traces.write(record("r2"))
    while traces._child.sent < 2:
        traces.flush(0.05)
    os.kill(traces._child.pid, signal.SIGKILL)
    assert traces.flush(120)
    assert (traces.written, traces.dropped) == (1, 1)
    assert "ended with status -9" in traces.problem
    traces.write(record("r3"))
    assert traces.flush(120)
    assert (traces.written, traces.dropped) == (2, 1)


def test_a_short_program_ends_at_once_and_its_traces_arrive_afterwards(uri, record, tmp_path):
    script = """
        import json, pathlib, sys
        from chainops.observe.traces import TraceWriter
        traces = TraceWriter(sys.argv[1], log_file=pathlib.Path(sys.argv[2]))
        traces.write(json.loads(sys.argv[3]))
        print(json.dumps([traces.written, "mlflow" in sys.modules]))
    """
    done = run(script, uri, str(tmp_path / "traces.log"), json.dumps(record()))
    assert json.loads(done.stdout) == [0, False]
    assert done.stderr == ""
    client = client_of(uri)
    for _ in range(1_800):
        if (found := client.get_experiment_by_name("chainops")) and client.search_traces(
            locations=[found.experiment_id]
        ):
            break
        time.sleep(0.1)
    check_trace(uri, record())


@pytest.mark.parametrize("place", ["gone", "hanging"])
def test_a_program_ends_within_seconds_without_a_server_and_the_loss_is_logged(place, request, record, tmp_path):
    script = """
        import json, pathlib, sys
        from chainops.observe.traces import TraceWriter
        traces = TraceWriter(sys.argv[1], log_file=pathlib.Path(sys.argv[2]), life_s=0.5, max_waiting=40)
        for number in range(50):
            traces.write(json.loads(sys.argv[3]))
    """
    log = tmp_path / "traces.log"
    done = run(script, request.getfixturevalue(place), str(log), json.dumps(record()), timeout=60)
    assert done.stdout == ""
    # "no room", or what the writing process had already found out by then
    assert done.stderr.startswith("10 traces were dropped; last problem: ")
    for _ in range(1_800):
        if log.exists() and "40 traces lost" in log.read_text():
            return
        time.sleep(0.1)
    raise AssertionError("the lost traces are nowhere counted")


def test_a_forked_process_gets_a_writer_of_its_own(uri, record, tmp_path):
    script = """
        import json, os, pathlib, sys
        from chainops.observe.traces import TraceWriter
        record = json.loads(sys.argv[3])
        traces = TraceWriter(sys.argv[1], log_file=pathlib.Path(sys.argv[2]), life_s=2)
        traces.write(record)
        assert traces.flush(120)
        first = traces._child.pid
        forked = os.fork()
        traces.write(record | {"request_id": f"after the fork {forked == 0}"})
        assert traces.flush(120), traces
        if forked == 0:
            os._exit(0 if (traces.written, traces._child.pid != first) == (1, True) else 1)
        _, status = os.waitpid(forked, 0)
        print(json.dumps([os.waitstatus_to_exitcode(status), traces.written, traces._child.pid == first]))
    """
    done = run(script, uri, str(tmp_path / "traces.log"), json.dumps(record()), timeout=240)
    assert json.loads(done.stdout) == [0, 2, True], done.stderr


def test_a_relative_database_is_the_one_of_the_directory_it_was_named_in(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert TraceWriter("sqlite:///state/mlflow.db").tracking_uri == f"sqlite:///{tmp_path}/state/mlflow.db"


def test_a_password_is_neither_shown_nor_visible_to_other_users(writer, record):
    uri = "http://ann:hush-hush@127.0.0.1:9"
    traces = writer(uri)
    traces.write(record())
    while traces.problem is None:
        traces.flush(0.1)
    arguments = Path(f"/proc/{traces._child.pid}/cmdline").read_bytes() if sys.platform == "linux" else b""
    log = Path(traces._orders.log_file).read_text()
    assert "127.0.0.1" in log
    for shown in (repr(traces), repr(traces._orders), arguments.decode(), traces.problem, log):
        assert "hush-hush" not in shown


def test_a_listener_that_fails_does_not_reach_the_request(writer, gone, record, caplog):
    def broken(count):
        raise RuntimeError("listener")

    traces = writer(gone, max_waiting=1, on_dropped=broken)
    assert [traces.write(record()), traces.write(record())] == [True, False]
    assert "1 traces were dropped" in caplog.text


def test_without_mlflow_the_extra_is_named(monkeypatch):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    with pytest.raises(MissingExtra, match=r"chainops\[mlflow\]") as caught:
        TraceWriter("sqlite:///x.db")
    assert pickle.loads(pickle.dumps(caught.value)).extra == "mlflow"


def test_room_for_nothing_is_refused():
    with pytest.raises(InvalidInput, match="at least 1"):
        TraceWriter("sqlite:///x.db", max_waiting=0)


def test_chains_of_one_program_share_a_writer_until_it_is_closed(tmp_path):
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    first = shared_writer(uri)
    assert shared_writer(uri) is first
    assert shared_writer(uri, "other") is not first
    first.close()
    assert shared_writer(uri) is not first


def test_closing_a_writer_that_wrote_nothing_starts_nothing(writer, uri):
    traces = writer(uri)
    traces.close()
    traces.close()
    assert traces._child is None
    assert traces.flush(0)
