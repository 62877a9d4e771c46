"""What every store does, whatever its backend."""

import json

import numpy as np
import pytest
from slow_store import SlowStore, agree

from arrowembed import Embedder
from arrowembed.errors import (
    ClosedError,
    DuplicateIdError,
    InvalidArgumentError,
    InvalidTextError,
    StoreFileError,
    StoreMismatchError,
    StoreNotFoundError,
    TextTypeError,
)
from arrowembed.store import open_store

AXES = np.eye(3, dtype=np.float32)


def ids_of(records):
    return [record.id for record in records]


def test_what_was_put_in_comes_out(store):
    metadata = {"n": 1, "x": 2.5, "ok": True, "none": None, "list": [1, {"a": "b"}], "é\n'": "日本"}
    store.add(["a", "b"], ["text", "naïve 😀\0"], vectors=AXES[:2], metadata=[metadata, None])
    first, second = store.get(include=["text", "metadata", "vector"])
    assert (first.id, first.text, first.metadata) == ("a", "text", metadata)
    assert list(first.metadata) == list(metadata)
    assert type(first.metadata["n"]) is int
    assert (second.id, second.text, second.metadata) == ("b", "naïve 😀\0", {})
    np.testing.assert_array_equal(second.vector, AXES[1])
    assert len(store) == store.count() == 2


def test_only_what_is_asked_for_comes(store):
    store.add(["a"], ["text"], vectors=AXES[:1], metadata=[{"n": 1}])
    (record,) = store.get(include=[])
    assert (record.text, record.metadata, record.vector) == (None, None, None)
    (hit,) = store.search(AXES[0], include=["vector"])
    assert (hit.text, hit.metadata, hit.score) == (None, None, 1)
    np.testing.assert_array_equal(hit.vector, AXES[0])
    with pytest.raises(InvalidArgumentError, match="include: 'vectors'; known are"):
        store.get(include=["vectors"])


def test_entries_are_got_by_id_in_the_order_of_ids(store):
    store.add(list("abc"), vectors=AXES)
    assert ids_of(store.get(["c", "nowhere", "a"])) == ["c", "a"]
    assert ids_of(store.get(["c", "a", "b"], offset=1, limit=1)) == ["a"]
    assert ids_of(store.get(offset=1)) == ["b", "c"]
    assert ids_of(store.get(limit=0)) == []
    assert store.get([]) == []


def test_a_scan_goes_through_what_was_there_when_it_began(store):
    for start in range(0, 50, 10):
        ids = [f"{i}" for i in range(start, start + 10)]
        store.add(ids, ids, vectors=np.ones((10, 3)), metadata=[{"n": int(i)} for i in ids])
    batches = store.scan(batch_size=7, include=["text", "vector"])
    seen = next(batches)
    assert ids_of(seen) == [f"{i}" for i in range(7)]
    store.delete([f"{i}" for i in range(20, 45)])
    store.upsert(["1", "new"], vectors=np.zeros((2, 3)))
    seen += [record for batch in batches for record in batch]
    assert [record.text for record in seen] == [f"{i}" for i in range(50)]
    np.testing.assert_array_equal([record.vector for record in seen], np.ones((50, 3)))
    found = list(store.scan(filter={"n": {"$lt": 3}}))
    assert [ids_of(batch) for batch in found] == [["0", "2"]]
    assert list(store.scan(filter={"n": 1000})) == []
    with pytest.raises(InvalidArgumentError, match="batch_size: 0"):
        store.scan(batch_size=0)


def test_the_most_similar_come_first(store):
    store.add(list("abc"), vectors=AXES)
    hits = store.search([0.1, 3, 2], k=2)
    assert ids_of(hits) == ["b", "c"]
    assert hits[0].score == pytest.approx(3 / np.sqrt(13.01))
    assert ids_of(store.search([0.1, 3, 2], k=5)) == ["b", "c", "a"]
    assert ids_of(store.search([0.1, 3, 2], k=1, offset=2)) == ["a"]
    assert store.search([0.1, 3, 2], offset=3) == []
    assert [ids_of(found) for found in store.search_batch(AXES[[2, 0]], k=np.int64(1))] == [
        ["c"],
        ["a"],
    ]
    assert store.search_batch([]) == []
    assert store.search_batch(np.empty((0, 3))) == []


