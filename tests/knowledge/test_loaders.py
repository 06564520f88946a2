from __future__ import annotations

import json
import os

import pytest
from langchain_core.documents import Document as LangChainDocument

from chainops.core.errors import InvalidInput
from chainops.knowledge.documents import Document, EmptyCorpus
from chainops.knowledge.loaders import load, read_file


def problems(corpus):
    return {problem.path: problem.problem for problem in corpus.problems}


def test_files_come_in_the_order_of_the_patterns_and_once(tmp_path):
    for name in ("b.md", "a.md", "c.txt"):
        (tmp_path / name).write_text(f"# {name}\n\nbody")
    corpus = load(["c.txt", "*.md", "**/*"], tmp_path)
    assert len(corpus) == 3
    assert [document.id for document in corpus] == ["c.txt", "a.md", "b.md"]
    assert [document.title for document in corpus] == ["c", "a.md", "b.md"]
    assert corpus.problems == []


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("naïve".encode(), "naïve"),
        ("naïve".encode("utf-8-sig"), "naïve"),
        ("naïve".encode("utf-16"), "naïve"),
        (b"\xfe\xff" + "naïve".encode("utf-16-be"), "naïve"),
        ("naïve".encode("utf-32"), "naïve"),
        (b"one\r\ntwo\rthree", "one\ntwo\nthree"),
    ],
)
def test_text_is_read_in_the_encoding_its_first_bytes_say(tmp_path, content, text):
    (tmp_path / "a.txt").write_bytes(content)
    assert read_file(tmp_path / "a.txt", tmp_path).text == text


