from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from chainops.core.errors import InvalidInput
from chainops.knowledge.base import KnowledgeBase, NotIndexed
from chainops.knowledge.component import Retrieve
from chainops.knowledge.documents import Document, EmptyCorpus
from chainops.knowledge.loaders import load
from chainops.stores.sql import SqlStore

HERE = Path(__file__).parent

TEXTS = {
    "yield": "The yield expression makes a generator. A generator gives its values one at a time.",
    "lambda": "A lambda expression makes a small function without a name.",
    "with": "The with statement wraps a block by a context manager.",
}


def documents(texts=TEXTS):
    return list(load([texts]))


def ids(hits):
    return [hit.passage.document_id for hit in hits]


def test_what_was_indexed_is_found_with_exact_spans(open_base):
    base = open_base()
    report = base.index(documents())
    assert report.added == ("yield", "lambda", "with")
    assert (report.embedded, report.passages, report.unchanged, report.skipped) == (3, 3, 0, ())
    hits = base.search("What makes a generator?")
    assert ids(hits)[0] == "yield"
    passage = hits[0].passage
    assert base.document("yield").text[passage.start : passage.end] == passage.text
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert len(base.search("generator", 1)) == 1


def test_only_new_and_changed_documents_are_embedded_again(open_base, encoder):
    base = open_base()
    base.index(documents())
    first = base.version
    encoder.embedded.clear()
    report = open_base().index(documents())
    assert (report.unchanged, report.embedded, encoder.embedded) == (3, 0, [])
    assert report.version == first
    changed = {"yield": "Yield is something else now.", "lambda": TEXTS["lambda"], "new": "A new document."}
    report = base.index(documents(changed))
    assert (report.added, report.changed, report.removed, report.unchanged) == (("new",), ("yield",), ("with",), 1)
    assert [text.splitlines()[-1] for text in encoder.embedded] == [changed["yield"], changed["new"]]
    assert base.version != first
    assert set(base.document_digests()) == {"yield", "lambda", "new"}
    assert "with" not in ids(base.search("with statement context manager"))
    base.index(documents())
    assert base.version == first


def test_the_same_documents_give_the_same_version_and_hits_whatever_their_order_and_history(open_base):
    one, other = open_base("one"), open_base("other")
    one.index(documents())
    other.index(documents({"with": "Old text.", "zzz": "Gone soon."}))
    other.index(reversed(documents()))
    assert one.version == other.version
    for question in ("generator", "a function without name", "manager of context"):
        assert [replace(hit, dense_rank=None) for hit in one.search(question)] == [
            replace(hit, dense_rank=None) for hit in other.search(question)
        ]


def test_another_process_finds_what_was_indexed_since(open_base):
    reader, writer = open_base(), open_base()
    writer.index(documents())
    assert ids(reader.search("lambda"))[0] == "lambda"
    writer.index(documents({**TEXTS, "lambda": "Replaced.", "del": "The del statement deletes targets."}))
    hits = reader.search("del statement deletes")
    assert ids(hits)[0] == "del"
    assert "A lambda expression" not in " ".join(hit.passage.text for hit in hits)
    assert reader.version == writer.version


def test_the_store_is_asked_for_news_no_more_often_than_told(tmp_path, encoder, open_base):
    now = [0.0]
    reader = KnowledgeBase(
        SqlStore(tmp_path / "chainops.db"), encoder, name="help", home=tmp_path, refresh_s=1.0, clock=lambda: now[0]
    )
    writer = open_base()
    writer.index(documents({"a": "Alpha first."}))
    assert ids(reader.search("beta")) == ["a"]
    writer.index(documents({"a": "Alpha first.", "b": "Beta second."}))
    now[0] = 0.9
    assert ids(reader.search("beta")) == ["a"]
    now[0] = 1.1
    assert ids(reader.search("beta")) == ["b", "a"]


