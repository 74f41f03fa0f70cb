"""The alarm: it never leaves from a callback of the interpreter."""

import gc
import time
import weakref

from thicket_jax.text.graders import alarm


def test_an_alarm_waits_for_the_garbage_collector():
    heard = []

    def callback(phase, info):
        heard.append(phase)
        while len(heard) == 1 and time.monotonic() < start + 0.15:  # the first alarm is in here
            pass

    def work():
        while True:
            gc.collect(0)

    start = time.monotonic()
    gc.callbacks.append(callback)
    try:
        assert alarm.within(0.1, work) is None
    finally:
        gc.callbacks.remove(callback)
    assert heard and alarm.within(60, lambda: 5) == 5


def test_an_alarm_waits_until_a_weak_references_callback_is_over():
    ended = []

    class Thing:
        pass

    def spin():
        ends = time.monotonic() + 0.3
        while time.monotonic() < ends:
            pass
        ended.append(True)

    def slow():
        thing = Thing()
        weakref.finalize(thing, spin)
        del thing  # spins in the callback, from which nothing leaves
        while True:
            pass

    assert alarm.within(0.1, slow) is None and ended
