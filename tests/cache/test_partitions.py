from chainops.cache.background import UPKEEP
from chainops.cache.records import Limits
from chainops.cache.stores.sql_records import SqlRecords
from chainops.testing.cache_pieces import entry


class Meddled(SqlRecords):
    """Lets something happen once, between the end of a reading of the change log and its use."""

    after_reading = None

    def changes(self, *args, **kwargs):
        read = super().changes(*args, **kwargs)
        if not read and self.after_reading is not None:
            once, self.after_reading = self.after_reading, None
            once()
        return read


def test_what_is_stored_while_the_change_log_is_read_is_found_at_the_next_lookup(store, make_replica):
    records = Meddled(store)
    replica = make_replica(records=records)
    vector = replica.embed("the lost card")

    def keep():
        stored = entry(question="the lost card", embedder=replica.embedder_digest)
        replica.keep(stored, vector, now_s=0.0, limits=Limits(100, 10**9))

    records.after_reading = keep
    replica.neighbours("s", vector)
    assert records.after_reading is None
    assert [each.outline.question for each in replica.neighbours("s", vector)] == ["the lost card"]
    assert UPKEEP.drain(60)
