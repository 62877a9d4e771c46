"""Whether the paragraph that answers a question is found."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from arrowembed import Embedder
from arrowembed.store import open_store
from arrowembed.store.description import BACKENDS

K = 10
_QUERIES = 512
"""Searched at a time."""


def found(
    folder: Path,
    model: Embedder,
    paragraphs: dict[str, str],
    vectors: NDArray[np.float32],
    queries: NDArray[np.float32],
) -> dict[str, list[list[str]]]:
    """For each backend the ids of the first ten paragraphs of each question."""
    ids: dict[str, list[list[str]]] = {}
    for backend in BACKENDS:
        with open_store(folder / backend, model=model, backend=backend) as store:
            store.add(list(paragraphs), list(paragraphs.values()), vectors=vectors)
            ids[backend] = [
                [hit.id for hit in hits]
                for start in range(0, len(queries), _QUERIES)
                for hits in store.search_batch(queries[start : start + _QUERIES], K, include=())
            ]
    return ids


def figures(ids: list[list[str]], answers: list[str]) -> dict[str, float]:
    """Recall among the first and the first five, and nDCG@10, where one paragraph is right."""
    ranks = np.array(
        [
            hits.index(right) if right in hits else np.inf
            for hits, right in zip(ids, answers, strict=True)
        ]
    )
    return {
        "recall@1": float((ranks < 1).mean()),
        "recall@5": float((ranks < 5).mean()),
        "nDCG@10": float((1 / np.log2(ranks + 2)).mean()),
    }
