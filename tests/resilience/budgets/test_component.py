from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

import chainops
from chainops.core.attempts import Expected
from chainops.core.clock import use_clock
from chainops.core.component import AnyRunnable, Component
from chainops.core.errors import AllRoutesFailed, StoreUnavailable
from chainops.core.events import Attempted
from chainops.core.steps import Ask, AskAll, Cancelled, Forward
from chainops.models.failures import Failure, ModelUnavailable
from chainops.models.model import Model
from chainops.models.prices import Price
from chainops.resilience.budgets.books import Books
from chainops.resilience.budgets.component import Budget
from chainops.resilience.budgets.gate import BudgetGate, gate_of_caller
from chainops.resilience.budgets.policy import BudgetSettings
from chainops.resilience.budgets.records import (
    BudgetExceeded,
    BudgetSoft,
    BudgetUnchecked,
    BudgetUnreachable,
    OverBudget,
    PriceUnknown,
    SpendingUnwritten,
)
from chainops.resilience.budgets.spending import spending
from chainops.resilience.budgets.sql_counters import SqlCounters
from chainops.resilience.budgets.sql_ledger import SqlLedger
from chainops.resilience.component import Fallback, Sentence
from chainops.stores.sql import SqlStore
from chainops.testing.chat import Reply, ScriptedChatModel
from chainops.testing.listening import ManualClock, capture_events
from chainops.testing.server import ModelServer

DEAR = Price(input_usd_per_million_tokens=0, output_usd_per_million_tokens=1_000)  # a cent for ten words
FREE = Price(input_usd_per_million_tokens=0, output_usd_per_million_tokens=0)
USAGE = {"input_tokens": 5, "output_tokens": 10, "total_tokens": 15}
TEN = Reply("one two three four five six seven eight nine ten", usage=USAGE)
BROKEN = Reply(error=ModelUnavailable("m", Failure("retryable", "overloaded"), next_move="-"), fail_after_chunks=0)


def model(*replies, price=DEAR, expects=10, name="dear", loop=True):
    chat = ScriptedChatModel(replies=list(replies or [TEN]), loop=loop)
    return Model(chat=lambda: chat, model=f"openai:{name}", price=price, expected_output_tokens=expects, name=name)


@pytest.fixture
def make_budget(books):
    def make(inner=None, *, books=books, cheaper=None, otherwise=None, name="budget", **settings):
        return Budget(
            inner=inner or model(),
            books=lambda: books,
            settings=BudgetSettings(**settings),
            chain="help",
            cheaper=cheaper,
            otherwise=otherwise,
            name=name,
        )

    return make


@pytest.fixture
def clock():
    with use_clock(ManualClock()) as clock:
        yield clock


def spent(store, books, by="outcome"):
    assert books.flush(60)
    return {row["what"]: row for row in spending(store, "help", by).rows}


def everywhere(runnable, value="hi", config=None):
    """What each of the four drivers gives or raises."""

    async def astreamed():
        return [each async for each in runnable.astream(value, config)]

    for call in (
        lambda: runnable.invoke(value, config),
        lambda: asyncio.run(runnable.ainvoke(value, config)),
        lambda: list(runnable.stream(value, config)),
        lambda: asyncio.run(astreamed()),
    ):
        try:
            yield call()
        except Exception as error:
            yield error


def test_every_driver_spends_and_is_refused_alike(make_budget, store, books):
    budget = make_budget(usd_per_day=0.045)
    first = list(everywhere(budget, config=chainops.caller(user="ann", tenant="acme", feature="faq")))
    assert not [each for each in first if isinstance(each, Exception)]
    for refusal in everywhere(budget):
        assert isinstance(refusal, BudgetExceeded)
        assert (refusal.window, refusal.unit, refusal.budget) == ("day", "usd", "help/budget")
        assert (refusal.spent, refusal.limit, refusal.expected) == pytest.approx((0.04, 0.045, 0.01))
        assert 0 < refusal.retry_after_s <= 86_400
    row = spent(store, books)["ok"]
    assert (row["calls"], row["requests"], row["output_tokens"]) == (4, 4, 40)
    assert row["usd"] == pytest.approx(0.04)
    for by, expected in (("user", "ann"), ("tenant", "acme"), ("feature", "faq"), ("model", "openai:dear")):
        assert list(spent(store, books, by)) == [expected]


