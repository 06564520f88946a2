from __future__ import annotations

import random
import threading
import time
from collections import Counter, deque
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from chainops.core.errors import InvalidInput, StoreUnavailable
from chainops.resilience.budgets.books import Books
from chainops.resilience.budgets.policy import Amount, BudgetSettings
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


class Slow(SqlLedger):
    """Takes some milliseconds before and after each step."""

    def __init__(self, store, dice):
        super().__init__(store)
        self.dice = dice

    def __getattribute__(self, name):
        found = super().__getattribute__(name)
        if name not in ("add", "forget", "take_names_off"):
            return found

        def slowly(*arguments):
            time.sleep(self.dice.random() * 0.02)
            try:
                return found(*arguments)
            finally:
                time.sleep(self.dice.random() * 0.02)

        return slowly


def forget_wholly(books, user, tenant):
    """As it says: what could not be emptied while others read it is left to another call."""
    for _ in range(100):
        try:
            books.forget(user, tenant, wait_s=0.0)
        except StoreUnavailable:
            time.sleep(0.05)
        else:
            return
    raise AssertionError("calling again must help")


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("by", ["this process", "another process"])
def test_no_call_is_noted_with_the_name_of_a_user_forgotten_while_it_was_on_its_way(tmp_path, make_hold, seed, by):
    """Calls set aside, settled, or on their way to a slow store, when the forgetting begins or until it ends."""
    dice, at = random.Random(seed), time.time() - 1
    mine = SqlStore(tmp_path / "budgets.db")
    books = Books(SqlCounters(mine), Slow(mine, dice))
    theirs = books if by == "this process" else Books(SqlCounters(mine), Slow(SqlStore(tmp_path / "budgets.db"), dice))
    holds = [make_hold(f"h{n}", usd=0.001, at=at, user=dice.choice(["ann-b", "bob"]))[0] for n in range(40)]
    is_held = [by == "another process" or dice.random() < 0.8 for _ in holds]  # the store was gone when it began
    for hold, is_there in zip(holds, is_held, strict=True):
        if is_there:
            books.reserve(hold, make_hold(at=at)[1])

    def settle():
        for hold in holds:
            books.settle_later(hold.id, Amount(1_000_000, 3), replace(hold.call, outcome="ok"))
            time.sleep(dice.random() * 0.003)

    settling = threading.Thread(target=settle)
    settling.start()
    time.sleep(dice.random() * 0.12)
    forget_wholly(theirs, "ann-b", dice.choice([None, "acme"]))
    settling.join()
    assert books.flush(60)
    calls = {row["what"]: row["calls"] for row in spending(mine, "help", "user").rows}
    assert calls == Counter(None if hold.call.user == "ann-b" else "bob" for hold in holds)
    assert SqlCounters(mine).holds(before=at + 1) == []
    assert not [each.name for each in tmp_path.iterdir() if b"ann-b" in each.read_bytes()]


def test_a_call_begun_after_a_user_was_forgotten_has_its_name_again(store, books, make_hold):
    books.forget("ann")
    noted(books, make_hold, count=2, at=time.time() + 1)
    assert books.flush(60)
    (row,) = spending(store, "help", "user").rows
    assert (row["what"], row["calls"]) == ("ann", 2)


def test_a_lost_call_of_a_forgotten_user_is_nobodys_though_its_process_was_killed_while_noting_it(store, make_hold):
    books, ledger = Books(SqlCounters(store), SqlLedger(store)), SqlLedger(store)
    hold, concerned = make_hold(usd=0.01)
    books.reserve(hold, concerned)
    books.forget("ann")
    ledger.add([hold.call])  # what the process had just done
    assert Books(SqlCounters(store), ledger).adopt_lost(NOW + 4_000) == 1
    assert [row["what"] for row in spending(store, "help", "user").rows] == [None]


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


class SlowLedger(SqlLedger):
    """Notes calls when it may."""

    def __init__(self, store):
        super().__init__(store)
        self.may_note = threading.Event()

    def add(self, calls):
        assert self.may_note.wait(60)
        super().add(calls)


class ToldOnce(SqlCounters):
    """After it has answered once, the ledger may go on."""

    ledger = None
    times = 0
    """How often the totals were asked for."""

    def reserve(self, *arguments, **more):
        reserved = super().reserve(*arguments, **more)
        if reserved.refused is not None:
            self.ledger.may_note.set()
        return reserved

    def totals(self, *arguments):
        found = super().totals(*arguments)
        self.times += 1
        self.ledger.may_note.set()
        return found


@pytest.fixture
def slow_books(store, make_hold):
    """One call has ended that took a cent in place of the dollar that was set aside for it. It is still to be noted."""
    counters = ToldOnce(store)
    counters.ledger = SlowLedger(store)
    books = Books(counters, counters.ledger)
    hold, concerned = make_hold("h1", usd=1.0, settings=BudgetSettings(usd_per_day=1.5))
    assert books.reserve(hold, concerned).refused is None
    assert books.settle_later(hold.id, Amount(10_000_000, 0), replace(hold.call, outcome="ok"))
    yield books
    counters.ledger.may_note.set()
    assert books.flush(60)


def test_no_call_is_refused_for_the_estimate_of_one_whose_truth_is_on_its_way(slow_books, make_hold):
    hold, concerned = make_hold("h2", usd=1.0, settings=BudgetSettings(usd_per_day=1.5))
    assert slow_books.reserve(hold, concerned).refused is None


def test_totals_that_reach_a_soft_limit_are_told_with_the_truth_of_calls_that_have_ended(slow_books, make_hold):
    _, concerned = make_hold(settings=BudgetSettings(usd_per_day=1.0))
    assert slow_books.totals("b", "k", concerned) == [Amount(10_000_000, 0)]


def test_nobody_waits_for_the_truth_of_totals_that_reach_no_limit(slow_books, make_hold):
    before = slow_books._counters.times
    _, concerned = make_hold(settings=BudgetSettings(usd_per_day=1.5))
    assert slow_books.totals("b", "k", concerned) == [Amount(1_000_000_000, 0)]
    assert slow_books._counters.times == before + 1


def test_a_stream_that_is_collected_while_another_call_is_settled_is_settled_too(store, make_hold):
    class Collects(deque):
        """As the garbage collector does, wherever something is made."""

        is_done = False

        def append(self, settled):
            super().append(settled)
            if not self.is_done:
                self.is_done = True
                books.settle_later("h1", Amount(), None)

    books = Books(SqlCounters(store), SqlLedger(store))
    for name in ("h1", "h2"):
        books.reserve(*make_hold(name, usd=0.01))
    books._waiting = Collects()
    settling = threading.Thread(target=books.settle_later, args=["h2", Amount(), None], daemon=True)
    settling.start()
    settling.join(30)
    assert not settling.is_alive()
    assert books.flush(60)
    assert SqlCounters(store).holds(before=NOW + 1) == []


def test_what_was_spent_while_the_system_gave_no_thread_is_written_when_it_does(store, make_hold, monkeypatch):
    def start(_):
        raise RuntimeError("can't start new thread")

    books = Books(SqlCounters(store), SqlLedger(store))
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        noted(books, make_hold, count=1)
    assert books.flush(60)
    (row,) = spending(store, "help", "user").rows
    assert (row["calls"], row["usd"]) == (1, pytest.approx(0.02))
