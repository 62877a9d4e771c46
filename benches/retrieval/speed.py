"""Latency of a search, and what an index misses, beside exact search in the same run."""

import random
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from arrowembed.store import Hit, Store, open_store
from arrowembed.store.lancedb import LanceStore

if TYPE_CHECKING:
    from arrowembed.store.description import Backend

K = 10
_CHUNK = 4096

Search = Callable[[NDArray[np.float32]], list[Hit]]


def more(vectors: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """The vectors, and generated ones: between two of them with a little noise, of length one."""
    rng = np.random.default_rng(0)
    extra = max(0, count - len(vectors))
    one, other = vectors[rng.integers(len(vectors), size=(2, extra))]
    share = rng.uniform(0.2, 0.8, size=(extra, 1)).astype(np.float32)
    noise = rng.normal(scale=0.02, size=one.shape).astype(np.float32)
    made = share * one + (1 - share) * other + noise
    made /= np.linalg.norm(made, axis=1, keepdims=True)
    return np.concatenate([vectors, made])


def stores(
    stack: ExitStack, folder: Path, vectors: NDArray[np.float32], kinds: list[str]
) -> tuple[dict[str, Search], dict[str, float]]:
    """What is compared, and how many seconds each took to make."""
    searches: dict[str, Search] = {}
    seconds = {}
    for name in ("lightweight", "lancedb", *kinds):
        backend: Backend = "lightweight" if name == "lightweight" else "lancedb"
        started = time.perf_counter()
        store = stack.enter_context(
            open_store(folder / name, dimension=vectors.shape[1], backend=backend)
        )
        _fill(store, vectors)
        if name in kinds:
            assert isinstance(store, LanceStore)
            store.create_index(name)
        seconds[name] = time.perf_counter() - started
        searches[name] = _search(store)
    return searches, seconds


def _fill(store: Store, vectors: NDArray[np.float32]) -> None:
    for start in range(0, len(vectors), _CHUNK):
        chunk = vectors[start : start + _CHUNK]
        ids = [f"{start + i}" for i in range(len(chunk))]
        store.add(ids, [f"text {name}" for name in ids], vectors=chunk)
    store.compact()


def _search(store: Store) -> Search:
    return lambda query: store.search(query, K)


def measured(
    searches: dict[str, Search], queries: NDArray[np.float32], vectors: NDArray[np.float32]
) -> dict[str, dict[str, float]]:
    """Milliseconds and recall of each, one query through all of them before the next."""
    times: dict[str, list[float]] = {name: [] for name in searches}
    right = dict.fromkeys(searches, 0)
    order = list(searches)
    shuffle = random.Random(0).shuffle
    exact = vectors.astype(np.float64)
    for search in searches.values():  # files are read, indexes loaded
        for query in queries[:20]:
            search(query)
    for query in queries:
        shuffle(order)
        best = {f"{i}" for i in np.argsort(-(exact @ query), kind="stable")[:K]}
        for name in order:
            started = time.perf_counter()
            hits = searches[name](query)
            times[name].append(1e3 * (time.perf_counter() - started))
            right[name] += len(best & {hit.id for hit in hits})
    return {
        name: {
            "p50": float(np.percentile(times[name], 50)),
            "p95": float(np.percentile(times[name], 95)),
            "recall": right[name] / (K * len(queries)),
        }
        for name in searches
    }
