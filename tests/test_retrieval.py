"""The benchmark of retrieval: its figures and its vectors."""

import numpy as np
import pytest
from retrieval.quality import figures
from retrieval.speed import measured, more


def test_figures_of_ranks():
    ids = [["a", "b"], ["a", "b"], ["x", "y", "z", "v", "w", "c"], ["a"]]
    found = figures(ids, ["a", "b", "c", "nowhere"])
    assert found["recall@1"] == 1 / 4
    assert found["recall@5"] == 2 / 4
    assert found["nDCG@10"] == pytest.approx((1 + 1 / np.log2(3) + 1 / np.log2(7)) / 4)


def test_generated_vectors_are_new_and_of_length_one():
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(20, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    made = more(vectors, 100)
    assert made.shape == (100, 8)
    np.testing.assert_array_equal(made[:20], vectors)
    np.testing.assert_allclose(np.linalg.norm(made, axis=1), 1, rtol=1e-6)
    assert len(np.unique(made, axis=0)) == 100
    np.testing.assert_array_equal(more(vectors, 10), vectors)


def test_recall_is_against_exact_search():
    from types import SimpleNamespace

    vectors = np.eye(20, dtype=np.float32) + 0.01 * np.arange(20, dtype=np.float32)

    def exact(query):
        order = np.argsort(-(vectors.astype(np.float64) @ query), kind="stable")[:10]
        return [SimpleNamespace(id=f"{i}") for i in order]

    searches = {"exact": exact, "half": lambda query: exact(query)[:5], "none": lambda query: []}
    results = measured(searches, vectors[:4], vectors)
    assert {name: result["recall"] for name, result in results.items()} == {
        "exact": 1,
        "half": 0.5,
        "none": 0,
    }
    assert all(0 <= result["p50"] <= result["p95"] for result in results.values())
