from __future__ import annotations

import asyncio
import csv
import json
import os
import signal
import subprocess
import sys
import threading
import time

import pandas as pd
import pytest
from langchain_core.messages import AIMessage
from pydantic import PrivateAttr

import chainops
from chainops.batch import Stopped, arun, run, running
from chainops.batch.records import OtherRun, OutputTaken
from chainops.batch.running import Runner
from chainops.core.component import Component
from chainops.core.errors import CallRefused, InvalidInput
from chainops.core.steps import Say
from chainops.testing import Hang, ModelServer, Status


def asked(server):
    return [request.body["messages"][-1]["content"] for request in server.requests]


@pytest.fixture
def out(tmp_path):
    return tmp_path / "answers.jsonl"


def test_every_row_is_answered_once_and_says_what_it_came_to(talk, rows, out, read, server, tmp_path):
    summary = run(talk(), rows(30), out, in_order=True)
    found = read(out)
    assert [record["row"] for record in found] == list(range(1, 31))
    first = found[0]
    assert (first["id"], first["question"], first["answer"]) == ("id-1", "question 1", "question 1")
    assert (first["status"], first["served_by"], first["error"]) == ("ok", "openai:gpt-4o-mini", None)
    tokens = first["tokens"]
    assert tokens["output"] == 2
    assert first["cost_usd"] == tokens["input"] + 2 * tokens["output"]
    assert sorted(asked(server)) == sorted(record["question"] for record in found)
    assert (summary.rows, summary.answered, summary.failed, summary.asked) == (30, 30, 0, 30)
    assert summary.cost_usd == sum(record["cost_usd"] for record in found)
    assert summary.input_tokens == sum(record["tokens"]["input"] for record in found)
    left = [path.name for path in tmp_path.iterdir() if "answers" in path.name]
    assert left == [out.name]


def test_errors_are_rows_and_say_whose_move_it_is(talk, out, read, server):
    server.rule(lambda request: "broken" in str(request.body), Status(503))
    rows = ["good", "broken", {"text": "no question"}, "x" * 30_000, 7]
    summary = run(talk(), rows, out, in_order=True)
    good, broken, none, long, number = read(out)
    assert good["error"] is None
    assert (broken["status"], broken["answer"], broken["error"]["kind"]) == ("failed", None, "retryable")
    assert broken["error"]["type"] == "ModelUnavailable"
    assert [each["error"]["kind"] for each in (none, long, number)] == ["caller"] * 3
    assert "30,000 characters" in long["error"]["message"]
    assert (summary.answered, summary.failed) == (1, 4)
    assert summary.errors == {"InvalidInput (caller)": 3, "ModelUnavailable (retryable)": 1}


def test_at_most_so_many_rows_are_in_flight_and_rows_are_read_as_they_are_needed(talk, out):
    lock, taken, began, ended, most, ahead = threading.Lock(), [], [], [], [], []

    def answer(_):
        with lock:
            began.append(1)
            most.append(len(began) - len(ended))
            ahead.append(len(taken) - len(began))
        time.sleep(0.005)
        with lock:
            ended.append(1)
        return "yes"

    def questions():
        for n in range(60):
            taken.append(n)
            yield f"question {n}"

    with ModelServer(answer) as counting:
        chain = talk(models={"main": {"model": "openai:m", "base_url": counting.url}})
        assert run(chain, questions(), out, concurrency=4).answered == 60
    assert 2 <= max(most) <= 4
    assert max(ahead) < 4


def test_a_limit_is_gone_beyond_by_a_run_without_it(talk, rows, out, read, server):
    path = rows(10)
    first = run(talk(), path, out, limit=4)
    assert (first.rows, len(read(out))) == (4, 4)
    assert "--limit" in first.next_move
    second = run(talk(), path, out)
    assert (second.rows, second.asked, second.taken_up) == (10, 6, 4)
    assert len(server.requests) == len(read(out)) == 10


