"""What the operating system refuses: a full disk, a folder that may only be read."""

import os
import resource
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from arrowembed.errors import StoreIOError
from arrowembed.store import open_store


@contextmanager
def files_of_at_most(size):
    """As on a full disk: a longer write fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("size", [0, 500, 5_000, 20_000, 60_000])
def test_a_full_disk_changes_nothing(tmp_path, size):
    store = open_store(tmp_path / "store", dimension=8)
    ids = [f"{i}" for i in range(1_000)]
    store.add(ids[:500], vectors=np.ones((500, 8)))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    message = "was not changed: .*File too large.*; raise the limit"
    for call in (
        lambda: store.add(ids[500:], ["text" * 50] * 500, vectors=np.ones((500, 8))),
        lambda: store.upsert(ids, ["text" * 50] * 1000, vectors=np.ones((1000, 8))),
    ):
        with files_of_at_most(size), pytest.raises(StoreIOError, match=message):
            call()
        after = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        assert after == before
    assert len(store) == 500
    store.add(ids[500:], vectors=np.ones((500, 8)))
    assert len(store) == 1_000


def test_a_full_disk_refuses_deletes_and_compaction(tmp_path):
    store = open_store(tmp_path / "store", dimension=8)
    for start in (0, 500):
        store.add([f"{i}" for i in range(start, start + 500)], vectors=np.ones((500, 8)))
    with files_of_at_most(40), pytest.raises(StoreIOError, match="was not changed"):
        store.delete(["1"])
    with files_of_at_most(1_000), pytest.raises(StoreIOError, match="was not changed"):
        store.compact()
    assert len(store) == len(open_store(store.path)) == 1_000
    store.verify()


def test_a_new_store_where_nothing_can_be_written(tmp_path):
    with files_of_at_most(0), pytest.raises(StoreIOError):
        open_store(tmp_path / "store", dimension=8)
    with open_store(tmp_path / "store", dimension=8) as store:
        assert len(store) == 0


@pytest.fixture
def read_only():
    """A store in a folder that other users may read and nobody may write."""
    parent = Path(tempfile.mkdtemp())
    parent.chmod(0o755)
    with open_store(parent / "store", dimension=2) as store:
        store.add(["a", "b", "c"], ["x", "y", "z"], vectors=[[1, 0], [0, 1], [1, 1]])
        store.delete(["b"])
    everything = [parent / "store", *(parent / "store").rglob("*")]
    for path in everything:
        path.chmod(0o555 if path.is_dir() else 0o444)
    yield parent / "store"
    for path in everything:
        path.chmod(0o755)
    shutil.rmtree(parent)


def without_rights(work):
    """What `work` says in a child that is nobody: for root everything may be written."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            if os.getuid() == 0:
                os.seteuid(65_534)
            os.write(writing, work().encode())
        except BaseException as error:  # noqa: BLE001 - told to the parent
            os.write(writing, repr(error).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    return said


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_store_that_may_only_be_read_is_searched(read_only):
    def work():
        with open_store(read_only) as store:
            store.verify()
            found = [hit.id for hit in store.search([1, 0], filter={"n": {"$exists": False}})]
            assert store.count() == len(store.get()) == 2
            for call in (
                lambda: store.add(["d"], vectors=[[1, 0]]),
                lambda: store.upsert(["a"], vectors=[[1, 0]]),
                lambda: store.delete(["a"]),
                store.compact,
            ):
                with pytest.raises(StoreIOError, match=r"not changed: .*; it can be searched"):
                    call()
            return " ".join(found)

    assert without_rights(work) == "a c"
