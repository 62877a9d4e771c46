"""What is compared: each makes of a folder of vectors a search by dot products."""

from __future__ import annotations

import importlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    Queries = NDArray[np.float32]
    Search = Callable[[Queries, int], NDArray[np.int64]]
    """Queries (n, dim) and k to rows (n, k), the best first."""

READ_AT_ONCE = 1 << 20
"""Numbers that a thread reads before it takes the next ones: 4 MiB."""


def arrowembed(
    dtype: Literal["float32", "float16", "int8"],
) -> Callable[[Path, int], Search]:
    """A mapped file of vectors, made once."""

    def load(folder: Path, threads: int) -> Search:
        from arrowembed import set_num_threads
        from arrowembed._core import VectorFile, search_vectors

        set_num_threads(threads)
        path = folder / f"vectors-{dtype}.arrow"
        if not path.exists():
            VectorFile.write(str(path), np.load(folder / "vectors.npy", mmap_mode="r"), dtype)
        file = VectorFile(str(path))
        return lambda queries, k: search_vectors([file], queries, k, metric="dot")[0]

    return load


def read(folder: Path, threads: int) -> Search:
    """No search: reads the same bytes, from a map as well, with NumPy's fastest reduction."""
    numbers = np.memmap(folder / "vectors.npy", dtype=np.int32, mode="r", offset=128)
    parts = range(0, len(numbers), READ_AT_ONCE)
    pool = ThreadPoolExecutor(threads)

    def largest(first: int) -> int:
        return int(numbers[first : first + READ_AT_ONCE].max())

    def search(queries: Queries, k: int) -> NDArray[np.int64]:
        found = max(pool.map(largest, parts))
        return np.full((len(queries), k), found, dtype=np.int64)

    return search


FEWEST_FOR_BLAS = 20
"""Queries from which on FAISS is told to use BLAS, as its older versions did by themselves."""


def faiss(kind: str, *, blas: bool = False) -> Callable[[Path, int], Search]:
    """A flat index in memory; float32 is `IndexFlatIP`."""

    def load(folder: Path, threads: int) -> Search:
        faiss: Any = importlib.import_module("faiss")
        faiss.omp_set_num_threads(threads)
        if blas:
            faiss.cvar.distance_compute_blas_threshold = FEWEST_FOR_BLAS
        vectors = np.load(folder / "vectors.npy", mmap_mode="r")
        dim = vectors.shape[1]
        if kind == "float32":
            index = faiss.IndexFlatIP(dim)
        else:
            kinds = {
                "float16": faiss.ScalarQuantizer.QT_fp16,
                "int8": faiss.ScalarQuantizer.QT_8bit,
            }
            index = faiss.IndexScalarQuantizer(dim, kinds[kind], faiss.METRIC_INNER_PRODUCT)
            index.train(vectors[:100_000])
        for first in range(0, len(vectors), 100_000):
            index.add(np.ascontiguousarray(vectors[first : first + 100_000]))

        def search(queries: Queries, k: int) -> NDArray[np.int64]:
            rows: NDArray[np.int64] = index.search(queries, k)[1]
            return rows

        return search

    return load


def lancedb(folder: Path, _threads: int) -> Search:
    """A table without an index, whose search scans it."""
    import lancedb
    import pyarrow as pa

    database = lancedb.connect(folder / "lancedb")
    vectors = np.load(folder / "vectors.npy", mmap_mode="r")
    dim = vectors.shape[1]
    item = pa.field("item", pa.float32())
    schema = pa.schema([("row", pa.int64()), ("vector", pa.list_(item, dim))])

    def batches() -> Any:
        for first in range(0, len(vectors), 50_000):
            part = np.ascontiguousarray(vectors[first : first + 50_000])
            numbers = pa.FixedSizeListArray.from_arrays(pa.array(part.ravel()), dim)
            rows = pa.array(np.arange(first, first + len(part)))
            yield pa.record_batch([rows, numbers.cast(schema.field("vector").type)], schema)

    try:
        table = database.open_table("vectors")
    except ValueError:
        table = database.create_table("vectors", batches(), schema=schema)

    def one(query: NDArray[np.float32], k: int) -> Any:
        search: Any = table.search(query)
        found = search.distance_type("dot").select(["row"]).limit(k).to_arrow()
        return found["row"].to_numpy()

    def search(queries: Queries, k: int) -> NDArray[np.int64]:
        if len(queries) == 1:
            return np.array([one(queries[0], k)])
        several: Any = table.search(list(queries))
        found = several.distance_type("dot").select(["row"]).limit(k).to_arrow()
        found = found.sort_by([("query_index", "ascending"), ("_distance", "ascending")])
        rows: NDArray[np.int64] = found["row"].to_numpy().reshape(len(queries), k)
        return rows

    return search


ENGINES: dict[str, Callable[[Path, int], Search]] = {
    "read": read,
    "arrowembed float32": arrowembed("float32"),
    "arrowembed float16": arrowembed("float16"),
    "arrowembed int8": arrowembed("int8"),
    "faiss float32": faiss("float32"),
    "faiss float32, BLAS": faiss("float32", blas=True),
    "faiss float16": faiss("float16"),
    "faiss int8": faiss("int8"),
    "lancedb float32": lancedb,
}
