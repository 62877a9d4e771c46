"""The similarity functions of sentence-transformers, in NumPy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from arrowembed.errors import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike, NDArray

_DIFFERENCES_AT_ONCE = 1 << 22
"""Numbers held at once while distances are computed (16 MiB)."""


def similarity(function: str, a: ArrayLike, b: ArrayLike) -> NDArray[np.float32]:
    """Similarity of each vector of `a` to each of `b`.

    Args:
        function: "cosine", "dot", "euclidean" or "manhattan"; the last two are negative distances,
            so that more is always more similar.
        a: Vectors, shape (n, dim) or (dim,).
        b: Vectors, shape (m, dim) or (dim,).

    Returns:
        float32 array of shape (n, m).

    Raises:
        InvalidArgumentError: Unknown function or vectors of different length.
    """
    check_function(function)
    left, right = _pair(a, b)
    if function == "cosine":
        return _unit(left) @ _unit(right).T
    if function == "dot":
        return left @ right.T
    distance = _DISTANCES[function]
    result = np.empty((len(left), len(right)), dtype=np.float32)
    step = max(1, _DIFFERENCES_AT_ONCE // max(1, right.size))
    for start in range(0, len(left), step):
        rows = left[start : start + step, np.newaxis, :]
        result[start : start + step] = -distance(rows - right)
    return result


def similarity_pairwise(function: str, a: ArrayLike, b: ArrayLike) -> NDArray[np.float32]:
    """Similarity of each vector of `a` to the vector of `b` in the same place.

    Returns:
        float32 array of shape (n,).

    Raises:
        InvalidArgumentError: Unknown function, or arrays of different shape.
    """
    check_function(function)
    left, right = _pair(a, b)
    if left.shape != right.shape:
        raise InvalidArgumentError(
            f"similarity_pairwise: shapes {left.shape} and {right.shape} differ; "
            "use similarity for every pair"
        )
    if function == "cosine":
        left, right = _unit(left), _unit(right)
    if function in ("cosine", "dot"):
        return _dots(left, right)
    return -_DISTANCES[function](left - right)


def check_function(function: str) -> None:
    """Refuses a similarity function that is not known."""
    if function not in FUNCTIONS:
        raise InvalidArgumentError(
            f"similarity function {function!r}; known are {', '.join(FUNCTIONS)}"
        )


def _euclidean(differences: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.sqrt(_dots(differences, differences))


def _manhattan(differences: NDArray[np.float32]) -> NDArray[np.float32]:
    total: NDArray[np.float32] = np.abs(differences).sum(axis=-1)
    return total


_DISTANCES: dict[str, Callable[[NDArray[np.float32]], NDArray[np.float32]]] = {
    "euclidean": _euclidean,
    "manhattan": _manhattan,
}
FUNCTIONS = ("cosine", "dot", *_DISTANCES)


def _pair(a: ArrayLike, b: ArrayLike) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    left, right = _matrix(a), _matrix(b)
    if left.shape[1] != right.shape[1]:
        raise InvalidArgumentError(
            f"similarity: vectors of length {left.shape[1]} and {right.shape[1]}; "
            "both sides must come from the same model and truncate_dim"
        )
    return left, right


def _matrix(vectors: ArrayLike) -> NDArray[np.float32]:
    matrix = np.atleast_2d(np.asarray(vectors, dtype=np.float32))
    if matrix.ndim != 2:
        raise InvalidArgumentError(
            f"similarity: array of shape {matrix.shape}; expected (n, dim) or (dim,)"
        )
    return matrix


def _dots(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    """Dot products along the last axis."""
    products: NDArray[np.float32] = np.einsum("...i,...i->...", a, b)
    return products


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Vectors of length one; a zero vector stays zero."""
    lengths = np.sqrt(_dots(vectors, vectors))[:, np.newaxis]
    return np.divide(vectors, np.maximum(lengths, 1e-12), dtype=np.float32)