@pytest.mark.parametrize(
    ("metric", "scores"),
    [
        ("cosine", {"a": 1, "twice": 1, "zero": 0, "b": 0}),
        ("dot", {"a": 1, "twice": 2, "zero": 0, "b": 0}),
        ("euclidean", {"a": 0, "twice": -1, "zero": -1, "b": -np.sqrt(2)}),
    ],
)
def test_metrics(make, metric, scores):
    store = make(metric=metric)
    store.add(list(scores), vectors=[AXES[0], 2 * AXES[0], np.zeros(3), AXES[1]])
    hits = store.search(AXES[0])
    assert {hit.id: hit.score for hit in hits} == pytest.approx(scores)
    assert ids_of(hits) == sorted(scores, key=scores.get, reverse=True)


def test_among_equals_the_first_that_was_put_in_comes_first(store):
    ids = [f"id{i}" for i in np.random.default_rng(1).permutation(50)]
    for start in range(0, 50, 7):
        some = ids[start : start + 7]
        store.add(some, vectors=np.tile(AXES[0], (len(some), 1)))
    assert ids_of(store.search(AXES[0], k=20)) == ids[:20]
    store.compact()
    assert ids_of(store.search(AXES[0], k=20, offset=20)) == ids[20:40]


def test_a_zero_vector_is_similar_to_nothing(store):
    store.add(["opposite", "zero"], vectors=[-AXES[0], np.zeros(3)])
    assert [(hit.id, hit.score) for hit in store.search(AXES[0])] == [
        ("zero", 0),
        ("opposite", -1),
    ]
    assert [hit.score for hit in store.search(np.zeros(3))] == [0, 0]


def test_an_empty_store_answers(store):
    assert (len(store), store.get(), store.search(AXES[0])) == (0, [], [])
    assert store.delete(["a"]) == store.delete(filter={"n": 1}) == 0
    store.add([], vectors=[])
    store.upsert([], [], metadata=[], vectors=np.empty((0, 3)))
    store.compact()
    assert store.info()["count"] == 0


def test_an_id_that_is_there_is_not_added_again(store):
    store.add(["a", "b"], ["old", "old"], vectors=AXES[:2])
    with pytest.raises(DuplicateIdError, match="'b' is in the store already; use upsert"):
        store.add(["c", "b"], ["new", "new"], vectors=AXES[:2])
    assert ids_of(store.get()) == ["a", "b"]
    with pytest.raises(InvalidArgumentError, match=r"ids\[1\]: 'c' comes twice"):
        store.add(["c", "c"], vectors=AXES[:2])
    store.delete(["b"])
    store.add(["b"], vectors=AXES[:1])
    assert len(store) == 2


def test_upsert_replaces_entries_as_a_whole(store):
    store.add(list("abc"), list("abc"), vectors=AXES, metadata=[{"n": 1}] * 3)
    store.upsert(["a", "new"], vectors=AXES[[2, 1]])
    assert len(store) == 4
    (record,) = store.get(["a"], include=["text", "metadata", "vector"])
    assert (record.text, record.metadata) == (None, {})
    np.testing.assert_array_equal(record.vector, AXES[2])
    assert ids_of(store.get()) == ["b", "c", "a", "new"]
    assert ids_of(store.search(AXES[0], k=1)) != ["a"]


def test_deleting(store):
    ids = [f"{i}" for i in range(20)]
    store.add(ids, vectors=np.ones((20, 3)), metadata=[{"n": i} for i in range(20)])
    assert store.delete(["3", "3", "nowhere"]) == 1
    assert store.delete(["3", "4", "5"], filter={"n": {"$gt": 4}}) == 1
    assert store.delete(filter={"n": {"$gte": 10}}) == 10
    left = [name for name in ids[:10] if name not in ("3", "5")]
    assert ids_of(store.get()) == ids_of(store.search(AXES[0], k=100)) == left
    with pytest.raises(InvalidArgumentError, match="give ids or a filter"):
        store.delete()
    with pytest.raises(InvalidArgumentError, match="give ids or a filter"):
        store.delete(filter={})


