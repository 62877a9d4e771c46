"""Forks of a process that has used the engine."""

import os
import threading

import numpy as np
import pytest

from arrowembed import EmbeddingEngine, shared

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


def in_a_child(work):
    """The exit status of a forked child: 0 if `work` says yes."""
    child = os.fork()
    if child == 0:
        yes = False
        try:
            yes = work()
        finally:
            os._exit(0 if yes else 1)
    return os.waitpid(child, 0)[1]


def test_a_child_goes_on_with_the_models_of_a_registry(bert_folder, texts):
    engine = EmbeddingEngine(memory_budget=1 << 30, when_full="evict", idle_timeout=60)
    expected = engine.embed_batch(str(bert_folder), texts)
    model = shared(bert_folder)

    def work():
        same = engine.is_loaded(str(bert_folder)) and shared(bert_folder) is model
        again = engine.embed_batch(str(bert_folder), texts)
        unloaded = engine.unload(str(bert_folder))
        reloaded = engine.embed_batch(str(bert_folder), texts)
        return (
            same
            and unloaded
            and np.array_equal(again, expected)
            and np.array_equal(reloaded, expected)
        )

    assert in_a_child(work) == 0
    assert engine.is_loaded(str(bert_folder))


def test_a_fork_while_other_threads_load(bert_folder, texts):
    engine = EmbeddingEngine(idle_timeout=60)
    name = str(bert_folder)
    expected = engine.embed_batch(name, texts)
    stop = threading.Event()

    def work():
        while not stop.is_set():
            engine.unload(name)
            engine.load(name)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        statuses = [
            in_a_child(lambda: np.array_equal(engine.embed_batch(name, texts), expected))
            for _ in range(10)
        ]
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert statuses == [0] * 10
