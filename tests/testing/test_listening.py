import threading

from chainops.testing import ManualClock


def test_no_time_is_lost_when_two_threads_move_a_clock_at_once():
    class Slow(float):
        """Another thread waits on the clock while this time is being changed."""

        def __add__(self, seconds):
            other.start()
            other.join(0.2)
            return float(self) + seconds

    clock = ManualClock(Slow(100.0))
    other = threading.Thread(target=clock.sleep, args=(5.0,))
    clock.advance(1.0)
    other.join(60)
    assert clock.monotonic() == 106.0
