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

KILLS = int(os.environ.get("ARROWEMBED_TEST_KILLS", "150"))
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
        segments / ".00000002-0123abcd.vectors.arrow.123.0",
        segments / "00000002-0123abcd.live",
        store.path / ".manifest.json.123",
    ]
    for path in left:
        path.write_bytes(b"half")
    assert [record.id for record in open_store(store.path).get()] == ["a"]
    assert all(path.exists() for path in left)  # who reads removes nothing
    assert store.delete(["nowhere"]) == 0
    assert {path.name for path in tmp_path.rglob("*")} == there


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
