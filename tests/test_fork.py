"""Forks of a process that has used the engine."""

import os
import threading

import numpy as np
import pytest

# Python warns that a fork of a process with threads is dangerous; that it is not, is tested here.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


def test_a_fork_after_use_works_on_both_sides(model, texts):
    expected = model.encode(texts * 10)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            same = np.array_equal(model.encode(texts * 10), expected)
            os.write(write, b"same" if same else b"different")
        finally:
            os._exit(0)
    os.close(write)
    np.testing.assert_array_equal(model.encode(texts * 10), expected)
    with os.fdopen(read, "rb") as pipe:
        assert pipe.read() == b"same"
    assert os.waitpid(child, 0)[1] == 0


def test_a_fork_while_another_thread_encodes(model, texts):
    stop = threading.Event()
    expected = model.encode(texts)

    def work():
        while not stop.is_set():
            model.encode(texts * 20)

    thread = threading.Thread(target=work)
    thread.start()
    statuses = []
    try:
        for _ in range(5):
            child = os.fork()
            if child == 0:
                try:
                    same = np.array_equal(model.encode(texts), expected)
                finally:
                    os._exit(0 if same else 1)
            statuses.append(os.waitpid(child, 0)[1])
    finally:
        stop.set()
        thread.join()
    assert statuses == [0] * 5
