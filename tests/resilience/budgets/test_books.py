from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from chainops.core.errors import InvalidInput, StoreUnavailable
from chainops.resilience.budgets.books import Books
from chainops.resilience.budgets.policy import Amount
from chainops.resilience.budgets.spending import spending
from chainops.resilience.budgets.sql_counters import SqlCounters
from chainops.resilience.budgets.sql_ledger import SqlLedger, clean
from chainops.stores.sql import SqlStore

NOW = 1_700_000_000.0


class Flaky(SqlLedger):
    """Fails every other time."""

    times = 0

    def add(self, calls):
        self.times += 1
        if self.times % 2:
            raise StoreUnavailable(self.place, "locked", "repeat")
        super().add(calls)


def noted(books, make_hold, count=5, **facts):
    for n in range(count):
        hold, concerned = make_hold(f"h{n}", usd=0.01, **facts)
        books.reserve(hold, concerned)
        assert books.settle_later(hold.id, Amount(20_000_000, 3), replace(hold.call, outcome="ok", usd=0.02))


def test_what_a_store_refuses_for_a_while_is_written_in_the_end_once(store, make_hold):
    books = Books(SqlCounters(store), Flaky(store))
    noted(books, make_hold)
    assert books.flush(60)
    (row,) = spending(store, "help", "user").rows
    assert (row["calls"], row["usd"]) == (5, pytest.approx(0.1))
    assert books.problem is None


class Line(deque):
    """Whoever asks in the main thread whether anything waits, and hears no, goes on when the writing has ended."""

    is_writing = staticmethod(lambda: False)

    def __bool__(self):
        found = len(self) > 0
        if not found and threading.current_thread() is threading.main_thread():
            until = time.monotonic() + 2
            while self.is_writing() and time.monotonic() < until:
                time.sleep(0.001)
        return found


def test_what_a_store_refuses_is_not_taken_for_written_on_its_way_back_into_the_line(store, make_hold):
    class Gone(SqlLedger):
        refuses = threading.Semaphore(0)

        def add(self, calls):
            self.refuses.acquire()
            raise StoreUnavailable(self.place, "gone", "wait")

    ledger = Gone(store)
    books = Books(SqlCounters(store), ledger)
    books._waiting = Line()
    books._waiting.is_writing = lambda: books._is_writing
    noted(books, make_hold, count=1)
    while len(books._waiting):  # until it is being written
        time.sleep(0.001)
    threading.Timer(0.05, ledger.refuses.release, [3]).start()
    assert not books.flush(0.5)
    ledger.refuses.release(1_000)


def test_a_call_that_no_store_takes_does_not_keep_back_the_others(store, make_hold):
    class Picky(SqlLedger):
        def add(self, calls):
            if any(each.id == "h2" for each in calls):
                raise ValueError("unprintable")
            super().add(calls)

    books = Books(SqlCounters(store), Picky(store))
    noted(books, make_hold)
    assert books.flush(60)
    assert books.unwritable == 1
    assert spending(store, "help", "user").rows[0]["calls"] == 4


def test_what_is_noted_twice_is_there_once(place, make_hold):
    ledger = SqlLedger(SqlStore(place[1]))
    call = clean(replace(make_hold()[0].call, user="nul \x00 half \ud800", feature="☃"))
    ledger.add([call, call])
    ledger.add([replace(call, usd=77.0)])
    (row,) = ledger.sums(None, "user", 0.0, float("inf"))
    assert (row["calls"], row["usd"], row["what"]) == (1, 0.0, "nul  half ?")


def test_sums_are_numbers_in_every_database(place, make_hold):
    ledger = SqlLedger(SqlStore(place[1]))
    call = make_hold(tokens=3, usd=0.5)[0].call
    ledger.add([replace(call, id=f"{n}", outcome="ok", user="ann", usd=None if n == 2 else 0.5) for n in range(3)])
    ledger.add([replace(call, id="old", at=NOW - 86_400, user=None, chain="other")])
    (row,) = ledger.sums("help", "model", 0.0, float("inf"))
    assert row == {
        "what": "openai:m",
        "calls": 3,
        "requests": 1,
        "input_tokens": 9,
        "output_tokens": 0,
        "cached_tokens": 0,
        "usd": 1.0,
        "unpriced": 1,
        "not_ok": 0,
    }
    assert [each["what"] for each in ledger.sums(None, "day", 0.0, float("inf"))] == ["2023-11-13", "2023-11-14"]
    assert [each["what"] for each in ledger.sums(None, "chain", NOW - 10, NOW + 10)] == ["help"]


def test_a_forgotten_user_is_nobody_and_the_sums_stay(store, books, make_hold):
    noted(books, make_hold)
    assert books.forget("ann", tenant="other") == 0
    assert books.forget("ann", tenant="acme") == 5
    (row,) = spending(store, "help", "user").rows
    assert (row["what"], row["calls"]) == (None, 5)
    assert b"ann" not in Path(store.place).read_bytes()


def test_a_table_shows_itself_and_is_plain_json(store, books, make_hold):
    assert str(spending(store, "help")).startswith("nothing was spent under a budget")
    assert "nothing was spent under a budget" in spending(store, "help")._repr_html_()
    noted(books, make_hold)
    hold, concerned = make_hold("b", user="<b>bob</b>", usd=0.01)
    books.reserve(hold, concerned)
    books.settle_later("b", Amount(), replace(hold.call, outcome="ok", usd=None))
    assert books.flush(60)
    table = spending(store, "help", "user", since=datetime(2020, 1, 1))
    head, ann, bob, total = (each.split() for each in str(table).splitlines())
    assert head == ["user", "calls", "requests", "tokens", "in", "cached", "tokens", "out", "cost"]
    assert ann == ["ann", "5", "1", "0", "0", "0", "$0.10"]
    assert bob == ["<b>bob</b>", "1", "1", "0", "0", "0", "$0", "+", "1", "of", "unknown", "price"]
    assert total[:2] == ["all", "6"]
    html = table._repr_html_()
    assert "&lt;b&gt;bob" in html
    assert "<b>bob" not in html
    told = table.to_dict()
    assert (told["usd"], told["since"], len(told["rows"])) == (pytest.approx(0.1), "2020-01-01T00:00:00+00:00", 2)


def test_only_what_is_recent_is_added_up_when_asked(store, books, make_hold):
    noted(books, make_hold)
    assert books.flush(60)
    assert spending(store, "help", since=datetime.fromtimestamp(NOW, UTC)).rows
    assert not spending(store, "help", since=datetime.fromtimestamp(NOW + 1, UTC)).rows
    assert not spending(store, "help", since=timedelta(days=1)).rows
    assert not spending(store, "another").rows
    with pytest.raises(InvalidInput, match="user, tenant"):
        spending(store, "help", "colour")
