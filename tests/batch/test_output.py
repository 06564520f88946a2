from __future__ import annotations

import csv
import gzip
import json

import pytest

from chainops.batch.formats import format_of
from chainops.batch.output import COLUMNS, write
from chainops.core.errors import InvalidInput

RECORDS = [
    {
        "row": 1,
        "id": 7,
        "question": 'ä, "b"\nc',
        "answer": "你好",
        "status": "ok",
        "reasons": [],
        "sources": [{"n": 1, "title": "ü"}],
        "data": 0,
        "served_by": "m",
        "cost_usd": 0.25,
        "tokens": {"input": 3, "output": 4},
        "duration_s": 0.5,
        "error": None,
    },
    {
        "row": 2,
        "id": None,
        "question": None,
        "answer": None,
        "status": "failed",
        "reasons": [],
        "sources": [],
        "data": None,
        "served_by": None,
        "cost_usd": None,
        "tokens": {"input": 0, "output": 0},
        "duration_s": 0.0,
        "error": {"type": "T", "message": "m", "kind": "caller"},
    },
]
LINES = [json.dumps(record).encode() + b"\n" for record in RECORDS]


def test_json_lines_are_the_records(tmp_path):
    for name in ("out.jsonl", "out.jsonl.gz"):
        write(tmp_path / name, LINES, "jsonl")
    assert [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()] == RECORDS
    assert gzip.decompress((tmp_path / "out.jsonl.gz").read_bytes()) == b"".join(LINES)


def test_csv_and_parquet_have_a_column_for_everything(tmp_path):
    import pyarrow.parquet as pq

    write(tmp_path / "out.csv", LINES, "csv")
    write(tmp_path / "out.parquet", LINES, "parquet")
    with (tmp_path / "out.csv").open(newline="", encoding="utf-8") as file:
        cells = list(csv.DictReader(file))
    rows = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert list(cells[0]) == list(rows[0]) == list(COLUMNS)
    assert cells[0]["question"] == rows[0]["question"] == RECORDS[0]["question"]
    assert json.loads(cells[0]["sources"]) == json.loads(rows[0]["sources"]) == RECORDS[0]["sources"]
    assert (rows[0]["data"], rows[0]["cost_usd"], rows[0]["input_tokens"], rows[0]["id"]) == ("0", 0.25, 3, "7")
    assert (rows[1]["answer"], rows[1]["cost_usd"], rows[1]["error_kind"]) == (None, None, "caller")
    assert (cells[1]["answer"], cells[1]["cost_usd"], cells[1]["error_type"]) == ("", "", "T")


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_an_output_that_cannot_be_finished_leaves_the_old_one(tmp_path, kind):
    def lines():
        yield LINES[0]
        raise OSError("the journal cannot be read")

    path = tmp_path / f"out.{kind}"
    path.write_text("old")
    with pytest.raises(OSError, match="journal"):
        write(path, lines(), kind)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_no_rows_are_an_empty_table(tmp_path):
    import pyarrow.parquet as pq

    for kind in ("jsonl", "csv", "parquet"):
        write(tmp_path / f"out.{kind}", [], kind)
    assert (tmp_path / "out.jsonl").read_bytes() == b""
    assert (tmp_path / "out.csv").read_text().strip() == ",".join(COLUMNS)
    assert pq.read_table(tmp_path / "out.parquet").column_names == list(COLUMNS)


def test_the_name_says_the_format_unless_it_is_said(tmp_path):
    assert format_of(tmp_path / "a.csv.gz") == "csv"
    assert format_of(tmp_path / "a.out", "jsonl", written=True) == "jsonl"
    with pytest.raises(InvalidInput, match="one of jsonl, csv, parquet"):
        format_of(tmp_path / "a.csv", "xml", written=True)
    with pytest.raises(InvalidInput, match=r"\.parquet"):
        format_of(tmp_path / "a.txt", written=True)
