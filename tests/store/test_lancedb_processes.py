"""Several processes at a store in LanceDB: killed, forked, at once, and without room."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from arrowembed.store import open_store

HERE = Path(__file__).parent

KILLS = int(os.environ.get("ARROWEMBED_TEST_KILLS", "12"))

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals, os.fork and limits")


def run(script, *arguments, timeout=120):
    """Runs a program of its own, which must end well; gives what it printed."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore::RuntimeWarning", *script, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_writer_that_is_killed_loses_nothing_that_was_acknowledged(tmp_path):
    out = run([HERE / "crashing_lance.py"], tmp_path / "store", KILLS, timeout=60 + 5 * KILLS)
    writing, changes = map(int, out.split())
    # Else it was no test: most have to be killed in the midst of a change.
    assert writing >= KILLS // 2
    assert changes >= KILLS // 2


def test_after_a_fork_it_is_told_what_to_do(tmp_path):
    script = """
import os, sys
from arrowembed.errors import ClosedError
from arrowembed.store import open_store

store = open_store(sys.argv[1], dimension=2, backend="lancedb")
store.add(["a"], vectors=[[1, 0]])
process = os.fork()
if not process:
    calls = [
        lambda: store.search([1, 0]), lambda: store.add(["b"], vectors=[[0, 1]]),
        lambda: store.get(), lambda: store.count(), lambda: open_store(sys.argv[1]),
    ]
    told = 0
    for call in calls:
        try:
            call()
        except ClosedError as error:
            told += "after the fork only" in str(error)
    store.close()
    os._exit(0 if told == len(calls) else 1)
assert os.waitpid(process, 0)[1] == 0
assert [hit.id for hit in store.search([1, 0])] == ["a"]
"""
    run(["-c", script], tmp_path / "store")


def test_readers_see_whole_writes_and_the_newest(tmp_path):
    """Each write replaces all entries at once; who reads sees one of them, never an older one."""
    script = """
import sys
import numpy as np
from arrowembed.store import open_store

store = open_store(sys.argv[1])
ids = [f"{i}" for i in range(20)]
for number in range(1, 41):
    store.upsert(ids, vectors=np.full((20, 2), number), metadata=[{"n": number}] * 20)
    if number % 10 == 0:
        store.compact()
"""
    with open_store(tmp_path / "store", dimension=2, metric="dot", backend="lancedb") as store:
        ids = [f"{i}" for i in range(20)]
        store.add(ids, vectors=np.zeros((20, 2)), metadata=[{"n": 0}] * 20)
        writer = subprocess.Popen([sys.executable, "-c", script, tmp_path / "store"])
        newest = looks = 0
        while writer.poll() is None:
            found = store.search([1, 0], 30)
            numbers = {hit.metadata["n"] for hit in found}
            assert len(found) == 20
            assert len(numbers) == 1
            number = numbers.pop()
            assert number >= newest
            assert {hit.score for hit in found} == {number}
            newest = number
            assert store.count({"n": {"$lt": number}}) == 0
            looks += 1
        assert writer.returncode == 0
        assert looks > 5
        assert store.count({"n": 40}) == 20


def test_writers_take_turns(tmp_path):
    script = """
import sys
from arrowembed.store import open_store

store = open_store(sys.argv[1], dimension=2, backend="lancedb")
for number in range(8):
    key = f"{sys.argv[2]} {number}"
    store.add([key], vectors=[[1, number]], metadata=[{key: number}])
    store.upsert(["shared"], vectors=[[1, 1]])
"""
    writers = [
        subprocess.Popen([sys.executable, "-c", script, tmp_path / "store", name])
        for name in ("one", "two")
    ]
    assert [writer.wait(timeout=120) for writer in writers] == [0, 0]
    with open_store(tmp_path / "store") as store:
        assert len(store) == 17
        assert store.count({"two 7": 7}) == 1
        numbers = [int(r.id.split()[1]) for r in store.get() if r.id.startswith("one")]
        assert numbers == sorted(numbers)
        sequences = store._snapshot().sequences(None)
        assert len(set(sequences.tolist())) == 17


def test_a_write_without_room_changes_nothing(tmp_path):
    script = """
import resource, signal, sys
import numpy as np
from arrowembed.errors import StoreIOError
from arrowembed.store import open_store

store = open_store(sys.argv[1], dimension=256, backend="lancedb")
store.add(["a"], vectors=np.ones((1, 256)))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
ids = [f"{i}" for i in range(5000)]
try:
    store.add(ids, vectors=np.random.default_rng(1).normal(size=(5000, 256)))
except StoreIOError as error:
    assert "was not changed" in str(error), error
else:
    sys.exit("there was room")
assert [record.id for record in store.get()] == ["a"]
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
store.add(["b"], vectors=np.ones((1, 256)))
assert [hit.id for hit in store.search(np.ones(256))] == ["a", "b"]
"""
    run(["-c", script], tmp_path / "store")


@pytest.mark.skipif(sys.platform != "linux", reason="/proc says which file a descriptor is")
def test_a_write_waits_for_the_disk(tmp_path, monkeypatch):
    """Each file that a write made is synchronised, and that which names the others comes last."""
    synced = []
    real = os.fsync

    def fsync(descriptor):
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        real(descriptor)

    table = tmp_path / "store" / "entries.lance"
    with open_store(tmp_path / "store", dimension=2, backend="lancedb") as store:
        monkeypatch.setattr(os, "fsync", fsync)
        calls = (
            lambda: store.add(["a", "b"], vectors=[[1, 0], [0, 1]], metadata=[{"n": 1}] * 2),
            lambda: store.upsert(["b"], vectors=[[1, 1]]),
            lambda: store.delete(["a"]),
            store.compact,
        )
        for call in calls:
            before = {path for path in table.rglob("*") if path.is_file()}
            synced.clear()
            call()
            made = {path for path in table.rglob("*") if path.is_file()} - before
            assert made <= set(synced)
            assert {path.parent for path in made} <= set(synced)
            last = {path.parent.name: number for number, path in enumerate(synced)}
            assert last["_versions"] > max(last.get("data", 0), last.get("_deletions", 0))
