import os
import pickle
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from multiprocessing import get_context
from pathlib import Path

import pytest
import sqlalchemy as sa

from chainops.core.errors import InvalidInput, StoreCorrupted, StoreError, StoreTooNew, StoreUnavailable
from chainops.stores import fork
from chainops.stores.sql import Schema, SqlStore, open_store
from chainops.testing.stores import SqlStoreSuite

TABLES = sa.MetaData()
ROWS = sa.Table("work_rows", TABLES, sa.Column("name", sa.String, primary_key=True), sa.Column("text", sa.Text))
SCHEMA = Schema("work", TABLES)


class TestSqlite(SqlStoreSuite):
    @pytest.fixture
    def store_url(self, tmp_path) -> Path:
        return tmp_path / "a folder" / "that is not there" / "chainops.db"


class TestPostgres(SqlStoreSuite):
    @pytest.fixture
    def store_url(self, postgres_url) -> str:
        return postgres_url


@pytest.fixture
def store(tmp_path):
    store = SqlStore(tmp_path / "chainops.db", wait_s=60)
    store.migrate(SCHEMA)
    yield store
    store.close()


def put(store, name, text=""):
    with store.write() as connection:
        connection.execute(ROWS.insert(), {"name": name, "text": text})


def put_many(store, count, text):
    for n in range(count):
        put(store, f"{n}", text)


def names(store):
    with store.read() as connection:
        return set(connection.execute(sa.select(ROWS.c.name)).scalars())


def run_python(code, *args, **options):
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, args)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


PREAMBLE = """
import sys
import sqlalchemy as sa
from chainops.core.errors import *
from chainops.stores.sql import Schema, SqlStore
TABLES = sa.MetaData()
ROWS = sa.Table("work_rows", TABLES, sa.Column("name", sa.String, primary_key=True), sa.Column("text", sa.Text))
SCHEMA = Schema("work", TABLES)
"""


def test_two_processes_write_a_thousand_rows_each_and_none_is_lost(tmp_path):
    code = (
        PREAMBLE
        + """
store = SqlStore(sys.argv[1], wait_s=60)
store.migrate(SCHEMA)
for n in range(1000):
    with store.write() as connection:
        connection.execute(ROWS.insert(), {"name": f"{sys.argv[2]}-{n}", "text": "x" * 200})
"""
    )
    url = f"sqlite:///{tmp_path}/chainops.db"
    workers = [run_python(code, url, worker) for worker in range(2)]
    for worker in workers:
        _, complaint = worker.communicate(timeout=400)
        assert worker.returncode == 0, complaint
    store = SqlStore(url)
    assert names(store) == {f"{worker}-{n}" for worker in range(2) for n in range(1000)}


def test_a_killed_writer_loses_nothing_it_was_told_is_kept(tmp_path):
    code = (
        PREAMBLE
        + """
store = SqlStore(sys.argv[1], wait_s=60)
store.migrate(SCHEMA)
n = 0
while True:
    with store.write() as connection:
        connection.execute(ROWS.insert(), {"name": f"{sys.argv[2]}-{n}", "text": "x" * 3000})
    print(f"{sys.argv[2]}-{n}", flush=True)
    n += 1
"""
    )
    url = f"sqlite:///{tmp_path}/chainops.db"
    acknowledged = set()
    for life in range(3):
        said = tmp_path / f"said {life}"
        with said.open("w") as file:
            writer = subprocess.Popen([sys.executable, "-c", code, url, str(life)], stdout=file)
        while said.read_text().count("\n") < 150 + 70 * life:
            assert writer.poll() is None
            time.sleep(0.001)
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait(60)
        acknowledged.update(said.read_text().split("\n")[:-1])
    store = SqlStore(url)
    kept = names(store)
    assert acknowledged <= kept
    assert len(kept) <= len(acknowledged) + 3, "at most the one in flight of each life came on top"
    with store.read() as connection:
        assert connection.execute(sa.text("PRAGMA integrity_check")).scalar() == "ok"


def test_four_processes_migrating_a_new_file_at_once_agree(tmp_path):
    code = (
        PREAMBLE
        + """
store = SqlStore(sys.argv[1], wait_s=60)
sys.stdin.readline()
store.migrate(SCHEMA)
with store.write() as connection:
    connection.execute(ROWS.insert(), {"name": sys.argv[2], "text": ""})
"""
    )
    url = f"sqlite:///{tmp_path}/new/chainops.db"
    workers = [run_python(code, url, worker, stdin=subprocess.PIPE) for worker in range(4)]
    for worker in workers:
        worker.stdin.write("go\n")
        worker.stdin.flush()
    for worker in workers:
        _, complaint = worker.communicate(timeout=240)
        assert worker.returncode == 0, complaint
    assert names(SqlStore(url)) == {"0", "1", "2", "3"}


