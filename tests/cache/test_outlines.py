import time

import pytest

from chainops.cache import outlines as subject
from chainops.cache.background import UPKEEP
from chainops.cache.evidence import content_of
from chainops.cache.outlines import Outlines
from chainops.cache.records import Where
from chainops.cache.stores.sql_records import SqlRecords
from chainops.testing.cache_pieces import NOW, entry, vector


class Counted(SqlRecords):
    """Notes what is asked for."""

    def __init__(self, store):
        super().__init__(store)
        self.asked = []
        self.after_reading = None
        """Done once, between a reading and its use."""

    def at(self, scope, seqs):
        self.asked += seqs
        read = super().at(scope, seqs)
        once, self.after_reading = self.after_reading, None
        if once is not None:
            once()
        return read


@pytest.fixture
def records(store):
    return Counted(store)


def test_what_was_read_ahead_is_known_without_asking(records):
    seqs = [records.put(entry(f"e{n}"), vector(1, n)) for n in range(300)]
    known = Outlines(records)
    known.read_behind("s", seqs)
    assert UPKEEP.drain(60)
    assert sorted(records.asked) == seqs
    found = known.of("s", seqs[:16])
    assert sorted(records.asked) == seqs
    read = records.at("s", seqs[:16])
    assert found == {seq: each._replace(content=content_of(each.question)) for seq, each in read.items()}


def test_what_is_not_known_is_asked_for_once(records):
    seq = records.put(entry(), vector(1))
    known = Outlines(records)
    assert known.of("s", [seq, seq + 1])[seq].id == "e"
    assert known.of("s", [seq])[seq].id == "e"
    assert records.asked == [seq, seq + 1]


def test_what_is_held_is_bounded_and_the_newest_stay(records):
    seqs = [records.put(entry(f"e{n}"), vector(1, n)) for n in range(40)]
    known = Outlines(records, held_bytes=20 * 800)
    known.read_behind("s", seqs)
    assert UPKEEP.drain(60)
    assert 0 < known.size_bytes <= 20 * 800
    assert 15 < len(known) <= 22
    records.asked.clear()
    known.of("s", seqs[-15:])
    assert records.asked == []


def test_old_ones_are_used_and_read_again_behind(records, monkeypatch):
    monkeypatch.setattr(subject, "FRESH_S", -1.0)
    seq = records.put(entry(created_at=time.time() + 60), vector(1))
    known = Outlines(records)
    known.of("s", [seq])
    records.update("e", group="another's")
    assert known.of("s", [seq])[seq].group == "e"
    assert UPKEEP.drain(60)
    assert known.of("s", [seq])[seq].group == "another's"
    assert UPKEEP.drain(60)


@pytest.mark.parametrize(("fresh_s", "age_s"), [(60.0, 0.0), (-1.0, 3600.0)])
def test_neither_a_fresh_one_nor_one_that_was_old_when_it_was_read_is_read_again(records, monkeypatch, fresh_s, age_s):
    monkeypatch.setattr(subject, "FRESH_S", fresh_s)
    seq = records.put(entry(created_at=time.time() - age_s), vector(1))
    known = Outlines(records)
    known.of("s", [seq])
    known.of("s", [seq])
    assert UPKEEP.drain(60)
    assert records.asked == [seq]


def test_what_was_dropped_elsewhere_is_forgotten_when_it_is_read_again(records):
    seq = records.put(entry(), vector(1))
    known = Outlines(records)
    known.of("s", [seq])
    records.drop("o", Where(ids=("e",)), reason="", now=NOW)
    known.read_behind("s", [seq])
    assert UPKEEP.drain(60)
    assert known.of("s", [seq]) == {}
    assert known.size_bytes == len(known) == 0


def test_a_group_and_an_entry_can_be_changed_in_place(records):
    seq = records.put(entry(), vector(1))
    known = Outlines(records)
    outline = known.of("s", [seq])[seq]
    known.regroup("s", seq, "another's")
    assert known.of("s", [seq])[seq] == outline._replace(group="another's")
    known.forget("s", [seq])
    assert known.of("s", [seq])[seq] == outline


def test_a_group_found_while_an_entry_is_being_read_is_not_undone_by_that_reading(records):
    seq = records.put(entry(), vector(1))
    known = Outlines(records)

    def regroup():
        records.update("e", group="another's")
        known.regroup("s", seq, "another's")

    records.after_reading = regroup
    assert known.of("s", [seq])[seq].group == "another's"
    assert known.of("s", [seq])[seq].group == "another's"


def test_what_is_read_while_all_is_let_go_is_not_held(records):
    seq = records.put(entry(), vector(1))
    known = Outlines(records)

    def drop():
        records.clear("o")
        known.clear()

    records.after_reading = drop
    assert known.of("s", [seq]) == {}
    assert len(known) == 0