def test_failed_rows_are_asked_again_on_request_only(talk, rows, out, read, server):
    path = rows(6)
    server.rule(lambda request: "question 3" in str(request.body), Status(500))
    assert run(talk(), path, out).failed == 1
    assert run(talk(), path, out).asked == 0
    assert len(server.requests) == 6
    server.heal()
    again = run(talk(), path, out, retry_errors=True, in_order=True)
    assert (again.asked, again.answered, again.failed) == (1, 6, 0)
    assert [record["answer"] for record in read(out)] == [f"question {n}" for n in range(1, 7)]
    assert not out.with_name("answers.jsonl.partial").exists()


def test_an_output_that_is_there_is_not_asked_for_again_and_not_overwritten(talk, rows, out, server):
    path = rows(3)
    run(talk(), path, out)
    with pytest.raises(OutputTaken, match="--restart"):
        run(talk(), path, out)
    assert len(server.requests) == 3
    run(talk(), path, out, restart=True)
    assert len(server.requests) == 6


@pytest.mark.parametrize("differs", ["input", "chain", "question column"])
def test_what_was_begun_with_something_else_is_refused(talk, rows, out, server, differs):
    server.fail(Status(500))
    run(talk(), rows(3), out)
    changed = {
        "input": lambda: run(talk(), rows(4), out),
        "chain": lambda: run(talk(max_question_chars=99), rows(3), out),
        "question column": lambda: run(talk(), rows(3), out, question="id"),
        "choice of columns": lambda: run(talk(), rows(3), out, keep=["id"]),
    }
    with pytest.raises(OtherRun, match=f"another {differs}"):
        changed[differs]()
    assert len(server.requests) == 3


def test_answers_carry_the_columns_that_are_kept(talk, tmp_path, read, server):
    import pyarrow.parquet as pq

    server.rule(lambda request: "fails" in str(request.body), Status(400))
    lines = [
        {"id": 7, "question": "a", "lang": "de", "tags": ["x", 1], "user": "ann", "score": 0.5},
        {"question": "b", "lang": "", "more": 1},
        {"question": "fails", "lang": "fr"},
        "c",
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + "no json\n")
    keep = ["lang", "tags", "user", "score", "id", "question"]
    kept = [
        ("a", "de", ["x", 1], "ann", 0.5, 7),
        ("b", "", None, None, None, None),
        ("fails", "fr", None, None, None, None),
        ("c", None, None, None, None, None),
        (None, None, None, None, None, None),
    ]
    run(talk(), path, tmp_path / "out.jsonl", keep=keep, in_order=True)
    found = read(tmp_path / "out.jsonl")
    names = ("question", "lang", "tags", "user", "score", "id")
    assert [tuple(each[name] for name in names) for each in found] == kept
    assert list(found[0])[:5] == ["row", "id", "question", "lang", "tags"]
    for name in ("out.csv", "out.parquet"):
        run(talk(), path, tmp_path / name, keep=keep, in_order=True)
    with (tmp_path / "out.csv").open(newline="") as file:
        cells = list(csv.DictReader(file))
    table = pq.read_table(tmp_path / "out.parquet").to_pylist()
    for first in (cells[0], table[0]):
        assert (first["id"], first["lang"], first["tags"], first["score"]) == ("7", "de", '["x", 1]', "0.5")
    assert list(cells[0]) == list(table[0])
    assert list(cells[0])[:7] == ["row", "id", "question", "lang", "tags", "user", "score"]
    assert table[3]["lang"] is None


def test_a_column_to_keep_that_no_row_has_or_answers_have_themselves_is_refused(talk, rows, out, server):
    with pytest.raises(InvalidInput, match=r"columns id, question, lang; .*'lnag'.*--keep.*mean 'lang'"):
        run(talk(), rows(2, lang="de"), out, keep=["lang", "lnag"])
    for taken in ("answer", "tokens", "input_tokens"):
        with pytest.raises(InvalidInput, match="rename it"):
            run(talk(), rows(2, **{taken: "x"}), out, keep=taken)
    with pytest.raises(InvalidInput, match="rename it"):
        run(talk(), rows(2, text="x"), out, question="text", keep="question")
    assert server.requests == []