def test_forked_children_write_beside_their_parent(store):
    put(store, "before")
    children = [get_context("fork").Process(target=write_many_into, args=(store, n)) for n in range(2)]
    for child in children:
        child.start()
    for n in range(50):
        put(store, f"parent-{n}")
    for child in children:
        child.join(240)
        assert child.exitcode == 0
    assert len(names(store)) == 1 + 50 + 2 * 50


def write_many_into(store, worker):
    for n in range(50):
        put(store, f"{worker}-{n}")


def test_single_statements_see_what_is_committed_and_are_committed(store):
    with store.write() as connection:
        connection.execute(ROWS.insert().values(name="one", text="1"))
    assert store.select("SELECT text FROM work_rows WHERE name = ?", ["one"]) == [("1",)]
    changed = "INSERT INTO work_rows VALUES (?, ?) ON CONFLICT DO NOTHING RETURNING name"
    assert store.change(changed, ["two", "2"]) == [("two",)]
    assert store.change(changed, ["two", "3"]) == []
    with store.read() as connection:
        assert connection.execute(sa.select(ROWS.c.text).where(ROWS.c.name == "two")).scalar() == "2"


def test_single_statements_wait_and_fail_as_transactions_do(store, tmp_path):
    with store.write(), pytest.raises(StoreError, match="already has a write open"):
        store.change("DELETE FROM work_rows", [])
    with pytest.raises(StoreError, match=r"write\(\)"):
        store.select("DELETE FROM work_rows", [])
    other = SqlStore(tmp_path / "chainops.db", wait_s=0.1)
    with store.write(), pytest.raises(StoreUnavailable):
        other.change("DELETE FROM work_rows", [])
    other.close()
    assert store.connections_in_use() == 0


def test_forked_children_use_single_statements_beside_their_parent(store):
    store.change("INSERT INTO work_rows VALUES ('parent', '')", [])
    store.select("SELECT 1", [])
    children = [get_context("fork").Process(target=insert_alone, args=(store, n)) for n in range(3)]
    for child in children:
        child.start()
    for n in range(100):
        store.change("INSERT INTO work_rows VALUES (?, '')", [f"parent {n}"])
    for child in children:
        child.join()
        assert child.exitcode == 0
    assert store.select("SELECT count(*) FROM work_rows", []) == [(401,)]
    assert store.select("PRAGMA integrity_check", []) == [("ok",)]


def test_a_connection_counts_as_in_use_from_before_it_is_taken_until_after_it_is_closed(store, monkeypatch):
    """A fork goes by that count: what it does not know of stays open in the child, and harms the parent's file."""
    seen = {}

    class Idle(list):
        def pop(self):
            taken = super().pop()
            seen["taken"] = store.connections_in_use()
            return taken

    class Closed:
        def __init__(self, connection):
            self.execute = connection.execute
            self._close = connection.close

        def close(self):
            self._close()
            seen["closed"] = store.connections_in_use()

    store.select("SELECT 1", [])
    store._selecting._idle = Idle(map(Closed, store._selecting._idle))
    monkeypatch.setattr("chainops.stores.sql._SINGLE_HELD", 0)
    store.select("SELECT 1", [])
    assert seen == {"taken": 1, "closed": 1}
    assert store.connections_in_use() == 0


def test_a_store_opened_in_another_thread_while_a_fork_looks_for_stores_is_no_obstacle(tmp_path, monkeypatch):
    class Growing(weakref.WeakSet):
        """Another store is opened while the first look goes on."""

        def __iter__(self):
            for each in super().__iter__():
                if not opened:
                    opened.append(SqlStore(tmp_path / "opened meanwhile.db"))
                yield each

    opened = []
    first = SqlStore(tmp_path / "first.db")
    monkeypatch.setattr(fork, "_stores", Growing([first]))
    assert set(fork._watched()) == {first, *opened}
    assert len(opened) == 1


def test_two_forks_at_once_are_each_waited_for_until_they_are_over():
    begun, may_end = threading.Event(), threading.Event()

    def other():
        fork._before()
        begun.set()
        assert may_end.wait(60)
        fork._after_in_parent()

    thread = threading.Thread(target=other)
    fork._before()
    (mine,) = fork._forking.values()
    thread.start()
    assert begun.wait(60)
    (others,) = [each for each in fork._forking.values() if each is not mine]
    fork._after_in_parent()
    assert mine.is_set()
    assert not others.is_set()
    may_end.set()
    thread.join(60)
    assert others.is_set()
    assert not fork._forking


def insert_alone(store, child):
    for n in range(100):
        store.change("INSERT INTO work_rows VALUES (?, '')", [f"{child} {n}"])
        assert store.select("SELECT name FROM work_rows WHERE name = ?", [f"{child} {n}"])


