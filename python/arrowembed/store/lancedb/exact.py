"""From LanceDB's nearest vectors to the exactly nearest ones.

Without an index LanceDB compares a query with all vectors, in float32 (and rounds the query to
float16 where vectors are): near ties may come in the wrong order. So it is asked for some more than
are wanted, these are compared again in float64, and the last of them tells how near a vector can be
at most that did not come (`bounds`). Where that is not far enough, more are asked for, and in the
end all are compared in float64.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import pyarrow as pa

from arrowembed.store.lancedb.bounds import USUAL, Query, best, check_usual
from arrowembed.store.lancedb.conditions import among, joined

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from arrowembed.store.description import Metric
    from arrowembed.store.lancedb.snapshot import Snapshot

Scored: TypeAlias = "tuple[pa.Table, NDArray[np.float64]]"
"""Entries, best first, and their scores."""

NEEDED = ("sequence", "norm", "vector")
"""Columns without which nothing can be compared."""

_MAX_CANDIDATES = 32_768
"""If so many do not suffice, all are compared."""

_BYTES = 64 << 20
"""Of vectors that are asked for at once."""

_USUAL = f"(norm >= {USUAL[0]!r} AND norm <= {USUAL[1]!r})"
_UNUSUAL = f"(norm < {USUAL[0]!r} OR norm > {USUAL[1]!r})"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be found."""

    k: int
    """So many entries; fewer come if there are no more."""
    where: str | None
    """Only entries that fulfil this."""
    columns: Sequence[str]
    """Of the entries, `NEEDED` among them."""


def queries_of(snapshot: Snapshot, vectors: NDArray[np.float32], metric: Metric) -> list[Query]:
    """Vectors of shape (n, dimension) as queries to this table."""
    stored = snapshot.schema.field("vector").type.value_type
    number = np.float16 if stored == pa.float16() else np.float32
    return [Query(vector, metric, number) for vector in vectors]


def nearest(snapshot: Snapshot, queries: Sequence[Query], wanted: Wanted) -> list[Scored]:
    """For each query its exactly `k` most similar entries; of equal ones those put in first."""
    found: dict[int, pa.Table] = {}
    pending = [index for index, query in enumerate(queries) if query.usual]
    all_usual = snapshot.norms.usual
    usual = wanted if all_usual else replace(wanted, where=joined(wanted.where, _USUAL))
    count = wanted.k + 16 + wanted.k // 4
    while pending and count <= _MAX_CANDIDATES:
        found |= _sufficient(snapshot, queries, pending, usual, count)
        pending = [index for index in pending if index not in found]
        count *= 4
    looked_up = list(found)
    compared = [index for index in range(len(queries)) if index not in found]
    found |= _all_compared(snapshot, queries, compared, wanted)
    if not all_usual:
        unusual = replace(wanted, where=joined(wanted.where, _UNUSUAL))
        for index, table in _all_compared(snapshot, queries, looked_up, unusual).items():
            found[index] = pa.concat_tables([found[index].select(table.column_names), table])
    return [ordered(query, found[index], wanted.k) for index, query in enumerate(queries)]


def probably_nearest(
    snapshot: Snapshot,
    queries: Sequence[Query],
    wanted: Wanted,
    index: dict[str, int | None],
) -> list[Scored]:
    """For each query `k` of its most similar entries as an index finds them; scores are exact.

    Args:
        snapshot: Of the table.
        queries: What is looked for.
        wanted: Fewer than `k` come if no more are in the parts of the index that are looked at.
        index: How to look into it.

    Raises:
        InvalidArgumentError: Of a query float32 holds no square.
    """
    check_usual(queries)
    # One at a time: an index is read where each query points to.
    return [
        ordered(query, table, wanted.k)
        for query in queries
        for table in snapshot.nearest([query], wanted.k, wanted.where, wanted.columns, **index)
    ]


def ordered(query: Query, table: pa.Table, k: int) -> Scored:
    """The `k` best of some entries, best first, and their scores."""
    scores = query.scores(vectors_of(table), table["norm"].to_numpy())
    order = best(scores, table["sequence"].to_numpy(), k)
    return table.take(order), scores[order]


def vectors_of(table: pa.Table | pa.RecordBatch) -> NDArray[np.float32]:
    """The vectors of some entries as they are stored, in float32, shape (n, dimension)."""
    column = table["vector"]
    column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    values = column.flatten().to_numpy(zero_copy_only=False)
    result: NDArray[np.float32] = values.reshape(-1, column.type.list_size).astype(np.float32)
    return result


def _sufficient(
    snapshot: Snapshot,
    queries: Sequence[Query],
    pending: Sequence[int],
    wanted: Wanted,
    count: int,
) -> dict[int, pa.Table]:
    """For some of the queries, candidates among which the `k` best are for certain."""
    together = max(1, _BYTES // (count * queries[0].vector.nbytes))
    chunks = [pending[start : start + together] for start in range(0, len(pending), together)]
    greatest = snapshot.norms.greatest
    return {
        index: table
        for chunk in chunks
        for index, table in zip(
            chunk,
            snapshot.nearest(
                [queries[index] for index in chunk], count, wanted.where, wanted.columns
            ),
            strict=True,
        )
        if table.num_rows < count or _is_certain(queries[index], table, wanted.k, greatest)
    }


def _is_certain(query: Query, table: pa.Table, k: int, greatest: float) -> bool:
    """Whether no entry that is not among the candidates can be one of the `k` best."""
    _, scores = ordered(query, table, k)
    farthest = float(np.max(table["_distance"].to_numpy()))
    return bool(scores[-1] > query.best_of_others(farthest, greatest))


def _all_compared(
    snapshot: Snapshot, queries: Sequence[Query], pending: Sequence[int], wanted: Wanted
) -> dict[int, pa.Table]:
    """For each of these queries the `k` best of all, in any order; a batch at a time in memory."""
    if not pending:
        return {}
    scores = {index: np.empty(0) for index in pending}
    numbers = {index: np.empty(0, dtype=np.int64) for index in pending}
    for batch in snapshot.batches(wanted.where, NEEDED):
        vectors, norms = vectors_of(batch), batch["norm"].to_numpy()
        sequences = batch["sequence"].to_numpy()
        for index in pending:
            all_scores = np.concatenate([scores[index], queries[index].scores(vectors, norms)])
            all_numbers = np.concatenate([numbers[index], sequences])
            order = best(all_scores, all_numbers, wanted.k)
            scores[index], numbers[index] = all_scores[order], all_numbers[order]
    return {
        index: snapshot.rows(among("sequence", numbers[index].tolist()), wanted.columns)
        for index in pending
    }
