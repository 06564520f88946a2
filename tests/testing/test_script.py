import pytest

from chainops.testing import ManualClock
from chainops.testing.connection import Received
from chainops.testing.faults import Hang, Refuse, Reset, Status
from chainops.testing.script import always, in_turn, sometimes, where


def played(rule, count, **facts):
    return [rule(Received("/v1/chat/completions", {}, 0.0, number=n, **facts)) for n in range(1, count + 1)]


def test_a_fault_lasts_for_ever_or_so_many_requests():
    assert played(always(Reset()), 3) == [Reset()] * 3
    assert played(always(Reset(), times=2), 3) == [Reset(), Reset(), None]


def test_segments_follow_each_other_by_requests_and_then_all_is_well():
    rule = in_turn([(2, None), (3, Status(503)), (1, Reset())])
    assert played(rule, 8) == [None] * 2 + [Status(503)] * 3 + [Reset()] + [None] * 2


def test_segments_follow_each_other_by_a_clock():
    clock = ManualClock()
    rule = in_turn([(20, None), (30, Status(503)), (10, None), (1, Hang())], clock)
    seen = []
    for _ in range(13):
        seen += played(rule, 1)
        clock.advance(5)
    assert seen == [None] * 4 + [Status(503)] * 6 + [None] * 2 + [Hang()]


def test_a_segment_may_be_a_rule():
    rule = in_turn([(2, where(lambda r: r.number == 2, Reset())), (1, Status(500))])
    assert played(rule, 3) == [None, Reset(), Status(500)]


def test_a_share_of_the_requests_fails_and_it_is_the_same_ones_every_time():
    first, again, other = (played(sometimes(0.3, Reset(), seed=seed), 2000) for seed in (1, 1, 2))
    assert first == again != other
    assert 0.27 < first.count(Reset()) / 2000 < 0.33
    assert set(played(sometimes(1, Reset()), 50)) == {Reset()}
    assert set(played(sometimes(0, Reset()), 50)) == {None}


def test_a_condition_may_look_at_the_request():
    rule = where(lambda r: r.key == "bbbb", Reset())
    assert played(rule, 1, key="aaaa") == [None]
    assert played(rule, 1, key="bbbb") == [Reset()]


@pytest.mark.parametrize("make", [always, lambda fault: sometimes(0.5, fault), lambda fault: in_turn([(1, fault)])])
def test_a_listening_server_cannot_refuse_single_connections(make):
    with pytest.raises(ValueError, match="Reset"):
        make(Refuse())


def test_a_segment_without_length_and_a_share_that_is_none_are_refused():
    with pytest.raises(ValueError, match="0 requests"):
        in_turn([(0, None)])
    with pytest.raises(ValueError, match=r"1\.5"):
        sometimes(1.5, Reset())
