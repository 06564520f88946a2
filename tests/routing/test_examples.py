from __future__ import annotations

import pytest

from chainops.routing.examples import checked, flat, read
from chainops.routing.records import BadExamples


@pytest.mark.parametrize(
    ("examples", "said"),
    [
        ({}, "no examples"),
        ({"a": ()}, "'a' has no examples"),
        ({"a": ("x",)}, "only one route, 'a'"),
        ({"a": ("x",), "b": (" ",)}, "without words"),
        ({"a": ("Reset  it",), "b": ("reset it",)}, "both 'a' and 'b'"),
        ({"a": ("x",), None: ("x",)}, "both 'a' and 'none'"),
        ({"a": "x", "b": ("y",)}, "string"),
        ({None: ("x",)}, "no examples"),
    ],
    ids=["nothing", "no example", "one route", "blank", "in two routes", "route and none", "a string", "only none"],
)
def test_examples_that_cannot_be_fitted_are_named(examples, said):
    with pytest.raises(BadExamples, match=said):
        checked(examples)


def test_repetitions_within_a_route_count_once():
    assert checked({"a": ("x", "X ", "y"), "b": ("z",)}) == {"a": ("x", "y"), "b": ("z",)}


def test_one_route_and_examples_of_none_will_do():
    assert checked({"a": ("x",), None: ("y",)}) == {"a": ("x",), None: ("y",)}


def test_examples_are_read_from_json_lines_and_csv(tmp_path):
    (tmp_path / "r.jsonl").write_text(
        '{"route": "a", "text": "x"}\n\n{"route": "b", "text": "y"}\n{"route": null, "text": "z"}\n'
    )
    (tmp_path / "r.csv").write_text("route,text\na,x\nb,y\nnone,z\n")
    assert read(tmp_path / "r.jsonl") == read(tmp_path / "r.csv") == {"a": ("x",), "b": ("y",), None: ("z",)}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"route": "a", "text": "x"}\nnonsense', "line 2 is no JSON"),
        ('{"route": "a"}', "line 1 has no `text`"),
        ('{"route": 3, "text": "x"}', "line 1: route 3"),
        ("[1]", "line 1 is no JSON object"),
    ],
)
def test_a_line_that_is_no_example_is_named(tmp_path, text, said):
    (tmp_path / "r.jsonl").write_text(text)
    with pytest.raises(BadExamples, match=said):
        read(tmp_path / "r.jsonl")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(BadExamples, match="no such file"):
        read(tmp_path / "nothing.jsonl")


def test_the_order_of_routes_does_not_matter():
    assert flat({"b": ("y",), None: ("z",), "a": ("x",)}) == flat({"a": ("x",), "b": ("y",), None: ("z",)})
