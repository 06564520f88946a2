"""The widget's own module, run by node against a small DOM, with the real cache answering."""

from __future__ import annotations

import json
import queue
import subprocess
import threading
import time
from pathlib import Path

import pytest

from chainops.widgets.cache import script
from chainops.widgets.cache_desk import CacheDesk

DOM = Path(__file__).parent / "dom.mjs"
HOSTILE = "<img src=x onerror=\"document.title='taken'\">"
PATIENCE_S = 60.0


class Page:
    """A page with the widget in it. Commands are those of dom.mjs."""

    def __init__(self, desk, module, **state):
        self.desk, self.sent, self.state = desk, [], {}
        traits = {"title": "Cache of shop", "containing": "", "selected": "", "question": "", "tenant": ""} | state
        self._node = subprocess.Popen(
            ["node", str(DOM), module.as_uri(), json.dumps(traits)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )
        self._given, self._number = queue.Queue(), 0
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self):
        for line in self._node.stdout:
            message = json.loads(line)
            if "sent" in message:
                self.sent.append(message["sent"])
                self._write({"reply": self.desk.answer(message["sent"])})
            elif "saved" in message:
                self.state = message["saved"]
            else:
                self._given.put(message)

    def _write(self, message):
        self._node.stdin.write(json.dumps(message) + "\n")
        self._node.stdin.flush()

    def do(self, does, **words):
        self._number += 1
        self._write({"number": self._number, "does": does, **words})
        given = self._given.get(timeout=PATIENCE_S)
        assert given["did"] == self._number
        assert "failed" not in given, given
        return given["gave"]

    def texts(self, at):
        return self.do("texts", at=at)

    def until(self, holds):
        """Wait until it holds: replies take their time."""
        end = time.monotonic() + PATIENCE_S
        while not (found := holds()):
            assert time.monotonic() < end, "it never came"
            time.sleep(0.02)
        return found

    def asked(self, what):
        return [each for each in self.sent if each["ask"] == what]

    def close(self):
        self._node.stdin.close()
        self._node.wait(timeout=PATIENCE_S)
        self._listener.join(timeout=PATIENCE_S)
        self._node.stdout.close()


@pytest.fixture(scope="session")
def module(tmp_path_factory):
    path = tmp_path_factory.mktemp("widget") / "cache.mjs"
    path.write_text(script(), encoding="utf-8")
    return path


@pytest.fixture
def open_page(chain, module):
    pages = []

    def open_page(**state):
        pages.append(Page(CacheDesk(chain.cache), module, **state))
        return pages[-1]

    yield open_page
    for page in pages:
        page.close()


def rows(page):
    return [text for text in page.texts(".row")[1:] if not text.startswith("…")]


def test_only_the_rows_in_sight_exist_and_only_their_pages_are_asked_for(fill, open_page):
    fill(2_000)
    page = open_page()
    page.until(lambda: len(rows(page)) >= 10)
    assert len(page.texts(".row")) < 40
    assert "2,001 entries" in page.texts(".dim")[0:9]
    page.do("scroll", at=".rows", top=1_500 * 28)
    page.until(lambda: any("Question 500:" in text for text in rows(page)))
    assert len(page.texts(".row")) < 40
    assert {each["offset"] for each in page.asked("page")} == {0, 1_450, 1_500}


def test_arrow_keys_walk_through_the_entries_and_show_each(fill, open_page):
    fill(120)
    page = open_page()
    page.until(lambda: rows(page))
    for _ in range(3):
        page.do("press", key="ArrowDown", at=".rows")
    page.until(lambda: page.texts("h3") == ["Question 118: how long do refunds take?"])
    assert page.texts(".chosen")[0].startswith("Question 118")
    page.do("press", key="End", at=".rows")
    page.until(lambda: page.texts("h3") == ["How long do refunds take?"])
    page.until(lambda: page.texts(".chosen") and page.texts(".chosen")[0].startswith("How long do refunds"))
    assert any("returns.md, characters" in text for text in page.texts("li"))


def test_a_search_finds_and_enter_goes_to_what_was_found(fill, open_page):
    fill(60)
    page = open_page()
    page.until(lambda: rows(page))
    page.do("press", key="/", at=".rows")
    assert page.do("focused") == "search"
    page.do("type", text="Question 5:")
    page.do("press", key="Enter")
    page.until(lambda: page.texts("h3") == ["Question 5: how long do refunds take?"])
    assert page.do("focused") == "rows"
    assert page.texts(".dim").count("1 found") == 1