def test_numbers_that_json_does_not_have_are_kept_as_text_or_nothing(talk, out, read, server):
    nan, inf, deep = float("nan"), float("inf"), json.loads("[" * 700 + "]" * 700)
    odd = [nan, inf, [1.0, nan, {"x": -inf}], deep, pd.NaT, [pd.NA], pd.Timestamp("2020-01-02")]
    run(talk(), [{"question": "a", "n": each} for each in odd], out, keep="n", in_order=True)
    assert "NaN" not in out.read_text()
    told = [None, "inf", [1.0, None, {"x": "-inf"}], deep, None, [None], "2020-01-02 00:00:00"]
    assert [each["n"] for each in read(out)] == told


@pytest.mark.parametrize("name", ["note", "notes", "run", "same", "journal"])
def test_a_row_is_not_asked_again_whatever_the_columns_are_called_that_are_kept(talk, rows, out, read, server, name):
    source = rows(4, **{name: "told"})
    run(talk(), source, out, keep=name, limit=2)
    run(talk(), source, out, keep=name, in_order=True)
    assert [(each["row"], each[name]) for each in read(out)] == [(n, "told") for n in range(1, 5)]
    assert sorted(asked(server)) == [f"question {n}" for n in range(1, 5)]


def test_rows_that_can_be_read_once_only_cannot_be_taken_up(talk, out, server):
    server.fail(Status(500))
    run(talk(), iter(["a"]), out)
    with pytest.raises(OtherRun, match="another input"):
        run(talk(), iter(["a"]), out)


def test_two_runs_on_one_output_are_refused_and_the_lock_of_a_dead_one_is_free(talk, rows, out, server):
    lock = out.with_name("answers.jsonl.lock")
    code = (
        "import sys, pathlib, time; from chainops.batch.lock import locked\n"
        "with locked(pathlib.Path(sys.argv[1]), pathlib.Path('out')): print('held', flush=True); time.sleep(60)"
    )
    other = subprocess.Popen([sys.executable, "-c", code, str(lock)], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(OutputTaken, match=f"process {other.pid} "):
            run(talk(), rows(3), out)
    finally:
        other.kill()
        other.wait()
        other.stdout.close()
    assert lock.exists()
    assert run(talk(), rows(3), out).answered == 3
    assert not lock.exists()


def test_an_interrupt_finishes_what_is_in_flight_and_the_next_run_goes_on(talk, rows, out, read, server):
    path, runner = rows(40), []
    real = Runner.finished

    class Interrupting(Runner):
        def finished(self, record):
            real(self, record)
            if self.pace.asked == 5:
                runner.append(self)
                self.interrupt()

    async def go():
        return await Interrupting(talk(), path, out, concurrency=4, progress=False).go()

    stopped = asyncio.run(go())
    assert stopped.is_stopped
    assert stopped.rows == len(server.requests) <= 8
    assert not out.exists()
    assert "go on" in stopped.next_move
    assert run(talk(), path, out).taken_up == stopped.rows
    assert len(server.requests) == 40
    assert len(read(out)) == 40


def test_a_second_interrupt_does_not_wait(talk, rows, out, server):
    server.fail(Hang())

    class Impatient(Runner):
        async def _ask(self, row):
            if row.number == 4:
                self.interrupt()
                self.interrupt()
            await super()._ask(row)

    async def go():
        return await Impatient(talk(), rows(9), out, concurrency=4, progress=False).go()

    stopped = asyncio.run(go())
    assert (stopped.is_stopped, stopped.rows) == (True, 0)


def test_an_interrupt_before_the_first_row_is_not_lost(talk, rows, out, server):
    class Early(Runner):
        def _open_journal(self):
            self.interrupt()
            return super()._open_journal()

    for via in (None, "openai-batch"):
        stopped = asyncio.run(Early(talk(), rows(3), out, via=via, progress=False, restart=True).go())
        assert (stopped.is_stopped, stopped.rows) == (True, 0)
    assert server.requests == []


def test_an_interrupt_after_the_last_row_comes_too_late(talk, rows, out, server):
    class Late(Runner):
        """Interrupted twice between the last look at whether it was interrupted, and what follows from that."""

        stops, is_done, was_asked = False, False, False

        async def _ask_all(self):
            await super()._ask_all()
            self.is_done = True

        @property
        def is_stopping(self):
            seen = self.stops
            if self.is_done and not self.was_asked:
                self.was_asked = True
                thread = threading.Thread(target=lambda: (self.interrupt(), self.interrupt()))
                thread.start()
                thread.join(0.3)
            return seen

        @is_stopping.setter
        def is_stopping(self, stops):
            self.stops = stops

    assert asyncio.run(Late(talk(), rows(3), out, progress=False).go()).answered == 3
    assert out.exists()


@pytest.fixture
def held_writing(monkeypatch):
    """The output is written when the second event is set; the first tells that the writing has begun."""
    begun, may_end, write = threading.Event(), threading.Event(), running.write

    def slowly(*args):
        begun.set()
        assert may_end.wait(60)
        write(*args)

    monkeypatch.setattr(running, "write", slowly)
    yield begun, may_end
    may_end.set()


def test_a_cancelled_run_holds_its_output_until_nothing_of_it_is_at_work_any_more(
    talk, rows, out, held_writing, server
):
    begun, may_end = held_writing

    async def cancel():
        task = asyncio.create_task(arun(talk(), rows(3), out))
        assert await asyncio.to_thread(begun.wait, 60)
        task.cancel()
        await asyncio.sleep(0.1)
        with pytest.raises(OutputTaken, match="is writing it"):
            await arun(talk(), rows(3), out)
        may_end.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel())
    assert out.exists()
    assert len(server.requests) == 3


