"""Bytes of a file become one text; HTML and notebooks become Markdown on the way."""

from __future__ import annotations

import codecs
import io
import json
import re
from dataclasses import dataclass, field
from typing import Any

import yaml

from chainops.core.extras import require

_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark begins it
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_FRONT_MATTER = re.compile(r"\A---[ \t]*\n(.*?)\n(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL)
_FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})")
_ATX_HEADING = re.compile(r"^ {0,3}#{1,6}[ \t]+(.+?)(?:[ \t]+#+)?[ \t]*$")
_UNDERLINE = re.compile(r"^ {0,3}(=+|-+)[ \t]*$")
_HEADINGS = ("h1", "h2", "h3", "h4", "h5", "h6")
_PARAGRAPHS = ("p", "table", "ul", "ol", "dl", "blockquote")
_LINES = ("div", "section", "article", "main", "aside", "header", "footer", "figure", "figcaption", "address", "form")
_ROWS = ("tr", "dt", "dd", "hr", "br", "fieldset")
_NOT_CONTENT = ("script", "style", "noscript", "template", "nav", "svg", "iframe", "head", "button", "select")


@dataclass(frozen=True, slots=True)
class Read:
    """What a file says."""

    text: str
    media_type: str
    title: str = ""
    """Empty when the file names none."""
    metadata: dict[str, Any] = field(default_factory=dict)


class Unreadable(ValueError):
    """The bytes are not what the file's ending says."""

    def __init__(self, problem: str) -> None:
        self.problem = problem
        super().__init__(problem)


