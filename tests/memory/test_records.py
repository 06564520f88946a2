import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chainops.core.errors import InvalidInput
from chainops.memory.records import SessionKey, Sessions, Turn


@pytest.fixture
def sessions(store) -> Sessions:
    return Sessions(store)


def new_key(session="s"):
    return SessionKey(f"tenant {uuid.uuid4()}", "ann", session)


def exchange(n):
    return [Turn("user", f"question {n}"), Turn("assistant", f"answer {n}")]


def test_a_window_is_the_last_turns_oldest_first(sessions):
    key = new_key()
    for n in range(5):
        sessions.append(key, exchange(n), at=n)
    assert sessions.window(key, 4) == exchange(3) + exchange(4)
    assert sessions.window(key, 3) == exchange(3)[1:] + exchange(4)
    assert len(sessions.window(key, 100)) == 10


def test_a_session_nobody_began_is_empty(sessions):
    key = new_key()
    assert sessions.window(key, 5) == []
    assert sessions.clear(key) == 0
    sessions.append(key, [], at=0)
    assert sessions.window(key, 5) == []


def test_a_window_of_nothing_is_empty_and_of_less_is_refused(sessions):
    key = new_key()
    sessions.append(key, exchange(0), at=0)
    assert sessions.window(key, 0) == []
    with pytest.raises(InvalidInput, match="window"):
        sessions.window(key, -1)


def test_question_and_answer_of_concurrent_writers_stay_together(sessions):
    key = new_key()

    def work(worker):
        for n in range(15):
            sessions.append(key, exchange(f"{worker}-{n}"), at=n)

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(work, range(6)))
    turns = sessions.window(key, 1000)
    assert len(turns) == 2 * 15 * 6
    pairs = [turns[at : at + 2] for at in range(0, len(turns), 2)]
    seen = [question.text.removeprefix("question ") for question, _ in pairs]
    assert pairs == [exchange(name) for name in seen]
    for worker in range(6):
        assert [name for name in seen if name.startswith(f"{worker}-")] == [f"{worker}-{n}" for n in range(15)]


def test_turns_after_a_gap_are_still_in_order(sessions, store):
    key = new_key()
    for n in range(3):
        sessions.append(key, exchange(n), at=n)
    turns = sessions._turns
    with store.write() as connection:  # as a retention job would: the oldest exchange goes
        connection.execute(turns.delete().where(turns.c.tenant == key.tenant, turns.c.position < 2))
    sessions.append(key, exchange(3), at=3)
    assert sessions.window(key, 10) == exchange(1) + exchange(2) + exchange(3)


def test_clearing_while_others_append_leaves_whole_exchanges(sessions):
    key = new_key()

    def work(worker):
        for n in range(15):
            sessions.append(key, exchange(f"{worker}-{n}"), at=n)
            if worker == 0:
                sessions.clear(key)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(work, range(4)))
    turns = sessions.window(key, 1000)
    assert [turn.role for turn in turns] == ["user", "assistant"] * (len(turns) // 2)


def test_an_append_that_fails_keeps_nothing(sessions):
    key = new_key()
    sessions.append(key, exchange(0), at=0)
    with pytest.raises(TypeError):
        sessions.append(key, [Turn("user", "kept?"), Turn("assistant", object())], at=1)
    sessions.append(key, exchange(1), at=2)
    assert sessions.window(key, 10) == exchange(0) + exchange(1)


def test_a_cleared_session_starts_anew_and_others_stay(sessions):
    key = new_key()
    other = SessionKey(key.tenant, key.user, "other")
    for each in (key, other):
        sessions.append(each, exchange(0), at=0)
    assert sessions.clear(key) == 2
    assert sessions.window(key, 10) == []
    assert sessions.window(other, 10) == exchange(0)
    sessions.append(key, exchange(1), at=1)
    assert sessions.window(key, 10) == exchange(1)


def test_forgetting_a_user_takes_all_their_sessions_and_no_one_elses(sessions):
    key = new_key()
    same_user = SessionKey(key.tenant, key.user, "other")
    other_user = SessionKey(key.tenant, "bob", key.session)
    other_tenant = SessionKey(new_key().tenant, key.user, key.session)
    for each in (key, same_user, other_user, other_tenant):
        sessions.append(each, exchange(0), at=0)
    assert sessions.forget(key.tenant, key.user) == 4
    assert sessions.forget(key.tenant, key.user) == 0
    assert sessions.window(key, 10) == sessions.window(same_user, 10) == []
    assert sessions.window(other_user, 10) == sessions.window(other_tenant, 10) == exchange(0)


def test_forgotten_words_are_in_no_file_of_the_store(sqlite_store):
    sessions, key = Sessions(sqlite_store), new_key()
    folder = Path(sqlite_store.place).parent
    sessions.append(key, [Turn("user", "my secret illness" * 20)], at=0)
    assert any(b"my secret illness" in path.read_bytes() for path in folder.iterdir())
    sessions.forget(key.tenant, key.user)
    assert not any(b"my secret illness" in path.read_bytes() for path in folder.iterdir())


names = st.one_of(
    st.sampled_from(
        ["", "a", "A", "a ", " a", "á", "a\u0301", "a/b", "a\tb", "%", "_", "'", "ß", "ss", "İ", "i", "\u200b"]
    ),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20),
)
keys = st.builds(SessionKey, names, names, names)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(said=st.lists(st.tuples(keys, st.text(max_size=10)), min_size=1, max_size=10), forgotten=st.tuples(names, names))
def test_no_name_ever_reads_or_forgets_what_belongs_to_another(sessions, said, forgotten):
    where = f"{uuid.uuid4()} "  # examples share the database
    model = {}
    for at, (key, text) in enumerate(said):
        real = SessionKey(where + key.tenant, key.user, key.session)
        sessions.append(real, [Turn("user", text)], at=at)
        kept = "".join("\ufffd" if char == "\0" or "\ud800" <= char <= "\udfff" else char for char in text)
        model.setdefault(real, []).append(Turn("user", kept))
    for key, turns in model.items():
        assert sessions.window(key, 100) == turns
    tenant, user = where + forgotten[0], forgotten[1]
    gone = [key for key in model if (key.tenant, key.user) == (tenant, user)]
    assert sessions.forget(tenant, user) == sum(len(model.pop(key)) for key in gone)
    for key in gone:
        assert sessions.window(key, 100) == []
    for key, turns in model.items():
        assert sessions.window(key, 100) == turns


@pytest.mark.parametrize("name", ["a\0b", "\ud800", "x" * 201])
@pytest.mark.parametrize("field", ["tenant", "user", "session"])
def test_names_that_databases_cannot_keep_apart_are_refused(field, name):
    with pytest.raises(InvalidInput, match=field):
        SessionKey(**{"tenant": "t", "user": "u", "session": "s", field: name})


def test_the_longest_names_are_stored(sessions):
    name = "\U0001f642" * 160 + uuid.uuid4().hex
    key = SessionKey(name, name, name)
    sessions.append(key, exchange(0), at=0)
    assert sessions.window(key, 2) == exchange(0)


def test_a_megabyte_is_kept_whole(sessions):
    key, text = new_key(), "é" * 1_000_000
    sessions.append(key, [Turn("user", text)], at=0)
    assert sessions.window(key, 1) == [Turn("user", text)]