def test_a_child_forked_from_inside_a_transaction_is_told_that_it_cannot_use_the_store(store):
    with store.read() as connection:
        connection.execute(sa.select(ROWS.c.name)).all()
        child = get_context("fork").Process(target=expect_refusal, args=(store,))
        child.start()
        child.join(240)
    assert child.exitcode == 0
    put(store, "the parent is not bothered")


def expect_refusal(store):
    with pytest.raises(StoreUnavailable, match="forked"):
        put(store, "x")
    other = SqlStore(Path(store.place).with_name("other.db"))
    other.migrate(SCHEMA)
    put(other, "another file is no problem")


def test_commits_of_threads_are_all_kept(store):
    def work(worker):
        for n in range(50):
            put(store, f"{worker}-{n}")

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(names(store)) == 400
    assert store.connections_in_use() == 0


def test_a_lock_held_elsewhere_is_unavailable_and_names_the_file(tmp_path):
    store = SqlStore(tmp_path / "chainops.db", wait_s=0.05)
    store.migrate(SCHEMA)
    other = sqlite3.connect(tmp_path / "chainops.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable, match=r"chainops\.db: locked by another process") as caught:
        put(store, "x")
    assert caught.value.retryable
    assert names(store) == set(), "readers wait for nobody"
    other.close()
    put(store, "x")
    assert names(store) == {"x"}


def test_a_write_holds_the_lock_from_its_first_moment(store):
    other = sqlite3.connect(store.place, isolation_level=None, timeout=0)
    with store.write(), pytest.raises(sqlite3.OperationalError, match="locked"):
        other.execute("BEGIN IMMEDIATE")
    other.execute("BEGIN IMMEDIATE")
    other.close()


def test_a_thread_that_writes_too_long_makes_others_unavailable(tmp_path):
    store = SqlStore(tmp_path / "chainops.db", wait_s=0.05)
    store.migrate(SCHEMA)
    failures = []

    def work():
        try:
            put(store, "x")
        except StoreUnavailable as failure:
            failures.append(failure)

    with store.write():
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert "another thread" in str(failures[0])


@pytest.mark.parametrize("content", [b"this is not a database" * 100, b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_file_that_is_no_database_is_corrupted_and_left_alone(tmp_path, content):
    path = tmp_path / "chainops.db"
    path.write_bytes(content)
    with pytest.raises(StoreCorrupted, match=r"chainops\.db.*restore it"):
        SqlStore(path).migrate(SCHEMA)
    assert path.read_bytes() == content


def test_a_damaged_page_is_corrupted(store):
    for n in range(200):
        put(store, f"{n}", "x" * 500)
    store.close()
    path = Path(store.place)
    whole = bytearray(path.read_bytes())
    for page in range(2, len(whole) // 4096):
        whole[page * 4096 : page * 4096 + 16] = b"\xff" * 16
    path.write_bytes(whole)
    with pytest.raises(StoreCorrupted):
        names(SqlStore(path))


def test_a_full_disk_loses_nothing_kept_before_and_works_again_after(store):
    put(store, "before")
    with store._writer.connect() as connection:  # SQLite's own limit answers exactly as a full disk does
        connection.exec_driver_sql("PRAGMA max_page_count=16")
    with pytest.raises(StoreUnavailable, match="full") as caught:
        put_many(store, 100, "x" * 5000)
    assert "free some space" in caught.value.next_move
    kept = names(store)
    store.close()
    put(store, "after", "x" * 50_000)
    assert names(store) == kept | {"after"}


def test_a_file_size_limit_is_unavailable(tmp_path):
    code = (
        PREAMBLE
        + """
import resource
store = SqlStore(sys.argv[1])
store.migrate(SCHEMA)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
kept = 0
try:
    while True:
        with store.write() as connection:
            connection.execute(ROWS.insert(), {"name": str(kept), "text": "x" * 3000})
        kept += 1
except StoreUnavailable:
    print(kept)
"""
    )
    worker = run_python(code, f"sqlite:///{tmp_path}/chainops.db")
    output, complaint = worker.communicate(timeout=240)
    assert worker.returncode == 0, complaint
    assert len(names(SqlStore(tmp_path / "chainops.db"))) == int(output) > 0


def test_a_folder_that_may_not_be_written_is_unavailable():
    code = (
        PREAMBLE
        + """
import os
from pathlib import Path
folder = Path(sys.argv[1])
there = SqlStore(folder / "there.db")
there.migrate(SCHEMA)
there.close()
(folder / "there.db").chmod(0o444)
folder.chmod(0o555)
if os.geteuid() == 0:
    os.seteuid(65534)  # root may write anywhere
for path in (folder / "new.db", folder / "deeper" / "new.db", folder / "there.db"):
    store = SqlStore(path)
    try:
        with store.write() as connection:
            connection.execute(sa.text("CREATE TABLE x (y)"))
    except StoreUnavailable as error:
        print(error.place, "|", error.next_move)
"""
    )
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        worker = run_python(code, folder)
        output, complaint = worker.communicate(timeout=240)
        Path(folder).chmod(0o755)
        assert worker.returncode == 0, complaint
        lines = output.splitlines()
        assert len(lines) == 3
        assert all("make it writable" in line for line in lines)
        assert sorted(path.name for path in Path(folder).iterdir()) == ["there.db"]


def test_a_deleted_file_is_noticed_before_the_next_write(store):
    put(store, "x")
    Path(store.place).unlink()
    with pytest.raises(StoreUnavailable, match="deleted or replaced"):
        put(store, "y")
    store.close()
    store.migrate(SCHEMA)
    put(store, "z")
    assert names(store) == {"z"}


def test_scrubbed_words_are_in_no_file(store):
    words = b"a secret nobody may find"
    put(store, "x", words.decode() * 50)
    folder = Path(store.place).parent
    assert any(words in path.read_bytes() for path in folder.iterdir())
    with store.write() as connection:
        connection.execute(ROWS.delete())
    store.scrub()
    assert not any(words in path.read_bytes() for path in folder.iterdir())


@pytest.mark.parametrize(
    "url", ["", "nonsense", "sqlite://", "sqlite:///:memory:", "mysql://u:secret@h/d", "a b://c:secret@"]
)
def test_other_urls_are_refused_without_showing_their_password(url):
    with pytest.raises(InvalidInput) as caught:
        SqlStore(url)
    assert "secret" not in f"{caught.value} {caught.value.__cause__} {caught.value.__context__}"


def test_a_password_is_in_the_url_and_nowhere_else():
    store = SqlStore("postgresql://ann:secret@localhost:1/things")
    assert "secret" in store.url
    assert "secret" not in f"{store!r} {store.place}"
    with pytest.raises(StoreUnavailable, match="postgresql://localhost:1/things") as caught:
        store.migrate(SCHEMA)
    assert "secret" not in f"{caught.value!r} {caught.value.__cause__!r}"
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_a_database_that_does_not_exist_is_unavailable(postgres):
    with pytest.raises(StoreUnavailable, match="no_such_database"):
        SqlStore(sa.make_url(postgres).set(database="no_such_database").render_as_string()).migrate(SCHEMA)


def test_connections_the_server_closed_are_replaced(postgres_url):
    store = SqlStore(postgres_url)
    store.migrate(SCHEMA)
    put(store, "x")
    other = SqlStore(postgres_url)
    with other.write() as connection:
        connection.execute(
            sa.text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        )
    assert names(store) == {"x"}
    store.close()
    other.close()


def test_a_connection_lost_within_a_transaction_is_unavailable_and_keeps_nothing(postgres_url):
    store, other = SqlStore(postgres_url), SqlStore(postgres_url)
    store.migrate(SCHEMA)

    def lose_it_halfway():
        with store.write() as connection:
            connection.execute(ROWS.insert(), {"name": "x", "text": ""})
            mine = connection.execute(sa.text("SELECT pg_backend_pid()")).scalar()
            with other.read() as outside:
                outside.execute(sa.text("SELECT pg_terminate_backend(:pid)"), {"pid": mine})
            connection.execute(sa.select(ROWS.c.name)).all()

    with pytest.raises(StoreUnavailable):
        lose_it_halfway()
    assert names(store) == set()
    store.close()
    other.close()


def test_the_same_place_is_the_same_store(tmp_path, monkeypatch):
    monkeypatch.setenv("CHAINOPS_HOME", str(tmp_path))
    store = open_store()
    assert store.place == str(tmp_path / "chainops.db")
    assert store is open_store(tmp_path) is open_store(str(tmp_path / "chainops.db"))
    assert store is open_store(f"sqlite:///{tmp_path}/chainops.db")
    assert store is not open_store(tmp_path / "other.db")
    assert list(tmp_path.iterdir()) == [], "nothing is made before it is needed"


def test_a_relative_file_stays_where_it_was_when_the_folder_changes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = SqlStore("sqlite:///here.db")
    monkeypatch.chdir("/")
    assert store.place == str(tmp_path / "here.db")


def test_a_store_too_new_says_so_before_anything_is_written(store):
    SqlStore(store.url).migrate(Schema("work", TABLES, ((2, lambda _connection: None),)))
    before = Path(store.place).stat().st_mtime_ns
    with pytest.raises(StoreTooNew):
        SqlStore(store.url).migrate(SCHEMA)
    assert Path(store.place).stat().st_mtime_ns == before
