"""What only the store in LanceDB does: exactness on top of float32, indexes, words, many keys."""

import contextlib
import shutil
import sys

import numpy as np
import pytest
from slow_store import SlowStore, agree

from arrowembed.errors import (
    ArrowEmbedError,
    InvalidArgumentError,
    MissingDependencyError,
    StoreFileError,
    StoreLockedError,
)
from arrowembed.store import open_store
from arrowembed.store.filters import matches, parse
from arrowembed.store.lancedb import upkeep
from arrowembed.store.lancedb.columns import MAX_COLUMNS, column
from arrowembed.store.lancedb.results import records
from arrowembed.store.lock import write_lock

METRICS = ["cosine", "dot", "euclidean"]


@pytest.fixture
def lance(tmp_path):
    """Makes or opens a store of eight dimensions in LanceDB."""
    opened = []

    def make(**options):
        if not (tmp_path / "store" / "store.json").exists():
            options = {"dimension": 8, "backend": "lancedb", **options}
        opened.append(open_store(tmp_path / "store", **options))
        return opened[-1]

    yield make
    for store in opened:
        store.close()


def ids_of(records):
    return [record.id for record in records]


def filled(lance, vectors, **options):
    """A store with these vectors, and the slow one."""
    store, slow = lance(**options), SlowStore(options.get("metric", "cosine"), store_type(options))
    ids = [f"{i}" for i in range(len(vectors))]
    texts, metadata = [None] * len(ids), [{"n": i} for i in range(len(ids))]
    store.add(ids, vectors=vectors, metadata=metadata)
    slow.put(ids, texts, vectors, metadata)
    return store, slow


def store_type(options):
    return options.get("dtype", "float32")


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_near_ties_come_in_the_exact_order(lance, rng, metric, dtype):
    """Distances that float32 cannot tell apart, around the k-th and far from it."""
    base = rng.normal(size=8)
    # A cosine near one changes with the square of the step.
    step = 2e-3 if dtype == "float16" else 2e-5 if metric == "cosine" else 2e-7
    vectors = np.float32(base + step * rng.integers(-2, 3, size=(400, 8)))
    store, slow = filled(lance, vectors, metric=metric, dtype=dtype)
    for query in (base, -base, vectors[17], rng.normal(size=8)):
        for k in (1, 7, 60):
            expected = [name for name, _ in slow.search(query, k)]
            assert ids_of(store.search(query, k)) == expected
    late = {"n": {"$gte": 200}}
    assert ids_of(store.search(base, 20, filter=late)) == [
        name for name, _ in slow.search(base, 20, late)
    ]


@pytest.mark.parametrize("metric", METRICS)
def test_more_equal_vectors_than_candidates(lance, monkeypatch, rng, metric):
    """Where no number of candidates is certain, all are compared."""
    monkeypatch.setattr("arrowembed.store.lancedb.exact._MAX_CANDIDATES", 100)
    vectors = np.tile(rng.normal(size=8), (500, 1))
    vectors[250] *= 1 + 1e-3
    store, slow = filled(lance, vectors, metric=metric)
    for query in (vectors[0], -vectors[0]):
        assert ids_of(store.search(query, 20)) == [name for name, _ in slow.search(query, 20)]


@pytest.mark.parametrize("metric", METRICS)
def test_norms_that_float32_cannot_square(lance, rng, metric):
    vectors = rng.normal(size=(60, 8)) * 10.0 ** rng.integers(-37, 37, size=(60, 1))
    vectors[7] = vectors[8] = 0
    store, slow = filled(lance, vectors, metric=metric)
    for scale in (1e-30, 1.0, 1e30):
        for _ in range(3):
            query = rng.normal(size=8) * scale
            found, expected = store.search(query, 60), slow.search(query, 60)
            assert ids_of(found) == [name for name, _ in expected]
            np.testing.assert_allclose(
                [hit.score for hit in found], [score for _, score in expected], rtol=1e-9
            )


def test_the_bound_of_the_distance_holds(rng):
    """LanceDB's float32, done here in the worst order, is within what is allowed for."""
    from arrowembed.store.lancedb.bounds import Query

    for metric in METRICS:
        for number in (np.float32, np.float16):
            for _ in range(200):
                size = int(rng.integers(1, 300))
                row = rng.normal(size=size).astype(number).astype(np.float32)
                query = Query(rng.normal(size=size).astype(np.float32), metric, number)
                moved = query.vector.astype(number).astype(np.float32)
                distance = one_by_one(moved, row, metric)
                norm = np.linalg.norm(row.astype(np.float64))
                score = query.scores(row[np.newaxis], np.array([norm]))[0]
                assert score <= query.best_of_others(float(distance), float(norm))


