"""Read a chain file: YAML with the place of every word, and variables from the environment filled in."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from chainops.spec.errors import SECRET, ChainFileError, Problem, shown

MAX_BYTES = 1_000_000
MAX_WORDS = 20_000
"""Keys and values together: aliases of aliases could otherwise grow without bound."""

Path_ = tuple[str | int, ...]


class _Loader(yaml.SafeLoader):
    """YAML as people read it: `on`, `off`, `yes` and `no` are words, and 12:30 is no number."""


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("bool", r"^(?:true|false)$", "tf"),
    ("null", r"^(?:~|null|)$", ["~", "n", ""]),
    ("int", r"^[-+]?(?:0|[1-9][0-9_]*)$", "-+0123456789"),
    ("float", r"^[-+]?(?:[0-9][0-9_]*)(?:\.[0-9_]*)?(?:[eE][-+]?[0-9]+)?$|^[-+]?\.[0-9_]+$", "-+0123456789."),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), list(_first))


@dataclass(frozen=True)
class Source:
    """A read file: its values, and where each word stands."""

    place: str
    value: dict[str, Any]
    marks: Mapping[Path_, tuple[int, int]] = field(default_factory=dict)
    """Path of a word (keys and list positions) to line and column, both from 1. For a key: the key itself."""

    def at(self, path: Path_) -> tuple[int | None, int | None]:
        """Where a word stands, or the nearest one around it."""
        for length in range(len(path), -1, -1):
            if found := self.marks.get(path[:length]):
                return found
        return None, None

    def error(self, problems: list[Problem]) -> ChainFileError:
        return ChainFileError(self.place, problems)


def read(path: Path, environment: Mapping[str, str] | None = None) -> Source:
    """Read a chain file.

    Raises:
        ChainFileError: No such file, not readable, not text, not YAML, a key twice, an unset variable.
    """
    place = str(path)
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise _whole(place, "no such file", "a chain file; `chainops new rag DIR` writes one") from None
    except IsADirectoryError:
        raise _whole(place, "a folder", "a chain file, such as chain.yaml inside it") from None
    except OSError as error:
        raise _whole(place, error.strerror or str(error), "a readable file") from error
    if len(raw) > MAX_BYTES:
        raise _whole(place, f"more than {MAX_BYTES:,} bytes", "a chain file of a page or two")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _whole(place, f"a byte that is not UTF-8 at position {error.start}", "text in UTF-8") from error
    return parse(text, place, os.environ if environment is None else environment)


def _whole(place: str, found: str, expected: str) -> ChainFileError:
    return ChainFileError(place, [Problem(key="", found=found, expected=expected)])


def parse(text: str, place: str, environment: Mapping[str, str]) -> Source:
    """The same from text; `place` is what messages call it."""
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        reading = _Reading(loader, environment)
        value = None if node is None else reading.value_of(node, ())
        loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (None, None)
        problem = Problem(key="", found=error.problem or "no YAML", expected="YAML", line=line, column=column)
        raise ChainFileError(place, [problem]) from error
    except (yaml.YAMLError, RecursionError) as error:
        raise _whole(place, " ".join(str(error).split())[:200], "YAML") from error
    if reading.problems:
        raise ChainFileError(place, reading.problems)
    if not isinstance(value, dict):
        raise _whole(place, "nothing" if value is None else shown(value), "a mapping that begins with `chainops: 1`")
    return Source(place, value, reading.marks)


class _Reading:
    """One pass over the YAML nodes."""

    def __init__(self, loader: _Loader, environment: Mapping[str, str]) -> None:
        self.loader, self.environment = loader, environment
        self.marks: dict[Path_, tuple[int, int]] = {}
        self.problems: list[Problem] = []

    def value_of(self, node: yaml.Node, path: Path_) -> Any:
        self.marks.setdefault(path, _mark(node))
        if len(self.marks) > MAX_WORDS:
            raise yaml.YAMLError(f"more than {MAX_WORDS:,} words; are there aliases of aliases?")
        if isinstance(node, yaml.CollectionNode) and node.tag not in _PLAIN_TAGS:
            self._problem(path, node, f"the tag {node.tag}", "plain values")
            return None
        if isinstance(node, yaml.MappingNode):
            self.loader.flatten_mapping(node)
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.value_of(each, (*path, position)) for position, each in enumerate(node.value)]
        return self._scalar(node, path)

    def _mapping(self, node: yaml.MappingNode, path: Path_) -> dict[str, Any]:
        told: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = str(key_node.value)
            inner = (*path, key)
            if key in told:
                self._problem(inner, key_node, f"{key!r} twice", "each word once")
            self.marks[inner] = _mark(key_node)
            told[key] = self.value_of(value_node, inner)
        return told

    def _scalar(self, node: Any, path: Path_) -> Any:
        if node.tag == "tag:yaml.org,2002:str" and "$" in node.value:
            filled = self._fill(node, path)
            if filled != node.value and node.style is None:  # ${PORT:-8000} unquoted is a number, as 8000 would be
                tag = self.loader.resolve(yaml.ScalarNode, filled, (True, False))  # type: ignore[no-untyped-call]
                return self._construct(yaml.ScalarNode(tag, filled, node.start_mark, node.end_mark))
            return filled
        return self._construct(node)

    def _construct(self, node: yaml.Node) -> Any:
        return self.loader.construct_object(node, deep=True)

    def _fill(self, node: yaml.Node, path: Path_) -> str:
        def one(found: re.Match[str]) -> str:
            if found[0] == "$$":
                return "$"
            name, default = found["name"], found["default"]
            if SECRET.search(name):
                self._problem(
                    path,
                    node,
                    f"${{{name}}}",
                    "no secret here: keys are read from the environment by the model's client (see `key_env`)",
                )
                return ""
            value = self.environment.get(name)
            if value:
                return value
            if default is not None:
                return default
            self._problem(path, node, f"${{{name}}}, which is not set", f"{name} set, or a default: ${{{name}:-...}}")
            return ""

        return _VARIABLE.sub(one, node.value)

    def _problem(self, path: Path_, node: yaml.Node, found: str, expected: str) -> None:
        line, column = _mark(node)
        key = ".".join(map(str, path))
        self.problems.append(Problem(key=key, found=found, expected=expected, line=line, column=column))


_PLAIN_TAGS = {"tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"}
_VARIABLE = re.compile(r"\$\$|\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\}")


def _mark(node: yaml.Node) -> tuple[int, int]:
    return node.start_mark.line + 1, node.start_mark.column + 1