def decode(content: bytes) -> str:
    """Text in UTF-8, or in what its byte order mark says; every line ends with a single newline character."""
    encoding = next((name for mark, name in _BYTE_ORDER_MARKS if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        kind = "binary, not text" if b"\x00" in content[:4096] else f"not {encoding.upper()} (byte {error.start})"
        raise Unreadable(f"is {kind}; leave it out, or save it as UTF-8") from error
    if "\x00" in text:
        raise Unreadable("is binary, not text (it holds NUL bytes); leave it out")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_text(content: bytes) -> Read:
    """Plain text, reST, source code: anything that decodes."""
    return Read(decode(content), "text/plain")


def read_markdown(content: bytes) -> Read:
    """Markdown; front matter gives the title and scalar metadata, and is no part of the text.

    What stands between `---` lines and is no YAML mapping is content like any other.
    """
    text = decode(content)
    metadata: dict[str, Any] = {}
    if front := _FRONT_MATTER.match(text):
        try:
            found = yaml.safe_load(front[1])
        except (yaml.YAMLError, ValueError, RecursionError):
            found = None
        if isinstance(found, dict):
            text = text[front.end() :]
            metadata = {str(key): value for key, value in found.items() if isinstance(value, str | int | float | bool)}
    title = metadata.get("title")
    return Read(text, "text/markdown", title if isinstance(title, str) else first_heading(text), metadata)


def first_heading(text: str) -> str:
    """The first Markdown heading outside code, without its marks; empty if there is none."""
    fence, before = "", ""
    for line in text.split("\n"):
        if mark := _FENCE.match(line):
            if not fence:
                fence = mark[1]
            elif mark[1].startswith(fence):
                fence = ""
            before = ""
            continue
        if fence:
            continue
        if heading := _ATX_HEADING.match(line):
            return heading[1].strip()
        if before and _UNDERLINE.match(line):
            return before
        before = line.strip()
    return ""


def read_notebook(content: bytes) -> Read:
    """A Jupyter notebook: Markdown cells as they are, code cells fenced, outputs left out."""
    try:
        notebook = json.loads(decode(content))
        cells = notebook["cells"]
        language = notebook.get("metadata", {}).get("kernelspec", {}).get("language") or "python"
        parts = [_cell(cell["cell_type"], cell["source"], language) for cell in cells]
    except (ValueError, RecursionError) as error:
        if isinstance(error, Unreadable):
            raise
        raise Unreadable(f"is no notebook: not JSON ({error})") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise Unreadable("is no notebook of format 4; open it in Jupyter and save it again") from error
    text = "\n\n".join(part for part in parts if part)
    return Read(text, "text/markdown", first_heading(text))


def _cell(kind: str, source: str | list[str], language: str) -> str:
    text = (source if isinstance(source, str) else "".join(source)).strip("\n")
    if not text.strip() or kind == "raw":
        return ""
    if kind == "code":
        longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
        fence = "`" * max(3, longest + 1)
        return f"{fence}{language}\n{text}\n{fence}"
    return text


def read_pdf(content: bytes) -> Read:
    """Text of a PDF, pages separated by an empty line; `metadata["pages"]` is where each starts."""
    pypdf = require("pypdf", extra="knowledge")
    try:
        reader = pypdf.PdfReader(io.BytesIO(content))
        if reader.is_encrypted and not reader.decrypt(""):
            raise Unreadable("is encrypted; save it without a password")
        pages = [page.extract_text() for page in reader.pages]
        title = str((reader.metadata and reader.metadata.title) or "").strip()
    except Unreadable:
        raise
    except Exception as error:  # pypdf answers damaged files with whatever it trips over
        raise Unreadable(f"is no readable PDF ({type(error).__name__}: {error})"[:200]) from error
    plain = [page.replace("\x00", "").replace("\r\n", "\n").encode(errors="replace").decode().strip() for page in pages]
    starts, at = [], 0
    for page in plain:
        starts.append(at)
        at += len(page) + len("\n\n")
    text = "\n\n".join(plain)
    if not text.strip():
        raise Unreadable("is a PDF without text, perhaps scanned; run it through OCR first")
    return Read(text, "application/pdf", title.replace("\x00", ""), {"pages": starts})


def read_html(content: bytes) -> Read:
    """A page's content as Markdown: headings, lists and code kept; scripts, menus and forms dropped."""
    bs4 = require("bs4", extra="knowledge")
    if b"\x00" in content and not content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise Unreadable("is binary, not HTML; leave it out")
    soup = bs4.BeautifulSoup(content, "html.parser")
    if soup.contains_replacement_characters:
        raise Unreadable("is HTML in an encoding that does not decode; save it as UTF-8")
    title = " ".join(soup.title.get_text().split()) if soup.title else ""
    heading = soup.find("h1")
    title = title or (" ".join(heading.get_text().split()) if heading else "")
    for dropped in soup.find_all(_NOT_CONTENT):
        dropped.extract()
    _mark_up(soup)
    return Read(_tidy(soup.get_text()), "text/html", title)


def _mark_up(soup: Any) -> None:
    """Write into the tree, as text, the Markdown that its tags stand for."""
    for piece in soup.find_all(string=True):
        if piece.find_parent("pre") is None:
            piece.replace_with(type(piece)(re.sub(r"\s+", " ", piece)))
    for tag in soup.find_all([*_HEADINGS, "pre", "li", "td", "th", *_PARAGRAPHS, *_LINES, *_ROWS]):
        before, after = "\n", "\n"
        if tag.name in _HEADINGS:
            before, after = "\n\n" + "#" * int(tag.name[1]) + " ", "\n\n"
        elif tag.name == "pre":
            before, after = "\n\n```\n", "\n```\n\n"
        elif tag.name == "li":
            before, after = "\n- ", "\n"
        elif tag.name in {"td", "th"}:
            before, after = "", " | "
        elif tag.name in _PARAGRAPHS:
            before, after = "\n\n", "\n\n"
        tag.insert(0, before)
        tag.append(after)


def _tidy(text: str) -> str:
    lines: list[str] = []
    fenced = False
    for line in text.replace("\r\n", "\n").split("\n"):
        kept = line.rstrip() if fenced else re.sub(r"[ \t\u00a0]+", " ", line).strip()
        if kept.startswith("```"):
            fenced = not fenced
        if kept or fenced or (lines and lines[-1]):
            lines.append(kept)
    return "\n".join(lines).strip()