def one_by_one(query, row, metric):
    def total(values):
        result = np.float32(0)
        for value in values:
            result = np.float32(result + value)
        return result

    if metric == "euclidean":
        return total(np.square(query - row))
    product = total(query * row)
    if metric == "dot":
        return np.float32(1) - product
    norms = np.sqrt(total(query * query)) * np.sqrt(total(row * row))
    return np.float32(1) - product / norms


def test_keys_beyond_the_columns_are_filtered_too(lance, rng):
    store = lance()
    keys = [f"key {i}" for i in range(MAX_COLUMNS)] + ["k" * 500, "last", "é"]
    metadata = []
    for start in range(0, 400, 100):
        entries = [{str(key): value(rng) for key in rng.permutation(keys)[:20]} for _ in range(100)]
        metadata += entries
        ids = [f"{i}" for i in range(start, start + 100)]
        store.add(ids, vectors=rng.normal(size=(100, 8)), metadata=entries)
    assert len(store._snapshot().layout.names) == MAX_COLUMNS
    filters = [{key: {"$gt": 0}} for key in keys[::10]]
    filters += [{"k" * 500: {"$ne": "a"}}, {"last": {"$exists": True}}, {"never": 1}, {"é": "a"}]
    filters += [{"$or": [{"key 1": 1}, {"last": 1}, {"k" * 500: 1}]}, {"$not": {"last": 1}}]
    for where in filters:
        condition = parse(where)
        expected = [f"{i}" for i, entry in enumerate(metadata) if matches(condition, entry)]
        assert ids_of(store.get(filter=where)) == expected
        assert store.count(where) == len(expected)
    assert [record.metadata for record in store.get()] == metadata


def value(rng):
    pool = [1, 0.5, "a", True, [1], None, -3, 2**60]
    return pool[rng.integers(len(pool))]


def test_no_two_keys_share_a_column():
    keys = [
        "a",
        "A",
        "_61",
        "é",
        "a b",
        "a.b",
        "a_b",
        "a-b",
        "`",
        "'",
        "\n",
        "\0",
        "integer_a",
        "日",
    ]
    assert len({column("string", key) for key in keys}) == len(keys)
    for key in keys:
        assert set(column("string", key)) <= set("abcdefghijklmnopqrstuvwxyz0123456789_")


@pytest.mark.parametrize("kind", ["ivf_pq", "ivf_hnsw_sq", "ivf_sq", "ivf_flat"])
def test_an_index_finds_nearly_all_and_what_came_after_it(lance, rng, kind):
    centres = rng.normal(size=(20, 8))
    vectors = np.float32(centres[rng.integers(20, size=600)] + 0.2 * rng.normal(size=(600, 8)))
    store, slow = filled(lance, vectors, metric="cosine")
    store.create_index(kind)
    assert store.info()["details"]["indexes"]["vector"]["indexed"] == 600
    queries = vectors[:40] + 0.05 * rng.normal(size=(40, 8))
    found = store.search_batch(queries, 10)
    right = 0
    for query, hits in zip(queries, found, strict=True):
        expected = dict(slow.search(query, 10))
        right += len(expected.keys() & set(ids_of(hits)))
        for hit in hits:  # of what is found, scores are exact
            assert hit.score == pytest.approx(
                slow.similarity(query, slow.entries[hit.id][2]), abs=1e-6
            )
        assert [hit.score for hit in hits] == sorted((h.score for h in hits), reverse=True)
    assert right >= 0.95 * 400
    assert ids_of(store.search(queries[0], 600, exact=True)) == [
        name for name, _ in slow.search(queries[0], 600)
    ]
    store.add(["new"], vectors=queries[:1])
    assert store.search(queries[0], 1)[0].id == "new"
    store.delete(["new"])
    assert "new" not in ids_of(store.search(queries[0], 20))
    filtered = store.search(queries[0], 5, filter={"n": {"$lt": 9}}, nprobes=1000)
    assert len(filtered) == 5
    assert all(int(hit.id) < 9 for hit in filtered)
    store.compact()
    assert len(store.search(queries[0], 10, nprobes=5, refine_factor=2)) == 10
    assert len(store.search(queries[0], 10, ef=1)) == 10
    store.drop_index()
    store.drop_index()
    assert "vector" not in store.info()["details"]["indexes"]
    agree(store, slow, queries[:2])


