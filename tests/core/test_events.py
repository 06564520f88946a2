"""Events reach listeners and the report; a listener cannot harm the request."""

from __future__ import annotations

import asyncio
import json
from dataclasses import FrozenInstanceError, dataclass, fields

import pytest

from chainops.core.events import Event, ListenerFailed, RequestEnded, listen
from chainops.core.steps import Ask, AskAll, Do
from chainops.testing.listening import capture_events


@dataclass(frozen=True, slots=True, kw_only=True)
class Happened(Event):
    what: str


def tells(play):
    def plan(value, run):
        run.emit(Happened(what=value))
        return (yield Do(lambda: value, blocks=False))

    return play(plan)


def test_events_are_frozen_and_become_json():
    event = Happened(what="x")
    with pytest.raises(FrozenInstanceError):
        event.what = "y"
    assert json.loads(json.dumps(event.to_dict())) == {"kind": "Happened", "what": "x"}


def test_no_event_of_core_hides_what_the_report_adds():
    for event in Event.__subclasses__():
        assert not {"kind", "stage", "at_s"} & {each.name for each in fields(event)}, event


def test_a_listener_hears_the_requests_of_its_block_only(play, drive_by):
    with capture_events() as heard:
        drive_by(tells(play), "inside")
    drive_by(tells(play), "outside")
    assert [event.what for event in heard.of(Happened)] == ["inside"]
    assert [type(event) for event in heard] == [Happened, RequestEnded]


def test_a_listener_that_raises_is_recorded_and_the_others_still_hear(play, drive_by):
    def deaf(event):
        raise ValueError("no ears")

    with listen(deaf), capture_events() as heard:
        given = drive_by(tells(play), "x")
    assert given in ("x", ["x"])
    assert heard.of(Happened)
    (ended,) = heard.of(RequestEnded)
    failed = [event for _, _, event in ended.request.events if isinstance(event, ListenerFailed)]
    assert {event.error for event in failed} == {"ValueError('no ears')"}
    assert failed[0].listener.endswith("deaf")


def test_the_end_of_a_request_is_told_once_with_its_output_or_error(play, drive_by):
    def fails(value, run):
        yield Do(lambda: None, blocks=False)
        raise ValueError("x")

    with capture_events() as heard:
        drive_by(tells(play), "q")
        with pytest.raises(ValueError):
            drive_by(play(fails), "q")
    good, bad = heard.of(RequestEnded)
    assert (good.output, good.error) == ("q", None)
    assert (bad.output, repr(bad.error)) == (None, "ValueError('x')")
    json.dumps([good.to_dict(), bad.to_dict()])


def test_listeners_follow_into_children_asked_at_the_same_time(play, drive_by):
    def plan(value, run):
        return len((yield AskAll([Ask(tells(play), str(n)) for n in range(4)])))

    with capture_events() as heard:
        drive_by(play(plan), "q")
    assert sorted(event.what for event in heard.of(Happened)) == list("0123")


def test_listeners_of_concurrent_tasks_do_not_hear_each_other(play):
    async def one(name):
        with capture_events() as heard:
            await asyncio.gather(*(tells(play).ainvoke(name) for _ in range(3)))
        return {event.what for event in heard.of(Happened)}

    async def main():
        return await asyncio.gather(one("a"), one("b"))

    assert asyncio.run(main()) == [{"a"}, {"b"}]