def test_bad_files_are_reported_and_the_good_ones_still_come(tmp_path):
    (tmp_path / "good.txt").write_text("fine")
    (tmp_path / "empty.txt").write_text(" \n")
    (tmp_path / "image.txt").write_bytes(b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\xff")
    (tmp_path / "latin.txt").write_bytes("café au lait".encode("latin-1"))
    (tmp_path / "nul.txt").write_bytes(b"a\x00b")
    (tmp_path / "large.txt").write_text("x" * 101)
    (tmp_path / "gone.txt").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe.txt")
    corpus = load(["*.txt", "missing.md", "*.rst"], tmp_path, max_document_bytes=100)
    assert [document.id for document in corpus] == ["good.txt"]
    said = problems(corpus)
    assert set(said) == {
        "empty.txt", "image.txt", "latin.txt", "nul.txt", "large.txt", "gone.txt", "pipe.txt", "missing.md", "*.rst",
    }  # fmt: skip
    assert "is empty" in said["empty.txt"]
    assert "binary, not text" in said["image.txt"]
    assert "not UTF-8 (byte 3)" in said["latin.txt"]
    assert "binary, not text" in said["nul.txt"]
    assert "larger than 100 bytes (101)" in said["large.txt"]
    assert "leads nowhere" in said["gone.txt"]
    assert "no regular file" in said["pipe.txt"]


def test_an_unreadable_file_is_reported(tmp_path):
    if os.geteuid() == 0:  # root reads everything: a name that is too long fails for it as well
        path = tmp_path / ("x" * 300)
    else:
        path = tmp_path / "locked.txt"
        path.write_text("secret")
        path.chmod(0)
    (tmp_path / "good.txt").write_text("fine")
    corpus = load(["good.txt", path], tmp_path)
    assert [document.id for document in corpus] == ["good.txt"]
    assert len(corpus.problems) == 1


def test_nothing_at_all_is_an_error_that_names_patterns_folder_and_reasons(tmp_path):
    (tmp_path / "empty.md").write_text("")
    with pytest.raises(EmptyCorpus) as caught:
        list(load(["docs/**/*.md", "empty.md"], tmp_path))
    assert caught.value.patterns == ("docs/**/*.md", "empty.md")
    assert str(tmp_path) in str(caught.value)
    assert "there is no folder" in str(caught.value)
    assert "empty.md: is empty" in str(caught.value)


def test_a_markdown_title_is_the_front_matters_or_the_first_heading(tmp_path):
    (tmp_path / "front.md").write_text("---\ntitle: From Above\ntags: [a, b]\norder: 3\n---\n# Heading\n\nBody")
    (tmp_path / "heading.md").write_text("```\n# no heading\n```\n\nIntro\n\n## The Heading ##\n\nBody")
    (tmp_path / "under.md").write_text("The Title\n=========\n\nBody")
    (tmp_path / "rule.md").write_text("---\nnot: [yaml\n---\nBody")
    found = {document.id: document for document in load("*.md", tmp_path)}
    assert found["front.md"].title == "From Above"
    assert found["front.md"].text == "# Heading\n\nBody"
    assert found["front.md"].metadata == {"title": "From Above", "order": 3}
    assert found["heading.md"].title == "The Heading"
    assert found["under.md"].title == "The Title"
    assert found["rule.md"].text == "---\nnot: [yaml\n---\nBody"


def test_html_keeps_what_is_read_and_drops_what_is_run(tmp_path):
    (tmp_path / "page.html").write_text(
        "<html><head><title> The\n Page </title><script>alert(1)</script></head><body><nav>Menu</nav>"
        "<h1>Top</h1><p>First   <b>bold</b>\nline.</p><ul><li>one</li><li>two</li></ul>"
        "<pre>def f():\n    return  1</pre><!-- hidden --><style>p{}</style>"
        "<p>Caf&eacute; &lt;end&gt;</p></body></html>"
    )
    document = read_file(tmp_path / "page.html", tmp_path)
    assert document.title == "The Page"
    assert document.text == (
        "# Top\n\nFirst bold line.\n\n- one\n\n- two\n\n```\ndef f():\n    return  1\n```\n\nCafé <end>"
    )


def test_deeply_nested_html_is_read(tmp_path):
    (tmp_path / "deep.html").write_text("<div>" * 3000 + "deep down" + "</div>" * 3000)
    assert read_file(tmp_path / "deep.html", tmp_path).text == "deep down"


def pdf(*pages: str) -> bytes:
    objects = ["<< /Type /Catalog /Pages 2 0 R >>", ""]
    kids = []
    for page in pages:
        stream = f"BT /F1 12 Tf 72 720 Td ({page}) Tj ET" if page else ""
        number = len(objects) + 1
        kids.append(f"{number} 0 R")
        font = "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"
        resources = f"<< /Font << /F1 {font} >> >>"
        objects.append(f"<< /Type /Page /Parent 2 0 R /Resources {resources} /Contents {number + 1} 0 R >>")
        objects.append(f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream")
    objects[1] = f"<< /Type /Pages /Kids [{' '.join(kids)}] /Count {len(kids)} /MediaBox [0 0 612 792] >>"
    written, offsets = b"%PDF-1.4\n", []
    for number, content in enumerate(objects, start=1):
        offsets.append(len(written))
        written += f"{number} 0 obj\n{content}\nendobj\n".encode()
    table = "".join(f"{offset:010d} 00000 n \n" for offset in offsets)
    end = f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}"
    end += f"trailer\n<< /Size {len(objects) + 1} /Root 1 0 R >>\nstartxref\n{len(written)}\n%%EOF"
    return written + end.encode()


def test_a_pdf_knows_on_which_page_its_text_stands(tmp_path):
    (tmp_path / "book.pdf").write_bytes(pdf("Alpha on one.", "Beta on two."))
    document = read_file(tmp_path / "book.pdf", tmp_path)
    assert document.text == "Alpha on one.\n\nBeta on two."
    assert [document.page_of(document.text.index(word)) for word in ("Alpha", "Beta")] == [1, 2]
    assert document.title == "book"


def test_a_pdf_without_text_and_a_damaged_one_are_reported(tmp_path):
    (tmp_path / "scan.pdf").write_bytes(pdf(""))
    (tmp_path / "broken.pdf").write_bytes(b"%PDF-1.4\nnothing more")
    (tmp_path / "good.pdf").write_bytes(pdf("Readable."))
    corpus = load("*.pdf", tmp_path)
    assert [document.id for document in corpus] == ["good.pdf"]
    assert "OCR" in problems(corpus)["scan.pdf"]
    assert "no readable PDF" in problems(corpus)["broken.pdf"]


def test_a_notebook_gives_its_cells_and_not_its_outputs(tmp_path):
    cells = [
        {"cell_type": "markdown", "source": ["# A story\n", "\n", "Told."]},
        {"cell_type": "code", "source": "print('```')", "outputs": [{"text": "OUTPUT"}]},
        {"cell_type": "raw", "source": "raw"},
        {"cell_type": "code", "source": ""},
    ]
    (tmp_path / "n.ipynb").write_text(json.dumps({"nbformat": 4, "metadata": {}, "cells": cells}))
    document = read_file(tmp_path / "n.ipynb", tmp_path)
    assert document.title == "A story"
    assert document.text == "# A story\n\nTold.\n\n````python\nprint('```')\n````"


@pytest.mark.parametrize("content", ["{", '{"worksheets": []}', "[1]", '{"cells": [{"cell_type": "code"}]}'])
def test_what_is_no_notebook_is_reported(tmp_path, content):
    (tmp_path / "n.ipynb").write_text(content)
    corpus = load([("kept", "text"), tmp_path / "n.ipynb"], tmp_path)
    assert [document.id for document in corpus] == ["kept"]
    assert "is no notebook" in problems(corpus)["n.ipynb"]


def test_python_objects_become_documents():
    corpus = load(
        [
            Document(id="own", title="Own", text="our own"),
            ("pair", "a pair"),
            {"m1": "one of a mapping", "m2": "another"},
            LangChainDocument(page_content="page one", metadata={"source": "book.pdf", "page": 0}),
            LangChainDocument(page_content="page two", metadata={"source": "book.pdf", "page": 1}),
            LangChainDocument(page_content="part", metadata={"source": "x.txt", "title": "X"}),
            LangChainDocument(page_content="part two", metadata={"source": "x.txt"}),
            LangChainDocument(page_content="named", id="given"),
        ]
    )
    found = {document.id: document for document in corpus}
    assert list(found) == [
        "own", "pair", "m1", "m2", "book.pdf#page=0", "book.pdf#page=1", "x.txt", "x.txt#2", "given",
    ]  # fmt: skip
    assert found["x.txt"].title == "X"
    assert found["book.pdf#page=1"].metadata["page"] == 1


def test_a_second_document_of_one_id_is_reported():
    corpus = load([("a", "first"), {"a": "second", "b": "text"}, ("c", 3)])
    assert [document.text for document in corpus] == ["first", "text"]
    assert "came before" in problems(corpus)["a"]
    assert "is int, not str" in problems(corpus)["c"]


def test_what_is_no_document_at_all_is_an_error_at_once():
    with pytest.raises(InvalidInput, match="documents: found int"):
        load([3])
