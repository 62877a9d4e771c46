"""The similarity functions."""

import numpy as np
import pytest

from arrowembed import similarity as functions
from arrowembed.errors import InvalidArgumentError

RANDOM = np.random.default_rng(3)
A = RANDOM.normal(size=(5, 7)).astype(np.float32)
B = RANDOM.normal(size=(4, 7)).astype(np.float32)

EXPECTED = {
    "cosine": lambda a, b: a @ b / (np.linalg.norm(a) * np.linalg.norm(b)),
    "dot": lambda a, b: a @ b,
    "euclidean": lambda a, b: -np.linalg.norm(a - b),
    "manhattan": lambda a, b: -np.abs(a - b).sum(),
}


@pytest.mark.parametrize("function", EXPECTED)
def test_every_pair(function, monkeypatch):
    expected = [[EXPECTED[function](a, b) for b in B] for a in A]
    result = functions.similarity(function, A, B)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, expected, atol=1e-5)
    monkeypatch.setattr(functions, "_DIFFERENCES_AT_ONCE", 60)
    np.testing.assert_array_equal(functions.similarity(function, A, B), result)


@pytest.mark.parametrize("function", EXPECTED)
def test_pairs_in_place(function):
    expected = [EXPECTED[function](a, b) for a, b in zip(A[:4], B, strict=True)]
    np.testing.assert_allclose(
        functions.similarity_pairwise(function, A[:4], B), expected, atol=1e-5
    )


def test_a_zero_vector_is_similar_to_nothing():
    np.testing.assert_array_equal(functions.similarity("cosine", np.zeros(7), B), np.zeros((1, 4)))


def test_no_vectors():
    assert functions.similarity("euclidean", A[:0], B).shape == (0, 4)
    assert functions.similarity("cosine", A, B[:0]).shape == (5, 0)


@pytest.mark.parametrize(
    ("function", "a", "b", "message"),
    [
        ("jaccard", A, B, "jaccard"),
        ("cosine", A, B[:, :3], "7 and 3"),
        ("cosine", A[None], B, "shape"),
    ],
)
def test_what_does_not_fit_is_named(function, a, b, message):
    with pytest.raises(InvalidArgumentError, match=message):
        functions.similarity(function, a, b)


def test_pairs_must_match():
    with pytest.raises(InvalidArgumentError, match="differ"):
        functions.similarity_pairwise("cosine", A, B)


def test_texts_are_embedded_first(model):
    vectors = model.encode(["a cat", "a dog"])
    expected = vectors @ vectors.T
    for given in (["a cat", "a dog"], ("a cat", "a dog"), np.array(["a cat", "a dog"]), vectors):
        np.testing.assert_allclose(model.similarity(given, vectors), expected, atol=1e-6)
    assert model.similarity("a cat", ["a cat", "a dog"]).shape == (1, 2)
    np.testing.assert_allclose(
        model.similarity_pairwise(["a cat", "a dog"], vectors), np.ones(2), atol=1e-6
    )


def test_lists_of_numbers_are_vectors(model):
    vectors = model.encode(["a cat", "a dog"])
    np.testing.assert_allclose(
        model.similarity(vectors.tolist(), vectors), vectors @ vectors.T, atol=1e-6
    )