def test_what_is_wrong_with_an_index_is_told(lance, rng):
    store = lance()
    with pytest.raises(InvalidArgumentError, match="an index needs 256 entries"):
        store.create_index()
    with pytest.raises(InvalidArgumentError, match="kind: 'annoy'; known are ivf_pq"):
        store.create_index("annoy")
    store.add([f"{i}" for i in range(256)], vectors=rng.normal(size=(256, 8)))
    with pytest.raises(InvalidArgumentError, match=r"create_index: of ivf_pq: .*'trees'"):
        store.create_index(trees=5)
    for wrong in ({"num_sub_vectors": 3}, {"num_partitions": 0}, {"num_bits": 3}, {"m": "x"}):
        with pytest.raises(InvalidArgumentError):
            store.create_index(**wrong)
    with pytest.raises(InvalidArgumentError, match=r"no index at .* 'Klingon'"):
        store.create_text_index("Klingon")
    with pytest.raises(InvalidArgumentError, match="'colour'"):
        store.create_text_index(colour=1)
    store.create_index("ivf_flat", num_partitions=2)
    for wrong in ({"nprobes": 0}, {"refine_factor": 1 << 31}, {"ef": 2.0}):
        (name,) = wrong
        with pytest.raises(
            InvalidArgumentError, match=f"{name}: .* expected a whole number from 1"
        ):
            store.search(np.ones(8), **wrong)
    with pytest.raises(InvalidArgumentError, match=r"query\[0\]: a vector whose norm"):
        store.search(np.zeros(8))
    assert len(store.search(np.zeros(8), exact=True)) == 10


def test_words_and_meaning(lance, model):
    store = lance(model=model, dimension=None)
    texts = [
        "the cat sleeps",
        "taxes are due in May",
        "a dog barks at the cats",
        'say "NEAR" (c++)',
    ]
    with pytest.raises(InvalidArgumentError, match="make one with create_text_index"):
        store.search("cat", mode="text")
    store.create_text_index()
    metadata = [{"n": i} for i in range(4)]
    store.add(list("abcd"), texts, metadata=metadata)
    assert sorted(ids_of(store.search("cat", mode="text"))) == ["a", "c"]
    assert ids_of(store.search("cat", mode="text", filter={"n": {"$gt": 0}})) == ["c"]
    (hit,) = store.search("tax", mode="text", include=["text", "vector"])
    assert (hit.id, hit.text, hit.metadata) == ("b", texts[1], None)
    np.testing.assert_array_equal(hit.vector, model.encode_document(texts[1]))
    store.compact()
    assert ids_of(store.search('"NEAR" (c++) :*', mode="text", k=1)) == ["d"]
    assert store.search("nowhere", mode="text") == []
    both = store.search("taxes", mode="hybrid", k=2)
    assert both[0].id == "b"
    assert both[0].score > both[1].score
    both = store.search("taxes", mode="hybrid", filter={"n": {"$ne": 1}})
    assert sorted(ids_of(both)) == ["a", "c", "d"]
    found = store.search_batch(["taxes", "cat"], mode="text", k=1, offset=1)
    assert [len(hits) for hits in found] == [0, 1]
    for wrong in ({"mode": "fuzzy"}, {"mode": "text", "nprobes": 3}, {"mode": "text", "k": 0}):
        with pytest.raises(InvalidArgumentError):
            store.search("cat", **wrong)
    with pytest.raises(InvalidArgumentError, match="searches by words; give a text"):
        store.search(np.ones(store.description.dimension), mode="text")
    store.drop_text_index()
    with pytest.raises(InvalidArgumentError, match="create_text_index"):
        store.search("cat", mode="hybrid")


def test_many_small_writes_leave_few_files(lance, monkeypatch):
    monkeypatch.setattr(upkeep, "_LOOK_EVERY", 8)
    store = lance()
    for number in range(40):
        store.add([f"{number}"], vectors=np.full((1, 8), number + 1.0), metadata=[{"n": number}])
    fragments = store._table.stats()["fragment_stats"]["num_fragments"]
    assert fragments <= 8 + 6 + 8
    assert ids_of(store.get()) == [f"{number}" for number in range(40)]
    store.upsert(["3"], vectors=np.ones((1, 8)))
    assert ids_of(store.get(offset=38)) == ["39", "3"]


