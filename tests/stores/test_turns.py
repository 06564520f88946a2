import threading

from chainops.stores.turns import ReadersAndWriters


def test_readers_share_and_a_writer_waits_for_them():
    turns, order = ReadersAndWriters(), []

    def write():
        with turns.writing():
            order.append("written")

    with turns.reading():
        with_another_thread_reading(turns, order)
        writer = threading.Thread(target=write)
        writer.start()
        writer.join(0.05)
        order.append("read")
    writer.join(60)
    assert order == ["both", "read", "written"]


def with_another_thread_reading(turns, order):
    def read():
        with turns.reading():
            order.append("both")

    thread = threading.Thread(target=read)
    thread.start()
    thread.join(60)


def test_readers_without_end_do_not_keep_a_writer_out():
    turns, stop = ReadersAndWriters(), threading.Event()
    written = threading.Event()

    def read():
        while not stop.is_set():
            with turns.reading():
                stop.wait(0.002)

    def write():
        with turns.writing():
            written.set()

    readers = [threading.Thread(target=read) for _ in range(4)]
    for reader in readers:
        reader.start()
    writer = threading.Thread(target=write)
    writer.start()
    assert written.wait(60)
    stop.set()
    for thread in [*readers, writer]:
        thread.join(60)


def test_an_exception_gives_the_turn_back():
    turns = ReadersAndWriters()
    for kind in (turns.reading, turns.writing):
        try:
            with kind():
                raise KeyError
        except KeyError:
            pass
    with turns.writing():
        pass