def test_it_begins_anew_the_next_day(make_budget, clock):
    budget = make_budget(usd_per_day=0.015, usd_per_month=0.025)
    budget.invoke("hi")
    with pytest.raises(BudgetExceeded) as caught:
        budget.invoke("hi")
    clock.advance(caught.value.retry_after_s + 1)
    budget.invoke("hi")
    clock.advance(86_400)
    with pytest.raises(BudgetExceeded) as caught:
        budget.invoke("hi")
    assert caught.value.window == "month"


def test_the_truth_replaces_the_estimate(make_budget, books):
    budget = make_budget(model(expects=1_000), usd_per_day=1.5)
    for _ in range(20):  # 0.01 each, though 1 is set aside for each
        budget.invoke("hi")
        assert books.flush(60)
    with pytest.raises(BudgetExceeded):
        make_budget(model(expects=1_400), usd_per_day=1.5).invoke("hi")


@pytest.mark.parametrize("per", ["user", "tenant", "feature"])
def test_each_has_a_budget_of_his_own(make_budget, per):
    budget = make_budget(usd_per_day=0.015, per=per)
    budget.invoke("hi", chainops.caller(**{per: "a"}))
    budget.invoke("hi", chainops.caller(**{per: "b"}))
    with pytest.raises(BudgetExceeded):
        budget.invoke("hi", chainops.caller(**{per: "a"}))


def test_64_concurrent_requests_overspend_by_no_more_than_their_estimates_were_wrong_litellm_34732_40095(
    make_budget, store, books
):
    """Each call is expected to take 8 words and takes 10: 0.002 USD more, times the calls under way."""
    budget = make_budget(model(Reply(TEN.text, usage=USAGE, delay_s=0.02), expects=8), usd_per_day=0.2)

    def ask(_):
        try:
            budget.invoke("hi")
        except BudgetExceeded:
            return 0
        return 1

    with ThreadPoolExecutor(64) as threads:
        answered = sum(threads.map(ask, range(64)))
    assert 20 <= answered <= 25
    assert 0.2 - 0.008 < spent(store, books)["ok"]["usd"] <= 0.2 + answered * 0.002 + 1e-9


def test_64_concurrent_tasks_do_not_either(make_budget, store, books):
    budget = make_budget(model(Reply(TEN.text, usage=USAGE, delay_s=0.02)), usd_per_day=0.2)

    async def all_at_once():
        return await asyncio.gather(*(budget.ainvoke("hi") for _ in range(64)), return_exceptions=True)

    refused = [each for each in asyncio.run(all_at_once()) if isinstance(each, Exception)]
    assert {type(each) for each in refused} == {BudgetExceeded}
    assert len(refused) == 44
    assert spent(store, books)["ok"]["usd"] == pytest.approx(0.2)


def test_a_free_model_with_a_paid_fallback_does_not_escape_litellm_41344(make_budget, store, books):
    free = model(BROKEN, price=FREE, name="free")
    chain = Fallback(routes=(free, model()), names=("free", "dear"))
    budget = make_budget(chain, usd_per_day=0.015)
    assert budget.invoke("hi").content == TEN.text
    for error in everywhere(budget):
        assert isinstance(error, AllRoutesFailed)  # one of the two was only broken
        assert isinstance(error.failures[1][1], BudgetExceeded)
    assert spent(store, books, "model")["openai:dear"]["calls"] == 1


def test_when_the_money_is_spent_a_free_route_still_answers(make_budget):
    chain = Fallback(routes=(model(), model(price=FREE, name="free")), names=("dear", "free"))
    budget = make_budget(chain, usd_per_day=0.015, otherwise=Sentence(text="never said"))
    budget.invoke("hi")
    with capture_events() as events:
        answer = budget.invoke("hi")
    assert answer.content == TEN.text
    assert answer.response_metadata["chainops"]["served_by"] == "openai:free"
    assert answer.response_metadata["chainops"]["status"] == "degraded"
    assert not events.of(OverBudget)


def test_all_routes_refused_for_money_is_one_clear_refusal(make_budget):
    budget = make_budget(Fallback(routes=(model(), model(name="other")), names=("a", "b")), usd_per_day=0.001)
    with pytest.raises(BudgetExceeded, match="the day's budget"):
        budget.invoke("hi")


