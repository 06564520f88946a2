import json
import typing

import pytest

import chainops.testing
from chainops.testing.delivery import Delivery
from chainops.testing.faults import (
    Cut,
    Drip,
    Duplicate,
    Fault,
    Finish,
    Hang,
    Nonsense,
    Refuse,
    Reset,
    Slow,
    Stall,
    Status,
    Together,
    Usage,
    plan_delivery,
)

PLAIN = Delivery(200, "application/json", (b'{"answer": 42}',))
STREAM = Delivery(
    200,
    "text/event-stream",
    (b"data: role\n\n", b"data: one\n\n", b"data: two\n\n", b"data: stop\n\n", b"data: [DONE]\n\n"),
    is_stream=True,
)


@pytest.mark.parametrize("fault", [None, Refuse()])
def test_without_a_fault_the_good_reply_is_sent_as_it_is(fault):
    assert plan_delivery(PLAIN, fault) is PLAIN


def test_a_status_has_the_shape_of_openais_errors():
    sent = plan_delivery(STREAM, Status(429, retry_after_s=1.5))
    error = json.loads(sent.pieces[0])["error"]
    assert sent.status == 429
    assert sent.headers == {"Retry-After": "1.5"}
    assert set(error) == {"message", "type", "param", "code"}
    assert error["code"] == "rate_limit_exceeded"
    assert not sent.is_stream


def test_a_status_says_the_message_and_code_it_is_given():
    body = plan_delivery(PLAIN, Status(400, message="too long", code_name="context_length_exceeded")).pieces[0]
    error = json.loads(body)["error"]
    assert (error["message"], error["code"]) == ("too long", "context_length_exceeded")


@pytest.mark.parametrize("code", [200, 302, 99, 600])
def test_a_status_that_is_no_error_is_refused(code):
    with pytest.raises(ValueError, match=str(code)):
        Status(code)


def test_a_hang_without_end_is_silence_for_ever_and_then_the_good_answer():
    assert plan_delivery(PLAIN, Hang()).silence_s == float("inf")
    assert plan_delivery(PLAIN, Hang(2)).silence_s == 2
    assert plan_delivery(PLAIN, Hang(2)).pieces == PLAIN.pieces


def test_a_drip_sends_the_same_bytes_in_steps():
    sent = plan_delivery(STREAM, Drip(0.5, step_bytes=7))
    assert b"".join(sent.pieces) == b"".join(STREAM.pieces)
    assert {len(piece) for piece in sent.pieces[:-1]} == {7}
    assert sent.pause_s == 0.5


def test_a_cut_stream_keeps_the_chunks_asked_for_and_never_the_end():
    assert plan_delivery(STREAM, Cut(after_chunks=2)).pieces == STREAM.pieces[:3]
    assert plan_delivery(STREAM, Cut(after_chunks=99)).pieces == STREAM.pieces[:4]
    assert plan_delivery(STREAM, Cut()).end == "reset"
    assert plan_delivery(STREAM, Cut(how="end")).end == "early"


def test_a_stream_may_be_cut_by_an_error_event():
    sent = plan_delivery(STREAM, Cut(after_chunks=1, how="error"))
    assert sent.pieces[:2] == STREAM.pieces[:2]
    assert "error" in json.loads(sent.pieces[-1].removeprefix(b"data: "))


def test_a_cut_plain_answer_loses_its_second_half():
    sent = plan_delivery(PLAIN, Cut())
    assert sent.pieces == (b'{"answ',) or PLAIN.pieces[0].startswith(sent.pieces[0])
    assert sent.end == "reset"


@pytest.mark.parametrize("good", [PLAIN, STREAM])
@pytest.mark.parametrize("kind", ["json", "broken_json", "no_choices", "html", "empty", "blank", "sse"])
def test_nonsense_is_sent_with_status_200(good, kind):
    assert plan_delivery(good, Nonsense(kind)).status == 200


@pytest.mark.parametrize(("kind", "expected"), [("json", {}), ("no_choices", [])])
def test_nonsense_json_is_valid_json_and_no_answer(kind, expected):
    body = json.loads(plan_delivery(PLAIN, Nonsense(kind)).pieces[0])
    assert body.get("choices", body) == expected


def test_faults_are_values():
    assert Status(500) == Status(500)
    with pytest.raises(AttributeError):
        Status(500).code = 501


def test_waits_are_lognormal_and_the_same_for_the_same_request():
    slow = Slow(0.2, 0.9, seed=3)
    waits = sorted(slow.seconds(number) for number in range(4000))
    assert waits[2000] == pytest.approx(0.2, rel=0.08)
    assert waits[3800] == pytest.approx(0.9, rel=0.12)
    assert plan_delivery(PLAIN, slow, number=7).silence_s == slow.seconds(7) != Slow(0.2, 0.9, seed=4).seconds(7)
    with pytest.raises(ValueError, match="p50_s"):
        Slow(2, 1)


def test_a_stall_has_all_its_bytes_and_a_place_where_they_stop():
    sent = plan_delivery(STREAM, Stall(after_chunks=1))
    assert (sent.pieces, sent.stall) == (STREAM.pieces, (2, float("inf")))
    assert plan_delivery(PLAIN, Stall(seconds=3)).stall == (1, 3)
    assert b"".join(plan_delivery(PLAIN, Stall()).pieces) == PLAIN.pieces[0]


def test_a_reset_sends_nothing():
    sent = plan_delivery(STREAM, Reset())
    assert (sent.status, sent.pieces, sent.end) == (0, (), "reset")


@pytest.mark.parametrize(
    ("status", "content_type"),
    [(502, "text/html"), (413, "text/html"), (503, "application/json"), (529, "application/json")],
)
def test_a_status_has_the_body_it_usually_has(status, content_type):
    assert plan_delivery(PLAIN, Status(status)).content_type == content_type
    assert b'"type": "error"' in plan_delivery(PLAIN, Status(529)).pieces[0]


def test_the_wait_told_grows_from_failure_to_failure():
    fault = Status(429, retry_after_s=2, retry_after_growth=1.5)
    assert [plan_delivery(PLAIN, fault, repeats=n).headers["Retry-After"] for n in range(3)] == ["2", "3", "4.5"]
    dated = plan_delivery(PLAIN, Status(503, retry_after_s=1.2, retry_after_as="date"), at=1_700_000_000.0)
    assert dated.headers == {"Retry-After": "Tue, 14 Nov 2023 22:13:22 GMT"}


@pytest.mark.parametrize("fault", [Finish(), Usage(), Duplicate()])
def test_what_changes_an_answer_leaves_an_error_alone(fault):
    error = plan_delivery(PLAIN, Status(400))
    assert plan_delivery(error, fault) is error


def test_several_faults_are_played_together():
    sent = plan_delivery(PLAIN, Together((Hang(2), Status(503))))
    assert (sent.status, sent.silence_s) == (503, 2)


def test_every_fault_is_public_and_every_public_name_is_there():
    assert {each.__name__ for each in typing.get_args(Fault)} <= set(chainops.testing.__all__)
    assert all(hasattr(chainops.testing, name) for name in chainops.testing.__all__)
    assert chainops.testing.Fault is Fault
    with pytest.raises(AttributeError, match="Fualt"):
        _ = chainops.testing.Fualt
