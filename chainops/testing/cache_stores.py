"""What every place that keeps the cache's truth must do: subclass the suite, give it the fixture, run pytest.

class TestOurStore(CacheStoreSuite):
    @pytest.fixture
    def records(self) -> CacheStore:
        return ...   # new and empty
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from chainops.cache.judge import Label
from chainops.cache.records import LONGEST_LEASE_S, WRONG, CacheStore, Lease, Limits, Tally, Where
from chainops.core.errors import InvalidInput
from chainops.testing.cache_histories import CacheStoreMachine
from chainops.testing.cache_pieces import NOW, ODD, Follower, entry, vector


class CacheStoreSuite:
    """Needs the fixture `records`: a new, empty store for each test."""

    examples: ClassVar[int] = 15
    """How many random histories are compared with a dict's."""

    def test_what_is_put_is_found_whole(self, records: CacheStore) -> None:
        odd = entry(
            "q",
            message={"content": ODD, "tool_calls": [{"args": {"n": 1.5, "x": None}}]},
            facts={ODD: [True, 0.1, {"deep": ODD}]},
            uses={"document": {ODD: "d1"}, "model": {"m": ODD}},
            knowledge="k1",
            tenant=ODD,
            user=ODD,
            tags=("a", ODD),
            is_unknown=True,
            is_verified=True,
            embedder="minilm",
            cost_usd=None,
            duration_s=1.25,
        )
        seq = records.put(odd, vector(1))
        wanted = replace(odd, seq=seq)
        assert records.exact("s", "q") == wanted
        assert records.get("q") == wanted
        assert records.entry_at("s", seq) == wanted
        (outline,) = records.at("s", [seq, seq + 1]).values()
        assert (outline.seq, outline.id, outline.question) == (seq, "q", odd.question)
        assert (outline.group, outline.tenant, outline.is_verified) == ("q", ODD, True)
        assert (outline.created_at, outline.knowledge) == (NOW, "k1")
        assert records.damaged() == []

    def test_odd_questions_and_groups_come_back_whole(self, records: CacheStore) -> None:
        seq = records.put(entry(question=ODD, group=ODD), None)
        found = records.get("e")
        assert found is not None
        assert (found.question, found.group) == (ODD, ODD)
        assert records.at("s", [seq])[seq].question == ODD

    def test_nothing_is_found_elsewhere(self, records: CacheStore) -> None:
        seq = records.put(entry(), vector(1))
        assert records.exact("other", "e") is None
        assert records.exact("s", "other") is None
        assert records.get("other") is None
        assert records.entry_at("other", seq) is None
        assert records.entry_at("s", seq + 1) is None
        assert records.at("other", [seq]) == {}
        assert records.at("s", []) == {}

    def test_many_are_asked_for_at_once(self, records: CacheStore) -> None:
        seqs = [records.put(entry(f"{n}"), None) for n in range(300)]
        found = records.at("s", seqs)
        assert {seq: outline.id for seq, outline in found.items()} == {seq: f"{n}" for n, seq in enumerate(seqs)}

    def test_the_same_question_again_takes_the_place(self, records: CacheStore) -> None:
        old = records.put(entry("a", exact="x"), vector(1))
        new = records.put(entry("b", exact="x"), vector(0, 1))
        assert new > old
        assert records.get("a") is None
        assert records.entry_at("s", old) is None
        found = records.exact("s", "x")
        assert found is not None
        assert found.id == "b"
        assert records.size("o") == (1, records.size("o")[1])
        assert Follower(records, "s").read() == {new}

    def test_an_entry_is_put_over_the_one_that_is_named_and_over_no_other(self, records: CacheStore) -> None:
        first = records.put(entry("a", exact="x"), vector(1), over=0)
        assert records.put(entry("b", exact="x"), vector(1), over=0) == 0
        assert records.put(entry("b", exact="x"), vector(1), over=first + 1) == 0
        found = records.exact("s", "x")
        assert found is not None
        assert (found.id, found.seq, records.position("s")) == ("a", first, first)
        second = records.put(entry("b", exact="x"), vector(1), over=first)
        assert Follower(records, "s").read() == {second}
        records.drop("o", Where(ids=("b",)), reason="r", now=NOW)
        assert records.put(entry("b", exact="x"), vector(1), over=second) == 0
        assert records.exact("s", "x") is None
        assert records.size("o") == (0, 0)

    def test_an_entry_put_again_with_another_vector_keeps_its_use(self, records: CacheStore) -> None:
        records.put(entry("a"), vector(1))
        records.served("o", {"a": 3}, now=NOW + 50)
        seq = records.put(entry("a"), vector(0, 1))
        ((found, hits, used_at),) = records.entries("o")
        assert (found.seq, hits, used_at) == (seq, 3, NOW + 50)

    def test_a_log_begins_with_nothing_and_beyond_all_others(self, records: CacheStore) -> None:
        assert records.position("s") == 0
        assert records.changes("s", 0) == []
        assert records.changes("s", 5) is None
        seq = records.put(entry(), None)
        assert seq > 1_000_000_000_000_000, "so that no reader of an older store can stand before it"
        assert records.position("s") == seq
        assert records.changes("s", seq) == []
        assert records.changes("s", seq + 1) is None
        assert records.changes("s", 5) is None

    def test_the_log_tells_vectors_and_who_made_them(self, records: CacheStore) -> None:
        seq = records.put(entry(embedder="minilm"), vector(3, 4))
        bare = records.put(entry("bare"), None)
        lines = records.changes("s", 0)
        assert lines is not None
        assert [(line.seq, line.dropped, line.embedder, line.created_at) for line in lines] == [
            (seq, None, "minilm", NOW),
            (bare, None, None, NOW),
        ]
        assert np.frombuffer(lines[0].vector or b"", dtype="<f4").tolist() == pytest.approx([0.6, 0.8, 0, 0])
        assert lines[1].vector is None

    def test_drops_are_told_to_who_goes_on_and_left_out_for_who_begins(self, records: CacheStore) -> None:
        seqs = {name: records.put(entry(name), vector(1)) for name in "abc"}
        before = Follower(records, "s")
        before.read()
        records.drop("o", Where(ids=("b",)), reason="r", now=NOW)
        assert before.read() == {seqs["a"], seqs["c"]}
        assert before.restarts == 0
        lines = records.changes("s", 0)
        assert lines is not None
        assert seqs["b"] not in {line.seq for line in lines}
        assert lines[-1].seq == records.position("s")

    def test_scopes_have_logs_of_their_own(self, records: CacheStore) -> None:
        one, two = records.put(entry("a"), None), records.put(entry("b", scope="t"), None)
        assert Follower(records, "s").read() == {one}
        assert Follower(records, "t").read() == {two}

    @pytest.mark.parametrize("page", [1, 2, 7])
    def test_a_reader_in_pages_comes_to_the_same(self, records: CacheStore, page: int) -> None:
        seqs = [records.put(entry(f"{n}"), vector(1)) for n in range(12)]
        reader = Follower(records, "s", page=page)
        records.drop("o", Where(ids=("0", "3", "11")), reason="r", now=NOW)
        assert reader.read() == set(seqs) - {seqs[0], seqs[3], seqs[11]}
        more = records.put(entry("more"), vector(1))
        records.drop("o", Where(ids=("5",)), reason="r", now=NOW)
        assert reader.read() == set(seqs) - {seqs[n] for n in (0, 3, 5, 11)} | {more}
        assert reader.restarts == 0

    @pytest.mark.parametrize(
        ("where", "gone"),
        [
            (Where(), ""),
            (Where(ids=("a", "d", "none")), "ad"),
            (Where(scope="t"), "d"),
            (Where(documents={"guide": "v2"}), "a"),
            (Where(documents={"guide": None}), "ab"),
            (Where(documents={"guide": "v2", "other": None}), "ac"),
            (Where(documents={"none": None}), ""),
            (Where(uses=(("prompt", "p", None),)), "bc"),
            (Where(uses=(("prompt", "p", "1"),)), "b"),
            (Where(uses=(("prompt", "guide", None),)), ""),
            (Where(uses=(("prompt", "p", "1"), ("prompt", "p", "2"))), "bc"),
            (Where(tag="x"), "ab"),
            (Where(tenant="acme"), "bd"),
            (Where(user="ann"), "ac"),
            (Where(is_unknown=True), "c"),
            (Where(is_unknown=False), "abd"),
            (Where(before=NOW + 2), "ab"),
            (Where(everything=True), "abcd"),
            (Where(everything=True, tag="x"), "ab"),
            (Where(tag="x", tenant="acme"), "b"),
            (Where(ids=("a", "b"), documents={"guide": None}, user="ann"), "a"),
            (Where(tag="x", uses=(("prompt", "p", None),), before=NOW + 1), ""),
        ],
        ids=str,
    )
    def test_what_fits_all_that_is_said_is_dropped(self, records: CacheStore, where: Where, gone: str) -> None:
        rows = (
            entry("a", created_at=NOW + 1, uses={"document": {"guide": "v1"}}, tags=("x",), user="ann"),
            entry(
                "b",
                created_at=NOW + 2,
                uses={"document": {"guide": "v2"}, "prompt": {"p": "1"}},
                tags=("x", "y"),
                tenant="acme",
            ),
            entry(
                "c",
                created_at=NOW + 3,
                uses={"document": {"other": "v1"}, "prompt": {"p": "2"}},
                user="ann",
                is_unknown=True,
            ),
            entry("d", created_at=NOW + 4, scope="t", tenant="acme"),
        )
        for row in rows:
            records.put(row, vector(1))
        records.put(replace(rows[0], id="elsewhere", owner="p", scope="u", tenant="acme"), vector(1))
        assert sorted(records.drop("o", where, reason="r", now=NOW)) == sorted(gone)
        left = [row.id for row in rows if row.id not in gone]
        assert [row.id for row in rows if records.get(row.id) is not None] == left
        assert records.get("elsewhere") is not None
        assert records.size("o")[0] == len(left)
        assert len(Follower(records, "s").read()) + len(Follower(records, "t").read()) == len(left)

    def test_more_than_one_batch_is_dropped(self, records: CacheStore) -> None:
        for n in range(600):
            records.put(entry(f"{n}", uses={"document": {"d": "1"}, "other": {f"{n % 300}": "1"}}), None)
        assert len(records.drop("o", Where(documents={"d": "2"}, before=NOW - 1), reason="r", now=NOW)) == 0
        many = tuple(("other", f"{n}", None) for n in range(250))
        assert len(records.drop("o", Where(uses=many), reason="r", now=NOW)) == 500
        assert len(records.drop("o", Where(documents={"d": "2"}), reason="r", now=NOW)) == 100
        assert records.size("o") == (0, 0)

    def test_what_was_dropped_is_remembered_for_a_while(self, records: CacheStore) -> None:
        for name in "abc":
            records.put(entry(name, owner="o"), None)
        records.drop("o", Where(ids=("a",)), reason="wrong: says Monday", now=NOW)
        records.drop("o", Where(ids=("b",)), reason="changed documents", now=NOW + 10)
        records.enforce("o", Limits(entries=0, bytes=0), now=NOW + 20)
        told = [(stone.id, stone.question, stone.group, stone.reason) for stone in records.tombstones("o")]
        assert told == [
            ("b", "question b", "b", "changed documents"),
            ("a", "question a", "a", "wrong: says Monday"),
        ]
        assert [stone.dropped_at for stone in records.tombstones("o", limit=1)] == [NOW + 10]
        assert records.tombstones("p") == []
        records.put(entry("c"), None)
        records.drop("o", Where(ids=("c",)), reason="later", now=NOW + 91 * 86_400)
        assert [stone.id for stone in records.tombstones("o")] == ["c"]

    def test_the_least_valuable_go_first(self, records: CacheStore) -> None:
        day = 86_400.0
        for name, cost, age in (("cheap", 0.001, 0), ("dear", 0.1, 0), ("old", 0.004, 3), ("free", None, 0)):
            records.put(entry(name, cost_usd=cost, created_at=NOW - age * day), vector(1))
        assert records.enforce("o", Limits(entries=4, bytes=1 << 30), now=NOW) == []
        # 0.004 USD three half-lives ago is worth half of 0.001 USD now.
        assert records.enforce("o", Limits(entries=1, bytes=1 << 30), now=NOW) == ["free", "old", "cheap"]

    def test_being_served_makes_more_valuable(self, records: CacheStore) -> None:
        for name in "abc":
            records.put(entry(name), None)
        records.served("o", {"a": 1, "none": 5}, now=NOW + 10)
        records.served("other", {"b": 9}, now=NOW + 20)
        assert set(records.enforce("o", Limits(entries=1, bytes=1 << 30), now=NOW)) == {"b", "c"}

    def test_bytes_are_limited_too(self, records: CacheStore) -> None:
        for n in range(5):
            records.put(entry(f"{n}", message={"content": "x" * 10_000}, created_at=NOW + n), vector(1))
        entries, size = records.size("o")
        assert entries == 5
        assert 50_000 < size < 60_000
        assert records.enforce("o", Limits(entries=9, bytes=size // 2), now=NOW) == ["0", "1", "2"]
        assert records.size("o")[1] <= size // 2

    def test_a_tenant_is_limited_alone(self, records: CacheStore) -> None:
        for n in range(4):
            records.put(entry(f"a{n}", tenant="a", created_at=NOW + n), None)
            records.put(entry(f"b{n}", tenant=None if n else "b", created_at=NOW + n), None)
        limits = Limits(entries=100, bytes=1 << 30, entries_per_tenant=3)
        assert records.enforce("o", limits, now=NOW) == ["a0"]
        assert records.size("o", "a")[0] == 3
        assert records.size("o", "b")[0] == 1
        assert records.size("o")[0] == 7
        assert records.size("p") == (0, 0)

    def test_evicting_many_takes_several_calls_at_most(self, records: CacheStore) -> None:
        for n in range(700):
            records.put(entry(f"{n:04}", created_at=NOW + n), None)
        gone: list[str] = []
        while some := records.enforce("o", Limits(entries=100, bytes=1 << 30), now=NOW):
            gone += some
        assert gone == [f"{n:04}" for n in range(600)]
        assert records.size("o")[0] == 100

    def test_an_update_changes_what_may_change(self, records: CacheStore) -> None:
        seq = records.put(entry(knowledge="k1"), vector(1))
        assert records.update("e", knowledge="k2")
        assert records.update("e", is_verified=True)
        assert not records.update("none", is_verified=True)
        found, outline = records.get("e"), records.at("s", [seq])[seq]
        assert found == replace(entry(knowledge="k2", is_verified=True), seq=seq)
        assert (outline.knowledge, outline.is_verified) == ("k2", True)
        assert records.damaged() == []

    def test_a_new_group_is_in_the_outline_and_on_the_tombstone(self, records: CacheStore) -> None:
        seq = records.put(entry(), vector(1))
        assert records.update("e", group="another")
        assert records.at("s", [seq])[seq].group == "another"
        records.drop("o", Where(ids=("e",)), reason="wrong", now=1.0)
        assert [each.group for each in records.tombstones("o")] == ["another"]
        assert records.damaged() == []

    def test_what_was_reported_as_wrong_is_not_put_into_another_group(self, records: CacheStore) -> None:
        records.put(entry(), vector(1))
        assert records.update("e", group=f"{WRONG}x")
        assert records.update("e", group="another")
        records.drop("o", Where(ids=("e",)), reason="wrong", now=1.0)
        assert [each.group for each in records.tombstones("o")] == [f"{WRONG}x"]

    def test_totals_add_up(self, records: CacheStore) -> None:
        assert records.totals("o") == {}
        records.tally("o", "a", {"exact": Tally(2, 0.5, 1.5), "missed": Tally(1)})
        records.tally("o", None, {"exact": Tally(1, 0.25, 0.5)})
        records.tally("p", "a", {"exact": Tally(9)})
        records.tally("o", "a", {})
        assert records.totals("o") == {"exact": Tally(3, 0.75, 2.0), "missed": Tally(1, 0.0, 0.0)}
        assert records.totals("o", "a") == {"exact": Tally(2, 0.5, 1.5), "missed": Tally(1, 0.0, 0.0)}

    def test_labels_come_in_order_and_the_latest_if_there_are_many(self, records: CacheStore) -> None:
        labels = [Label((n / 10, 1.0), n % 2 == 0, "miss", NOW + n) for n in range(5)]
        numbers = [records.add_label("o", labels[0])]
        records.put(entry(), None, label=labels[1])
        numbers += [records.add_label("o", label, tenant="t", user="u") for label in labels[2:]]
        assert [label for _, label in records.labels("o", 0)] == labels
        assert [number for number, _ in records.labels("o", 0)] == sorted(
            {*numbers, *(n for n, _ in records.labels("o", 0))}
        )
        assert [label for _, label in records.labels("o", numbers[1])] == labels[3:]
        assert [label for _, label in records.labels("o", 0, limit=2)] == labels[3:]
        assert records.labels("p", 0) == []

    def test_one_holder_has_a_lease(self, records: CacheStore) -> None:
        mine = Lease("s", "x", "me", ODD, b"\x00\xff", NOW + 30, tenant="t")
        yours = replace(mine, holder="you", vector=None)
        assert records.lease("o", mine, now=NOW) is None
        held = records.lease("o", yours, now=NOW)
        assert held == mine
        assert records.lease("o", mine, now=NOW) is None, "the holder may take it again"
        assert records.leases("s", now=NOW) == [mine]
        assert records.leases("t", now=NOW) == []
        records.release("you", "s", "x")
        assert records.leases("s", now=NOW) == [mine], "it is not yours"
        records.release("me", "s", "x")
        assert records.leases("s", now=NOW) == []
        assert records.lease("o", yours, now=NOW) is None

    def test_a_lease_ends(self, records: CacheStore) -> None:
        records.lease("o", Lease("s", "x", "me", "q", None, NOW + 30), now=NOW)
        assert records.leases("s", now=NOW + 30) == []
        assert records.lease("o", Lease("s", "x", "you", "q", None, NOW + 61), now=NOW + 31) is None
        assert records.renew("me", [("s", "x")], until=NOW + 90) == {("s", "x")}
        assert records.renew("you", [("s", "x"), ("s", "none")], until=NOW + 90) == {("s", "none")}
        assert [lease.expires_at for lease in records.leases("s", now=NOW + 31)] == [NOW + 90]

    def test_a_lease_of_a_clock_that_jumped_counts_as_over(self, records: CacheStore) -> None:
        far = Lease("s", "x", "me", "q", None, NOW + 1e6 + 30)
        assert records.lease("o", far, now=NOW + 1e6) is None
        assert records.leases("s", now=NOW) == []
        assert records.lease("o", replace(far, holder="you", expires_at=NOW + 30), now=NOW) is None
        with pytest.raises(InvalidInput):
            records.lease("o", replace(far, expires_at=NOW + LONGEST_LEASE_S + 1), now=NOW)

    def test_people_find_entries(self, records: CacheStore) -> None:
        for n, question in enumerate(("Reset my PIN?", "Pin a note", "100% cotton", "naïve ☃")):
            records.put(entry(f"{n}", question=question, created_at=NOW + n), None)
        records.served("o", {"1": 2}, now=NOW + 50)
        assert [found.id for found, _, _ in records.entries("o")] == ["3", "2", "1", "0"]
        assert [(found.id, hits, at) for found, hits, at in records.entries("o", containing="pin")] == [
            ("1", 2, NOW + 50),
            ("0", 0, NOW),
        ]
        assert [found.id for found, _, _ in records.entries("o", containing="%")] == ["2"]
        assert [found.id for found, _, _ in records.entries("o", containing="☃")] == ["3"]
        assert [found.id for found, _, _ in records.entries("o", offset=1, limit=2)] == ["2", "1"]
        assert records.entries("p") == []

    def test_a_user_is_forgotten_everywhere(self, records: CacheStore) -> None:
        label = Label((1.0,), True, "miss", NOW)
        for owner in "op":
            for user in ("ann", "bob"):
                for tenant in (None, "t"):
                    name = f"{owner}-{user}-{tenant}"
                    told = {"owner": owner, "user": user, "tenant": tenant, "scope": name}
                    records.put(entry(name, **told), vector(1), label=label)
                    records.put(entry(f"{name} gone", **told), vector(1))
                    records.drop(owner, Where(ids=(f"{name} gone",)), reason="r", now=NOW)
                    lease = Lease(name, "x", "me", "q", None, NOW + 30, tenant, user)
                    assert records.lease(owner, lease, now=NOW) is None
        assert records.forget(user="ann", tenant="t", now=NOW) == 8
        assert [len(records.labels(owner, 0)) for owner in "op"] == [3, 3]
        assert records.get("o-ann-t") is None
        assert records.get("o-ann-None") is not None
        assert records.forget(user="ann", tenant=None, now=NOW) == 8
        assert records.forget(user="ann", tenant=None, now=NOW) == 0
        for owner in "op":
            assert {found.user for found, _, _ in records.entries(owner)} == {"bob"}
            assert {stone.id for stone in records.tombstones(owner)} == {f"{owner}-bob-{t} gone" for t in (None, "t")}
            assert len(records.labels(owner, 0)) == 2
            assert records.leases(f"{owner}-ann-t", now=NOW) == []
            assert len(records.leases(f"{owner}-bob-t", now=NOW)) == 1

    def test_clearing_empties_one_cache(self, records: CacheStore) -> None:
        for n in range(300):
            records.put(entry(f"{n}"), vector(1))
        records.put(entry("other", owner="p", scope="t"), vector(1))
        records.drop("o", Where(ids=("0",)), reason="r", now=NOW)
        records.tally("o", None, {"exact": Tally(1)})
        reader = Follower(records, "s")
        assert len(reader.read()) == 299
        assert records.clear("o") == 299
        assert reader.read() == set()
        assert records.size("o") == (0, 0)
        assert records.tombstones("o") == []
        assert records.totals("o") == {"exact": Tally(1, 0.0, 0.0)}
        assert records.get("other") is not None

    def test_ten_megabytes_are_kept_and_more_than_sixteen_refused(self, records: CacheStore) -> None:
        large = entry("large", message={"content": "ä\n" * 3_300_000})
        seq = records.put(large, vector(1))
        assert records.exact("s", "large") == replace(large, seq=seq)
        with pytest.raises(InvalidInput, match="at most 16777216"):
            records.put(entry("huge", message={"content": "x" * 17_000_000}), None)
        assert records.get("huge") is None
        assert records.size("o")[0] == 1

    @pytest.mark.parametrize(
        "bad",
        [{"message": {"a": {1, 2}}}, {"tenant": "t" * 201}, {"owner": "o" * 201}, {"facts": {"f": object()}}],
        ids=["a set", "long tenant", "long owner", "an object"],
    )
    def test_what_cannot_be_kept_is_refused_whole(self, records: CacheStore, bad: Mapping[str, Any]) -> None:
        with pytest.raises(InvalidInput):
            records.put(entry(**bad), vector(1))
        assert records.position("s") == 0
        assert records.entries("o") == []

    def test_names_that_look_alike_are_kept_apart(self, records: CacheStore) -> None:
        names = ["", "None", "null", '"', "a b", "a", "A", "é", "e\u0301", "\x00", "\ud800", "\ufffd"]
        for number, name in enumerate(names):
            told = {"tenant": name, "user": name, "tags": (name,), "uses": {"k": {name: name}}}
            records.put(entry(f"{number}", **told), None)
        records.put(entry("none"), None)
        for number, name in enumerate(names):
            assert records.size("o", name)[0] == 1
            fits = Where(tenant=name, user=name, tag=name, uses=(("k", name, name),))
            assert records.drop("o", fits, reason="r", now=NOW) == [f"{number}"]
        assert [found.id for found, _, _ in records.entries("o")] == ["none"]

    def test_readers_miss_nothing_that_threads_write(self, records: CacheStore) -> None:
        done = threading.Event()
        readers = [Follower(records, "s", page=page) for page in (5, 10_000)]

        def write(worker: int) -> None:
            for n in range(30):
                records.put(entry(f"{worker}-{n}", exact=f"{n % 7}-{worker % 2}"), vector(1))
                if n % 5 == 0:
                    records.drop("o", Where(ids=(f"{worker}-{n}",)), reason="r", now=NOW)

        def follow(reader: Follower) -> None:
            while not done.is_set():
                reader.read()

        with ThreadPoolExecutor(6) as threads:
            following = [threads.submit(follow, reader) for reader in readers]
            writing = [threads.submit(write, worker) for worker in range(4)]
            for each in writing:
                each.result()
            done.set()
            for each in following:
                each.result()
        there = {found.seq for found, _, _ in records.entries("o", limit=1000)}
        assert [reader.read() for reader in readers] == [there, there]
        assert [reader.restarts for reader in readers] == [0, 0]
        assert records.size("o")[0] == len(there)

    def test_threads_get_one_lease(self, records: CacheStore) -> None:
        together = threading.Barrier(8)

        def take(worker: int) -> bool:
            together.wait()
            return records.lease("o", Lease("s", "x", f"{worker}", "q", None, NOW + 30), now=NOW) is None

        with ThreadPoolExecutor(8) as threads:
            assert sum(threads.map(take, range(8))) == 1

    def test_it_does_what_a_plain_dict_does(self, records: CacheStore) -> None:
        run_state_machine_as_test(
            lambda: CacheStoreMachine(records),  # type: ignore[arg-type]  # any callable will do
            settings=settings(
                max_examples=self.examples,
                stateful_step_count=25,
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
