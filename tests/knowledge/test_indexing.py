from __future__ import annotations

from dataclasses import replace

import pytest

from chainops.knowledge.indexing import embedding_text
from chainops.knowledge.loaders import load
from chainops.knowledge.splitting import Passage


def test_a_passage_is_embedded_under_its_title_and_heading_once():
    passage = Passage(
        id="p", document_id="d", title="Python", start=0, end=1, text="# Loops\n\nfor", headings=("All", "Loops")
    )
    assert embedding_text(passage) == "Python\n# Loops\n\nfor"
    assert embedding_text(replace(passage, title="", headings=())) == passage.text


def test_progress_counts_documents_and_ends_at_all_of_them(open_base):
    told = []
    open_base().index(load([{f"d{n}": f"Text {n}. " * 300 for n in range(20)}]), progress=told.append)
    done = [progress.done for progress in told]
    assert done == sorted(done)
    assert (done[0], done[-1], {progress.total for progress in told}) == (0, 20, {20})


def test_an_error_in_the_middle_keeps_whole_documents_and_the_next_run_goes_on(open_base, encoder):
    corpus = list(load([{f"d{n:02}": f"Document {n}x. " + "Word after word. " * 300 for n in range(60)}]))

    def stop(progress):
        if progress.done >= 4:
            raise KeyboardInterrupt

    base = open_base()
    with pytest.raises(KeyboardInterrupt):
        base.index(corpus, progress=stop)
    stored = len(base.document_digests())
    assert 4 <= stored < 60
    encoder.embedded.clear()
    report = open_base().index(corpus)
    assert (report.unchanged, len(report.added)) == (stored, 60 - stored)
    assert not any(f"Document {n}x." in text for n in range(stored) for text in encoder.embedded)
