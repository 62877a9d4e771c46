"""A change of a store: what is deleted, what is put in, and how both are made true at once."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from arrowembed.store.files import digest, sync_folder, write_new
from arrowembed.store.lightweight.content import Content
from arrowembed.store.lightweight.manifest import SEGMENTS, Entry, Live
from arrowembed.store.lightweight.merging import Limits, after_write
from arrowembed.store.lightweight.snapshot import Part

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from arrowembed.store.description import VectorType
    from arrowembed.store.lightweight.snapshot import Snapshot


class Change:
    """Collects what is to change; `commit` does it. Only the holder of the lock may make one.

    Args:
        folder: The store's.
        snapshot: The newest state.
        dtype: As what vectors are stored.
        limits: How large a segment may be.
    """

    def __init__(self, folder: Path, snapshot: Snapshot, dtype: VectorType, limits: Limits) -> None:
        self._folder, self._snapshot = folder, snapshot
        self._dtype, self._limits = dtype, limits
        self._parts: list[Part | Content] = list(snapshot.parts)

    def delete(self, number: int, rows: Sequence[int] | NDArray[np.int64]) -> None:
        """Takes rows of a part out, which are there."""
        part = self._parts[number]
        if not isinstance(part, Part) or not len(rows):
            return
        left = np.zeros(len(part.segment), dtype=np.bool_)
        left[part.live_rows()] = True
        left[rows] = False
        bitmap = np.packbits(left, bitorder="little")
        self._parts[number] = replace(part, live=bitmap, count=int(left.sum()))

    def append(self, content: Content) -> None:
        """Puts new rows in."""
        self._parts += content.pieces(self._limits.rows, self._limits.payload)

    def merge(self, neighbours: slice) -> None:
        """Makes one segment of some."""
        contents = [
            part if isinstance(part, Content) else Content.of_part(part)
            for part in self._parts[neighbours]
        ]
        self._parts[neighbours] = [Content.joined(contents)]

    def commit(self) -> None:
        """Makes the change the store's state; it is on disk when this returns."""
        self._tidy()
        manifest = self._snapshot.manifest
        entries = [self._written(part) for part in self._parts]
        sync_folder(self._folder / SEGMENTS)
        manifest.next(entries).write(self._folder)

    def _tidy(self) -> None:
        """Drops empty segments, rewrites those that are mostly deleted, merges small ones."""
        self._parts = [part for part in self._parts if part.count]
        for number, part in enumerate(self._parts):
            if isinstance(part, Part) and 2 * part.count < len(part.segment):
                self.merge(slice(number, number + 1))
        if any(isinstance(part, Content) for part in self._parts):
            weights = [self._weight(part) for part in self._parts]
            neighbours = after_write(weights, self._limits.rows)
            if len(self._parts[neighbours]) > 1:
                self.merge(neighbours)

    def _weight(self, part: Part | Content) -> int:
        if isinstance(part, Content):
            return self._limits.weight(part.count, int(part.payload().sum()))
        return weight(part, self._limits)

    def _written(self, part: Part | Content) -> Entry:
        name = self._snapshot.manifest.new_name()
        if isinstance(part, Content):
            return part.write(self._folder, name, self._dtype)
        entry = part.entry
        if part.live is None or part.count == entry.count:
            return entry
        file, content = f"{name}.live", part.live.tobytes()
        write_new(self._folder / SEGMENTS / file, content)
        return replace(entry, live=Live(file, part.count, digest(content)))


def weight(part: Part, limits: Limits) -> int:
    """How large a segment is, without what was deleted."""
    share = part.count / max(1, len(part.segment))
    return limits.weight(part.count, part.entry.payload * share)
