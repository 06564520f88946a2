from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chainops.spec.errors import ChainFileError
from chainops.spec.yaml import MAX_BYTES, parse, read


def problem(text: str, **environment: str):
    with pytest.raises(ChainFileError) as caught:
        parse(text, "chain.yaml", environment)
    return caught.value.problems[0]


def test_every_word_has_its_place():
    source = parse("a: 1\nb:\n  - c: [x, y]\n", "f", {})
    assert source.value == {"a": 1, "b": [{"c": ["x", "y"]}]}
    assert source.at(("b", 0, "c", 1)) == (3, 12)
    assert source.at(("b", 0, "c", "not there")) == (3, 5)


def test_words_that_yaml_1_1_makes_booleans_stay_words():
    assert parse("on: off\nyes: no\ntime: 12:30\nreally: true", "f", {}).value == {
        "on": "off",
        "yes": "no",
        "time": "12:30",
        "really": True,
    }


def test_variables_are_filled_in_and_unquoted_ones_keep_their_type():
    source = parse('a: ${A}\nb: ${B:-8000}\nc: "${B:-8000}"\nd: $$HOME and x${A}y', "f", {"A": "one"})
    assert source.value == {"a": "one", "b": 8000, "c": "8000", "d": "$HOME and xoney"}


def test_an_unset_variable_is_named_with_its_place():
    told = problem("x: 1\ny: ${MISSING}")
    assert (told.line, told.column, told.key) == (2, 4, "y")
    assert "MISSING" in told.found


def test_a_secret_is_never_read_from_the_environment_into_a_chain_file():
    told = problem("key: ${OPENAI_API_KEY}", OPENAI_API_KEY="sk-verysecret")
    assert "sk-verysecret" not in str(told)
    assert "no secret here" in told.expected


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a: 1\na: 2", "twice"),
        ("a: [1", "expected"),
        ("- 1", "[1]"),
        ("", "nothing"),
        ("a: !!python/object/apply:os.system ['true']", "the tag"),
        (
            "a: &a [x, x]\nb: &b [*a, *a]\n"
            + "".join(f"{chr(99 + n)}: &{chr(99 + n)} [{', '.join(['*' + chr(98 + n)] * 9)}]\n" for n in range(9)),
            "20,000",
        ),
        ("{" * 3000, "expected"),
    ],
)
def test_bad_yaml_is_one_clear_error(text, found):
    assert found in str(problem(text))


def test_a_file_that_is_not_there_not_text_or_too_large_says_so(tmp_path: Path):
    for name, content, expected in (
        ("bin.yaml", b"\xff\xfe\x00bad", "UTF-8"),
        ("big.yaml", b"#" * (MAX_BYTES + 1), "bytes"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ChainFileError, match=expected):
            read(tmp_path / name, {})
    with pytest.raises(ChainFileError, match="no such file"):
        read(tmp_path / "none.yaml", {})
    with pytest.raises(ChainFileError, match="a folder"):
        read(tmp_path, {})


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused_with_a_place_never_anything_else(text):
    with contextlib.suppress(ChainFileError):
        assert isinstance(parse(text, "f", {}).value, dict)