def test_texts_are_embedded_and_found(make, model):
    store = make(dimension=None, model=model)
    texts = ["the cat sleeps", "taxes are due", "a dog barks"]
    store.add(["1", "2", "3"], texts)
    (best,) = store.search(texts[1], k=1)
    assert (best.id, best.text) == ("2", texts[1])
    assert best.score == pytest.approx(1, abs=1e-6)
    assert [ids_of(found) for found in store.search_batch(texts[:2], k=1)] == [["1"], ["2"]]
    (record,) = store.get(["3"], include=["vector"])
    np.testing.assert_array_equal(record.vector, model.encode_document(texts[2]))
    assert store.info()["model"] == model.reference


def test_prompts_are_those_of_queries_and_documents(make, prompted_folder):
    model = Embedder(prompted_folder, cache_size=0)
    store = make(dimension=None, model=model)
    store.add(["a"], ["text"])
    (hit,) = store.search("text", include=["vector"])
    np.testing.assert_array_equal(hit.vector, model.encode_document("text"))
    expected = model.encode_query("text") @ hit.vector
    assert hit.score == pytest.approx(float(expected / np.linalg.norm(hit.vector)), abs=1e-4)


def test_a_store_opens_again_by_its_path(make, model):
    with make(dimension=None, model=model, metric="dot", dtype="float16") as store:
        store.add(["a"], ["text"])
        description = store.description
    again = make()
    assert again.description == description
    assert ids_of(again.search("text")) == ["a"]
    assert len(make(model=model)) == 1
    for wanted in ({"dimension": 5}, {"metric": "euclidean"}, {"dtype": "int8"}):
        with pytest.raises(StoreMismatchError, match="open it as it is"):
            make(**wanted)


def test_a_model_may_be_named_by_its_folder(make, bert_mean_folder):
    make(dimension=None, model=bert_mean_folder).add(["a"], ["text"])
    assert ids_of(make(model=str(bert_mean_folder)).search("text")) == ["a"]


def test_another_model_is_refused(make, model, bert_folder):
    make(dimension=None, model=model)
    with pytest.raises(StoreMismatchError, match="was made with"):
        make(model=Embedder(bert_folder))
    make("vectors")
    with pytest.raises(StoreMismatchError, match="was made with vectors alone"):
        make("vectors", model=model)


def test_a_store_of_vectors_takes_no_texts_alone(store):
    with pytest.raises(StoreMismatchError, match="made for vectors, not for texts"):
        store.add(["a"], ["text"])
    with pytest.raises(StoreMismatchError, match="made for vectors, not for texts"):
        store.search("text")


def test_no_store_is_there(tmp_path, backend):
    with pytest.raises(StoreNotFoundError, match="makes one when it is given a model"):
        open_store(tmp_path / "nowhere", backend=backend)
    (tmp_path / "file").write_text("no store")
    with pytest.raises(OSError, match="file"):
        open_store(tmp_path / "file", dimension=3, backend=backend)


def test_a_damaged_description_is_told(make, tmp_path):
    make().close()
    file = tmp_path / "store" / "store.json"
    text = file.read_text()
    for damaged in (text[:-20], "[]", text.replace("cosine", "sine"), text.replace(": 3", ': "3"')):
        file.write_text(damaged)
        with pytest.raises(StoreFileError, match=r"store\.json"):
            make()
    file.write_text(json.dumps({**json.loads(text), "version": 99}))
    with pytest.raises(StoreFileError, match="version 99"):
        make()