@pytest.mark.parametrize("damage", ["delete", "cut", "garble", "other"])
def test_a_lost_or_damaged_index_file_is_made_again(open_base, tmp_path, encoder, damage):
    base = open_base()
    base.index(documents())
    expected = base.search("generator")
    [file] = (tmp_path / "knowledge").glob("*.faiss")
    content = file.read_bytes()
    if damage == "delete":
        file.unlink()
    elif damage == "cut":
        file.write_bytes(content[: len(content) // 2])
    elif damage == "garble":
        file.write_bytes(content[:-40] + bytes(40))
    else:
        file.write_bytes(b"")
    encoder.embedded.clear()
    again = open_base()
    assert again.search("generator") == expected
    assert encoder.embedded == ["generator"]
    assert "made the index again" in again.notices[0]
    after = open_base()
    assert after.search("generator") == expected
    assert not after.notices


def test_an_index_file_that_cannot_be_written_is_a_notice(open_base, tmp_path):
    (tmp_path / "knowledge").write_text("a file where the folder should be")
    base = open_base()
    base.index(documents())
    assert ids(base.search("generator"))[0] == "yield"
    assert any("was not saved" in notice for notice in base.notices)


def test_another_embedding_model_never_meets_the_vectors_of_the_first(open_base, make_encoder, tmp_path):
    old = open_base()
    old.index(documents())
    new = open_base(encoder=make_encoder("stems-2"))
    with pytest.raises(NotIndexed, match="another embedding model") as caught:
        new.search("generator")
    assert caught.value.replaced
    assert new.index(documents()).embedded == 3
    assert ids(new.search("generator"))[0] == "yield"
    with pytest.raises(NotIndexed, match="another embedding model"):
        old.search("generator")
    assert len(list((tmp_path / "knowledge").glob("*.faiss"))) == 1


def test_other_passage_sizes_split_the_documents_again(open_base):
    text = {"long": " ".join(f"Sentence number {n} says a little." for n in range(60))}
    assert open_base().index(documents(text)).passages < open_base(size_tokens=30).index(documents(text)).passages


def test_nothing_to_index_is_an_error_and_leaves_what_is_there(open_base, tmp_path):
    base = open_base()
    base.index(documents())
    version = base.version
    with pytest.raises(EmptyCorpus):
        base.index([])
    with pytest.raises(EmptyCorpus, match=r"docs/\*\.md"):
        base.index(load("docs/*.md", tmp_path))
    assert base.version == version
    assert ids(base.search("generator"))[0] == "yield"


def test_before_anything_is_indexed_the_error_says_so(open_base):
    base = open_base()
    for use in (lambda: base.search("anything"), lambda: base.version):
        with pytest.raises(NotIndexed, match="'help' is not indexed; index its documents"):
            use()
    assert base.document_digests() == {}
    assert base.document("x") is None


def test_skipped_documents_are_in_the_report(open_base, tmp_path):
    (tmp_path / "good.md").write_text("Fine words.")
    (tmp_path / "bad.md").write_bytes(b"\x00\x01\xff")
    report = open_base().index(load(["*.md", "*.pdf"], tmp_path))
    assert report.added == ("good.md",)
    assert [problem.path for problem in report.skipped] == ["*.pdf", "bad.md"]
    twice = open_base("twice").index([*documents(), *documents()])
    assert [problem.path for problem in twice.skipped] == list(TEXTS)


@pytest.mark.parametrize("wrong", ["", "  \n", 3, None, b"bytes"])
def test_a_question_that_is_none_is_refused(open_base, wrong):
    base = open_base()
    base.index(documents())
    with pytest.raises(InvalidInput, match="question"):
        base.search(wrong)
    with pytest.raises(InvalidInput):
        base.search("fine", 0)


@pytest.mark.parametrize("question", ["x" * 1_000_000, "?!", "zzz qqq", "\x00\ud800"])
def test_odd_questions_get_hits_like_any_other(open_base, question):
    base = open_base()
    base.index(documents())
    assert len(base.search(question)) == 3


def test_what_is_indexed_while_another_process_reads_is_found_refresh_s_after_that_reading_began(open_base):
    now = [0.0]
    writer, reader = open_base(), open_base(refresh_s=1.0, clock=lambda: now[0])
    writer.index(documents({"d": "It is blue."}))
    assert "blue" in reader.search("what is it")[0].passage.text
    read = reader._records.base

    def slowly():
        found = read()
        writer.index(documents({"d": "It is green."}))
        now[0] = 5.9
        return found

    now[0], reader._records.base = 5.0, slowly
    assert "blue" in reader.search("what is it")[0].passage.text
    now[0], reader._records.base = 6.1, read
    assert "green" in reader.search("what is it")[0].passage.text


def test_passages_come_with_the_digests_of_the_documents_they_are_from_not_of_newer_ones(open_base):
    writer, reader = open_base(), open_base(refresh_s=3600.0)
    (old,), (new,) = documents({"d": "It is blue."}), documents({"d": "It is green."})
    writer.index([old])
    assert reader.search("what is it")
    writer.index([new])
    for base, document in ((reader, old), (writer, new)):
        found = Retrieve(knowledge=lambda base=base: base, name="documents").found("what is it")
        assert [each.text for each in found.passages] == [document.text]
        assert found.uses()["document"] == {"d": document.digest}


def test_readers_see_a_document_before_or_after_its_change_and_never_half(open_base, eventually):
    def version(n):
        return [Document(id="d", title="d", text=" ".join(f"Marker v{n} number {i} of a text." for i in range(80)))]

    writer = open_base(size_tokens=40)
    reader = open_base(size_tokens=40)
    count = writer.index(version(0)).passages
    seen, wrong, stop = set(), [], threading.Event()

    def read():
        while not stop.is_set():
            hits = reader.search("marker number of a text", 200)
            versions = {word for hit in hits for word in hit.passage.text.split() if word[0] == "v"}
            seen.update(versions)
            if len(versions) != 1 or len(hits) != count:
                wrong.append((versions, len(hits)))

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        eventually(lambda: "v0" in seen)
        for n in range(1, 15):
            writer.index(version(n))
        eventually(lambda: "v14" in seen)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert wrong == []


_INDEXER = """
    import sys, pathlib
    sys.path.insert(0, sys.argv[2])
    from conftest import CountingEncoder
    from chainops.knowledge.base import KnowledgeBase
    from chainops.knowledge.loaders import load
    from chainops.stores.sql import SqlStore
    home = pathlib.Path(sys.argv[1])
    base = KnowledgeBase(SqlStore(home / "chainops.db"), CountingEncoder(), name="help", home=home)
    texts = {f"d{n:03}": f"Document {n} {sys.argv[3]}. " + "Word after word. " * 200 for n in range(60)}

    def tell(progress):
        print(progress.done, flush=True)
        if progress.done >= 20:
            sys.stdin.read()  # until it is killed

    base.index(load([texts]), progress=tell)
"""


def indexer(tmp_path, mark):
    script = textwrap.dedent(_INDEXER)
    return subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path), str(HERE), mark],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_kill_9_while_indexing_leaves_whole_documents_and_the_next_run_goes_on(open_base, tmp_path, encoder):
    marks = ["first", "second"]
    for mark in marks:
        process = indexer(tmp_path, mark)
        for line in process.stdout:
            if int(line) >= 20:
                os.kill(process.pid, signal.SIGKILL)
                break
        process.wait()
        process.stdin.close()
        process.stdout.close()
        assert process.returncode == -signal.SIGKILL
    base = open_base()
    digests = base.document_digests()
    assert len(digests) >= 20
    for name, digest in digests.items():
        document = base.document(name)
        assert document.digest == digest
    held = {}
    for hit in base.search("document word after word", 10_000):
        held.setdefault(hit.passage.document_id, []).append(hit.passage)
    assert set(held) == set(digests)
    for name, passages in held.items():
        whole = base.document(name)
        assert sorted(passages, key=lambda p: p.start) == base._split(whole)
    texts = {f"d{n:03}": f"Document {n} second. " + "Word after word. " * 200 for n in range(60)}
    encoder.embedded.clear()
    report = base.index(load([texts]))
    assert report.unchanged >= 20
    assert report.unchanged + len(report.added) + len(report.changed) == 60
    assert len(base.document_digests()) == 60


def _index_in_process(folder, numbers):
    from conftest import CountingEncoder

    base = KnowledgeBase(SqlStore(folder / "chainops.db"), CountingEncoder(), name="help", home=folder)
    base.index(load([{f"d{n}": f"Document {n} of many." for n in numbers}]))


def test_two_processes_may_index_at_once(tmp_path, open_base, monkeypatch):
    monkeypatch.syspath_prepend(str(HERE))
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_index_in_process, args=(tmp_path, range(100))) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    base = open_base()
    assert len(base.document_digests()) == 100
    assert len(base.search("document of many", 1000)) == 100


def test_a_repr_shows_no_password(encoder, tmp_path):
    store = SqlStore("postgresql://ann:s3cret@localhost/x")
    assert "s3cret" not in repr(KnowledgeBase(store, encoder, name="help", home=tmp_path))
