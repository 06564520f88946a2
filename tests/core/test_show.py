"""Answers draw themselves: readable as text, and harmless as HTML whatever they say."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableLambda

from chainops.core.answer import Answer, AnswerChunk
from chainops.core.show import ShownReport, dollars, seconds, waterfall_text
from chainops.core.steps import Do, Forward

HOSTILE = "<script>alert(1)</script><img src=x onerror='alert(2)'>\"'&"


def stage(number, parent, name, start_s, duration_s, **more):
    return {
        "id": number,
        "parent": parent,
        "name": name,
        "kind": "k",
        "start_s": start_s,
        "duration_s": duration_s,
        **more,
    }


REPORT = {
    "chain": "help",
    "duration_s": 1.0,
    "usage": {"input_tokens": 10, "output_tokens": 4, "total_tokens": 14},
    "cost_usd": 0.00012,
    "stages": [
        stage(0, None, "root", 0.0, 1.0),
        stage(1, 0, "retrieve", 0.0, 0.25, facts={"passages": 5, "long": [1, 2]}),
        stage(2, 0, "model", 0.5, 0.5, model="gpt", cost_usd=0.00012, usage={"input_tokens": 10, "output_tokens": 4}),
        stage(3, 2, "guard", 0.75, None, error="ValueError: no"),
    ],
}


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.seen, self.attributes, self.text = set(), set(), []

    def handle_starttag(self, tag, attrs):
        self.seen.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data):
        self.text.append(data)


@pytest.mark.parametrize("kind", [Answer, AnswerChunk])
def test_hostile_text_is_drawn_as_text(kind):
    source = {"n": HOSTILE, "document": HOSTILE, "title": HOSTILE, "span": [0, HOSTILE], "quote": HOSTILE}
    hostile_stage = stage(0, None, HOSTILE, 0.0, 1.0, kind=HOSTILE, error=HOSTILE, facts={HOSTILE: HOSTILE})
    facts = {
        "status": HOSTILE,
        "reasons": [HOSTILE],
        "sources": [source],
        "served_by": HOSTILE,
        "report": {**REPORT, "chain": HOSTILE, "stages": [{**hostile_stage, "model": HOSTILE}]},
    }
    answer = kind(content=HOSTILE, response_metadata={"chainops": facts})
    for html in (answer._repr_html_(), answer.report._repr_html_()):
        tags = Tags()
        tags.feed(html)
        assert not tags.seen & {"script", "img", "iframe", "a", "link"}
        assert tags.attributes <= {"style"}
    tags = Tags()
    tags.feed(answer._repr_html_())
    assert HOSTILE in "".join(tags.text)


def test_the_waterfall_reads_as_text():
    assert waterfall_text(REPORT, width=8).splitlines() == [
        "help: 1.00 s, 10+4 tokens, $0.00012",
        "  root                       |████████|    1.00 s",
        "    retrieve                 |██      |  250.0 ms  passages 5",
        "    model                    |    ████|  500.0 ms  gpt, 10+4 tokens, $0.00012",
        "      guard                  |      █ |         –  ValueError: no",
    ]
    assert repr(ShownReport(REPORT)) == waterfall_text(REPORT)


def test_a_stage_is_drawn_inside_the_width_whatever_its_times():
    odd = {**REPORT, "duration_s": 0.0, "stages": [stage(0, None, "late", 5.0, 9.0)]}
    (line,) = waterfall_text(odd, width=8).splitlines()[1:]
    assert "|       █|" in line


def test_an_answer_draws_itself_in_a_terminal_and_a_notebook(play, drive_by):
    def root(value, run):
        yield Do(lambda: None, blocks=False)
        answer = yield Forward(RunnableLambda(lambda _: AIMessage(content="So.")), value)
        run.report.sources.append({"n": 1, "document": "d.md", "title": "D", "span": [3, 9], "quote": "so it is"})
        run.report.mark("degraded", "the first route was down")
        return answer

    given = drive_by(play(root, name="root"), "q")
    answer = sum(given[1:], given[0]) if isinstance(given, list) else given
    html = answer._repr_html_()
    for shown in ("So.", "degraded", "the first route was down", "[1] D (d.md, characters 3–9)", "root"):
        assert shown in html
    printed = []
    answer._repr_pretty_(type("Printer", (), {"text": staticmethod(printed.append)}), cycle=False)
    assert printed[0].splitlines()[:4] == [
        "So.",
        "",
        "status: degraded",
        "  the first route was down",
    ]
    assert "  [1] D (d.md, characters 3–9)" in printed[0]
    assert "█" in printed[0]


def test_an_answer_without_facts_still_draws_itself():
    assert "x" in Answer(content="x")._repr_html_()
    printed = []
    Answer(content="x")._repr_pretty_(type("Printer", (), {"text": staticmethod(printed.append)}), cycle=False)
    assert printed == ["x\n\nstatus: –"]


@pytest.mark.parametrize(
    ("cost_usd", "shown"),
    [(None, "cost unknown"), (0.0, "$0"), (0.00012, "$0.00012"), (0.05, "$0.05"), (1.234, "$1.23")],
)
def test_dollars_are_readable(cost_usd, shown):
    assert dollars(cost_usd) == shown


@pytest.mark.parametrize(("duration_s", "shown"), [(None, "–"), (12e-6, "12 µs"), (0.0123, "12.3 ms"), (2.5, "2.50 s")])
def test_durations_are_readable(duration_s, shown):
    assert seconds(duration_s) == shown


def test_a_report_compares_and_reads_like_its_dict():
    assert ShownReport(REPORT) == ShownReport(dict(REPORT))
    assert ShownReport(REPORT) != REPORT
    assert ShownReport(REPORT)["chain"] == "help"
    assert ShownReport(REPORT).to_dict() is REPORT
