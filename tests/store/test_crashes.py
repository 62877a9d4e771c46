"""A writer that is killed at any point loses nothing that was acknowledged, and leaves no half."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from arrowembed.store import open_store

KILLS = int(os.environ.get("ARROWEMBED_TEST_KILLS", "120"))
"""Of each kind; more of them for a longer search."""


@pytest.fixture
def folder():
    """Where writing waits for no disk: a process is killed, not the machine."""
    memory = Path("/dev/shm")
    folder = tempfile.mkdtemp(dir=memory if memory.is_dir() else None)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize("how", ["lines", "times"])
def test_whoever_writes_may_be_killed(folder, how):
    program = Path(__file__).parent / "crashing.py"
    done = subprocess.run(
        [sys.executable, program, f"{folder}/store", how, str(KILLS)],
        capture_output=True,
        text=True,
        timeout=60 + KILLS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    killed, writing = map(int, done.stdout.split())
    assert killed == KILLS
    # Else it was no test: most have to be killed in the midst of a change.
    assert writing >= KILLS // 2


def test_what_a_dead_writer_left_is_removed_by_the_next(tmp_path):
    store = open_store(tmp_path / "store", dimension=2)
    store.add(["a"], vectors=[[1, 2]])
    there = {path.name for path in tmp_path.rglob("*")}
    segments = store.path / "segments"
    left = [
        segments / "00000002-0123abcd.vectors.arrow",
        segments / "00000002-0123abcd.rows.arrow",
        segments / ".arrowembed-3PJkhZ",
        segments / "00000002-0123abcd.live",
        store.path / ".manifest.json.123",
        store.path / ".store.json.123",
    ]
    for path in left:
        path.write_bytes(b"half")
    assert [record.id for record in open_store(store.path).get()] == ["a"]
    assert all(path.exists() for path in left)  # who reads removes nothing
    assert store.delete(["nowhere"]) == 0
    assert {path.name for path in tmp_path.rglob("*")} == there


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_all_is_on_disk_before_the_manifest_names_it_and_that_before_a_call_returns(
    tmp_path, monkeypatch
):
    """What a power cut could take; a process that is killed leaves its writes to the system."""
    store = open_store(tmp_path / "store", dimension=2)
    real_sync, real_replace, events = os.fsync, Path.replace, []

    def sync(descriptor):
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        events.append((path.name, None if path.is_dir() else path.read_bytes()))
        real_sync(descriptor)

    def replace(path, target):
        events.append(("replaced", target.read_bytes() if target.exists() else b""))
        return real_replace(path, target)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(Path, "replace", replace)
    for call in (
        lambda: store.add(["a", "b", "c"], vectors=np.ones((3, 2))),
        lambda: store.delete(["a"]),
        lambda: store.upsert(["b", "d"], vectors=np.ones((2, 2))),
        store.compact,
    ):
        before = {path.name for path in (store.path / "segments").iterdir()}
        events.clear()
        call()
        names = [name for name, _ in events]
        *written, folder, manifest, replaced, root = names
        assert (folder, replaced, root) == ("segments", "replaced", "store")
        assert manifest.startswith(".manifest.json.")
        synced = dict(events)
        assert synced[manifest] == (store.path / "manifest.json").read_bytes()
        for path in (store.path / "segments").iterdir():
            if path.name in written:
                assert synced[path.name] == path.read_bytes()
        new = {path.name for path in (store.path / "segments").iterdir()} - before
        # Those of vectors are written, and synced, by the engine.
        assert set(written) == {name for name in new if not name.endswith("vectors.arrow")}


def test_a_store_that_was_half_made_is_made(tmp_path):
    made = tmp_path / "made"
    open_store(made, dimension=2).close()
    for number, names in enumerate(
        ((), ("lock",), ("lock", "segments"), ("lock", "manifest.json"))
    ):
        half = tmp_path / f"half {number}"
        half.mkdir()
        for name in names:
            if (made / name).is_dir():
                (half / name).mkdir()
            else:
                shutil.copy(made / name, half / name)
        with open_store(half, dimension=2) as store:
            store.add(["a"], vectors=np.ones((1, 2)))
            assert len(store) == 1
