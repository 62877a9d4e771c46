"""Waits for what happens elsewhere."""

import time


def wait_for(condition):
    """Waits until something holds, and gives it."""
    deadline = time.monotonic() + 60
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return found