def test_a_closed_store_says_so(store):
    store.add(["a"], vectors=AXES[:1])
    store.close()
    store.close()
    calls = (
        lambda: store.add(["b"], vectors=AXES[:1]),
        lambda: store.upsert(["b"], vectors=AXES[:1]),
        lambda: store.delete(["a"]),
        store.get,
        lambda: store.search(AXES[0]),
        store.count,
        store.compact,
        store.info,
    )
    for call in calls:
        with pytest.raises(ClosedError, match="was closed"):
            call()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ids": "a"}, r"ids: expected a list of ids, got one"),
        ({"ids": [1]}, r"ids\[0\]: expected a string, got int"),
        ({"ids": [""]}, r"ids\[0\]: an id has 1 to 1024 bytes"),
        ({"ids": ["é" * 513]}, r"ids\[0\]: an id has 1 to 1024 bytes, this one 1026"),
        ({"ids": ["\ud800"]}, r"ids\[0\]: a lone surrogate"),
        ({"ids": ["a", "b"]}, "vectors: 1 for 2 ids"),
        ({"texts": ["a", "b"]}, "texts: 2 for 1 ids"),
        ({"texts": "a"}, "texts: expected a list of texts, got one"),
        ({"vectors": None}, "give texts, vectors or both"),
        ({"vectors": [[1, 2]]}, r"vectors: shape \(1, 2\)"),
        ({"vectors": [1, 2, 3]}, r"vectors: shape \(3,\)"),
        ({"vectors": [["a", "b", "c"]]}, "vectors: expected numbers"),
        ({"vectors": [[1, np.nan, 3]]}, r"vectors\[0\]: holds a NaN"),
        ({"vectors": [[1, 1e39, 3]]}, r"vectors\[0\]: holds a NaN, an infinity or a number too"),
        ({"metadata": [{}, {}]}, "metadata: 2 for 1 ids"),
        ({"metadata": ["a"]}, r"metadata\[0\]: expected a mapping, got str"),
        ({"metadata": [{"$a": 1}]}, r"metadata\[0\]: a key is a non-empty string"),
        ({"metadata": [{1: 1}]}, r"metadata\[0\]: a key is a non-empty string"),
        ({"metadata": [{"a": {"": 1}}]}, r"metadata\[0\]\.a: a key is a non-empty string"),
        ({"metadata": [{"a": [1, np.inf]}]}, r"metadata\[0\]\.a\[1\]: inf is no JSON"),
        ({"metadata": [{"a": 1 << 63}]}, r"metadata\[0\]\.a: an integer beyond 64 bits"),
        ({"metadata": [{"a": b"b"}]}, r"metadata\[0\]\.a: bytes is no JSON"),
        ({"metadata": [{"a": "\udc00"}]}, r"metadata\[0\]\.a: a lone surrogate"),
    ],
)
def test_wrong_arguments_are_told_and_change_nothing(store, arguments, message):
    with pytest.raises(InvalidArgumentError, match=message):
        store.add(**{"ids": ["a"], "vectors": AXES[:1], **arguments})
    assert len(store) == 0


def test_metadata_may_not_be_nested_without_end(store):
    endless = []
    endless.append(endless)
    with pytest.raises(InvalidArgumentError, match="nested more than 64 deep"):
        store.add(["a"], vectors=AXES[:1], metadata=[{"a": endless}])


def test_numbers_of_numpy_are_metadata_too(store):
    entry = {"i": np.int64(5), "f": np.float32(0.5), "b": np.True_, "l": [np.int8(1)]}
    store.add(["a"], vectors=AXES[:1], metadata=[entry])
    assert store.get()[0].metadata == {"i": 5, "f": 0.5, "b": True, "l": [1]}


def test_long_texts_and_large_metadata(store):
    text, metadata = "日本語 " * 300_000, {"s": "x" * 2_000_000, "list": list(range(50_000))}
    store.add(["a", "b"], [text, "short"], vectors=AXES[:2], metadata=[metadata, {"s": "y"}])
    assert store.search(AXES[0], k=1)[0].text == text
    (record,) = store.get(filter={"s": {"$lt": "y"}})
    assert record.metadata == metadata


def test_texts_that_are_none_are_told(store):
    with pytest.raises(TextTypeError, match=r"texts\[1\]: expected a text, got int"):
        store.add(["a", "b"], ["a", 1], vectors=AXES[:2])
    with pytest.raises(InvalidTextError, match=r"texts\[0\]: a lone surrogate"):
        store.add(["a"], ["\ud800"], vectors=AXES[:1])
    store.add(["a", "b"], ["a", None], vectors=AXES[:2])
    assert [record.text for record in store.get()] == ["a", None]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k": 0}, "k: 0; expected a whole number from 1 on"),
        ({"k": True}, "k: True"),
        ({"k": 2.0}, r"k: 2\.0"),
        ({"k": 10_001}, "at most 10000"),
        ({"k": 10, "offset": 9_991}, "at most 10000"),
        ({"offset": -1}, "offset: -1; expected a whole number from 0 on"),
        ({"query": [1, 2]}, "query: shape"),
        ({"query": [1, 2, np.inf]}, r"query\[0\]: holds a NaN"),
        ({"filter": {"a": {"$like": 1}}}, r"filter\.a\.\$like: unknown"),
        ({"nonsense": 1}, "nonsense"),
    ],
)
def test_wrong_searches_are_told(store, arguments, message):
    store.add(["a"], vectors=AXES[:1])
    with pytest.raises(InvalidArgumentError, match=message):
        store.search(**{"query": AXES[0], **arguments})


