"""Readers and writers at the same time, in threads and processes."""

import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from arrowembed.errors import InvalidArgumentError, StoreLockedError
from arrowembed.store import open_store
from arrowembed.store.lock import write_lock

SECONDS = float(os.environ.get("ARROWEMBED_TEST_SECONDS", "3"))
"""For which readers and a writer go on."""

WRITER = """
import sys, time
import numpy as np
from arrowembed.store import open_store

store, end, number = open_store(sys.argv[1]), time.monotonic() + float(sys.argv[2]), 0
while time.monotonic() < end:
    number += 1
    # Whoever reads finds all ten of one number, never some of two.
    vectors = np.tile([1, number % 100 + 1], (10, 1)) / 128
    ids = [f"{i}" for i in range(10)]
    store.upsert(ids, [f"{number}"] * 10, vectors=vectors, metadata=[{"number": number}] * 10)
    if number % 3 == 0:
        store.add([f"more {number}"], ["more"], vectors=[[-1, -1]], metadata=[{"more": True}])
        store.delete([f"more {number - 9}"])
    if number % 7 == 0:
        store.compact()
print(number)
"""


def test_who_reads_sees_a_state_and_never_an_older_one(tmp_path):
    folder = tmp_path / "store"
    with open_store(folder, dimension=2) as store:
        store.add([f"{i}" for i in range(10)], ["0"] * 10, vectors=np.ones((10, 2)))
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, folder, str(SECONDS)], stdout=subprocess.PIPE, text=True
    )
    failures, seen, counts = [], set(), []

    def read():
        try:
            newest, count = 0, 0
            with open_store(folder) as store:
                while writer.poll() is None:
                    newest = max(newest, one_state(store, newest))
                    seen.add(newest)
                    count += 1
            counts.append(count)
        except BaseException as error:
            failures.append(error)
            raise

    def one_state(store, newest):
        ids = [f"{i}" for i in range(10)]
        hits = store.search([1, 1], k=10, filter={"more": {"$exists": False}}, include=["text"])
        assert sorted(hit.id for hit in hits) == ids
        found = {hit.text for hit in hits}
        assert len(found) == 1
        records = store.get(ids, include=["text", "metadata", "vector"])
        assert [record.id for record in records] == ids
        (number,) = {record.text for record in records}
        assert int(number) >= int(found.pop()) >= newest
        if number != "0":
            assert {record.metadata["number"] for record in records} == {int(number)}
            expected = np.float32([1, int(number) % 100 + 1]) / 128
            np.testing.assert_array_equal([r.vector for r in records], [expected] * 10)
        return int(number)

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    written = int(writer.communicate(timeout=SECONDS + 60)[0])
    for thread in threads:
        thread.join()
    assert not failures
    assert writer.returncode == 0
    assert len(counts) == 2
    assert len(seen) > 5
    assert max(seen) <= written
    with open_store(folder) as store:
        store.verify()
        assert store.get(["0"])[0].text == f"{written}"


ADDER = """
import sys
from arrowembed.store import open_store

store = open_store(sys.argv[1], dimension=2)
for number in range(int(sys.argv[3])):
    name = f"{sys.argv[2]} {number}"
    store.add([name], [name], vectors=[[1, number]])
"""


def test_writers_in_several_processes_lose_nothing(tmp_path):
    """All of them also make the store, at the same time."""
    writers, each = 3, 10
    processes = [
        subprocess.Popen([sys.executable, "-c", ADDER, tmp_path / "store", f"{n}", f"{each}"])
        for n in range(writers)
    ]
    assert [process.wait(60) for process in processes] == [0] * writers
    with open_store(tmp_path / "store") as store:
        expected = {f"{n} {i}" for n in range(writers) for i in range(each)}
        assert {record.id for record in store.get()} == expected
        store.verify()


def test_who_makes_a_store_while_another_is_made_there_learns_of_it(tmp_path, monkeypatch):
    from arrowembed.errors import StoreMismatchError
    from arrowembed.store import making as module

    real = module.write_lock

    def slower(path, timeout):
        monkeypatch.setattr(module, "write_lock", real)
        open_store(tmp_path / "store", dimension=2).close()
        return real(path, timeout)

    monkeypatch.setattr(module, "write_lock", slower)
    with pytest.raises(StoreMismatchError, match="has dimension 2, not 3"):
        open_store(tmp_path / "store", dimension=3)