def test_a_request_may_not_spend_more_with_its_retries_and_side_calls(make_budget):
    class Greedy(Component):
        inner: AnyRunnable

        def plan(self, value, run):
            yield AskAll([Ask(self.inner, value) for _ in range(3)], return_exceptions=True)
            return (yield Forward(self.inner, value))

    budget = make_budget(Greedy(inner=model()), usd_per_request=0.035)
    with pytest.raises(BudgetExceeded) as caught:
        budget.invoke("hi")
    assert (caught.value.window, caught.value.retry_after_s) == ("request", None)
    assert caught.value.spent == pytest.approx(0.03)


class InThreads(Component):
    """Asks several at the same time; all have looked for their gate before one of them has made it."""

    inner: AnyRunnable
    times: int

    def plan(self, value, run):
        together = threading.Barrier(self.times)

        class Memo(dict):
            def get(self, key, default=None):
                found = super().get(key, default)
                if key[0] == "budget" and threading.current_thread() is not threading.main_thread():
                    together.wait(60)
                return found

        run.request.memo = Memo(run.request.memo)
        answers = yield AskAll([Ask(self.inner, value) for _ in range(self.times)], return_exceptions=True)
        return len(answers)


def test_routes_at_work_at_the_same_time_share_what_the_request_may_spend(make_budget):
    with capture_events() as events:
        InThreads(inner=make_budget(usd_per_request=0.025), times=4).invoke("hi")
    assert [each.outcome for each in events.of(Attempted)].count("ok") == 2


class Gated(Component):
    """As a declared chain does for its caller's budget."""

    inner: AnyRunnable

    def plan(self, value, run):
        run.terms = replace(run.terms, gates=(*run.terms.gates, gate_of_caller(run)))
        return (yield Forward(self.inner, value))


def test_calls_at_the_same_time_share_the_callers_budget():
    with capture_events() as events:
        InThreads(inner=Gated(inner=model()), times=4).invoke("hi", chainops.caller(budget_usd=0.025))
    assert [each.outcome for each in events.of(Attempted)].count("ok") == 2


def test_the_callers_own_budget_holds_whatever_the_chain_says(make_budget):
    budget = make_budget(usd_per_day=100)
    with pytest.raises(BudgetExceeded, match="the request's budget"):
        budget.invoke("hi", chainops.caller(budget_usd=0.005))
    assert budget.invoke("hi", chainops.caller(budget_usd=0.02)).content == TEN.text


def test_within_a_request_too_the_truth_replaces_the_estimate(make_budget):
    class Thrice(Component):
        inner: AnyRunnable

        def plan(self, value, run):
            yield Ask(self.inner, value)
            yield Ask(self.inner, value)
            return (yield Forward(self.inner, value))

    budget = make_budget(Thrice(inner=model(expects=30)), usd_per_request=0.05)
    assert budget.invoke("hi").content == TEN.text


def test_tokens_are_limited_for_free_models_too(make_budget, books):
    budget = make_budget(model(price=FREE), tokens_per_day=25)
    budget.invoke("hi")
    assert books.flush(60)
    with pytest.raises(BudgetExceeded, match="25 tokens") as caught:
        budget.invoke("hi")
    assert caught.value.unit == "tokens"


def test_an_unknown_price_is_refused_where_money_is_limited_and_says_what_to_do(make_budget, store, books):
    nobody_knows = model(price=None, name="my-own-finetune")
    for error in everywhere(make_budget(nobody_knows, usd_per_day=5)):
        assert isinstance(error, PriceUnknown)
        assert "unknown_price_usd_per_million_tokens" in str(error)
    declared = make_budget(nobody_knows, usd_per_day=5, unknown_price_usd_per_million_tokens=2)
    declared.invoke("hi")
    make_budget(nobody_knows, tokens_per_day=100_000).invoke("hi")
    row = spent(store, books)["ok"]
    assert (row["calls"], row["unpriced"]) == (2, 2)


