"""Rows that are to become a segment: new ones, or those of older segments."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from arrowembed import _core
from arrowembed.store.files import digest_of_file, sync
from arrowembed.store.lightweight.columns import MAX_KEYS, columns_of, key_of
from arrowembed.store.lightweight.manifest import SEGMENTS, Entry
from arrowembed.store.lightweight.segment import MARK, hashes_of
from arrowembed.store.records import to_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from arrowembed.store.description import VectorType
    from arrowembed.store.lightweight.snapshot import Part
    from arrowembed.store.records import Rows

_STRINGS = ("id", "text", "metadata")


@dataclass(frozen=True)
class Content:
    """Rows in memory."""

    vectors: NDArray[np.float32]
    table: pa.Table
    """`id`, `text`, `metadata`, `hash` in the order of the rows, and columns of metadata."""
    complete: bool
    """Whether each key of metadata has its columns."""

    @property
    def count(self) -> int:
        """Rows."""
        return len(self.vectors)

    @classmethod
    def of_rows(cls, rows: Rows) -> Content:
        """New rows."""
        columns, complete = columns_of(rows.metadata)
        arrays = {
            "id": pa.array(rows.ids, pa.large_string()),
            "text": pa.array(rows.texts, pa.large_string()),
            "metadata": pa.array(map(to_json, rows.metadata), pa.large_string()),
            "hash": pa.array(hashes_of(rows.ids)),
            **columns,
        }
        return cls(rows.vectors, pa.table(arrays), complete)

    @classmethod
    def of_part(cls, part: Part) -> Content:
        """What is left of a segment."""
        segment, rows = part.segment, part.live_rows()
        arrays = {name: segment.column(name) for name in segment.names if name != "row"}
        arrays["hash"] = pa.array(segment.hashes())
        table = pa.table(arrays)
        if len(rows) < len(segment):
            table = table.take(pa.array(rows))
        return cls(segment.take(rows), table, segment.complete)

    @classmethod
    def joined(cls, contents: Sequence[Content]) -> Content:
        """One after the other."""
        if len(contents) == 1:
            return contents[0]
        kept = _common_keys(contents)
        table = pa.concat_tables(
            [content.with_keys(kept) for content in contents], promote_options="default"
        )
        every = set().union(*(content.columned() for content in contents))
        complete = all(content.complete for content in contents) and kept == every
        return cls(np.concatenate([content.vectors for content in contents]), table, complete)

    def payload(self) -> NDArray[np.int64]:
        """Bytes of strings of each row."""
        total = np.zeros(self.count, dtype=np.int64)
        for name in _STRINGS:
            lengths = pc.fill_null(pc.binary_length(self.table[name]), 0)
            total += lengths.to_numpy()
        return total

    def pieces(self, rows: int, payload: int) -> Iterator[Content]:
        """Parts that have at most so many rows and bytes of strings, or one row."""
        ends = np.cumsum(self.payload())
        start = before = 0
        while start < self.count:
            stop = int(np.searchsorted(ends, before + payload, side="right"))
            stop = min(max(stop, start + 1), start + rows, self.count)
            if stop - start == self.count:
                yield self
            else:
                table = self.table.slice(start, stop - start)
                yield Content(self.vectors[start:stop], table, self.complete)
            start, before = stop, int(ends[stop - 1])

    def write(self, folder: Path, name: str, dtype: VectorType) -> Entry:
        """Makes a segment of it. Its files are on disk, not yet their names in the folder."""
        payload = int(self.payload().sum())
        entry = Entry(name, self.count, payload, 0, 0, "")
        vectors, rows = (folder / SEGMENTS / file for file in (entry.vectors_file, entry.rows_file))
        _core.VectorFile.write(str(vectors), self.vectors, dtype)
        self._write_rows(rows)
        return Entry(
            name,
            self.count,
            payload,
            vectors.stat().st_size,
            rows.stat().st_size,
            digest_of_file(rows),
        )

    def _write_rows(self, path: Path) -> None:
        hashes = self.table["hash"].to_numpy()
        order = np.argsort(hashes, kind="stable")
        table = self.table.drop_columns("hash")
        table = table.append_column("hash", pa.array(hashes[order]))
        table = table.append_column("row", pa.array(order.astype(np.int32)))
        known = {MARK: json.dumps({"version": 1, "complete": self.complete}).encode()}
        (batch,) = table.replace_schema_metadata(known).combine_chunks().to_batches()
        # No threads: they would not be there after a fork.
        options = pa.ipc.IpcWriteOptions(use_threads=False)
        with path.open("xb") as file:
            with pa.ipc.new_file(file, batch.schema, options=options) as writer:
                writer.write_batch(batch)
            file.flush()
            sync(file.fileno())

    def columned(self) -> set[str]:
        """Keys of metadata that have columns."""
        return {key for key in map(key_of, self.table.column_names) if key is not None}

    def with_keys(self, keys: set[str]) -> pa.Table:
        """The table with the columns of these keys only."""
        names = self.table.column_names
        return self.table.select(
            [name for name in names if (key := key_of(name)) is None or key in keys]
        )


def _common_keys(contents: Sequence[Content]) -> set[str]:
    """The keys that keep their columns: the commonest of those that have them everywhere."""
    counts: dict[str, int] = {}
    for content in contents:
        for name in content.table.column_names:
            key = key_of(name)
            if key is not None:
                column = content.table[name]
                counts[key] = counts.get(key, 0) + len(column) - column.null_count
    everywhere = [
        key
        for key in counts
        if all(content.complete or key in content.columned() for content in contents)
    ]
    return set(sorted(everywhere, key=lambda key: (-counts[key], key))[:MAX_KEYS])
