"""What becomes of a stream that breaks off: it ends marked, is gone on with, or begins anew."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessageChunk

import chainops
from chainops.resilience.component import Fallback, Sentence
from chainops.resilience.continuing import Joint
from chainops.resilience.records import Continued, FellBack, Restarted, Truncated
from chainops.testing.faults import Cut, Status
from chainops.testing.listening import capture_events
from chainops.testing.server import ModelServer

TEXT = "one two three four five six seven eight"
STREAMS = pytest.mark.parametrize("driver", ["stream", "astream"])


def goes_on(messages):
    """Answers with what is missing from `TEXT`, as a model that was handed the beginning would."""
    said = next((each["content"] for each in reversed(messages) if each["role"] == "assistant"), "")
    return TEXT[len(said) :]


@STREAMS
def test_litellm_40404_the_next_route_goes_on_from_what_was_said(served, ask, driver):
    with ModelServer(TEXT) as first, ModelServer(goes_on) as second, capture_events() as events:
        first.fail(Cut(after_chunks=3))
        chain = Fallback(routes=(served(first, "gpt-4o-mini"), served(second, "gpt-4o")), on_cut="continue")
        answer = ask(driver, chain)
        assert (answer.text, answer.status) == (TEXT, "degraded")
        assert "finished by gpt-4o" in answer.reasons[0]
        assert len(second.requests) == 1
        handed = second.requests[0].body["messages"]
        assert [each["role"] for each in handed] == ["user", "assistant", "user"]
        assert TEXT.startswith(handed[1]["content"].strip())
        assert len(events.of(Continued)) == 1
        outcomes = [each["outcome"] for each in answer.report["events"] if each["kind"] == "Attempted"]
        assert outcomes == ["failed", "ok"]


@STREAMS
def test_a_continuation_that_breaks_off_too_is_gone_on_with_by_the_third(served, ask, driver):
    with ModelServer(TEXT) as first, ModelServer(goes_on) as second, ModelServer(goes_on) as third:
        first.fail(Cut(after_chunks=2))
        second.fail(Cut(after_chunks=2))
        chain = Fallback(routes=tuple(map(served, (first, second, third))), on_cut="continue")
        assert ask(driver, chain).text == TEXT


@STREAMS
def test_where_nobody_can_go_on_the_stream_ends_marked_with_all_that_was_said(served, ask, driver):
    with ModelServer(TEXT) as first, ModelServer(goes_on) as second, capture_events() as events:
        first.fail(Cut(after_chunks=3))
        second.fail(Status(503))
        say = Sentence(text="sorry", name="say")
        answer = ask(driver, Fallback(routes=(served(first), served(second), say), on_cut="continue"))
        assert answer.status == "truncated"
        assert answer.text
        assert TEXT.startswith(answer.text.strip())
        assert "sorry" not in answer.text
        assert len(events.of(Truncated)) == 1


@STREAMS
def test_a_stream_begins_anew_only_for_those_who_said_that_they_can_take_it(served, ask, driver):
    with ModelServer("first answer that is long enough") as first, ModelServer("the second") as second:
        first.fail(Cut(after_chunks=3))
        chain = Fallback(routes=(served(first), served(second)), on_cut="restart")
        with capture_events() as events:
            answer = ask(driver, chain, config=chainops.caller(restarts=True))
        assert (answer.text, answer.status) == ("the second", "degraded")
        assert len(events.of(Restarted)) == 1
        truncated = ask(driver, chain)
        assert truncated.status == "truncated"
        assert len(second.requests) == 1


def test_litellm_19077_truncate_asks_nobody_else_in_the_middle_of_a_stream(served, ask):
    with ModelServer(TEXT) as first, ModelServer("second") as second, capture_events() as events:
        first.fail(Cut(after_chunks=3))
        assert ask("stream", Fallback(routes=(served(first), served(second)))).status == "truncated"
        assert not second.requests
        assert not events.of(FellBack)


def test_a_whole_answer_that_breaks_off_is_simply_asked_of_the_next_route(served, ask):
    with ModelServer(TEXT) as first, ModelServer("second") as second:
        first.fail(Cut(after_chunks=3))
        for on_cut in ("truncate", "continue", "restart"):
            answer = ask("invoke", Fallback(routes=(served(first), served(second)), on_cut=on_cut))
            assert (answer.text, answer.status) == ("second", "degraded")


def joint(said, *pieces):
    filter_ = Joint(said)
    out = [each.content for piece in pieces for each in filter_.feed(AIMessageChunk(content=piece))]
    return "".join([*out, *(each.content for each in filter_.finish())])


def test_what_a_continuation_repeats_is_dropped():
    assert joint("The tower is 330 metres", " tall.") == " tall."
    assert joint("The tower is 330 metres", "tall.") == " tall."
    assert joint("The tower is 330 metres", "tower is 330 metres tall.") == " tall."
    assert joint("The tower is 330 metres", "The tower is 330 ", "metres tall.") == " tall."
    assert joint("The tower is 330 metres,", " and old") == " and old"


LONG = "In the beginning there was a very long sentence that somebody had begun to say, " * 5


def test_a_model_that_begins_all_over_again_is_heard_from_where_the_other_ended():
    pieces = [LONG[at : at + 7] for at in range(0, len(LONG), 7)]
    assert joint(LONG[:300], *pieces) == LONG[300:]


@given(st.text(max_size=60), st.lists(st.text(max_size=30), max_size=30))
def test_a_joint_never_invents_and_keeps_the_end(said, pieces):
    whole, out = "".join(pieces), joint(said, *pieces)
    assert whole.endswith(out.removeprefix(" ")) or out.removeprefix(" ") in whole
