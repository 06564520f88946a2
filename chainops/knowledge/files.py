"""Which files a pattern means: the same list, in the same order, on every machine."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from chainops.knowledge.documents import LoadProblem

_WILD = re.compile(r"[*?\[]")


@dataclass(slots=True)
class Matches:
    """What one pattern matched, and what stood in the way."""

    paths: list[Path] = field(default_factory=list)
    problems: list[LoadProblem] = field(default_factory=list)


def match(pattern: str, base: Path) -> Matches:
    """Files meant by `pattern`: a path, or a glob with `*`, `?`, `[...]` and `**`, below `base`.

    Names that start with a dot match only a pattern that writes the dot, so `**/*` never reads
    `.git` or `.chainops`. Folders reached through links are followed; a link back to a folder
    on its own path is reported, and not followed.
    """
    found = Matches()
    whole = Path(pattern).expanduser()
    if not _WILD.search(pattern) or os.path.lexists(base / whole):
        _match_path(pattern, base / whole, found)
        return found
    parts = whole.parts
    wild = next(at for at, part in enumerate(parts) if _WILD.search(part))
    root = base.joinpath(*parts[:wild])
    if not _is_folder(root):
        found.problems.append(LoadProblem(pattern, f"there is no folder {root}"))
        return found
    try:
        wanted = re.compile(_translate(parts[wild:]))
    except re.error as error:
        found.problems.append(LoadProblem(pattern, f"is no pattern: {error}"))
        return found
    walk = _Walk(
        depth=None if "**" in parts[wild:] else len(parts) - wild,
        hidden=any(part.startswith(".") for part in parts[wild:]),
        problems=found.problems,
    )
    matching = (path for path, below in walk.files(root) if wanted.fullmatch(below))
    found.paths = sorted(matching, key=lambda path: path.as_posix())
    if not found.paths:
        found.problems.append(LoadProblem(pattern, f"matches no file below {base}"))
    return found


def identify(path: Path, base: Path) -> str:
    """A document's id: its path relative to `base`, with forward slashes, links kept as written."""
    try:
        return Path(os.path.relpath(path, base)).as_posix()
    except ValueError:  # another drive, on Windows
        return path.as_posix()


def _match_path(pattern: str, path: Path, found: Matches) -> None:
    try:
        if path.is_dir():
            problem = f"is a folder; write which files in it, such as {pattern}/**/*.md"
        elif path.is_symlink() and not path.exists():
            problem = "is a link that leads nowhere"
        elif path.exists():
            found.paths.append(path)  # what is no regular file is reported when it is read
            return
        else:
            problem = f"there is no such file ({path})"
    except OSError as error:
        problem = f"cannot be read: {error.strerror}"
    found.problems.append(LoadProblem(pattern, problem))


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # then reading it as a file says what is wrong
        return False


def _translate(parts: tuple[str, ...]) -> str:
    expression = ""
    for at, part in enumerate(parts):
        last = at == len(parts) - 1
        if part == "**":
            step = r"(?!\.)[^/]+/"
            expression += f"(?:{step})*" + (r"(?!\.)[^/]+" if last else "")
            continue
        hidden = "" if part.startswith(".") else r"(?!\.)"
        expression += hidden + _translate_name(part) + ("" if last else "/")
    return expression


def _translate_name(part: str) -> str:
    expression, at = "", 0
    while at < len(part):
        char = part[at]
        closing = part.find("]", at + 2) if char == "[" else -1
        if char == "*":
            expression += "[^/]*"
        elif char == "?":
            expression += "[^/]"
        elif closing > 0:
            inside = part[at + 1 : closing].replace("\\", r"\\")
            expression += "[" + ("^" + inside[1:] if inside[0] in "!^" else inside) + "]"
            at = closing
        else:
            expression += re.escape(char)
        at += 1
    return expression


@dataclass(slots=True, kw_only=True)
class _Walk:
    depth: int | None
    hidden: bool
    problems: list[LoadProblem]

    def files(
        self, folder: Path, below: str = "", above: tuple[tuple[int, int], ...] = ()
    ) -> Iterator[tuple[Path, str]]:
        try:
            status = folder.stat()
            here = (status.st_dev, status.st_ino)
            if here in above:
                self.problems.append(LoadProblem(str(folder), "is a link back to a folder it lies in; not followed"))
                return
            names = sorted(entry.name for entry in folder.iterdir())
        except OSError as error:
            self.problems.append(LoadProblem(str(folder), f"cannot be listed: {error.strerror}"))
            return
        for name in names:
            if name.startswith(".") and not self.hidden:
                continue
            path = folder / name
            if not _is_folder(path):
                yield path, below + name  # a link that leads nowhere comes too: reading it says so
            elif self.depth is None or len(above) + 1 < self.depth:
                yield from self.files(path, f"{below}{name}/", (*above, here))
