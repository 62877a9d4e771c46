"""A state of a store, opened: what every call works on, whatever is written meanwhile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from arrowembed.errors import StoreFileError
from arrowembed.store.files import digest
from arrowembed.store.filters import matches
from arrowembed.store.lightweight.manifest import FILE_NAME, SEGMENTS, Manifest
from arrowembed.store.lightweight.segment import DAMAGED, Segment, hashes_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from arrowembed.store.description import Description
    from arrowembed.store.filters import Filter
    from arrowembed.store.lightweight.manifest import Entry
    from arrowembed.store.records import Field

Place = tuple[int, int]
"""Where an entry is: the number of a part, and a row of it."""


@dataclass(frozen=True)
class Part:
    """A segment and which of its rows are not deleted."""

    segment: Segment
    entry: Entry
    live: NDArray[np.uint8] | None
    """A bitmap, least significant bit first; None where nothing was deleted."""
    count: int
    """Rows that are not deleted."""

    def keep(self, condition: Filter | None) -> NDArray[np.uint8] | None:
        """The rows that are there and fulfil a filter, as a bitmap; None means all."""
        if condition is None:
            return self.live
        live = everything(len(self.segment)) if self.live is None else self.live
        return self.segment.mask(condition) & live

    def live_rows(self, condition: Filter | None = None) -> NDArray[np.int64]:
        """The same as row numbers."""
        return rows_of(self.keep(condition), len(self.segment))

    def is_live(self, row: int) -> bool:
        """Whether a row is not deleted."""
        return self.live is None or bool(self.live[row >> 3] >> (row & 7) & 1)


@dataclass(frozen=True)
class Snapshot:
    """All segments of one manifest."""

    content: bytes
    """The manifest as it was read: what it is compared with to see whether it is still true."""
    manifest: Manifest
    parts: tuple[Part, ...]

    @classmethod
    def open(cls, folder: Path, description: Description, before: Snapshot | None) -> Snapshot:
        """The newest state.

        Raises:
            StoreFileError: A file is damaged or missing.
        """
        path = folder / FILE_NAME
        content = _read(path)
        while before is None or content != before.content:
            manifest = Manifest.parse(content, path)
            try:
                return cls(content, manifest, _parts(folder, manifest, description, before))
            except FileNotFoundError as error:
                # Files go when a later state needs them no more. Else they are lost.
                again = _read(path)
                if again == content:
                    raise StoreFileError(
                        f"{error.filename or error} is missing{DAMAGED}"
                    ) from error
                content = again
        return before

    @property
    def count(self) -> int:
        """Entries."""
        return sum(part.count for part in self.parts)

    def find(self, ids: Sequence[str]) -> dict[str, Place]:
        """Where those of the ids are that are there."""
        found: dict[str, Place] = {}
        hashes = hashes_of(ids)
        for number, part in enumerate(self.parts):
            for position, row in part.segment.find(ids, hashes):
                if part.is_live(row):
                    found[ids[position]] = (number, row)
        return found

    def fulfilling(self, places: Sequence[Place], condition: Filter | None) -> list[Place]:
        """Those of the entries that fulfil a filter."""
        if condition is None:
            return list(places)
        return [
            (number, row)
            for number, row in places
            if matches(condition, self.parts[number].segment.metadata(row))
        ]

    def places(self, condition: Filter | None) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """Rows of each part that are there and fulfil a filter."""
        for number, part in enumerate(self.parts):
            yield number, part.live_rows(condition)

    def read(self, places: Sequence[Place], fields: Sequence[Field]) -> list[dict[str, Any]]:
        """`id` of each entry, and the fields that are asked for."""
        vectors = self._vectors(places) if "vector" in fields else None
        found = []
        for index, (number, row) in enumerate(places):
            segment = self.parts[number].segment
            record: dict[str, Any] = {"id": segment.id(row)}
            if "text" in fields:
                record["text"] = segment.text(row)
            if "metadata" in fields:
                record["metadata"] = segment.metadata(row)
            if vectors is not None:
                record["vector"] = vectors[index]
            found.append(record)
        return found

    def _vectors(self, places: Sequence[Place]) -> list[NDArray[np.float32]]:
        table = np.array(places, dtype=np.int64).reshape(-1, 2)
        vectors: dict[int, NDArray[np.float32]] = {}
        for number in np.unique(table[:, 0]).tolist():
            (wanted,) = np.nonzero(table[:, 0] == number)
            taken = self.parts[number].segment.take(table[wanted, 1])
            vectors.update(zip(wanted.tolist(), taken, strict=True))
        return [vectors[index] for index in range(len(places))]


def everything(rows: int) -> NDArray[np.uint8]:
    """A bitmap of so many ones."""
    return np.packbits(np.ones(rows, dtype=np.bool_), bitorder="little")


def rows_of(bitmap: NDArray[np.uint8] | None, rows: int) -> NDArray[np.int64]:
    """Where the ones of a bitmap are; None means everywhere."""
    if bitmap is None:
        return np.arange(rows, dtype=np.int64)
    return np.flatnonzero(np.unpackbits(bitmap, count=rows, bitorder="little"))


def _parts(
    folder: Path, manifest: Manifest, description: Description, before: Snapshot | None
) -> tuple[Part, ...]:
    known = {} if before is None else {part.entry.name: part for part in before.parts}
    parts = []
    for entry in manifest.segments:
        part = known.get(entry.name)
        if part is None or part.entry != entry:
            segment = Segment(folder, entry, description) if part is None else part.segment
            part = Part(segment, entry, _read_live(folder, entry), entry.count)
        parts.append(part)
    return tuple(parts)


def _read_live(folder: Path, entry: Entry) -> NDArray[np.uint8] | None:
    if entry.live is None:
        return None
    path = folder / SEGMENTS / entry.live.file
    content = path.read_bytes()
    bitmap = np.frombuffer(content, np.uint8)
    if len(content) != (entry.rows + 7) // 8 or digest(content) != entry.live.checksum:
        raise StoreFileError(f"{path} is damaged: its checksum is another one{DAMAGED}")
    return bitmap


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise StoreFileError(f"{path} cannot be read: {error}{DAMAGED}") from error