def test_a_loop_that_ends_waits_for_what_a_run_is_writing(talk, rows, out, held_writing, server):
    (begun, may_end), held = held_writing, []

    async def leave_it():
        running_still = asyncio.create_task(arun(talk(), rows(3), out))
        running_still.add_done_callback(lambda _: held.append(out.exists()))
        assert await asyncio.to_thread(begun.wait, 60)
        asyncio.get_running_loop().call_later(0.1, may_end.set)  # when all tasks have been cancelled

    asyncio.run(leave_it())
    assert held == [True]
    assert len(server.requests) == 3


def test_a_cancellation_after_the_last_row_is_not_hidden(talk, rows, out, server):
    class Slow(Runner):
        async def _keep(self):
            try:
                await super()._keep()
            finally:
                self.ending.set()
                await asyncio.sleep(0.1)

    async def cancel():
        run = Slow(talk(), rows(3), out, progress=False)
        run.ending = asyncio.Event()
        task = asyncio.create_task(run.go())
        await run.ending.wait()
        task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(cancel())
    assert not out.exists()


def test_a_signal_raises_stopped_in_the_main_thread(talk, rows, out, server):
    def interrupt_once():
        while len(server.requests) < 7:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt_once)
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    thread.start()
    try:
        with pytest.raises(Stopped) as stopped:
            run(talk(), rows(2000), out, concurrency=2)
    finally:
        thread.join()
        signal.signal(signal.SIGINT, handler)
    summary = stopped.value.summary
    assert summary.is_stopped
    assert 5 <= summary.rows == len(server.requests) < 2000


def test_it_runs_inside_an_event_loop_and_beside_one(talk, rows, tmp_path, server):
    async def both():
        first = await arun(talk(), rows(3), tmp_path / "1.jsonl")
        return first, run(talk(), rows(3), tmp_path / "2.jsonl")  # as in a notebook's cell

    assert [each.answered for each in asyncio.run(both())] == [3, 3]


def test_a_cache_answers_repeated_rows_whoever_asks_and_whatever_their_other_columns_say(talk, out, read, server):
    chain = talk(pipeline=[{"cache": {"threshold": 1.0}}])
    rows = [{"question": f"question {n % 5}", "id": n, "expected": f"answer {n}"} for n in range(40)]
    summary = run(chain, rows, out, concurrency=4)
    assert summary.answered == 40
    assert summary.statuses["cached"] == 35
    assert len(server.requests) == 5
    assert all(record["answer"] == record["question"] for record in read(out))


def test_who_asks_is_the_callers_and_history_is_the_conversations(talk, out, server):
    heard = []
    rows = [{"question": "and now?", "user": 7, "tenant": "acme", "history": [{"role": "user", "text": "before"}]}]
    with chainops.listen(heard.append):
        run(talk(), rows, out)
    ended = next(event for event in heard if type(event).__name__ == "RequestEnded")
    assert (ended.request.caller.user, ended.request.caller.tenant) == ("7", "acme")
    assert "before" in json.dumps(server.requests[0].body["messages"])


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet", "jsonl.gz", "csv.gz"])
def test_each_format_has_all_rows(talk, rows, tmp_path, suffix):
    summary = run(talk(), rows(5), tmp_path / f"out.{suffix}")
    assert summary.answered == 5
    assert (tmp_path / f"out.{suffix}").stat().st_size > 100


