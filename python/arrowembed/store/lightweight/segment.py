"""A segment: vectors and rows that were written at once, mapped and never changed.

The rows file is an Arrow file of one batch, which other programs can read: `id`, `text`,
`metadata` as JSON, columns of metadata (`columns.py`), and an index of ids: `hash` in ascending
order, with the `row` that each is of.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from arrowembed import _core
from arrowembed.errors import ArrowEmbedError, StoreFileError
from arrowembed.store.files import digest
from arrowembed.store.filters import Filter, matches
from arrowembed.store.lightweight.columns import TYPES, column_name, key_of, keys_of, mask
from arrowembed.store.lightweight.manifest import SEGMENTS, Entry

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from arrowembed.store.description import Description

MARK = b"arrowembed"
"""Key of the schema's metadata under which a rows file says what it is."""

REQUIRED = {
    "id": pa.large_string(),
    "text": pa.large_string(),
    "metadata": pa.large_string(),
    "hash": pa.uint64(),
    "row": pa.int32(),
}
"""Columns that every rows file has."""

_MAGIC = b"ARROW1\0\0"

DAMAGED = "; restore the store from a copy, or make it anew"


def hashes_of(ids: Sequence[str]) -> NDArray[np.uint64]:
    """By which ids are looked up. Nobody can choose ids that all have the same."""
    digests = b"".join(hashlib.blake2b(name.encode(), digest_size=8).digest() for name in ids)
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64, copy=False)


