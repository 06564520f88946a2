from __future__ import annotations

from types import SimpleNamespace

from hypothesis import assume, given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage

from chainops.cache import policy
from chainops.core.caller import Caller

names = st.one_of(st.none(), st.text(max_size=5))


def key(value="q", *, answered_by="a", share="tenant", kwargs=None, exact=False, **caller):
    asked = policy.asked(value)
    if asked is None:
        return None
    alone = None if exact else policy.by_rules(asked)
    if alone is None and not exact:
        return None
    asker = Caller(**caller)
    told = policy.settings_of(kwargs or {}, {}, asker)
    return policy.key_of(asked, answered_by=answered_by, share=share, caller=asker, kwargs=told, alone=alone)


@given(names, st.text(max_size=5), names, st.text(max_size=5))
def test_vsr_2134_two_tenants_never_share_a_scope(tenant, user, other_tenant, other_user):
    assume(tenant != other_tenant)
    for share in ("tenant", "user"):
        one = key(tenant=tenant, user=user, share=share)
        other = key(tenant=other_tenant, user=other_user, share=share)
        assert one.scope != other.scope


@given(names, st.text(max_size=5), st.text(max_size=5))
def test_users_of_a_tenant_share_only_where_declared(tenant, user, other):
    assume(user != other)
    assert key(tenant=tenant, user=user).scope == key(tenant=tenant, user=other).scope
    assert key(tenant=tenant, user=user, share="user").scope != key(tenant=tenant, user=other, share="user").scope


def test_vsr_3423_history_system_prompt_tools_and_what_answers_are_part_of_the_scope():
    plain = key()
    others = [
        key({"question": "q", "history": [{"role": "user", "text": "before"}]}, exact=True),
        key({"question": "q", "language": "de"}),
        key([SystemMessage("be brief"), HumanMessage("q")]),
        key(kwargs={"tools": [{"name": "search"}]}),
        key(answered_by="other model"),
    ]
    assert len({each.scope for each in [plain, *others]}) == 6
    assert {each.exact for each in [plain, *others]} == {plain.exact}


@given(names, names, st.text(max_size=5), st.sampled_from(("tenant", "all")))
def test_a_bare_question_has_the_scope_that_all_its_parts_give(tenant, user, answered_by, share):
    who = [tenant] if share == "tenant" else []
    parts = [share, who, answered_by, [], [], {}, {"configurable": {}, "flags": {}}]
    found = key(tenant=tenant, user=user, answered_by=answered_by, share=share)
    assert found.scope == policy.digest(parts)
    assert found.scope != key(tenant=tenant, answered_by=answered_by, share=share, flags={"a": 1}).scope


def test_the_same_request_in_other_clothes_has_the_same_key():
    assert key("q") == key({"question": "q"}) == key({"question": "q", "history": []}) == key([HumanMessage("q")])
    assert key("a  b\n").exact == key("a b").exact
    assert key("e\u0301").exact == key("\u00e9").exact
    assert key("q").exact != key("Q").exact


def test_bifrost_2791_the_key_does_not_depend_on_the_order_of_words():
    assert key({"question": "q", "a": 1, "b": 2}) == key({"b": 2, "a": 1, "question": "q"})


def test_the_same_conversation_word_for_word_is_an_exact_repeat_only():
    assert key("q").may_be_near
    assert not key([HumanMessage("a"), AIMessage("b"), HumanMessage("q")], exact=True).may_be_near


def test_a_system_message_is_part_of_the_scope_and_no_conversation():
    alone = key([SystemMessage("be brief"), HumanMessage("How do I sort a list in Python?")])
    within = key(
        [
            SystemMessage("be brief"),
            HumanMessage("Hi"),
            AIMessage("Hello"),
            HumanMessage("How do I sort a list in Python?"),
        ]
    )
    assert (alone.scope, alone.exact) == (within.scope, within.exact)
    assert (alone.in_conversation, within.in_conversation) == (False, True)


def test_what_has_no_plain_form_is_not_cached():
    assert key(object()) is None
    assert key({"question": "q", "thing": object()}) is None
    assert key([HumanMessage([{"type": "image_url", "image_url": "x"}])]) is None


@given(st.text(max_size=30))
def test_any_text_has_a_key(question):
    assert len(key(question).exact) == 64


def test_without_a_user_nothing_is_shared_per_user():
    assert key(share="user") is None
    assert key(share="user", user="ann") is not None


def test_conversations_that_differ_in_what_was_called_or_shown_differ_in_scope():
    def asked(city, picture):
        call = {"name": "weather", "args": {"city": city}, "id": "1"}
        shown = HumanMessage([{"type": "image_url", "image_url": {"url": picture}}])
        history = [shown, AIMessage(content="", tool_calls=[call])]
        ways = ([*history, HumanMessage("q")], {"question": "q", "history": history})
        assert {key(way) for way in ways} == {None}
        return tuple(key(way, exact=True).scope for way in ways)

    scopes = [*asked("Rome", "cat"), *asked("Oslo", "cat"), *asked("Rome", "dog")]
    assert len(set(scopes)) == 3


def test_only_whole_good_answers_are_kept():
    def why(status="ok", may_cache=True, text="x", has_tool_calls=False, is_unknown=False, in_conversation=False):
        report = SimpleNamespace(status=status, may_cache=may_cache, is_unknown=is_unknown)
        asked = policy.Key("s", "e", "q", may_be_near=True, in_conversation=in_conversation)
        return policy.why_not_kept(
            report, asked, text=text, has_tool_calls=has_tool_calls, keep_unknown=False, keep_personal=False
        )

    assert why() is None
    for status in ("cached", "degraded", "truncated", "pending_review", "refused"):
        assert status in why(status)
    assert why(may_cache=False)
    assert why(text=" ")
    assert why(text="", has_tool_calls=True) is None
    assert "keep_unknown" in why(is_unknown=True)
    assert why(text="As I said above, call open().") is None
    assert why(text="As I said above, call open().", in_conversation=True)


def test_age_counts_from_storing_so_a_popular_stale_answer_dies():
    assert policy.is_alive(10, now=19.9, ttl_s=10)
    assert not policy.is_alive(10, now=20, ttl_s=10)
    assert policy.is_alive(0, now=1e9, ttl_s=None)


def test_an_entry_from_further_in_the_future_than_clocks_differ_is_not_served():
    assert policy.is_alive(100, now=0, ttl_s=10)
    assert not policy.is_alive(1000, now=0, ttl_s=10)
