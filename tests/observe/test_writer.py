import json
import os
import threading

import pytest

from chainops.observe.backend import Backend
from chainops.observe.writer import Delivery, Inbox, Orders


@pytest.fixture
def delivery():
    """A delivery in this process, its inbox, and a function that reads what it has accounted for."""
    opened = []

    def make(backend, secret=None, max_bytes=1_000_000):
        reading, writing = os.pipe()
        os.set_blocking(reading, False)
        opened.extend((reading, writing))
        inbox = Inbox(max_bytes)

        def counts():
            lines = [json.loads(line) for line in os.read(reading, 1_000_000).splitlines()]
            return {key: sum(line[key] for line in lines) for key in ("written", "failed", "dropped")}

        return Delivery(backend, inbox, writing, secret), inbox, counts

    yield make
    for one in opened:
        os.close(one)


class Choosy(Backend):
    """A real backend that refuses some traces, as a server may."""

    def __init__(self, uri, refused):
        super().__init__(uri, "chainops")
        self.refused, self.calls = refused, []

    def write(self, drafts):
        self.calls.append([draft.request_id for draft in drafts])
        if {draft.request_id for draft in drafts} & self.refused:
            raise ValueError("refused")
        super().write(drafts)


def test_records_go_in_one_batch_and_one_refused_by_mlflow_fails_alone(delivery, uri, record):
    backend = Choosy(uri, {"r1"})
    sending, inbox, counts = delivery(backend)
    for number in range(3):
        inbox.put(json.dumps(record(f"r{number}")).encode())
    inbox.end()
    sending.run()
    assert backend.calls[0] == ["r0", "r1", "r2"]
    assert counts() == {"written": 2, "failed": 1, "dropped": 0}


def test_a_line_that_is_cut_off_fails_alone(delivery, uri, record):
    sending, inbox, counts = delivery(Backend(uri, "chainops"))
    inbox.put(json.dumps(record()).encode())
    inbox.put(b'{"request_id": "cut o')
    inbox.end()
    sending.run()
    assert counts() == {"written": 1, "failed": 1, "dropped": 0}


def test_the_inbox_refuses_what_would_exceed_its_bytes_and_has_room_again_once_read():
    inbox = Inbox(max_bytes=10)
    assert [inbox.put(b"12345"), inbox.put(b"12345"), inbox.put(b"1")] == [True, True, False]
    assert inbox.take(1) == [b"12345"]
    assert inbox.put(b"1")


def test_the_inbox_gives_nothing_only_when_its_input_has_ended():
    inbox = Inbox(max_bytes=10)
    threading.Timer(0.05, inbox.put, [b"1"]).start()
    assert inbox.take(5) == [b"1"]
    threading.Timer(0.05, inbox.end).start()
    assert inbox.take(5) == []


def test_orders_cross_the_pipe_whole_and_hide_the_address():
    orders = Orders(tracking_uri="http://a:b@c", experiment="e", log_file="f", life_s=1.5, max_bytes=2)
    assert Orders(**json.loads(orders.encode())) == orders
    assert "a:b@c" not in repr(orders)


def test_what_was_given_up_is_accounted_for_once_even_if_it_is_written_after_all(delivery, record):
    class Slow:
        begun, may_end = threading.Event(), threading.Event()

        def write(self, drafts):
            self.begun.set()
            assert self.may_end.wait(60)

    sending, inbox, counts = delivery(Slow())
    sending.taken = 1
    inbox.put(json.dumps(record()).encode())
    inbox.end()
    running = threading.Thread(target=sending.run, daemon=True)
    running.start()
    assert Slow.begun.wait(60)
    assert sending.give_up() == 1
    Slow.may_end.set()
    running.join(60)
    assert counts() == {"written": 0, "failed": 0, "dropped": 1}