def test_a_sentence_is_said_instead_and_marked_without_any_sums(make_budget):
    budget = make_budget(usd_per_day=0.001, at_hard={"say": "later"}, otherwise=Sentence(text="later"))
    with capture_events() as events:
        answer = budget.invoke("hi")
    assert answer.content == "later"
    facts = answer.response_metadata["chainops"]
    assert (facts["status"], facts["reasons"]) == (
        "degraded",
        ["what is left of the day's budget would not do for this call"],
    )
    assert events.of(OverBudget)[0].instead == "say"
    assert "".join(each.content for each in budget.stream("hi")) == "later"


def test_what_answers_instead_may_use_tokens_but_no_money_that_is_not_there(make_budget):
    free = model(price=FREE, name="free")
    for limit in ("tokens_per_day", "tokens_per_request"):
        budget = make_budget(**{limit: 5}, at_hard={"route": "free"}, otherwise=free, name=limit)
        assert budget.invoke("hi").response_metadata["chainops"]["served_by"] == "openai:free"
    dear = make_budget(usd_per_day=0.001, at_hard={"route": "other"}, otherwise=model(name="other"), name="second")
    with pytest.raises(BudgetExceeded):
        dear.invoke("hi")


def test_what_another_budget_refused_is_not_answered_by_this_one(make_budget):
    inner = make_budget(usd_per_day=0.001, name="inner")
    with pytest.raises(BudgetExceeded):
        make_budget(inner, usd_per_day=5, otherwise=Sentence(text="no"), name="outer").invoke("hi")


def test_a_stream_that_has_spoken_is_not_replaced(make_budget):
    class SpeaksFirst(Component):
        inner: AnyRunnable
        free: AnyRunnable

        def plan(self, value, run):
            yield Forward(self.free, value)
            return (yield Forward(self.inner, value))

    inner = SpeaksFirst(inner=model(), free=model(price=FREE, name="free"))
    stream = make_budget(inner, usd_per_day=0.001, otherwise=Sentence(text="no")).stream("hi")
    assert next(stream).content
    with pytest.raises(BudgetExceeded):
        list(stream)


def test_the_soft_limit_is_told_once_and_nothing_else_changes(make_budget):
    budget = make_budget(usd_per_day=0.1, soft=0.5, per="user")
    with capture_events() as events:
        for _ in range(9):
            budget.invoke("hi", chainops.caller(user="ann"))
    (told,) = events.of(BudgetSoft)
    assert (told.window, told.of, told.limit_usd) == ("day", "ann", 0.1)
    assert told.spent_usd == pytest.approx(0.05)


def test_from_the_soft_limit_on_a_cheaper_route_answers(make_budget, books):
    cheap = model(Reply("cheap", usage={"input_tokens": 1, "output_tokens": 1, "total_tokens": 2}), name="cheap")
    budget = make_budget(usd_per_day=0.1, soft=0.2, at_soft={"route": "cheap"}, cheaper=cheap)
    said = []
    for _ in range(4):
        said.append(budget.invoke("hi").content)
        assert books.flush(60)
    assert said == [TEN.text, TEN.text, "cheap", "cheap"]
    assert [each.content for each in everywhere(budget) if hasattr(each, "content")] == ["cheap", "cheap"]


def test_cancelled_and_failed_streams_cost_what_was_consumed_litellm_35568_35569(make_budget, store, books):
    cut = Reply("one two three four five", fail_after_chunks=2, error=ConnectionError("cut"))
    with pytest.raises(ModelUnavailable):
        list(make_budget(model(cut), usd_per_day=5).stream("hi"))
    stream = make_budget(model(Reply("one two three four five")), usd_per_day=5).stream("hi")
    next(stream)
    stream.close()

    async def leave():
        chunks = make_budget(model(Reply("one two three")), usd_per_day=5).astream("hi")
        await anext(chunks)
        await chunks.aclose()

    asyncio.run(leave())
    with pytest.raises(ModelUnavailable):  # failed before its first word: nothing to pay
        make_budget(model(BROKEN), usd_per_day=5).invoke("hi")
    rows = spent(store, books)
    assert (rows["failed"]["calls"], rows["cancelled"]["calls"]) == (2, 2)
    assert rows["failed"]["usd"] > 0
    assert rows["cancelled"]["usd"] > 0
    total = sum(each["usd"] for each in rows.values())
    (counted,) = SqlCounters(store).totals("help/budget", key_of_chain(), [today()])
    assert counted.nano_usd == pytest.approx(total * 1e9, abs=4)
    assert SqlCounters(store).holds(before=time.time() + 1) == []


