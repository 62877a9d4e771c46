"""One version of the table, which does not change while it is read."""

from __future__ import annotations

import json
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from arrowembed.store.filters import matches
from arrowembed.store.lancedb.bounds import Norms
from arrowembed.store.lancedb.columns import Layout
from arrowembed.store.lancedb.conditions import among, is_covered, joined, to_sql
from arrowembed.store.lancedb.library import check_process, load, reading

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from arrowembed.store.filters import Filter
    from arrowembed.store.lancedb.bounds import Query

TABLE = "entries"

_BATCH = 4096
"""Rows of a batch, where all are read."""


class Snapshot:
    """The table as it was at one version.

    Args:
        folder: Of the store.
        database: LanceDB's connection to it.
        version: Of the table.
    """

    def __init__(self, folder: Path, database: Any, version: int) -> None:
        self._folder, self.version = folder, version
        with self._reading():
            self.table = database.open_table(TABLE)
            self.table.checkout(version)
            self.schema: pa.Schema = self.table.schema
        self.layout = Layout.of(self.schema)

    @cached_property
    def norms(self) -> Norms:
        """Bounds of the norms of all vectors."""
        return Norms.of(self.rows(None, ["norm"])["norm"].to_numpy())

    @cached_property
    def next_sequence(self) -> int:
        """The first number that no entry has yet."""
        greatest = pc.max(self.rows(None, ["sequence"])["sequence"]).as_py()
        return 0 if greatest is None else greatest + 1

    @cached_property
    def indexes(self) -> dict[str, dict[str, Any]]:
        """Of each column that has an index, what it is."""
        with self._reading():
            return {
                index.columns[0]: {
                    "kind": index.index_type,
                    "name": index.name,
                    "indexed": index.num_indexed_rows,
                    "not_indexed": index.num_unindexed_rows,
                }
                for index in self.table.list_indices()
            }

    def remember(self, *, norms: Norms, next_sequence: int) -> None:
        """Takes over what is known of a version from the one before and what was written since."""
        self.__dict__.update(norms=norms, next_sequence=next_sequence)

    def where(self, condition: Filter | None) -> str | None:
        """A filter as SQL over this table; of what has no column, the JSON is read now."""
        if condition is None:
            return None
        known = to_sql(condition, self.layout)
        if is_covered(condition, self.layout):
            return known
        found = [
            sequence
            for batch in self.batches("rest = true", ["sequence", "metadata"])
            for sequence, metadata in zip(*(column.to_pylist() for column in batch), strict=True)
            if matches(condition, json.loads(metadata))
        ]
        return f"((rest = false AND {known}) OR {among('sequence', found)})"

    def count(self, where: str | None) -> int:
        """How many entries there are."""
        with self._reading():
            return int(self.table.count_rows(where))

    def rows(self, where: str | None, columns: Sequence[str]) -> pa.Table:
        """The entries that fulfil a condition, in any order."""
        with self._reading():
            return self._query(where, columns).to_arrow()

    def batches(self, where: str | None, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """The same, a few at a time."""
        with self._reading():
            yield from self._query(where, columns).to_batches(_BATCH)

    def by_ids(self, ids: Sequence[str], where: str | None, columns: Sequence[str]) -> pa.Table:
        """The entries with these ids, in any order."""
        names = list(dict.fromkeys(ids))
        parts = [
            self.rows(joined(among("id", names[start : start + _BATCH]), where), columns)
            for start in range(0, len(names), _BATCH)
        ]
        return pa.concat_tables(parts or [self.rows("false", columns)])

    def sequences(self, where: str | None, first: int | None = None) -> NDArray[np.int64]:
        """The numbers of the entries in their order; of the first ones only, if that is said."""
        query = self._query(where, ["sequence"])
        if first is not None:
            ascending = load().query.ColumnOrdering(column_name="sequence")
            query = query.order_by([ascending]).limit(first)
        with self._reading():
            found: NDArray[np.int64] = query.to_arrow()["sequence"].to_numpy()
        return np.sort(found)

    def pages(
        self,
        sequences: NDArray[np.int64],
        where: str | None,
        columns: Sequence[str],
        rows: int = _BATCH,
    ) -> Iterator[pa.Table]:
        """Entries that `sequences` gave for the same condition, a page after the other.

        Args:
            sequences: Ascending; all between the first and the last that fulfil the condition.
            where: The condition.
            columns: Of the entries.
            rows: Of a page.
        """
        for start in range(0, len(sequences), rows):
            page = sequences[start : start + rows]
            between = f"(sequence >= {page[0]} AND sequence <= {page[-1]})"
            yield self.rows(joined(between, where), columns)

    def nearest(
        self,
        queries: Sequence[Query],
        count: int,
        where: str | None,
        columns: Sequence[str],
        **index: int | None,
    ) -> list[pa.Table]:
        """For each query the `count` nearest as LanceDB sees it, with their `_distance`.

        Args:
            queries: All of one metric.
            count: How many.
            where: Only entries that fulfil this.
            columns: Of the entries.
            index: Nothing to compare with all vectors; else how to look into the index: nprobes,
                refine_factor, ef.
        """
        vectors = np.stack([query.vector for query in queries])
        with self._reading():
            query = self.table.search(
                vectors if len(vectors) > 1 else vectors[0], vector_column_name="vector"
            )
            query = query.distance_type(queries[0].lance_metric)
            query = query.limit(count).select([*columns, "_distance"])
            if where is not None:
                query = query.where(where, prefilter=True)
            if not index:
                query = query.bypass_vector_index()
            for name, value in index.items():
                query = query if value is None else getattr(query, name)(value)
            found = query.to_arrow()
        if len(vectors) == 1:
            return [found]
        numbers = found["query_index"].to_numpy()
        return [found.filter(numbers == number) for number in range(len(vectors))]

    def by_words(self, text: str, k: int, where: str | None, columns: Sequence[str]) -> pa.Table:
        """The `k` entries whose texts have the words of `text`, with their BM25 `_score`."""
        query = self.table.search(_match(text), query_type="fts").select([*columns, "_score"])
        return self._best(query, k, where)

    def by_both(self, query: Query, text: str, k: int, where: str | None) -> pa.Table:
        """The `k` best by words and by meaning, with their `_relevance_score`: ranks, fused."""
        both = self.table.search(
            query_type="hybrid", vector_column_name="vector", fts_columns="text"
        )
        both = both.vector(query.vector).text(_match(text)).distance_type(query.lance_metric)
        # All columns: LanceDB warns of each search that selects some and not the scores of both.
        return self._best(both.rerank(load().rerankers.RRFReranker()), k, where)

    def _best(self, query: Any, k: int, where: str | None) -> pa.Table:
        with self._reading():
            query = query.limit(k)
            return (query if where is None else query.where(where, prefilter=True)).to_arrow()

    def _query(self, where: str | None, columns: Sequence[str]) -> Any:
        query = self.table.search().select(list(columns))
        return query if where is None else query.where(where)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        check_process()
        with reading(self._folder):
            yield


def _match(text: str) -> Any:
    """A query that is words alone, whatever signs are in it."""
    query_module: Any = load().query
    return query_module.MatchQuery(text, "text")
