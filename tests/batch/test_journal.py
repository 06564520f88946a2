from __future__ import annotations

import json
import random

import pytest

from chainops.batch.journal import Journal
from chainops.batch.records import OtherRun
from chainops.core.errors import StoreCorrupted

SAME = {"input": "i", "chain": "c"}


def record(row, status="ok", **more):
    return {"row": row, "status": status, "cost_usd": 0.5, "tokens": {"input": 2, "output": 1}, **more}


def opened(path, **options):
    return Journal(path, options.pop("same", SAME), "run", **options)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "journal"


def rows(journal, *, in_order=False):
    return [json.loads(line)["row"] for line in journal.lines(in_order=in_order)]


def test_what_was_recorded_is_there_the_next_time(path):
    with opened(path) as journal:
        journal.record(record(3))
        journal.record(record(1, "failed"))
        journal.note({"part": 1})
    with opened(path) as journal:
        assert [journal.is_done(row) for row in (1, 2, 3, 4)] == [True, False, True, False]
        assert [journal.has_failed(row) for row in (1, 3)] == [True, False]
        assert (journal.count(), journal.count("ok"), journal.count("failed"), journal.taken_up) == (2, 1, 1, 2)
        assert (journal.cost_usd, journal.input_tokens, journal.output_tokens) == (1.0, 4, 2)
        assert journal.notes == [{"part": 1}]
        assert journal.get(3) == record(3)


def test_rows_come_as_they_were_finished_or_in_their_order(path):
    order = random.Random(1).sample(range(1, 1001), 1000)
    with opened(path) as journal:
        for row in order:
            journal.record(record(row))
        assert rows(journal) == order
        assert rows(journal, in_order=True) == list(range(1, 1001))


def test_the_last_record_of_a_row_counts_and_what_each_cost_is_added_up(path):
    with opened(path) as journal:
        for row, status in ((1, "failed"), (2, "ok"), (1, "cached")):
            journal.record(record(row, status))
    with opened(path) as journal:
        assert rows(journal) == [2, 1]
        assert (journal.count(), journal.count("failed"), journal.cost_usd) == (2, 0, 1.5)


def test_wherever_a_write_was_torn_the_whole_lines_are_kept_and_writing_goes_on(path):
    with opened(path) as journal:
        for row in (1, 2, 3):
            journal.record(record(row, text="ä\u2028\n"))
    whole = path.read_bytes()
    ends = [n + 1 for n, byte in enumerate(whole) if byte == ord("\n")]
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        kept = sum(end <= cut for end in ends)
        with opened(path) as journal:
            assert journal.count() == max(0, kept - 1)
            assert journal.damaged == 0
            journal.record(record(9, text="after"))
            assert journal.get(9)["text"] == "after"
        with opened(path) as journal:
            assert rows(journal) == [*range(1, max(1, kept)), 9]


def test_a_line_damaged_in_the_middle_is_told_and_only_its_row_is_to_do(path):
    with opened(path) as journal:
        for row in (1, 2, 3):
            journal.record(record(row, text=f"text {row}"))
    path.write_bytes(path.read_bytes().replace(b"text 2", b"text 7"))
    with opened(path) as journal:
        assert journal.damaged == 1
        assert [journal.is_done(row) for row in (1, 2, 3)] == [True, False, True]


def test_a_damaged_beginning_is_no_new_journal(path):
    with opened(path) as journal:
        journal.record(record(1))
    path.write_bytes(b"x" + path.read_bytes())
    with pytest.raises(StoreCorrupted, match="--restart"):
        opened(path)
    with opened(path, restart=True) as journal:
        assert journal.count() == 0


@pytest.mark.parametrize("name", ["input", "chain"])
def test_another_run_is_refused_and_dropped_only_on_request(path, name):
    with opened(path) as journal:
        journal.record(record(1))
    before = path.read_bytes()
    with pytest.raises(OtherRun, match=f"another {name}.*--restart"):
        opened(path, same={**SAME, name: "other"})
    assert path.read_bytes() == before
    with opened(path, same={**SAME, name: "other"}, restart=True) as journal:
        assert journal.count() == 0


def test_a_run_keeps_its_name_when_it_is_taken_up(path):
    with Journal(path, SAME, "first"):
        pass
    with Journal(path, SAME, "second") as journal:
        assert journal.run == "first"


def test_text_that_has_no_utf8_is_kept_as_far_as_it_has(path):
    with opened(path) as journal:
        journal.record(record(1, text="half \ud800 pair"))
        assert journal.get(1)["text"] == "half ? pair"


def test_a_full_disk_leaves_no_half_line(path, monkeypatch):
    import os

    write = os.write
    with opened(path) as journal:
        journal.record(record(1))
        whole = path.read_bytes()

        def full(handle, data):
            if handle == journal._write:
                write(handle, data[:7])
                raise OSError(28, "No space left on device")
            return write(handle, data)

        monkeypatch.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space left") as failure:
            journal.record(record(2))
        monkeypatch.undo()
        assert failure.value.filename == str(path)
        assert path.read_bytes() == whole
        journal.record(record(2))
    with opened(path) as journal:
        assert rows(journal) == [1, 2]