class Segment:
    """An open segment.

    Raises:
        FileNotFoundError: One of its files is gone, as after a merge by somebody else.
        StoreFileError: One of them is damaged.
    """

    def __init__(self, folder: Path, entry: Entry, description: Description) -> None:
        self.name, self._rows = entry.name, entry.rows
        self._checksum = entry.rows_checksum
        self._vectors_path = folder / SEGMENTS / entry.vectors_file
        self._rows_path = folder / SEGMENTS / entry.rows_file
        _check_size(self._vectors_path, entry.vectors_size)
        _check_size(self._rows_path, entry.rows_size)
        self.vectors = self._open_vectors(description)
        self._content, self._batch, self.complete = self._open_rows()
        """The mapped rows file, its batch, and whether each key of metadata has its columns."""
        self._checked: dict[str, pa.Array] = {}
        keys = (key_of(name) for name in self._batch.schema.names)
        self.keys = {key for key in keys if key is not None}
        """Keys of metadata that have."""

    def __len__(self) -> int:
        return self._rows

    @property
    def names(self) -> list[str]:
        """Names of the columns of the rows file."""
        names: list[str] = self._batch.schema.names
        return names

    def column(self, name: str) -> pa.Array:
        """A column, checked when it is first asked for: what a file says is hostile until then."""
        found = self._checked.get(name)
        if found is None:
            found = self._batch.column(name)
            try:
                found.validate()
                _check_values(name, found)
            except ValueError as error:
                raise self.damaged(self._rows_path, f"column {name!r}: {error}") from error
            self._checked[name] = found
        return found

    def values(self, kind: str, key: str) -> pa.Array | None:
        """See `columns.Columns`."""
        name = column_name(kind, key)
        return self.column(name) if name in self.names else None

    def mask(self, condition: Filter) -> NDArray[np.uint8]:
        """Where a filter is fulfilled, as a bitmap; bits beyond the last row have no meaning."""
        if self.complete or keys_of(condition) <= self.keys:
            array = mask(condition, self)
        else:
            array = pa.array(
                [matches(condition, self.metadata(row)) for row in range(self._rows)], pa.bool_()
            )
        if array.offset:
            array = pa.concat_arrays([array])
        return np.frombuffer(array.buffers()[1], np.uint8, count=(self._rows + 7) // 8)

    def find(self, ids: Sequence[str], hashes: NDArray[np.uint64]) -> list[tuple[int, int]]:
        """Which of the ids are here: pairs of a position in `ids` and a row, deleted or not."""
        known, rows = self._index()
        first = np.searchsorted(known, hashes)
        hit = first < len(known)
        hit[hit] = known[first[hit]] == hashes[hit]
        found = []
        for position in np.flatnonzero(hit).tolist():
            place = int(first[position])
            while place < len(known) and known[place] == hashes[position]:
                row = int(rows[place])
                if self.id(row) == ids[position]:
                    found.append((position, row))
                place += 1
        return found

    def hashes(self) -> NDArray[np.uint64]:
        """Of the ids, in the order of the rows."""
        known, rows = self._index()
        hashes = np.empty_like(known)
        hashes[rows] = known
        return hashes

    def id(self, row: int) -> str:
        """The id of a row."""
        return str(self._cell("id", row))

    def text(self, row: int) -> str | None:
        """The text of a row."""
        text: str | None = self._cell("text", row)
        return text

    def metadata(self, row: int) -> dict[str, Any]:
        """The metadata of a row."""
        try:
            metadata: dict[str, Any] = json.loads(self._cell("metadata", row))
        except (ValueError, TypeError) as error:
            raise self.damaged(self._rows_path, f"metadata of row {row}: {error}") from error
        return metadata

    def take(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Vectors of these rows, shape (n, dimension)."""
        return self.vectors.take(rows)

    def verify(self) -> None:
        """Reads everything and compares checksums, also of files that others have removed.

        Raises:
            StoreFileError: A file is damaged.
        """
        if digest(memoryview(self._content)) != self._checksum:
            raise self.damaged(self._rows_path, "its checksum is another one")
        try:
            self._batch.validate(full=True)
        except ValueError as error:
            raise self.damaged(self._rows_path, str(error)) from error
        self.vectors.verify()

    def damaged(self, path: Path, what: str) -> StoreFileError:
        """An error that names a file."""
        return StoreFileError(f"{path} is damaged: {what}{DAMAGED}")

    def _open_vectors(self, description: Description) -> _core.VectorFile:
        path = self._vectors_path
        try:
            vectors = _core.VectorFile(str(path))
        except ArrowEmbedError as error:
            if not path.exists():
                raise FileNotFoundError(path) from error
            raise
        found = (len(vectors), vectors.dimension, vectors.dtype)
        wanted = (self._rows, description.dimension, description.dtype)
        if found != wanted:
            raise self.damaged(path, f"it holds {found}, expected {wanted}")
        return vectors

    def _open_rows(self) -> tuple[pa.Buffer, pa.RecordBatch, bool]:
        path = self._rows_path
        try:
            content = pa.memory_map(str(path)).read_buffer()
            batch = _read_batch(content)
            _check_batch(batch, self._rows)
            return content, batch, bool(json.loads(batch.schema.metadata[MARK])["complete"])
        except FileNotFoundError:
            raise
        except (
            OSError,
            ValueError,
            TypeError,
            KeyError,
            StopIteration,
            pa.ArrowException,
        ) as error:
            raise self.damaged(path, str(error)) from error

    def _index(self) -> tuple[NDArray[np.uint64], NDArray[np.int32]]:
        return self.column("hash").to_numpy(), self.column("row").to_numpy()

    def _cell(self, column: str, row: int) -> Any:
        try:
            return self.column(column)[row].as_py()
        except (UnicodeDecodeError, IndexError) as error:
            raise self.damaged(self._rows_path, f"{column} of row {row}: {error}") from error


def _check_size(path: Path, expected: int) -> None:
    size = path.stat().st_size
    if size != expected:
        raise StoreFileError(f"{path} has {size} bytes, it was written with {expected}{DAMAGED}")


def _read_batch(content: pa.Buffer) -> pa.RecordBatch:
    """The one batch of an Arrow file, where it lies.

    A file is a stream behind eight bytes. It is read as one, because pyarrow's reader of files asks
    a thread of its own for the footer, and waits.
    """
    if content.size < len(_MAGIC) or content.slice(0, len(_MAGIC)).to_pybytes() != _MAGIC:
        raise ValueError("it does not begin as an Arrow file")
    options = pa.ipc.IpcReadOptions(use_threads=False)
    return pa.ipc.open_stream(content.slice(len(_MAGIC)), options=options).read_next_batch()


def _check_batch(batch: pa.RecordBatch, rows: int) -> None:
    schema = batch.schema
    if batch.num_rows != rows:
        raise ValueError(f"{batch.num_rows} rows, expected {rows}")
    for name, kind in REQUIRED.items():
        if schema.names.count(name) != 1 or schema.field(name).type != kind:
            raise ValueError(f"it has no column {name!r} of {kind}")
    if len(set(schema.names)) != len(schema.names):
        raise ValueError("two columns have one name")
    for field in schema:
        if key_of(field.name) and field.type != TYPES[field.name.partition(":")[0]]:
            raise ValueError(f"column {field.name!r} is of {field.type}")


def _check_values(name: str, array: pa.Array) -> None:
    """Refuses what `validate` does not look at, but for the contents of strings."""
    if name in REQUIRED and name != "text" and array.null_count:
        raise ValueError("it has nulls")
    if array.type == pa.large_string() and len(array):
        _, offsets, content = array.buffers()
        places = np.frombuffer(offsets, np.int64, count=len(array) + 1)
        end = content.size if content else 0
        if places[0] < 0 or (np.diff(places) < 0).any() or places[-1] > end:
            raise ValueError("offsets of strings do not ascend")
    if name == "row":
        rows = array.to_numpy()
        if not (
            np.bincount(rows[(rows >= 0) & (rows < len(rows))], minlength=len(rows)) == 1
        ).all():
            raise ValueError("not each row is there once")
