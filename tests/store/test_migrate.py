"""Copies of stores: from each backend to each, all or nothing."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from backends import BACKENDS

from arrowembed.errors import InvalidArgumentError, StoreNotFoundError
from arrowembed.store import open_store
from arrowembed.store.lock import write_lock
from arrowembed.store.migrate import migrate

ALL = ("text", "metadata", "vector")


def fill(folder, backend, count=500, **options):
    """A store with replaced and deleted entries, and what comes out of it."""
    rng = np.random.default_rng(5)
    with open_store(folder, dimension=4, backend=backend, **options) as store:
        ids = [f"é {i}" for i in range(count)]
        metadata = [
            {"n": i, "nested": {"list": [i, None]}, "key '`\n": str(i)} for i in range(count)
        ]
        texts = [None if i % 5 == 0 else f"text {i}" for i in range(count)]
        store.add(ids, texts, vectors=rng.normal(size=(count, 4)), metadata=metadata)
        store.upsert(ids[3:7], vectors=rng.normal(size=(4, 4)))
        store.delete(ids[10:20])
        return content(store)


def content(store):
    return [
        (record.id, record.text, record.metadata, record.vector.tolist())
        for record in store.get(include=ALL)
    ]


@pytest.mark.parametrize("target", BACKENDS)
def test_a_copy_holds_the_same_in_the_same_order(tmp_path, backend, target):
    expected = fill(tmp_path / "old", backend, metric="dot")
    assert migrate(tmp_path / "old", tmp_path / "new", backend=target) == len(expected) == 490
    with open_store(tmp_path / "new") as store:
        assert (store.description.backend, store.description.metric) == (target, "dot")
        assert content(store) == expected
        store.add(["more"], vectors=np.ones((1, 4)))
    with open_store(tmp_path / "old") as store:
        assert content(store) == expected
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "home") == ["new", "old"]


def test_a_copy_has_the_model_of_the_store(tmp_path, model):
    with open_store(tmp_path / "old", model=model) as store:
        store.add(["a", "b"], ["one text", "another"])
    (tmp_path / "new").mkdir()
    assert migrate(tmp_path / "old", tmp_path / "new", backend="lancedb") == 2
    with open_store(tmp_path / "new") as store:
        assert store.description.model == open_store(tmp_path / "old").description.model
        assert store.search("another", k=1)[0].id == "b"


def test_a_copy_may_round_vectors(tmp_path, backend):
    expected = fill(tmp_path / "old", backend)
    migrate(tmp_path / "old", tmp_path / "new", dtype="float16")
    with open_store(tmp_path / "new") as store:
        assert store.description.dtype == "float16"
        for record, entry in zip(store.get(include=ALL), expected, strict=True):
            rounded = np.array(entry[3], np.float32).astype(np.float16)
            np.testing.assert_array_equal(record.vector, rounded.astype(np.float32))


def test_an_empty_store_is_copied(tmp_path, backend):
    open_store(tmp_path / "old", dimension=2, backend=backend).close()
    assert migrate(tmp_path / "old", tmp_path / "new") == 0
    assert len(open_store(tmp_path / "new")) == 0


def test_nothing_is_overwritten(tmp_path):
    fill(tmp_path / "old", "lightweight", count=20)
    fill(tmp_path / "there", "lightweight", count=20)
    for target in ("there", "old"):
        with pytest.raises(InvalidArgumentError, match="there is something at"):
            migrate(tmp_path / "old", tmp_path / target)
    with pytest.raises(StoreNotFoundError, match="nowhere"):
        migrate(tmp_path / "nowhere", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_copy_that_fails_leaves_nothing(tmp_path, monkeypatch):
    fill(tmp_path / "old", "lightweight")
    from arrowembed.store.lightweight import LightweightStore

    monkeypatch.setattr(LightweightStore, "_compact", lambda self: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        migrate(tmp_path / "old", tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir() if "new" in path.name] == []


def test_a_run_that_goes_on_is_left_alone_and_a_dead_one_removed(tmp_path):
    fill(tmp_path / "old", "lightweight", count=20)
    alive, dead = tmp_path / ".new.migrating-1", tmp_path / ".new.migrating-2"
    alive.mkdir()
    dead.mkdir()
    with write_lock(alive / ".migrating", timeout=0):
        migrate(tmp_path / "old", tmp_path / "new")
    assert alive.exists()
    assert not dead.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
@pytest.mark.parametrize("target", BACKENDS)
def test_a_run_that_is_killed_leaves_no_store_and_can_be_repeated(tmp_path, target):
    expected = fill(tmp_path / "old", "lightweight", count=4_000)
    script = (
        "from arrowembed.store import migrate as m\n"
        "from arrowembed.store.migrate import migrate\n"
        "m._BYTES = 256\n"  # many small steps
        f"migrate({str(tmp_path / 'old')!r}, {str(tmp_path / 'new')!r}, backend={target!r})\n"
    )
    for wait in (0.0, 0.05, 0.2):
        process = subprocess.Popen([sys.executable, "-c", script])
        while not list(tmp_path.glob(".new.migrating-*")) and process.poll() is None:
            time.sleep(0.005)
        time.sleep(wait)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert not (tmp_path / "new").exists()
    assert migrate(tmp_path / "old", tmp_path / "new", backend=target) == len(expected)
    assert [path.name for path in tmp_path.glob(".new*")] == []
    with open_store(tmp_path / "new") as store:
        assert content(store) == expected
