import pytest
import sqlalchemy as sa

from chainops.core.errors import InvalidInput
from chainops.stores.schema import Schema


def nothing(_connection):
    pass


def test_a_schema_starts_at_version_one_and_counts_its_upgrades():
    assert Schema("room", sa.MetaData()).version == 1
    assert Schema("room", sa.MetaData(), ((2, nothing), (3, nothing))).version == 3


@pytest.mark.parametrize("numbers", [(1,), (3,), (2, 4), (3, 2), (2, 2)])
def test_upgrades_with_gaps_or_out_of_order_are_refused(numbers):
    with pytest.raises(InvalidInput, match="without gaps"):
        Schema("room", sa.MetaData(), [(number, nothing) for number in numbers])


def test_a_table_that_another_room_could_have_is_refused():
    tables = sa.MetaData()
    sa.Table("items", tables, sa.Column("name", sa.String, primary_key=True))
    with pytest.raises(InvalidInput, match="begins with room_"):
        Schema("room", tables)
