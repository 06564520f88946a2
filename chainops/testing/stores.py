"""What every store must do, whatever is behind it: subclass a suite, give it the fixture, run pytest.

class TestOurPostgres(SqlStoreSuite):
    @pytest.fixture
    def store_url(self) -> str:
        return "postgresql://..."   # an empty database
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from chainops.core.errors import InvalidInput, StoreCorrupted, StoreError, StoreTooNew
from chainops.stores.faiss_index import FaissIndex, IndexStale
from chainops.stores.sql import NestedWrite, Schema, SqlStore

if TYPE_CHECKING:
    from sqlalchemy import Connection, Table

_THREADS = 8


class SqlStoreSuite:
    """Transactions, isolation and migrations. Needs the fixture `store_url`: a new, empty database for each test."""

    @pytest.fixture
    def store(self, store_url: str | Path) -> Iterator[SqlStore]:
        store = SqlStore(store_url)
        yield store
        store.close()

    @pytest.fixture
    def table(self, store: SqlStore) -> Table:
        store.migrate(Schema("suite", _items().metadata))
        return _items()

    @pytest.mark.usefixtures("table")
    def test_what_was_written_is_read_after_reopening(self, store: SqlStore) -> None:
        _put(store, "a", 1)
        store.close()
        again = SqlStore(store.url)
        assert _get(again, "a") == 1
        again.close()

    @pytest.mark.usefixtures("table")
    def test_text_comes_back_as_it_was_written(self, store: SqlStore) -> None:
        text = "naïve ☃ 你好 𝔘 '; DROP TABLE suite_items; -- % :x \\ \n\t"
        _put(store, text, 1)
        assert _get(store, text) == 1

    def test_a_write_that_raises_leaves_nothing(self, store: SqlStore, table: Table) -> None:
        def fail_late() -> None:
            with store.write() as connection:
                connection.execute(table.insert().values(name="a", number=1))
                raise KeyError

        with pytest.raises(KeyError):
            fail_late()
        assert _get(store, "a") is None

    def test_a_read_cannot_write_and_says_what_can(self, store: SqlStore, table: Table) -> None:
        with pytest.raises(StoreError, match=r"write\(\)"), store.read() as connection:
            connection.execute(table.insert().values(name="a", number=1))
        assert _get(store, "a") is None
        _put(store, "a", 2)
        assert _get(store, "a") == 2

    @pytest.mark.usefixtures("table")
    def test_a_read_sees_one_state_while_others_write(self, store: SqlStore) -> None:
        _put(store, "a", 1)
        with store.read() as connection:
            assert _number(connection, "a") == 1
            _put(store, "a", 2)
            assert _number(connection, "a") == 1
        assert _get(store, "a") == 2

    def test_a_write_sees_its_own_changes_and_others_do_not(self, store: SqlStore, table: Table) -> None:
        with store.write() as connection:
            connection.execute(table.insert().values(name="a", number=1))
            assert _number(connection, "a") == 1
            assert _get(store, "a") is None
        assert _get(store, "a") == 1

    @pytest.mark.usefixtures("table")
    def test_a_write_inside_a_write_is_refused_at_once(self, store: SqlStore) -> None:
        with store.write(), pytest.raises(NestedWrite), store.write():
            pass
        _put(store, "a", 1)
        assert _get(store, "a") == 1

    def test_increments_from_many_threads_all_count(self, store: SqlStore, table: Table) -> None:
        _put(store, "a", 0)
        more = table.update().where(table.c.name == "a").values(number=table.c.number + 1)

        def work(_worker: int) -> None:
            for _ in range(20):
                with store.write() as connection:
                    connection.execute(more)

        _in_threads(work)
        assert _get(store, "a") == 20 * _THREADS

    def test_insert_can_update_what_is_there(self, store: SqlStore, table: Table) -> None:
        insert = store.insert(table)
        upsert = insert.on_conflict_do_update(index_elements=["name"], set_={"number": insert.excluded.number})
        for number in (1, 2):
            with store.write() as connection:
                connection.execute(upsert, {"name": "a", "number": number})
        assert _get(store, "a") == 2

    def test_a_broken_rule_of_a_table_is_the_drivers_error(self, store: SqlStore, table: Table) -> None:
        from sqlalchemy.exc import IntegrityError

        _put(store, "a", 1)
        with pytest.raises(IntegrityError) as caught, store.write() as connection:
            connection.execute(table.insert().values(name="a", number=421337))
        assert "421337" not in str(caught.value), "what users say must not be in errors"

    def test_migrating_again_changes_nothing(self, store: SqlStore, table: Table) -> None:
        _put(store, "a", 1)
        SqlStore(store.url).migrate(Schema("suite", table.metadata))
        assert _get(store, "a") == 1

    def test_upgrades_run_in_order_once_and_keep_the_data(self, store: SqlStore, table: Table) -> None:
        from sqlalchemy import text

        _put(store, "a", 1)
        ran: list[int] = []

        def upgrade(version: int, statement: str) -> Callable[[Connection], None]:
            def run(connection: Connection) -> None:
                ran.append(version)
                connection.execute(text(statement))

            return run

        second = (2, upgrade(2, "ALTER TABLE suite_items ADD COLUMN extra INTEGER"))
        third = (3, upgrade(3, "UPDATE suite_items SET extra = number + 1"))
        SqlStore(store.url).migrate(Schema("suite", table.metadata, (second,)))
        SqlStore(store.url).migrate(Schema("suite", table.metadata, (second, third)))
        SqlStore(store.url).migrate(Schema("suite", table.metadata, (second, third)))
        assert ran == [2, 3]
        with store.read() as connection:
            assert connection.execute(text("SELECT number, extra FROM suite_items")).one() == (1, 2)

    def test_an_upgrade_that_fails_is_undone_whole(self, store: SqlStore, table: Table) -> None:
        from sqlalchemy import inspect, text

        def good(connection: Connection) -> None:
            connection.execute(text("ALTER TABLE suite_items ADD COLUMN extra INTEGER"))

        def bad(_connection: Connection) -> None:
            raise KeyError

        with pytest.raises(KeyError):
            SqlStore(store.url).migrate(Schema("suite", table.metadata, ((2, good), (3, bad))))
        with store.read() as connection:
            assert "extra" not in {column["name"] for column in inspect(connection).get_columns("suite_items")}
        SqlStore(store.url).migrate(Schema("suite", table.metadata))  # still version 1

    def test_tables_of_a_newer_version_are_refused(self, store: SqlStore, table: Table) -> None:
        newer = Schema("suite", table.metadata, ((2, lambda _connection: None),))
        SqlStore(store.url).migrate(newer)
        with pytest.raises(StoreTooNew, match=r"suite tables are version 2.*up to 1.*upgrade chainops"):
            SqlStore(store.url).migrate(Schema("suite", table.metadata))

    def test_first_migrations_at_the_same_moment_agree(self, store: SqlStore) -> None:
        together = threading.Barrier(_THREADS)

        def work(_worker: int) -> None:
            mine = SqlStore(store.url)
            together.wait()
            mine.migrate(Schema("suite", _items().metadata))
            mine.close()

        _in_threads(work)
        _put(store, "a", 1)
        assert _get(store, "a") == 1


class VectorIndexSuite:
    """Nearest neighbours, exactly. Needs the fixture `index`: a new, empty index of 4 dimensions for each test."""

    def test_an_empty_index_finds_nothing(self, index: FaissIndex) -> None:
        assert index.search([1, 0, 0, 0], 3) == []
        assert index.search_many([[1, 0, 0, 0]] * 2, 3) == [[], []]
        assert len(index) == 0

    def test_the_best_comes_first_with_its_similarity(self, index: FaissIndex) -> None:
        index.add(["x", "y", "xy"], [[1, 0, 0, 0], [0, 1, 0, 0], [0.6, 0.8, 0, 0]])
        found = index.search([1, 0, 0, 0], 2)
        assert [neighbour.key for neighbour in found] == ["x", "xy"]
        assert [neighbour.similarity for neighbour in found] == pytest.approx([1, 0.6])

    def test_each_query_gets_its_own_list(self, index: FaissIndex) -> None:
        index.add(["x", "y"], [[1, 0, 0, 0], [0, 1, 0, 0]])
        found = index.search_many([[0, 1, 0, 0], [1, 0, 0, 0]], 1)
        assert [[neighbour.key for neighbour in each] for each in found] == [["y"], ["x"]]

    def test_asking_for_more_than_there_is_gives_all(self, index: FaissIndex) -> None:
        index.add(["x"], [[1, 0, 0, 0]])
        assert len(index.search([1, 0, 0, 0], 1000)) == 1

    def test_nothing_below_the_floor(self, index: FaissIndex) -> None:
        index.add(["x", "y"], [[1, 0, 0, 0], [0, 1, 0, 0]])
        assert [found.key for found in index.search([1, 0, 0, 0], 2, floor=0.5)] == ["x"]

    def test_equals_come_in_the_order_they_were_added(self, index: FaissIndex) -> None:
        names = [f"{n}" for n in range(40)]
        index.add(names, [[0.1, 0.2, 0.3, 0.4]] * 40)
        for k in (1, 7, 40):
            assert [found.key for found in index.search([1, 1, 1, 1], k)] == names[:k]
        index.remove(["0", "5"])
        assert [found.key for found in index.search([1, 1, 1, 1], 5)] == ["1", "2", "3", "4", "6"]

    def test_a_key_added_again_is_replaced(self, index: FaissIndex) -> None:
        index.add(["x", "y"], [[1, 0, 0, 0], [0, 1, 0, 0]])
        index.add(["x"], [[0, 0, 1, 0]])
        assert len(index) == 2
        assert index.search([0, 0, 1, 0], 1)[0] == ("x", 1.0)
        assert index.search([1, 0, 0, 0], 1)[0].similarity == 0

    def test_a_removed_key_is_gone_and_counted_once(self, index: FaissIndex) -> None:
        index.add(["x", "y", "z"], [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]])
        assert index.remove(["x", "x", "never"]) == 1
        assert "x" not in index
        assert "y" in index
        assert {found.key for found in index.search([1, 1, 1, 1], 9)} == {"y", "z"}

    @pytest.mark.parametrize(
        "vectors",
        [[[1, 2, 3]], [1, 2, 3, 4], [[1, 2, 3, float("nan")]], [[1, 2, 3, float("inf")]], [[1e38] * 4], "text", None],
    )
    def test_bad_vectors_are_refused_and_change_nothing(self, index: FaissIndex, vectors: Any) -> None:
        index.add(["x"], [[1, 0, 0, 0]])
        with pytest.raises(InvalidInput):
            index.add(["y"], vectors)
        with pytest.raises(InvalidInput):
            index.search_many(vectors, 1)
        assert index.keys() == ["x"]

    def test_a_saved_index_loads_the_same(self, index: FaissIndex, tmp_path: Path) -> None:
        index.add(["a", "é \ud800", "b"], [[1, 0, 0, 0], [0, 1, 0, 0], [0.6, 0.8, 0, 0]])
        index.remove(["a"])
        index.save(tmp_path / "index", "made from this")
        again = type(index).load(tmp_path / "index", stamp="made from this")
        assert again.keys() == index.keys() == ["é \ud800", "b"]
        assert again.search([1, 0, 0, 0], 3) == index.search([1, 0, 0, 0], 3)

    def test_an_index_of_other_origin_is_stale(self, index: FaissIndex, tmp_path: Path) -> None:
        index.save(tmp_path / "index", "old")
        with pytest.raises(IndexStale, match="'old', not from 'new'"):
            type(index).load(tmp_path / "index", stamp="new")
        with pytest.raises(IndexStale, match="no such index"):
            type(index).load(tmp_path / "other", stamp="new")

    def test_a_shortened_file_is_refused(self, index: FaissIndex, tmp_path: Path) -> None:
        index.add(["x"], [[1, 0, 0, 0]])
        path = tmp_path / "index"
        index.save(path, "s")
        whole = path.read_bytes()
        for length in range(len(whole)):
            path.write_bytes(whole[:length])
            with pytest.raises(StoreCorrupted):
                type(index).load(path, stamp="s")


@cache
def _items() -> Table:
    import sqlalchemy as sa

    return sa.Table(
        "suite_items",
        sa.MetaData(),
        sa.Column("name", sa.String, primary_key=True),
        sa.Column("number", sa.Integer, nullable=False),
    )


def _put(store: SqlStore, name: str, number: int) -> None:
    insert = store.insert(_items())
    with store.write() as connection:
        connection.execute(
            insert.values(name=name, number=number).on_conflict_do_update(
                index_elements=["name"], set_={"number": number}
            )
        )


def _get(store: SqlStore, name: str) -> int | None:
    with store.read() as connection:
        return _number(connection, name)


def _number(connection: Connection, name: str) -> int | None:
    items = _items()
    found: int | None = connection.execute(
        items.select().with_only_columns(items.c.number).where(items.c.name == name)
    ).scalar()
    return found


def _in_threads(work: Callable[[int], None]) -> None:
    with ThreadPoolExecutor(_THREADS) as threads:
        list(threads.map(work, range(_THREADS)))
