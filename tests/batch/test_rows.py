from __future__ import annotations

import gzip
import json

import pytest

from chainops.batch import rows as rows_
from chainops.batch.rows import source_of
from chainops.core.errors import InvalidInput


def read(path, **options):
    return list(source_of(path, **options).rows())


def file(tmp_path, content, name="rows.jsonl"):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_objects_and_plain_strings_are_rows_and_blank_lines_are_not(tmp_path):
    path = file(tmp_path, '{"question": "a", "id": 7}\n\n  \n"b"\n{"question": "c"}')
    found = read(path)
    assert [(row.number, row.id, row.question) for row in found] == [(1, 7, "a"), (2, None, "b"), (3, None, "c")]
    assert source_of(path).total == 3


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b"not json", "no JSON"),
        (b'{"question": "\xff"}', "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b"[1, 2]", "list"),
        (b"3", "int"),
        (b"null", "NoneType"),
        (b'{"text": "a"}', "columns text"),
        (b'{"question": ""}', "nothing in it"),
        (b'{"question": 3}', "int"),
        (b'{"question": "a", "history": "no list"}', "no list"),
        (b'{"question": "a", "user": ["x"]}', "list"),
    ],
)
def test_a_row_that_cannot_be_read_is_a_row_with_a_problem_and_the_next_is_read(tmp_path, line, says):
    bad, good = read(file(tmp_path, line + b'\n{"question": "good"}\n'))
    assert says in str(bad.problem)
    assert (good.number, good.question, good.problem) == (2, "good", None)


def test_who_asks_is_told_apart_from_what_is_asked(tmp_path):
    path = file(tmp_path, '{"question": "a", "user": 3, "tenant": "acme", "tone": "kind", "history": [], "id": "x"}')
    (row,) = read(path)
    assert row.facts == {"user": "3", "tenant": "acme"}
    assert row.value == {"question": "a", "tone": "kind", "history": []}


def test_a_byte_order_mark_all_scripts_and_separators_survive(tmp_path):
    text = "¿Qué? 你好 \U0001f600 a\u2028b\x85c"
    for name, content in {
        "a.jsonl": json.dumps({"question": text}, ensure_ascii=False) + "\n",
        "a.txt": text + "\n",
        "a.csv": f'question\n"{text}"\n',
    }.items():
        (row,) = read(file(tmp_path, b"\xef\xbb\xbf" + content.encode(), name))
        assert row.question == text


def test_a_line_of_ten_megabytes_is_a_row_and_one_beyond_the_limit_is_a_problem(tmp_path, monkeypatch):
    long = "x" * 10_000_000
    first, second = read(file(tmp_path, json.dumps(long) + '\n"next"\n'))
    assert (first.question, second.question) == (long, "next")
    monkeypatch.setattr(rows_, "MAX_LINE_BYTES", 1000)
    path = file(tmp_path, json.dumps(long) + '\n"next"\n')
    first, second = read(path)
    assert "1,000 bytes" in str(first.problem)
    assert (second.number, second.question, source_of(path).total) == (2, "next", 2)


def test_repeated_ids_are_carried_along_under_row_numbers_of_their_own():
    found = read([{"question": "a", "id": 1}, {"question": "b", "id": 1}])
    assert [(row.number, row.id) for row in found] == [(1, 1), (2, 1)]


def test_csv_has_rows_with_line_ends_quotes_history_and_too_many_cells(tmp_path):
    content = (
        "id,question,history,user\r\n"
        '1,"two\r\nlines, ""quoted""","[{""role"": ""user"", ""text"": ""hi""}]",ann\r\n'
        "2,plain,,\r\n"
        "3,too,many,cells,here\r\n"
        "4,short\r\n"
        "\r\n"
        '5,bad history,"[",\r\n'
    )
    path = file(tmp_path, content, "rows.csv")
    first, plain, wide, short, bad = read(path)
    assert first.question == 'two\r\nlines, "quoted"'
    assert first.value["history"] == [{"role": "user", "text": "hi"}]
    assert first.facts == {"user": "ann"}
    assert plain.value == {"question": "plain"}
    assert "5 cells" in str(wide.problem)
    assert (short.question, short.problem) == ("short", None)
    assert "history" in str(bad.problem)
    assert source_of(path).total == 5


def test_csv_with_bytes_that_are_no_text_has_a_problem_in_that_row_only(tmp_path):
    bad, good = read(file(tmp_path, b"question\ncaf\xe9\ngood\n", "rows.csv"))
    assert "UTF-8" in str(bad.problem)
    assert good.question == "good"


