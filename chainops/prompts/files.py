"""Prompts as Markdown files with front matter: what reviewers read, and what a diff shows."""

from __future__ import annotations

import difflib
import os
import re
import tempfile
from pathlib import Path
from typing import Any

import yaml

from chainops.core.errors import ChainopsError
from chainops.prompts.prompt import HOW_TO_WRITE_A_PLACE, ROLES, Prompt, PromptInvalid, odd_place

MAX_FILE_BYTES = 1_000_000

_KEYS = ("name", "description", "tags")
_HEADING = re.compile(rf"\[({'|'.join(ROLES)})\]\s*")
_ESCAPED = re.compile(rf"\\+\[(?:{'|'.join(ROLES)})\]\s*")


class PromptFileNotFound(ChainopsError, FileNotFoundError):
    """There is no prompt file at a path."""

    def __init__(self, path: Path) -> None:
        self.path = path
        beside = sorted(one.name for one in path.parent.glob("*.md")) if path.parent.is_dir() else []
        self.near: tuple[str, ...] = tuple(difflib.get_close_matches(path.name, beside, n=3, cutoff=0.4))
        if self.near:
            hint = f"did you mean {' or '.join(self.near)}?"
        else:
            hint = f"files there: {', '.join(beside[:8])}" if beside else f"no .md file is in {path.parent}"
        super().__init__(f"no prompt file {str(path)!r}; {hint}")


def read_prompt(path: Path) -> Prompt:
    """Read a prompt file.

    The file may start with YAML front matter between `---` lines: `name` (else the file's name
    without its ending), `description`, `tags`. A line `[system]`, `[user]` or `[assistant]` alone
    starts a message; without any, all is one user message. A line of text that looks like that is
    written with a backslash before it.

    Raises:
        PromptFileNotFound: there is no such file.
        PromptInvalid: it is no prompt; names file and line.
    """
    if not path.is_file():
        raise PromptFileNotFound(path)
    if path.stat().st_size > MAX_FILE_BYTES:
        raise PromptInvalid(str(path), f"it has more than {MAX_FILE_BYTES:,} bytes", "a prompt is a short text file")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise PromptInvalid(str(path), f"byte {error.start} is not UTF-8", "save the file as UTF-8 text") from error
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    front, first = _front_matter(path, lines)
    messages = _messages(path, lines, first)
    metadata = {str(key): str(value) for key, value in (front.get("tags") or {}).items()}
    if "description" in front:
        metadata["description"] = str(front["description"])
    return Prompt(name=str(front.get("name", path.stem)), messages=messages, source=f"file:{path}", metadata=metadata)


def write_prompt(prompt: Prompt, path: Path) -> None:
    """Write a prompt so that `read_prompt` gives the same one back. Never leaves half a file."""
    front: dict[str, Any] = {"name": prompt.name}
    if "description" in prompt.metadata:
        front["description"] = prompt.metadata["description"]
    if tags := {key: value for key, value in prompt.metadata.items() if key != "description"}:
        front["tags"] = tags
    blocks = [
        f"[{role}]\n" + "\n".join(_escape(line) for line in template.split("\n")) for role, template in prompt.messages
    ]
    header = yaml.safe_dump(front, sort_keys=False, allow_unicode=True, width=100)
    text = f"---\n{header}---\n" + "\n\n".join(blocks) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _front_matter(path: Path, lines: list[str]) -> tuple[dict[str, Any], int]:
    """The front matter, and the index of the first line after it."""
    if lines[0].rstrip() != "---":
        return {}, 0
    try:
        end = next(number for number in range(1, len(lines)) if lines[number].rstrip() == "---")
    except StopIteration:
        raise PromptInvalid(f"{path}, line 1", "the front matter does not end", "close it with a line '---'") from None
    try:
        front = yaml.safe_load("\n".join(lines[1:end])) or {}
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = 2 + (mark.line if mark else 0)
        problem = getattr(error, "problem", None) or str(error)
        raise PromptInvalid(f"{path}, line {line}", f"the front matter is no YAML: {problem}", "correct it") from error
    if not isinstance(front, dict):
        raise PromptInvalid(f"{path}, line 2", "the front matter is no mapping", "write 'key: value' lines")
    for key, value in front.items():
        place = f"{path}, line {_line_of(str(key), lines, end)}"
        if key not in _KEYS:
            near = difflib.get_close_matches(str(key), _KEYS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(_KEYS)}"
            raise PromptInvalid(place, f"unknown key {key!r}", hint)
        if key != "tags" and not isinstance(value, str):
            raise PromptInvalid(place, f"{key} is {value!r}", f"write text: {key}: '...'")
        if key == "tags":
            _check_tags(place, value)
    return front, end + 1


def _check_tags(place: str, tags: Any) -> None:
    fits = isinstance(tags, dict) and all(isinstance(value, str | int | float | bool) for value in tags.values())
    if not fits:
        raise PromptInvalid(place, f"tags is {tags!r}", "write a mapping of names to plain values")
    if "description" in tags:
        raise PromptInvalid(place, "a tag is called 'description'", "write the description beside 'tags'")


def _line_of(key: str, lines: list[str], end: int) -> int:
    for number in range(1, end):
        if lines[number].startswith((f"{key}:", f"'{key}'", f'"{key}"')):
            return number + 1
    return 2


def _messages(path: Path, lines: list[str], first: int) -> tuple[tuple[str, str], ...]:
    messages: list[tuple[str, str]] = []
    role, start, body = "user", first, list[str]()
    is_headed = False
    for number, line in enumerate([*lines[first:], None], first):
        heading = None if line is None else _HEADING.fullmatch(line)
        if line is not None and heading is None:
            body.append(line[1:] if _ESCAPED.fullmatch(line) else line)
            continue
        text = "\n".join(body)
        if text.strip():
            if heading is not None and not is_headed:
                raise PromptInvalid(
                    f"{path}, line {_first_text(lines, start) + 1}",
                    "text stands before the first message",
                    "put a line [system] or [user] above it",
                )
            if odd := odd_place(text):
                line_number = start + 1 + text.count("\n", 0, odd[0])
                raise PromptInvalid(f"{path}, line {line_number}", f"{odd[1]!r} is no variable", HOW_TO_WRITE_A_PLACE)
            messages.append((role, text))
        elif is_headed or line is None:
            raise PromptInvalid(f"{path}, line {max(start, 1)}", f"the {role} message is empty", "write its text")
        if heading is not None:
            role, start, body, is_headed = heading[1], number + 1, [], True
    return tuple(messages)


def _first_text(lines: list[str], start: int) -> int:
    return next(number for number in range(start, len(lines)) if lines[number].strip())


def _escape(line: str) -> str:
    return "\\" + line if _HEADING.fullmatch(line) or _ESCAPED.fullmatch(line) else line
