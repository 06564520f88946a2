from __future__ import annotations

import builtins
import re
from pathlib import Path

import nbformat
import pytest
from nbconvert import HTMLExporter

import chainops
from chainops.widgets import CacheBrowser
from chainops.widgets import cache as module
from chainops.widgets.cache import SNAPSHOT_ROWS, script

HOSTILE = "<img src=x onerror=\"document.title='taken'\">"
VIEW = "application/vnd.jupyter.widget-view+json"
FOLDER = Path(module.__file__).parent


@pytest.fixture
def browser(chain):
    return CacheBrowser(chain)


def test_messages_of_the_page_are_answered_to_the_page(browser, monkeypatch):
    sent = []
    monkeypatch.setattr(browser.widget, "send", lambda content, buffers=None: sent.append(content))
    browser.widget._handle_custom_msg({"id": "a:1", "ask": "stats"}, [])
    browser.widget._handle_custom_msg("what?", [])
    assert sent[0]["id"] == "a:1"
    assert sent[0]["ok"]["rule"] == "max_error_rate 0.02"
    assert "error" in sent[1]


def test_where_no_widget_can_run_it_shows_the_statistics_and_the_latest_entries(browser, fill):
    fill(SNAPSHOT_ROWS + 5)
    data, _ = browser._repr_mimebundle_()
    assert VIEW in data
    assert "max_error_rate 0.02" in data["text/html"]
    assert data["text/html"].count("how long do refunds take?") == SNAPSHOT_ROWS
    assert "var(--" not in data["text/html"]
    assert data["text/plain"].count("how long do refunds take?") == SNAPSHOT_ROWS
    assert "bound 2.00%" in str(browser)


def test_a_hostile_question_stays_text_in_the_snapshot(browser, fill):
    fill(1, question=HOSTILE, content=HOSTILE, tenant="<b>acme</b>")
    html = browser._repr_mimebundle_()[0]["text/html"]
    assert "&lt;img src=x" in html
    assert "&lt;b&gt;acme" in html
    assert not re.findall(r"<(?:img|b)\b[^>]*(?:onerror|>acme)", html)


def test_an_exported_notebook_shows_the_snapshot_not_a_blank(browser, fill):
    fill(3)
    data, metadata = browser._repr_mimebundle_()
    output = nbformat.v4.new_output("display_data", data=data, metadata=metadata)
    cell = nbformat.v4.new_code_cell("browser", outputs=[output])
    page, _ = HTMLExporter().from_notebook_node(nbformat.v4.new_notebook(cells=[cell]))
    assert "Question 3: how long do refunds take?" in page


def test_a_cache_alone_can_be_browsed_too(chain):
    assert CacheBrowser(chain.cache).widget.title == "Cache"
    assert repr(CacheBrowser(chain)) == "CacheBrowser('Cache of shop')"


def test_a_question_can_be_tried_before_the_chain_was_ever_asked(browser):
    reply = browser.desk.answer({"ask": "explain", "question": "How long do refunds take?"})
    assert reply["ok"]["match"] is None


def test_without_anywidget_it_says_what_to_install(chain, monkeypatch):
    real = builtins.__import__

    def absent(name, *rest, **options):
        if name.partition(".")[0] == "anywidget":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *rest, **options)

    monkeypatch.setattr("importlib.import_module", lambda name: absent(name))
    with pytest.raises(
        chainops.ChainopsError, match=r"'anywidget' is not installed; pip install 'chainops\[notebook\]'"
    ):
        CacheBrowser(chain)


def test_a_chain_without_a_cache_cannot_be_browsed(tmp_path):
    words = {"name": "plain", "kind": "chat", "models": {"local": {"model": "extractive"}}}
    with pytest.raises(chainops.ChainopsError, match="without a cache"):
        CacheBrowser(chainops.declare(words, base=tmp_path))


def test_nothing_in_the_module_reads_html_or_code():
    forbidden = (
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|srcdoc|\beval\b|new Function|javascript:"
    )
    assert not re.findall(forbidden, script())
    assert not re.findall(r"https?://(?!www\.w3\.org/2000/svg)", script() + (FOLDER / "cache.css").read_text())


def test_no_script_beside_the_module_is_forgotten():
    assert sorted(module.SCRIPTS) == sorted(path.name for path in FOLDER.glob("cache*.js"))


def test_every_colour_of_the_light_theme_has_a_dark_one():
    css = (FOLDER / "cache.css").read_text()
    blocks = [set(re.findall(r"(--\w+):", block)) for block in re.findall(r"\{([^{}]*--ink:[^{}]*)\}", css)]
    assert len(blocks) == 4
    assert all(block == blocks[0] for block in blocks)
    assert set(re.findall(r"var\((--\w+)", css)) <= blocks[0]