def test_what_a_read_needs_may_be_removed_meanwhile(lance, rng):
    """A reader whose version another one's `compact` removes reads the newest."""
    reader, writer = lance(), lance()
    writer.add([f"{i}" for i in range(50)], vectors=rng.normal(size=(50, 8)))
    old = reader._snapshot()
    seen = []

    def read(snapshot):
        seen.append(snapshot)
        if snapshot is old:  # between the two parts of a read
            writer.delete([f"{i}" for i in range(30)])
            writer.compact()
        return ids_of(records(snapshot.rows(None, ["id", "sequence"]), ()))

    assert reader._read(read) == [f"{i}" for i in range(30, 50)]
    assert seen[0] is old
    assert len(seen) == 2
    with pytest.raises(StoreFileError, match="cannot be read"):
        old.rows(None, ["id"])


def test_the_package_may_be_missing(tmp_path, monkeypatch, caplog):
    open_store(tmp_path / "there", dimension=2, backend="lancedb").close()
    monkeypatch.setitem(sys.modules, "lancedb", None)
    for folder in ("there", "new"):
        with pytest.raises(MissingDependencyError, match=r'pip install "arrowembed\[lancedb\]"'):
            open_store(tmp_path / folder, dimension=2, backend="lancedb")
    assert not (tmp_path / "new").exists()
    with open_store(tmp_path / "new", dimension=2, backend="lancedb", fallback=True) as store:
        assert store.description.backend == "lightweight"
    assert "lancedb cannot be used" in caplog.text


@pytest.mark.parametrize("what", ["data", "_versions", "entries.lance"])
def test_damaged_files_are_told(lance, tmp_path, rng, what):
    store = lance()
    store.add([f"{i}" for i in range(100)], vectors=rng.normal(size=(100, 8)))
    store.close()
    table = tmp_path / "store" / "entries.lance"
    if what == "entries.lance":
        table.rename(tmp_path / "elsewhere")
    else:
        for file in (table / what).iterdir():
            if file.suffix in (".lance", ".manifest"):
                file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(StoreFileError, match=str(tmp_path / "store")):
        lance().search(np.ones(8))


def test_a_folder_of_something_else_is_no_store(tmp_path):
    (tmp_path / "file.txt").write_text("important")
    with pytest.raises(InvalidArgumentError, match=r"it has 'file\.txt'"):
        open_store(tmp_path, dimension=2, backend="lancedb")


def test_flipped_bytes_are_an_answer_or_an_error(tmp_path, rng):
    """Whatever is damaged: no crash, no error but ours. LanceDB keeps no checksums to tell by."""
    whole, copy = tmp_path / "whole", tmp_path / "copy"
    with open_store(whole, dimension=8, backend="lancedb") as store:
        ids = [f"{i}" for i in range(50)]
        metadata = [{"n": i, "text": "x"} for i in range(50)]
        store.add(ids, ids, vectors=rng.normal(size=(50, 8)), metadata=metadata)
        store.delete(["3"])
    suffixes = (".lance", ".manifest", ".arrow")
    files = [path for path in whole.rglob("*") if path.is_file() and path.suffix in suffixes]
    assert {path.suffix for path in files} == set(suffixes)
    for number in range(12):
        shutil.copytree(whole, copy)
        file = copy / files[number % len(files)].relative_to(whole)
        content = bytearray(file.read_bytes())
        for place in rng.integers(len(content), size=8):
            content[place] ^= 1 << rng.integers(8)
        file.write_bytes(content[: rng.integers(len(content))] if number % 3 == 0 else content)
        with contextlib.suppress(ArrowEmbedError), open_store(copy) as store:
            for call in (
                lambda: store.get(include=["text", "metadata", "vector"]),
                lambda: store.search(np.ones(8), filter={"n": {"$gt": 5}}),
                lambda: store.upsert(["9"], vectors=np.ones((1, 8))),
            ):
                with contextlib.suppress(ArrowEmbedError):
                    call()
        shutil.rmtree(copy)


def test_a_writer_waits_only_so_long_for_another(lance):
    store = lance(lock_timeout=0.05)
    with write_lock(store.path / "lock", timeout=0):
        with pytest.raises(StoreLockedError, match="being written to by somebody else"):
            store.add(["a"], vectors=np.ones((1, 8)))
        assert store.search(np.ones(8)) == []
    store.add(["a"], vectors=np.ones((1, 8)))