def test_csv_with_a_quote_that_never_ends_stops_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(rows_, "MAX_LINE_BYTES", 1000)
    found = read(file(tmp_path, 'question\ngood\n"' + "x\n" * 2000, "rows.csv"))
    assert found[0].question == "good"
    assert "field larger than field limit" in str(found[1].problem)


def test_parquet_has_rows_with_nested_history(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [{"id": n, "question": f"q{n}", "history": [{"role": "user", "text": "hi"}]} for n in range(1000)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    found = read(tmp_path / "rows.parquet")
    assert [row.question for row in found] == [f"q{n}" for n in range(1000)]
    assert found[0].value["history"] == [{"role": "user", "text": "hi"}]
    assert source_of(tmp_path / "rows.parquet").total == 1000


def test_what_is_no_parquet_says_so(tmp_path):
    with pytest.raises(InvalidInput, match="no Parquet"):
        source_of(file(tmp_path, "text", "rows.parquet"))


def test_gzip_is_unpacked_and_a_damaged_one_is_read_up_to_the_damage(tmp_path):
    lines = "".join(json.dumps(f"question {n} {'x' * (n % 97)}") + "\n" for n in range(5000))
    packed = gzip.compress(lines.encode())
    assert len(read(file(tmp_path, packed, "rows.jsonl.gz"))) == 5000
    found = read(file(tmp_path, packed[: len(packed) // 2], "cut.jsonl.gz"))
    assert 100 < len(found) < 5000
    assert all(row.problem is None for row in found[:-1])
    assert "in the middle" in str(found[-1].problem)


def test_a_file_of_another_kind_or_no_file_is_refused(tmp_path):
    for name in ("rows.xlsx", "rows", "rows.parquet.gz"):
        with pytest.raises(InvalidInput):
            source_of(file(tmp_path, "x", name))
    with pytest.raises(InvalidInput, match="no file"):
        source_of(tmp_path / "nothing.jsonl")


def test_another_column_may_be_the_question():
    (row,) = read([{"text": "a", "question": "unused"}], question="text")
    assert row.question == "a"


def test_tables_of_pandas_are_rows():
    import pandas as pd

    found = read(pd.DataFrame({"question": ["a", "b"], "id": [1, 2]}))
    assert [(row.id, row.question) for row in found] == [(1, "a"), (2, "b")]


def test_the_digest_changes_with_the_rows_and_only_with_them(tmp_path):
    one, two = file(tmp_path, '"a"\n', "1.jsonl"), file(tmp_path, '"b"\n', "2.jsonl")
    assert source_of(one).digest == source_of(one).digest != source_of(two).digest
    assert source_of(["a"]).digest == source_of(["a"]).digest != source_of(["b"]).digest
    assert source_of(iter(["a"])).digest is None


def test_a_column_that_no_row_has_is_refused_with_those_there_are(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist([{"id": 1, "qestion": "a"}]), tmp_path / "rows.parquet")
    objects = '{"id": 1, "qestion": "a"}\n{"qestion": "b", "tone": "kind"}\n'
    for rows in (
        tmp_path / "rows.parquet",
        file(tmp_path, "id,qestion\n1,a\n", "rows.csv"),
        file(tmp_path, "id,qestion\n", "empty.csv"),
        file(tmp_path, objects),
        file(tmp_path, "no json\n" + objects, "odd.jsonl"),
        [json.loads(line) for line in objects.splitlines()],
    ):
        with pytest.raises(InvalidInput, match=r"columns id, qestion.*--question.*mean 'qestion'"):
            source_of(rows)
    wide = [{f"column {n}": "x" for n in range(50)}]
    with pytest.raises(InvalidInput, match=r"column 19 and 30 more;"):
        source_of(wide)


def test_a_column_that_only_later_rows_have_is_no_mistake(tmp_path):
    odd = ['{"text": "a"}', "3", "no json", *['{"text": "b"}'] * 500]
    *bad, good = read(file(tmp_path, "\n".join([*odd, '{"question": "good"}'])))
    assert all(row.problem is not None for row in bad)
    assert good.question == "good"
    # Nothing that has columns: each row says what is wrong with it.
    assert [row.problem is not None for row in read(file(tmp_path, "3\nno json\n"))] == [True, True]
    # A header counts, whatever is in the rows; and what can be read only once is asked row by row.
    assert len(read(file(tmp_path, "id,question\n1\n", "short.csv"))) == 1
    assert read(iter([{"text": "a"}]))[0].problem is not None
    assert read(file(tmp_path, "", "empty.csv")) == []