def key_of_chain():
    from chainops.core.caller import Caller
    from chainops.resilience.budgets.policy import key_of

    return key_of("chain", Caller())


def today():
    from chainops.resilience.budgets.policy import windows

    return windows(BudgetSettings(usd_per_day=1), time.time())[0].id


class Slow(SqlCounters):
    """Tells when a reservation is under way, and waits."""

    began, go_on = threading.Event(), threading.Event()

    def reserve(self, *arguments, **more):
        self.began.set()
        self.go_on.wait(60)
        return super().reserve(*arguments, **more)


def test_a_caller_who_leaves_while_money_is_set_aside_leaves_nothing_behind(make_budget, store, eventually):
    books = Books(Slow(store), SqlLedger(store))
    budget = make_budget(books=books, usd_per_day=5)

    async def leave():
        task = asyncio.ensure_future(budget.ainvoke("hi"))
        await asyncio.to_thread(Slow.began.wait, 60)
        task.cancel()
        Slow.go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(leave())
    eventually(lambda: books.flush() and not SqlCounters(store).holds(before=time.time() + 1))
    assert SqlCounters(store).totals("help/budget", key_of_chain(), [today()])[0].nano_usd == 0


def test_money_set_aside_after_the_caller_left_is_given_back(make_budget, store, books):
    """The store answers when nobody waits for it any more."""

    class Leaves(Component):
        def plan(self, value, run):
            gate = BudgetGate(BudgetSettings(usd_per_day=5), run, lambda: books, budget="b")
            attempt = run.attempts.reserve("m", expect=lambda: Expected(1, 1, 0.5))
            steps = gate.enter(attempt, run)
            setting_aside = next(steps)
            with pytest.raises(Cancelled):
                steps.throw(Cancelled())
            setting_aside.work()
            return value
            yield

    Leaves().invoke("hi")
    assert books.flush(60)
    assert SqlCounters(store).holds(before=time.time() + 1) == []
    assert SqlCounters(store).totals("b", key_of_chain(), [today()])[0].nano_usd == 0


def test_a_call_refused_for_the_day_is_not_charged_to_the_request(make_budget):
    chain = Fallback(routes=(model(expects=30), model(name="second")), names=("first", "second"))
    budget = make_budget(chain, usd_per_day=0.02, usd_per_request=0.035)
    assert budget.invoke("hi").response_metadata["chainops"]["served_by"] == "openai:second"


class Gone:
    """A store that cannot be reached, until it can."""

    place = "redis://gone"

    def __init__(self, counters):
        self.counters, self.is_gone = counters, True

    def __getattr__(self, name):
        if self.is_gone:
            raise StoreUnavailable(self.place, "gone", "wait")
        return getattr(self.counters, name)


def test_a_store_that_is_gone_refuses_or_lets_through_as_declared(make_budget, store):
    gone = Gone(SqlCounters(store))
    books = Books(gone, SqlLedger(store))
    for error in everywhere(make_budget(books=books, usd_per_day=5)):
        assert isinstance(error, BudgetUnreachable)
    with capture_events() as events:
        make_budget(books=books, usd_per_day=5, when_unreachable="allow").invoke("hi")
    assert events.of(BudgetUnchecked)
    assert not books.flush(0.1)
    gone.is_gone = False
    assert books.flush(60)
    assert spending(store, "help", "outcome").rows[0]["calls"] == 1


def test_when_too_much_waits_the_hold_stays_and_an_event_tells(make_budget, store):
    books = Books(SqlCounters(store), SqlLedger(store), waiting_at_most=0)
    with capture_events() as events:
        make_budget(books=books, usd_per_day=5).invoke("hi")
    assert events.of(SpendingUnwritten)[0].model == "openai:dear"
    assert len(SqlCounters(store).holds(before=time.time() + 1)) == 1