def test_wrong_asks_for_a_reason_then_drops_and_the_next_entry_takes_its_place(chain, fill, open_page):
    fill(3)
    page = open_page()
    page.until(lambda: rows(page))
    page.do("press", key="ArrowDown", at=".rows")
    page.until(lambda: page.texts("h3") == ["Question 3: how long do refunds take?"])
    page.do("press", key="w", at=".rows")
    page.do("press", key="Enter")
    assert "Say in a few words" in page.texts(".status")[0]
    assert chain.cache.stats().entries == 4
    page.do("type", text="it is 7 days")
    page.do("press", key="Enter")
    page.until(lambda: page.texts("h3") == ["Question 2: how long do refunds take?"])
    assert page.do("focused") == "rows"
    assert [(each["reason"]) for each in page.asked("wrong")] == ["it is 7 days"]
    assert [each.question[:10] for each, _, _ in chain.cache.entries(limit=2)] == ["Question 2", "Question 1"]


def test_escape_leaves_the_form_and_drops_nothing(chain, fill, open_page):
    fill(1)
    page = open_page()
    page.until(lambda: rows(page))
    page.do("press", key="ArrowDown", at=".rows")
    page.until(lambda: page.texts("h3"))
    page.do("press", key="d", at=".rows")
    assert page.texts(".form")
    page.do("press", key="Escape")
    assert page.texts(".form") == []
    assert page.do("focused") == "rows"
    assert page.asked("drop") == []


def test_verify_marks_the_row(fill, open_page):
    fill(1)
    page = open_page()
    page.until(lambda: rows(page))
    page.do("press", key="ArrowDown", at=".rows")
    page.until(lambda: page.texts("h3"))
    page.do("press", key="v", at=".rows")
    page.until(lambda: page.texts(".tick") == [" ✓"])
    page.until(lambda: "Verify" not in page.texts("button"))


def test_a_tried_question_shows_decision_neighbours_and_bars(chain, open_page):
    chain.invoke("How long do refunds take?")
    page = open_page()
    page.do("type", at=".tried", text="How long does a refund take?")
    page.do("press", key="Enter", at=".tried")
    page.until(lambda: page.texts(".bars"))
    assert page.texts(".badge") == ["asked", "same"]
    assert page.texts(".link") == ["How long do refunds take?"]
    assert any(text.startswith(("+", "−")) for text in page.texts(".number"))
    assert page.state["question"] == "How long does a refund take?"
    page.do("click", at=".link")
    page.until(lambda: page.texts("h3") == ["How long do refunds take?"])


def test_what_was_looked_at_is_shown_again_when_the_page_is_opened_again(chain, fill, open_page):
    fill(30)
    page = open_page(containing="Question 7", selected=f"e{7:031d}", question="how long?")
    page.until(lambda: page.texts("h3") == ["Question 7: how long do refunds take?"])
    page.until(lambda: len(rows(page)) == 1)


def test_a_hostile_question_never_becomes_html(fill, open_page):
    fill(1, question=HOSTILE, content=HOSTILE, tenant=HOSTILE)
    page = open_page()
    page.until(lambda: rows(page))
    page.do("press", key="ArrowDown", at=".rows")
    page.until(lambda: page.texts("h3") == [HOSTILE])
    page.do("press", key="Enter", at=".rows")
    page.until(lambda: page.texts(".badge"))
    assert "IMG" not in page.do("tags")
    assert HOSTILE in page.texts(".answer")


def test_no_key_reaches_the_notebook_but_those_with_control(open_page):
    page = open_page()
    for key in "abdxyzwvt/?r":
        assert page.do("press", key=key, at=".rows") == {"escaped": False}
    assert page.do("get", at=".chainops-cache", name="data-lm-suppress-shortcuts") == ["true"]


def test_question_mark_shows_the_keys_and_hides_them(open_page):
    page = open_page()
    assert page.do("hidden", at=".help") is True
    page.do("press", key="?", at=".rows")
    assert page.do("hidden", at=".help") is False
    page.do("press", key="?", at=".rows")
    assert page.do("hidden", at=".help") is True


def test_a_failure_in_python_is_told_on_the_page(chain, fill, open_page):
    fill(1)
    page = open_page()
    page.until(lambda: rows(page))
    chain.cache.clear()
    page.do("press", key="ArrowDown", at=".rows")
    page.until(lambda: "not found" in page.texts(".failed")[0] if page.texts(".failed") else False)


def test_everything_to_write_in_or_to_press_has_a_name(fill, open_page):
    fill(1)
    page = open_page()
    page.until(lambda: rows(page))
    page.do("press", key="ArrowDown", at=".rows")
    page.until(lambda: page.texts("h3"))
    page.do("press", key="w", at=".rows")
    names = page.do("get", at="input", name="aria-label")
    assert len(names) == 4
    assert all(names)
    assert all(page.texts("button"))
    assert page.do("get", at="role=grid", name="aria-activedescendant")[0]


def test_a_closed_view_listens_no_longer(open_page):
    page = open_page()
    assert page.do("close") == {"hearers": 0}