def test_a_writer_waits_for_another_and_gives_up(tmp_path):
    store = open_store(tmp_path / "store", dimension=2, lock_timeout=0.05)
    with write_lock(store.path / "lock", 1):
        with pytest.raises(StoreLockedError, match=r"for more than 0\.05 s; .*lock_timeout="):
            store.add(["a"], vectors=[[1, 2]])
        assert store.count() == 0  # who reads waits for nobody
    store.add(["a"], vectors=[[1, 2]])
    patient = open_store(tmp_path / "store")
    with write_lock(store.path / "lock", 1):
        thread = threading.Thread(
            target=patient.upsert, args=(["a"],), kwargs={"vectors": [[3, 4]]}
        )
        thread.start()
        time.sleep(0.05)
        np.testing.assert_array_equal(store.get(include=["vector"])[0].vector, [1, 2])
    thread.join(10)
    np.testing.assert_array_equal(store.get(include=["vector"])[0].vector, [3, 4])


def test_who_finds_a_segment_gone_reads_the_newer_state(tmp_path, monkeypatch):
    from arrowembed.store.lightweight import snapshot

    writer, reader = open_store(tmp_path / "store", dimension=2), open_store(tmp_path / "store")
    for name in "abc":
        writer.add([name], vectors=[[1, 2]])
    real, opened = snapshot.Segment, []

    def slow(*arguments):
        """Opens a segment when another process has just merged it."""
        monkeypatch.setattr(snapshot, "Segment", real)
        opened.append(arguments[1].name)
        writer.compact()
        return real(*arguments)

    monkeypatch.setattr(snapshot, "Segment", slow)
    assert [record.id for record in reader.get()] == ["a", "b", "c"]
    assert len(opened) == 1


def test_files_that_are_removed_stay_with_those_that_have_them_open(tmp_path):
    store = open_store(tmp_path / "store", dimension=2)
    for name in "ab":
        store.add([name], [name], vectors=[[1, 2]])
    state = store._snapshot()
    store.compact()
    (left,) = store.path.glob("segments/*.rows.arrow")
    assert left.name not in {part.entry.rows_file for part in state.parts}
    for part in state.parts:
        part.segment.verify()
    places = [(0, 0), (1, 0)]
    assert [record["text"] for record in state.read(places, ("text", "vector"))] == ["a", "b"]


def test_unknown_options_are_told(tmp_path):
    with pytest.raises(InvalidArgumentError, match="nprobes: a lightweight store has no such"):
        open_store(tmp_path / "store", dimension=2).search([1, 2], nprobes=5)


forks = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork"),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]


class TestForks:
    pytestmark = forks

    def test_both_sides_go_on_with_a_store(self, tmp_path, model):
        store = open_store(tmp_path / "store", model=model)
        store.add(["a"], ["a text"])
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            try:
                store.add(["b"], ["another text"])
                (hit,) = store.search("another text", k=1)
                os.write(writing, hit.id.encode())
            finally:
                os._exit(0)
        os.close(writing)
        store.add(["c"], ["a third"])
        with os.fdopen(reading, "rb") as pipe:
            assert pipe.read() == b"b"
        os.waitpid(child, 0)
        assert sorted(record.id for record in store.get()) == ["a", "b", "c"]

    def test_a_lock_does_not_outlive_its_holder_in_a_child(self, tmp_path):
        store = open_store(tmp_path / "store", dimension=2, lock_timeout=5)
        reading, writing = os.pipe()
        holder = os.fork()
        if not holder:
            with write_lock(store.path / "lock", 1):
                child = os.fork()
                if not child:
                    time.sleep(60)
                    os._exit(0)
                os.write(writing, f"{child}\n".encode())
                time.sleep(60)
            os._exit(0)
        with os.fdopen(reading) as pipe:
            child = int(pipe.readline())
        os.close(writing)
        try:
            os.kill(holder, 9)
            os.waitpid(holder, 0)
            store.add(["a"], vectors=[[1, 2]])
            assert len(store) == 1
        finally:
            os.kill(child, 9)