def test_a_refusal_further_in_gives_the_money_back(make_budget, store, books):
    inner = make_budget(usd_per_day=0.001, name="inner")
    outer = make_budget(inner, usd_per_day=5, name="outer")
    with pytest.raises(BudgetExceeded) as caught:
        outer.invoke("hi")
    assert caught.value.budget == "help/inner"
    assert spent(store, books) == {}
    assert SqlCounters(store).totals("help/outer", key_of_chain(), [today()])[0].nano_usd == 0


def test_a_call_inside_two_budgets_is_noted_once(make_budget, store, books):
    make_budget(make_budget(usd_per_day=5, name="inner"), usd_per_day=5, name="outer").invoke("hi")
    assert spent(store, books)["ok"]["calls"] == 1
    for name in ("inner", "outer"):
        counted = SqlCounters(store).totals(f"help/{name}", key_of_chain(), [today()])
        assert counted[0].nano_usd == 10_000_000


def test_the_callers_budget_holds_in_a_chain_that_declares_none(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    price = {"input_usd_per_million_tokens": 0, "output_usd_per_million_tokens": 1_000}
    with ModelServer("one two three") as server:
        models = {"m": {"model": "openai:m", "base_url": server.url, "max_tokens": 10, "price": price}}
        words = {"name": "talk", "kind": "chat", "models": models, "traces": "off"}
        chain = chainops.declare(words, base=tmp_path)
        assert chain.invoke("hi", chainops.caller(budget_usd=0.01)).text == "one two three"
        with pytest.raises(BudgetExceeded, match="the request's budget"):
            chain.invoke("hi", chainops.caller(budget_usd=0.009))
        assert len(server.requests) == 1


def test_a_forked_child_spends_and_notes_on_its_own(make_budget, store, books):
    make_budget(usd_per_day=5).invoke("hi")
    child = os.fork()
    if not child:
        try:
            make_budget(usd_per_day=5).invoke("hi")
            os._exit(0 if books.flush(60) else 1)
        finally:
            os._exit(2)
    _, status = os.waitpid(child, 0)
    assert status == 0
    assert spent(store, books)["ok"]["calls"] == 2


KILLED = """
import sys, time
from pathlib import Path
from chainops.models.model import Model
from chainops.models.prices import Price
from chainops.resilience.budgets.books import Books
from chainops.resilience.budgets.component import Budget
from chainops.resilience.budgets.gate import BudgetGate, gate_of_caller
from chainops.resilience.budgets.policy import BudgetSettings
from chainops.resilience.budgets.sql_counters import SqlCounters
from chainops.resilience.budgets.sql_ledger import SqlLedger
from chainops.stores.sql import SqlStore
from chainops.testing.chat import Reply, ScriptedChatModel

store = SqlStore(Path(sys.argv[1]))
books = Books(SqlCounters(store), SqlLedger(store))
chat = ScriptedChatModel(replies=[Reply("one two", chunk_delay_s=60, delay_s=0)], loop=True)
price = Price(input_usd_per_million_tokens=0, output_usd_per_million_tokens=1_000)
model = Model(chat=lambda: chat, model="openai:dear", price=price, expected_output_tokens=10)
budget = Budget(inner=model, books=lambda: books, settings=BudgetSettings(usd_per_day=5), chain="help", name="budget")
for chunk in budget.stream("hi"):
    print("speaking", flush=True)
"""


@pytest.mark.slow
def test_a_killed_process_leaves_its_estimate_which_is_noted_as_lost(tmp_path):
    path = tmp_path / "killed.db"
    process = subprocess.Popen([sys.executable, "-c", KILLED, path], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "speaking\n"
    os.kill(process.pid, signal.SIGKILL)
    process.wait(10)
    store = SqlStore(path)
    books = Books(SqlCounters(store), SqlLedger(store))
    assert SqlCounters(store).totals("help/budget", key_of_chain(), [today()])[0].nano_usd == 10_000_000
    assert books.adopt_lost(time.time()) == 0, "it may still be under way"
    assert books.adopt_lost(time.time() + 3_700) == 1
    assert books.adopt_lost(time.time() + 3_700) == 0
    (row,) = spending(store, "help", "outcome").rows
    assert (row["what"], row["usd"], row["output_tokens"]) == ("lost", pytest.approx(0.01), 10)
    assert SqlCounters(store).totals("help/budget", key_of_chain(), [today()])[0].nano_usd == 10_000_000
    store.close()
