"""The cache of vectors."""

import threading

import numpy as np
import pytest

from arrowembed import Embedder


@pytest.fixture
def cached(bert_mean_folder):
    return Embedder(bert_mean_folder, cache_size=100)


def counts(model):
    info = model.cache_info()
    return info["hits"], info["misses"]


def test_a_text_that_comes_again_is_not_computed(cached):
    first = cached.encode(["a", "b"])
    assert counts(cached) == (0, 2)
    np.testing.assert_array_equal(cached.encode(["b", "a"]), first[::-1])
    assert counts(cached) == (2, 2)
    assert cached.cache_info()["entries"] == 2
    assert cached.cache_info()["bytes"] >= 2 * 48 * 4


def test_a_hit_is_the_vector_itself(cached, model):
    cached.encode(["a", "b"])
    np.testing.assert_array_equal(cached.encode(["a", "c"]), model.encode(["a", "c"]))


def test_what_a_caller_does_to_a_vector_does_not_reach_the_cache(cached):
    vectors = cached.encode(["a"])
    expected = vectors.copy()
    vectors[:] = 0
    np.testing.assert_array_equal(cached.encode(["a"]), expected)


@pytest.mark.parametrize(
    "options",
    [
        {"prompt": "query: "},
        {"pooling": "max"},
        {"normalize": "none"},
        {"normalize": "max_abs"},
        {"normalize": 1},
        {"normalize": 3},
        {"truncate_dim": 8},
    ],
)
def test_all_that_changes_the_result_is_part_of_the_key(cached, model, options):
    cached.encode("a")
    np.testing.assert_array_equal(cached.encode("a", **options), model.encode("a", **options))
    np.testing.assert_array_equal(cached.encode("a"), model.encode("a"))


def test_a_prompt_does_not_run_into_the_text(cached, model):
    cached.encode("b c", prompt="a ")
    np.testing.assert_array_equal(
        cached.encode("c", prompt="a b "), model.encode("c", prompt="a b ")
    )


def test_the_oldest_entry_goes_first(bert_mean_folder):
    model = Embedder(bert_mean_folder, cache_size=2)
    for text in ("a", "b", "a", "c"):
        model.encode(text)
    assert model.cache_info()["entries"] == 2
    hits, _ = counts(model)
    model.encode("a")
    assert counts(model)[0] == hits + 1
    model.encode("b")
    assert counts(model)[0] == hits + 1


def test_a_limit_in_bytes(bert_mean_folder):
    model = Embedder(bert_mean_folder, cache_size=None, cache_bytes=10_000)
    model.encode([f"text {i}" for i in range(500)])
    info = model.cache_info()
    assert 0 < info["bytes"] <= 10_000
    assert info["max_bytes"] == 10_000
    assert info["max_entries"] is None


def test_the_cache_can_be_off(bert_mean_folder):
    model = Embedder(bert_mean_folder, cache_size=0)
    model.encode(["a", "a"])
    model.encode(["a"])
    info = model.cache_info()
    assert (info["entries"], info["hits"]) == (0, 0)


def test_clear(cached):
    cached.encode(["a", "b"])
    cached.cache_clear()
    assert cached.cache_info()["entries"] == 0
    cached.encode("a")
    assert cached.cache_info()["entries"] == 1


def test_truncation_is_checked_for_cached_texts_too(cached):
    from arrowembed.errors import TextTooLongError

    long = "very long " * 100
    cached.encode(long)
    with pytest.raises(TextTooLongError):
        cached.encode(long, truncate=False)


def test_threads_share_it(cached, model):
    texts = [f"text {i}" for i in range(50)]
    expected = model.encode(texts)
    results = []

    def work():
        results.extend(cached.encode(texts) for _ in range(20))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 80
    for vectors in results:
        np.testing.assert_array_equal(vectors, expected)
    hits, misses = counts(cached)
    assert hits + misses == 80 * 50
    assert misses >= 50
