"""What once went wrong around the cache, each a promise since."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.runnables import RunnableLambda

import chainops
from chainops.cache.cache import Cache
from chainops.cache.records import CacheKept
from chainops.cache.sharing.flight import Flights
from chainops.cache.stores.sql_records import SqlRecords
from chainops.core.clock import use_clock
from chainops.core.component import Component
from chainops.core.steps import Do, Say
from chainops.resilience.component import Fallback, Sentence
from chainops.testing.listening import ManualClock, capture_events

ACME, GLOBEX = chainops.caller(tenant="acme"), chainops.caller(tenant="globex")
QUESTION = "How do I sort a list in Python?"


@pytest.fixture
def counted():
    asked = []

    def answer(value):
        asked.append(value)
        return AIMessage(content=f"answer {len(asked)}")

    answer.asked = asked
    return answer


class Held(Component[object, AIMessage]):
    """Answers once it is let go, as it is told to."""

    asked: list
    go: threading.Event
    may_cache: bool = True
    text: str = "answer"

    def plan(self, value, run):
        self.asked.append(value)
        number = len(self.asked)
        run.report.may_cache = self.may_cache
        yield Do(lambda: self.go.wait(120))
        message = AIMessage(content=f"{self.text} {number}")
        yield Say(message)
        return message


def together(held, flights, *calls):
    """Run calls at the same time; the first leads. All are let go when each has joined, or asked for itself."""

    def are_there():
        on_board = sum(flight.on_board for flight in list(flights._boarded))
        return len(calls) in (on_board, len(held.asked))

    with ThreadPoolExecutor(len(calls)) as pool:
        running = [pool.submit(calls[0])]
        while not held.asked:
            time.sleep(0.002)
        running += [pool.submit(call) for call in calls[1:]]
        until = time.monotonic() + 60
        while not are_there():
            assert time.monotonic() < until
            time.sleep(0.002)
        held.go.set()
        return [each.result() for each in running]


def test_under_share_all_an_unverified_answer_of_another_tenant_is_not_even_an_exact_hit(make_cache, counted):
    cache = make_cache(counted, share="all")
    assert cache.invoke(QUESTION, ACME).text == "answer 1"
    for _ in range(2):  # held in process, and from the store
        assert cache.invoke(QUESTION, GLOBEX).text != "answer 1"


def test_under_share_all_a_verified_answer_is_not_replaced_by_another_tenants_refresh(make_cache, counted):
    cache = make_cache(counted, share="all")
    cache.invoke(QUESTION, ACME)
    ((entry, _, _),) = Cache(cache).entries()
    Cache(cache).verify(entry.id)
    cache.invoke(QUESTION, chainops.caller(tenant="globex", cache="refresh"))
    assert [each.id for each, _, _ in Cache(cache).entries()] == [entry.id]


def test_under_share_all_tenants_do_not_share_a_call(make_cache):
    held, flights = Held(asked=[], go=threading.Event()), Flights()
    cache = make_cache(held, share="all", flights=flights)
    told = together(held, flights, lambda: cache.invoke(QUESTION, ACME), lambda: cache.invoke(QUESTION, GLOBEX))
    assert len({each.text for each in told}) == 2


@pytest.mark.parametrize(
    "secret", [{"may_cache": False}, {"text": "write to ann@lee-family.org"}], ids=["told not to", "personal"]
)
def test_what_may_not_be_kept_is_not_shared_with_those_who_ask_at_once(make_cache, secret):
    held, flights = Held(asked=[], go=threading.Event(), **secret), Flights()
    cache = make_cache(held, flights=flights)
    told = together(held, flights, lambda: cache.invoke(QUESTION), lambda: cache.invoke(QUESTION))
    assert len({each.text for each in told}) == 2
    assert {each.status for each in told} == {"ok"}


def test_who_asks_with_personal_data_asks_alone(make_cache):
    held, flights = Held(asked=[], go=threading.Event()), Flights()
    cache, question = make_cache(held, flights=flights), "what do you know of ann@lee-family.org"
    told = together(held, flights, lambda: cache.invoke(question), lambda: cache.invoke(question))
    assert len({each.text for each in told}) == 2


def test_shadow_mode_shares_no_call(make_cache):
    held, flights = Held(asked=[], go=threading.Event()), Flights()
    cache = make_cache(held, flights=flights, mode="shadow")
    told = together(held, flights, lambda: cache.invoke(QUESTION), lambda: cache.invoke(QUESTION))
    assert {each.status for each in told} == {"ok"}
    assert len(held.asked) == 2


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Budget: 500 euros, two dogs.", "Budget: 9000 euros, a baby."),
        ("Wir fahren nach Rom.", "Wir fahren nach Oslo."),
    ],
)
def test_what_was_stated_before_keeps_conversations_apart(make_cache, counted, one, other):
    cache = make_cache(counted)
    for said in (one, other):
        history = [{"role": "user", "text": said}, {"role": "assistant", "text": "Noted."}]
        assert cache.invoke({"question": QUESTION, "history": history}).status == "ok"


@pytest.mark.parametrize("question", ["How much does the premium plan cost?", "Und wie viel kostet sie im Monat?"])
def test_what_points_back_is_not_served_from_another_conversation(make_cache, counted, question):
    cache = make_cache(counted, threshold=1)
    for topic in ("Which films are on Netflix today?", "Which songs are on Spotify today?"):
        history = [{"role": "user", "text": topic}, {"role": "assistant", "text": "Many."}]
        assert cache.invoke({"question": question, "history": history}).status == "ok"


def test_turns_that_hold_more_than_text_are_not_taken_for_text(make_cache, counted):
    cache = make_cache(counted)
    for picture in ("A.png", "B.png"):
        history = [{"role": "user", "text": "look", "image": picture}]
        assert cache.invoke({"question": QUESTION, "history": history}).status == "ok"


def test_lines_and_indentation_count_in_an_exact_repeat(make_cache, counted):
    cache = make_cache(counted, threshold=1)
    for code in ("for i in x:\n    x = i\n    print(x)", "for i in x:\n    x = i\nprint(x)"):
        assert cache.invoke(f"What does this print?\n{code}").status == "ok"


def test_what_a_request_is_configured_with_is_part_of_its_key(make_cache, counted):
    cache = make_cache(counted)
    for language in ("en", "fr"):
        assert cache.invoke(QUESTION, {"configurable": {"language": language}}).status == "ok"
    assert cache.invoke([HumanMessage(QUESTION, name="admin")]).status == "ok"
    assert cache.invoke([HumanMessage(QUESTION, name="guest")]).status == "ok"


def test_an_older_call_does_not_replace_a_newer_answer(make_cache):
    held, flights = Held(asked=[], go=threading.Event()), Flights()
    cache = make_cache(held, flights=flights)
    quick = make_cache(lambda _: AIMessage(content="new"), flights=flights)
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(cache.invoke, QUESTION)
        while not held.asked:
            time.sleep(0.002)
        assert quick.invoke(QUESTION, chainops.caller(cache="refresh")).text == "new"
        held.go.set()
        slow.result()
    assert cache.invoke(QUESTION).text == "new"


def test_a_join_is_a_hit_and_no_miss(make_cache):
    held, flights = Held(asked=[], go=threading.Event()), Flights()
    cache = make_cache(held, flights=flights)
    together(held, flights, lambda: cache.invoke(QUESTION), lambda: cache.invoke(QUESTION))
    stats = Cache(cache).stats()
    assert (stats.requests, stats.missed, stats.hits["joined"]) == (2, 1, 1)


def test_an_audit_that_no_longer_knows_counts_against_what_was_served(make_cache):
    class Forgets(Component[str, AIMessage]):
        asked: list

        def plan(self, value, run):
            self.asked.append(value)
            run.report.is_unknown = len(self.asked) > 1
            message = AIMessage(content="I do not know." if run.report.is_unknown else "It opens at nine.")
            yield Say(message)
            return message

    cache = make_cache(Forgets(asked=[]), audit_rate=1)
    cache.invoke("tell me when the zoo opens")
    assert cache.invoke("tell us when the zoo opens").status == "cached"
    assert Cache(cache).drain(60)
    standing = Cache(cache).stats().standing
    assert (standing.audits, standing.wrong) == (1, 1)


def test_an_answer_reported_as_wrong_is_not_kept_again(make_cache):
    cache = make_cache(lambda _: AIMessage(content="always this"))
    cache.invoke(QUESTION)
    Cache(cache).wrong(cache.invoke(QUESTION), "no")
    with capture_events() as events:
        assert [cache.invoke(QUESTION).status for _ in range(2)] == ["ok", "ok"]
    assert all("reported as wrong" in each.reason for each in events.of(CacheKept))


def test_a_hit_is_not_late_because_it_is_paced(make_cache):
    cache = make_cache(lambda _: AIMessage(content="word " * 200), pace_tokens_per_s=50)
    with use_clock(ManualClock()):
        cache.invoke(QUESTION)
        assert cache.invoke(QUESTION, chainops.caller(deadline_s=0.5)).status == "cached"


class Oversleeping(ManualClock):
    """As on a busy machine: whoever sleeps wakes up half a second late."""

    def sleep(self, seconds):
        super().sleep(seconds + 0.5)


def test_a_hit_is_not_late_because_a_pause_took_longer_than_it_should(make_cache):
    cache = make_cache(lambda _: AIMessage(content="word " * 200), pace_tokens_per_s=50)
    around = Fallback(routes=(cache, Sentence(text="too late")))

    async def astreamed(chain):
        return [each async for each in chain.astream(QUESTION, chainops.caller(deadline_s=0.3))]

    with use_clock(Oversleeping()):
        cache.invoke(QUESTION)
        for chain in (cache, around):
            for said in (list(chain.stream(QUESTION, chainops.caller(deadline_s=0.3))), asyncio.run(astreamed(chain))):
                assert "".join(each.text for each in said) == "word " * 200


class Ticking(ManualClock):
    """Time passes with each look. Whoever sleeps wakes up at `until`, if that is later than it should."""

    until = 0.0

    def monotonic(self):
        self.now += 2e-5
        return self.now

    def sleep(self, seconds):
        self.now = max(self.now + seconds, self.until)


@pytest.mark.parametrize("left_s", [None, 0.0, 1e-4, 3e-4, 0.03])
def test_a_paced_hit_hurries_when_time_runs_out_and_nothing_further_out_cuts_it(make_cache, left_s):
    cache = make_cache(lambda _: AIMessage(content="word " * 1000), pace_tokens_per_s=1000)
    around = Fallback(routes=(cache, Sentence(text="too late")))

    async def astreamed():
        return [each async for each in around.astream(QUESTION, chainops.caller(deadline_s=0.3))]

    def streamed():
        return list(around.stream(QUESTION, chainops.caller(deadline_s=0.3)))

    with use_clock(Ticking()) as clock:
        cache.invoke(QUESTION)
        for hear in (streamed, lambda: asyncio.run(astreamed())):
            clock.until = 0.0 if left_s is None else clock.now + 0.3 - left_s
            said = hear()
            assert ("".join(each.text for each in said), said[-1].status) == ("word " * 1000, "cached")


def circular():
    value = {"question": QUESTION}
    value["self"] = value
    return value


def deep():
    value = {}
    for _ in range(5000):
        value = {"x": value}
    return {"question": QUESTION, "more": value}


@pytest.mark.parametrize(
    "value", [{"question": QUESTION, "history": 5}, circular(), deep()], ids=["history", "circular", "deep"]
)
def test_a_request_that_has_no_plain_form_is_asked_all_the_same(make_cache, value):
    assert make_cache(RunnableLambda(lambda _: AIMessage(content="fine"))).invoke(value).text == "fine"


def test_an_answer_that_holds_what_is_no_json_is_given_and_not_kept(make_cache):
    odd = AIMessage(content="fine", additional_kwargs={"thing": object(), "bytes": b"\xff"})
    cache = make_cache(lambda _: odd)
    with capture_events() as events:
        assert cache.invoke(QUESTION).text == "fine"
    assert events.of(CacheKept)[0].entry is None


def test_a_model_that_stopped_before_the_end_is_not_kept(make_cache):
    for metadata in ({"finish_reason": "length"}, {"stopReason": "guardrail_intervened"}, {"done_reason": "length"}):
        cache = make_cache(lambda _, told=metadata: AIMessage(content="half", response_metadata=told))
        assert [cache.invoke(QUESTION).status for _ in range(2)] == ["ok", "ok"]


def test_an_embedding_model_that_breaks_costs_similar_hits_and_nothing_else(make_cache, make_replica, counted):
    class Broken:
        name, digest, dimensions = "broken", "b", 4

        def embed(self, texts):
            raise RuntimeError("no")

    cache = make_cache(counted, replica=make_replica(embedder=Broken()))
    assert [cache.invoke(QUESTION).status for _ in range(2)] == ["ok", "cached"]


def test_an_older_call_does_not_replace_an_answer_that_is_stored_in_the_moment_before_it(
    make_cache, make_replica, store
):
    records = SqlRecords(store)
    replica = make_replica(records=records)
    cache = make_cache(lambda _: AIMessage(content="old"), replica=replica)
    newer = make_cache(lambda _: AIMessage(content="new"), replica=replica, flights=Flights())
    put = records.put

    def overtaken(*told, **more):
        records.put = put
        newer.invoke(QUESTION, chainops.caller(cache="refresh"))
        return put(*told, **more)

    records.put = overtaken
    with capture_events() as events:
        assert cache.invoke(QUESTION).text == "old"
    assert any("older than" in (each.reason or "") for each in events.of(CacheKept))
    assert cache.invoke(QUESTION).text == "new"
