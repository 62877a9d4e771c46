"""How far LanceDB's distances may be from the true ones, and similarities in float64.

LanceDB sums in float32. With n numbers to a vector and u = 2**-24, a sum of n products in any
order is off by at most g = (n + 3) u / (1 - (n + 3) u) times the sum of their magnitudes (Higham,
Accuracy and Stability of Numerical Algorithms, section 3.1), which is at most the product of both
norms. So

- dot product: g |q| |x|, and u (1 + g) (1 + |q| |x|) since 1 - dot is rounded again;
- cosine: the same of vectors of length one, and both norms are off by g / 2 + u each;
- Euclidean: differences and squares are rounded, and all are positive: g times the squared
  distance.

A query rounded to float16 is another query: it is off by r = |q - q'|, which is known, and moves a
dot product by r |x|, a cosine by 2 r / |q| and a Euclidean distance by r. All other bounds are
doubled, so that nothing depends on the last detail of how LanceDB sums. They do not hold where
numbers underflow or overflow: vectors whose norms are outside `USUAL` are compared in float64 only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from arrowembed.errors import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from arrowembed.store.description import Metric

USUAL = (1e-12, 1e12)
"""Between these norms neither squares nor sums of them leave the range of float32."""

LANCE_METRICS: dict[Metric, str] = {"cosine": "cosine", "dot": "dot", "euclidean": "l2"}


@dataclass(frozen=True, slots=True)
class Norms:
    """The least and the greatest norm in a table, or bounds of them; zero counts as unusual."""

    least: float = np.inf
    greatest: float = 0.0

    @classmethod
    def of(cls, norms: NDArray[np.float64]) -> Norms:
        """Those of some vectors."""
        return cls(float(norms.min()), float(norms.max())) if len(norms) else cls()

    def with_(self, other: Norms) -> Norms:
        """Of both together."""
        return Norms(min(self.least, other.least), max(self.greatest, other.greatest))

    @property
    def usual(self) -> bool:
        """Whether LanceDB's distances can be trusted of all."""
        return self.least >= USUAL[0] and self.greatest <= USUAL[1]


class Query:
    """One query, and what is known of the scores that LanceDB finds for it.

    Args:
        vector: float32, shape (dimension,).
        metric: The store's.
        number: The type in which vectors are stored and the query is compared.
    """

    def __init__(self, vector: NDArray[np.float32], metric: Metric, number: type) -> None:
        self.vector, self._metric = vector, metric
        self._exact = vector.astype(np.float64)
        self._norm = float(np.linalg.norm(self._exact))
        with np.errstate(over="ignore", invalid="ignore"):
            self._moved = float(np.linalg.norm(self._exact - vector.astype(number)))

    @property
    def lance_metric(self) -> str:
        """Its metric as LanceDB calls it."""
        return LANCE_METRICS[self._metric]

    @property
    def usual(self) -> bool:
        """Whether LanceDB's distances from it can be trusted."""
        return USUAL[0] <= self._norm <= USUAL[1] and bool(np.isfinite(self._moved))

    def scores(self, vectors: NDArray[Any], norms: NDArray[np.float64]) -> NDArray[np.float64]:
        """Similarities in float64, shape (n,), each computed as if it were alone."""
        rows = vectors.astype(np.float64)
        if self._metric == "euclidean":
            distances: NDArray[np.float64] = np.sqrt(np.square(rows - self._exact).sum(axis=1))
            return -distances
        products: NDArray[np.float64] = (rows * self._exact).sum(axis=1)
        if self._metric == "dot":
            return products
        lengths = norms * self._norm
        return np.divide(products, lengths, out=np.zeros_like(products), where=lengths > 0)

    def best_of_others(self, distance: float, greatest: float) -> float:
        """The most that a vector can score of which LanceDB says that it is so far away, or more.

        Args:
            distance: As LanceDB says: 1 - cosine, 1 - dot product, or the squared Euclidean one.
            greatest: No vector's norm is greater.
        """
        u = 2.0**-24
        terms = (len(self.vector) + 3) * u
        g = 2 * terms / (1 - terms)
        if self._metric == "euclidean":
            lost = len(self.vector) * 2.0**-148  # where squares are too small to be told from zero
            return self._moved - float(np.sqrt(max(distance - lost, 0.0) / (1 + g)))
        if self._metric == "cosine":
            return 1 - distance + 2 * g + 8 * u + 2 * self._moved / self._norm
        product = self._norm * greatest
        return 1 - distance + g * product + 4 * u * (1 + product) + self._moved * greatest


def check_usual(queries: Sequence[Query]) -> None:
    """Refuses queries that cannot be looked up in an index.

    Raises:
        InvalidArgumentError: A norm is zero, or its square beyond what float32 holds.
    """
    for index, query in enumerate(queries):
        if not query.usual:
            raise InvalidArgumentError(
                f"query[{index}]: a vector whose norm is not between {USUAL[0]:g} and {USUAL[1]:g} "
                "cannot be looked up in an index; scale it, or search with exact=True"
            )


def best(scores: NDArray[np.float64], sequences: NDArray[np.int64], k: int) -> NDArray[np.intp]:
    """Positions of the `k` best, best first; of equal ones that which was put in first."""
    if len(scores) > 4 * k:  # Most cannot be among them.
        near = np.flatnonzero(scores >= np.partition(scores, len(scores) - k)[len(scores) - k])
        order = np.lexsort((sequences[near], -scores[near]))[:k]
        return near[order]
    return np.lexsort((sequences, -scores))[:k]
