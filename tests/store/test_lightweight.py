"""What only the lightweight store does: segments, tombstones, compaction, options."""

import numpy as np
import pyarrow as pa
import pytest
from slow_store import SlowStore, agree

from arrowembed.errors import InvalidArgumentError
from arrowembed.store import open_store
from arrowembed.store.lightweight import columns, merging
from arrowembed.store.lightweight.merging import Limits


@pytest.fixture
def backend():
    return "lightweight"


@pytest.fixture
def small_segments(monkeypatch):
    """Segments of at most 32 rows of three numbers."""
    monkeypatch.setattr(merging, "MAX_BYTES", 32 * 3 * 4)
    assert Limits.of(3).rows == 32


def files(store):
    return sorted(path.name for path in (store.path / "segments").iterdir())


def test_many_small_writes_leave_few_segments(make):
    store, slow = make(), SlowStore()
    for number in range(80):
        vectors = np.random.default_rng(number).normal(size=(1, 3))
        store.add([f"{number}"], [f"text {number}"], vectors=vectors, metadata=[{"n": number}])
        slow.put([f"{number}"], [f"text {number}"], vectors, [{"n": number}])
    assert store.info()["details"]["segments"] <= 14
    assert len(files(store)) == 2 * store.info()["details"]["segments"]
    agree(store, slow, [[1, 2, 3]], [None, {"n": {"$lt": 50}}])


def test_one_large_write_becomes_several_segments(make, small_segments, rng):
    store, slow = make(), SlowStore()
    vectors = rng.normal(size=(100, 3))
    store.add([f"{i}" for i in range(100)], vectors=vectors)
    slow.put([f"{i}" for i in range(100)], [None] * 100, vectors, [{}] * 100)
    details = store.info()["details"]
    assert details == {"segments": 4, "deleted": 0, "changes": 1}
    agree(store, slow, rng.normal(size=(3, 3)))


def test_long_texts_make_segments_smaller(make, monkeypatch):
    store = make()
    monkeypatch.setattr(store, "_limits", Limits(rows=1000, payload=100))
    store.add(list("abcd"), ["x" * 60, "x" * 30, "y" * 500, "z"], vectors=np.ones((4, 3)))
    assert store.info()["details"]["segments"] == 3
    assert [len(record.text) for record in store.get()] == [60, 30, 500, 1]


def test_compaction_leaves_full_segments_without_what_was_deleted(make, small_segments, rng):
    store, slow = make(), SlowStore()
    for start in range(0, 200, 5):
        ids = [f"{i}" for i in range(start, start + 5)]
        vectors, metadata = rng.normal(size=(5, 3)), [{"n": i} for i in range(start, start + 5)]
        store.add(ids, vectors=vectors, metadata=metadata)
        slow.put(ids, [None] * 5, vectors, metadata)
    gone = [f"{i}" for i in range(0, 200, 3)]
    assert store.delete(gone) == slow.delete(gone)
    before = store.info()
    store.compact()
    after = store.info()
    assert before["details"]["deleted"] > 0
    assert after["details"]["deleted"] == 0
    assert after["details"]["segments"] <= before["details"]["segments"]
    assert after["bytes"] < before["bytes"]
    assert len(files(store)) == 2 * after["details"]["segments"]
    agree(store, slow, rng.normal(size=(3, 3)), [None, {"n": {"$gte": 100}}])
    store.compact()
    assert store.info() == after


def test_what_is_mostly_deleted_is_rewritten(make):
    store = make()
    store.add([f"{i}" for i in range(100)], vectors=np.ones((100, 3)))
    store.delete([f"{i}" for i in range(40)])
    assert store.info()["details"]["deleted"] == 40
    assert sorted(name.rpartition(".")[2] for name in files(store)) == ["arrow", "arrow", "live"]
    store.delete([f"{i}" for i in range(60)])
    assert store.info()["details"] == {"segments": 1, "deleted": 0, "changes": 3}
    store.delete([f"{i}" for i in range(100)])
    assert files(store) == []


def test_replacing_the_same_entries_again_and_again_does_not_grow(make):
    store = make()
    ids = [f"{i}" for i in range(10)]
    for number in range(40):
        store.upsert(ids, vectors=np.full((10, 3), number + 1))
    assert store.info()["details"]["segments"] == 1
    assert len(store) == 10
    np.testing.assert_array_equal(store.get(include=["vector"])[3].vector, [40, 40, 40])