@pytest.mark.parametrize(
    "options",
    [{"concurrency": 0}, {"limit": 0}, {"format": "xml"}, {"via": "anthropic"}, {"skip_wrappers": True}],
    ids=str,
)
def test_options_that_make_no_sense_are_refused_before_anything_is_asked(talk, rows, out, server, options):
    with pytest.raises(InvalidInput):
        run(talk(), rows(3), out, **options)
    assert server.requests == []


def test_the_input_is_never_overwritten_and_the_folder_must_be_there(talk, rows, tmp_path):
    path = rows(3)
    with pytest.raises(InvalidInput, match="the input"):
        run(talk(), path, path, restart=True)
    with pytest.raises(InvalidInput, match="no folder"):
        run(talk(), path, tmp_path / "none" / "out.jsonl")


def test_a_full_disk_stops_the_run_and_is_not_a_rows_error(talk, rows, out, monkeypatch, server):
    def full(self, record):
        raise OSError(28, "No space left on device", str(self.path))

    with monkeypatch.context() as patch:
        patch.setattr("chainops.batch.journal.Journal.record", full)
        with pytest.raises(OSError, match="No space left"):
            run(talk(), rows(20), out, concurrency=2)
    assert len(server.requests) <= 2
    assert run(talk(), rows(20), out).answered == 20


def test_progress_is_told_in_lines_where_there_is_no_terminal(talk, rows, out, capsys, server):
    server.rule(lambda request: "question 2" in str(request.body), Status(500))
    run(talk(), rows(3), out)
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "3 of 3 rows, 1 failed" in line
    assert "$" in line
    run(talk(), rows(3), out, progress=False, restart=True)
    assert capsys.readouterr().err == ""


def test_the_summary_is_text_html_and_json(talk, rows, out, server):
    server.rule(lambda request: "question 2" in str(request.body), Status(500))
    summary = run(talk(), rows(3), out)
    assert "1 failed" in str(summary)
    assert "--retry-errors" in str(summary)
    assert "1 failed" in summary._repr_html_()
    assert json.loads(json.dumps(summary.to_dict()))["failed"] == 1


class Busy(Component):
    """Turns each question away so often, then answers."""

    times: int
    retry_after_s: float | None
    _turned: dict = PrivateAttr(default_factory=dict)

    def plan(self, value, run):
        turned = self._turned[value["question"]] = self._turned.get(value["question"], 0) + 1
        if turned <= self.times:
            raise CallRefused("m", "queue full", "the queue is full", retry_after_s=self.retry_after_s)
        message = AIMessage(content="yes")
        yield Say(message)
        return message


def test_a_row_that_a_limit_turns_away_waits_and_is_asked_again(talk, rows, out, read):
    chain = talk().model_copy(update={"inner": Busy(times=2, retry_after_s=0.01)})
    assert run(chain, rows(5), out).answered == 5


@pytest.mark.parametrize("retry_after_s", [None, 3600.0])
def test_a_row_that_would_wait_for_ever_is_a_failed_row(talk, rows, out, read, retry_after_s):
    chain = talk().model_copy(update={"inner": Busy(times=2, retry_after_s=retry_after_s)})
    assert run(chain, rows(3), out).failed == 3
    assert {record["error"]["type"] for record in read(out)} == {"CallRefused"}


def test_an_interrupt_does_not_wait_for_limits(talk, rows, out):
    class Impatient(Runner):
        async def _answer(self, row):
            asyncio.get_running_loop().call_later(0.1, setattr, self, "is_stopping", True)
            return await super()._answer(row)

    chain = talk().model_copy(update={"inner": Busy(times=2, retry_after_s=200.0)})
    stopped = asyncio.run(Impatient(chain, rows(3), out, progress=False).go())
    assert (stopped.is_stopped, stopped.rows) == (True, 0)
