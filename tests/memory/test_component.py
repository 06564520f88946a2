from __future__ import annotations

import uuid

from langchain_core.messages import AIMessage

import chainops
from chainops.core.component import Component
from chainops.core.steps import Say
from chainops.memory.component import Remember
from chainops.memory.records import Sessions


class Inner(Component[object, AIMessage]):
    """Answers with the history it was given."""

    status: str = "ok"

    def plan(self, value, run):
        if self.status != "ok":
            run.report.mark(self.status, "told to")
        message = AIMessage(content=" | ".join(turn["text"] for turn in value.get("history", [])) or "nothing before")
        yield Say(message)
        return message


def ask(remember, question, **facts):
    return remember.invoke({"question": question, "history": []}, chainops.caller(**facts))


def test_a_session_continues_and_the_window_bounds_it(store):
    remember = Remember(inner=Inner(), sessions=lambda: Sessions(store), window=2)
    session = uuid.uuid4().hex
    assert ask(remember, "one", session=session).text == "nothing before"
    assert ask(remember, "two", session=session).text == "one | nothing before"
    assert ask(remember, "three", session=session).text == "two | one | nothing before"


def test_without_a_session_nothing_is_remembered_and_sessions_of_others_are_not_seen(store):
    remember = Remember(inner=Inner(), sessions=lambda: Sessions(store))
    session = uuid.uuid4().hex
    ask(remember, "mine", session=session, user="ann", tenant="acme")
    for other in ({"user": "bob", "tenant": "acme"}, {"user": "ann", "tenant": "globex"}, {}):
        assert ask(remember, "q", session=session, **other).text == "nothing before"
    assert ask(remember, "q", user="ann", tenant="acme").text == "nothing before"


def test_history_given_by_the_caller_goes_first_and_bad_answers_are_not_remembered(store):
    session = uuid.uuid4().hex
    given = Remember(inner=Inner(), sessions=lambda: Sessions(store))
    value = {"question": "q", "history": [{"role": "user", "text": "given"}]}
    assert given.invoke(value, chainops.caller(session=session)).text == "given"
    refused = Remember(inner=Inner(status="refused"), sessions=lambda: Sessions(store))
    ask(refused, "secret", session=session)
    assert "secret" not in ask(given, "q", session=session).text


def test_a_stream_that_is_closed_halfway_is_not_remembered(store):
    remember = Remember(inner=Inner(), sessions=lambda: Sessions(store))
    config = chainops.caller(session=uuid.uuid4().hex)
    stream = remember.stream({"question": "half", "history": []}, config)
    next(stream)
    stream.close()
    assert remember.invoke({"question": "q", "history": []}, config).text == "nothing before"