def test_a_scan_goes_on_while_segments_are_merged(make, rng):
    store = make()
    for number in range(5):
        store.add([f"{number}"], vectors=[[number, 1, 1]])
    batches = store.scan(batch_size=2, include=["vector"])
    seen = next(batches)
    store.delete(["3"])
    store.compact()
    seen += [record for batch in batches for record in batch]
    assert [record.vector.tolist() for record in seen] == [[n, 1, 1] for n in range(5)]


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_vectors_do_not_change_when_segments_are_merged(make, rng, dtype):
    store = make(dtype=dtype)
    for number in range(5):
        store.add([f"{number}"], vectors=rng.normal(size=(1, 3)))
    before = [record.vector for record in store.get(include=["vector"])]
    store.compact()
    assert store.info()["details"]["segments"] == 1
    np.testing.assert_array_equal([r.vector for r in store.get(include=["vector"])], before)


def test_more_keys_than_columns(make, monkeypatch, rng):
    monkeypatch.setattr(columns, "MAX_KEYS", 3)
    monkeypatch.setattr("arrowembed.store.lightweight.content.MAX_KEYS", 3)
    store, slow = make(), SlowStore()
    filters = [{f"key{i}": {"$lt": 10}} for i in range(8)]
    filters += [{f"key{i}": {"$exists": True}} for i in range(8)]
    for start in range(0, 30, 6):
        metadata = [
            {f"key{rng.integers(8)}": int(rng.integers(20)), "key0": 5, f"key{i}": "x"}
            for i in range(6)
        ]
        ids, vectors = [f"{start + i}" for i in range(6)], rng.normal(size=(6, 3))
        store.add(ids, vectors=vectors, metadata=metadata)
        slow.put(ids, [None] * 6, vectors, metadata)
    agree(store, slow, filters=filters)
    store.compact()
    assert store.info()["details"]["segments"] == 1
    agree(store, slow, filters=filters)


def test_ids_with_equal_hashes_are_told_apart(make, monkeypatch):
    def all_equal(ids):
        return np.full(len(ids), 7, dtype=np.uint64)

    for module in ("content", "snapshot"):
        monkeypatch.setattr(f"arrowembed.store.lightweight.{module}.hashes_of", all_equal)
    store = make()
    store.add(list("abc"), vectors=np.eye(3))
    store.delete(["b"])
    assert [record.id for record in store.get(["c", "b", "a", "x"])] == ["c", "a"]


def test_other_programs_can_read_the_rows(make):
    store = make()
    metadata = [{"year": 2020, "lang": "en"}, {"year": 2.5}]
    store.add(["a", "b"], ["text", None], vectors=np.ones((2, 3)), metadata=metadata)
    (path,) = store.path.glob("segments/*.rows.arrow")
    with pa.memory_map(str(path)) as file:
        table = pa.ipc.open_file(file).read_all()
    assert table["id"].to_pylist() == ["a", "b"]
    assert table["text"].to_pylist() == ["text", None]
    assert table["integer:year"].to_pylist() == [2020, None]
    assert table["number:year"].to_pylist() == [None, 2.5]
    assert table["string:lang"].to_pylist() == ["en", None]


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "manifest.json").write_text("mine")
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InvalidArgumentError, match=r"not empty, it has 'notes\.txt'"):
        open_store(tmp_path, dimension=3)
    assert (tmp_path / "manifest.json").read_text() == "mine"


def test_files_that_are_not_ours_stay_where_they_are(make):
    store = make()
    foreign = store.path / "segments" / "notes.txt"
    foreign.write_text("mine")
    store.add(["a"], vectors=np.ones((1, 3)))
    store.compact()
    assert foreign.read_text() == "mine"


def test_the_backend_of_new_stores_is_named_by_a_variable(tmp_path, monkeypatch):
    monkeypatch.setenv("STORAGE_BACKEND", "lightweight")
    with open_store(tmp_path / "store", dimension=3) as store:
        assert store.info()["backend"] == "lightweight"
    monkeypatch.setenv("STORAGE_BACKEND", "nonsense")
    assert len(open_store(tmp_path / "store")) == 0
    with pytest.raises(InvalidArgumentError, match="STORAGE_BACKEND='nonsense'; known are"):
        open_store(tmp_path / "other", dimension=3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dimension": 0}, "dimension: 0; expected 1 to 65536"),
        ({"dimension": 3, "metric": "sine"}, "metric: 'sine'; known are"),
        ({"dimension": 3, "dtype": "float64"}, "dtype: 'float64'; known are"),
        ({"dimension": 3, "backend": "chroma"}, "backend: 'chroma'; known are"),
    ],
)
def test_wrong_arguments_of_new_stores_are_told(tmp_path, arguments, message):
    with pytest.raises(InvalidArgumentError, match=message):
        open_store(tmp_path / "store", **arguments)
    assert not (tmp_path / "store").exists()