def test_numbers_too_large_for_float16_are_refused(make):
    store = make(dtype="float16", metric="dot")
    with pytest.raises(InvalidArgumentError, match="too large for float16"):
        store.add(["a"], vectors=[[65_520, 0, 0]])
    store.add(["a"], vectors=[[65_519, 1e-9, 0]])
    np.testing.assert_array_equal(store.get(include=["vector"])[0].vector, [65_504, 0, 0])


@pytest.mark.parametrize(
    ("metric", "dtype"),
    [("cosine", "float32"), ("dot", "float16"), ("euclidean", "int8"), ("euclidean", "float32")],
)
def test_a_store_agrees_with_the_slow_one_whatever_is_done(make, rng, metric, dtype):
    dimension = 5
    store = make(dimension=dimension, metric=metric, dtype=dtype)
    slow = SlowStore(metric, dtype)
    pool = [f"id {i} é" for i in range(60)]
    filters = [None, {"group": {"$in": [1, 2.0]}}, {"$not": {"odd": True}, "group": {"$lt": 4}}]
    for step in range(25):
        action = rng.choice(["add", "upsert", "delete", "delete_filter", "compact"])
        if action in ("add", "upsert"):
            known = [name for name in pool if action == "upsert" or name not in slow.entries]
            ids = rng.permutation(known)[: rng.integers(1, 12)].tolist()
            vectors = rng.normal(size=(len(ids), dimension)) * rng.choice(
                [0, 1, 100], (len(ids), 1)
            )
            metadata = [
                {"group": int(rng.integers(6)), "odd": bool(i % 2)} for i in range(len(ids))
            ]
            texts = [f"text {step} {name}" for name in ids]
            getattr(store, action)(ids, texts, vectors=vectors, metadata=metadata)
            slow.put(ids, texts, vectors, metadata)
        elif action == "delete":
            ids = rng.permutation(pool)[:5].tolist()
            assert store.delete(ids) == slow.delete(ids)
        elif action == "delete_filter":
            where = {"group": int(rng.integers(6)), "odd": True}
            assert store.delete(filter=where) == slow.delete(where=where)
        else:
            store.compact()
        if step % 5 == 4:
            agree(store, slow, rng.normal(size=(2, dimension)), filters)
    agree(make(), slow, rng.normal(size=(5, dimension)), filters)


def test_two_that_open_a_store_see_what_the_other_writes(make):
    first, second = make(), make()
    first.add(["a"], vectors=AXES[:1])
    assert ids_of(second.get()) == ["a"]
    second.upsert(["b"], vectors=AXES[1:2])
    assert ids_of(first.search(AXES[1], k=1)) == ["b"]
    first.delete(["a"])
    second.compact()
    assert len(first) == len(second) == 1


def test_threads_share_a_store(store):
    from concurrent.futures import ThreadPoolExecutor

    def work(number):
        store.add([f"{number}"], vectors=AXES[[number % 3]], metadata=[{"n": number}])
        return store.search(AXES[number % 3], k=1, filter={"n": number})

    with ThreadPoolExecutor(4) as pool:
        assert [ids_of(found) for found in pool.map(work, range(24))] == [
            [f"{n}"] for n in range(24)
        ]
    assert len(store) == 24


def test_info_tells_what_a_store_was_made_for(make, backend):
    store = make(metric="euclidean", dtype="int8")
    store.add(["a"], vectors=AXES[:1])
    info = store.info()
    assert info["path"].endswith("store")
    assert {**info, "path": "", "bytes": 0, "details": {}} == {
        "path": "",
        "backend": backend,
        "count": 1,
        "dimension": 3,
        "metric": "euclidean",
        "dtype": "int8",
        "model": None,
        "bytes": 0,
        "details": {},
    }
    assert info["bytes"] > 0
    assert repr(store).startswith(type(store).__name__)
