"""`LightweightStore`: append-only segments, a manifest that names them, exact search over all.

A write makes new files and then replaces the manifest: whoever reads sees the state before or
after, and a writer that dies leaves files that no manifest names, which the next one removes.
"""

from __future__ import annotations

from contextlib import contextmanager, suppress
from itertools import islice
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from arrowembed import _core
from arrowembed.errors import DuplicateIdError, InvalidArgumentError
from arrowembed.store.base import Store
from arrowembed.store.description import FILE_NAME
from arrowembed.store.files import writing_to
from arrowembed.store.lightweight.change import Change, weight
from arrowembed.store.lightweight.content import Content
from arrowembed.store.lightweight.manifest import FILE_NAME as MANIFEST
from arrowembed.store.lightweight.manifest import SEGMENTS, Manifest, is_our_file
from arrowembed.store.lightweight.merging import Limits, in_compaction
from arrowembed.store.lightweight.snapshot import Snapshot
from arrowembed.store.lock import LOCK, LOCK_TIMEOUT, write_lock
from arrowembed.store.making import make_folder
from arrowembed.store.records import Hit, Record

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from arrowembed.embedder import Embedder
    from arrowembed.store.description import Description
    from arrowembed.store.filters import Filter
    from arrowembed.store.lightweight.snapshot import Place
    from arrowembed.store.records import Field, Rows


class LightweightStore(Store):
    """Vectors in mapped Arrow files, searched exactly, by any number of processes.

    Args:
        path: The folder.
        description: What the store was made for.
        model: The model, if it is open already.
        lock_timeout: Seconds to wait for another writer.
        verify: Whether to read everything and compare checksums before anything else.
    """

    def __init__(
        self,
        path: Path,
        description: Description,
        model: Embedder | None = None,
        *,
        lock_timeout: float = LOCK_TIMEOUT,
        verify: bool = False,
    ) -> None:
        super().__init__(path, description, model)
        self._lock_timeout = lock_timeout
        self._limits = Limits.of(description.dimension)
        self._current: Snapshot | None = None
        self._snapshot()
        if verify:
            self.verify()

    @classmethod
    def create(
        cls, folder: Path, description: Description, model: Embedder | None, **options: Any
    ) -> Self:
        """See `Store.create`.

        Raises:
            InvalidArgumentError: The folder has files of something else.
            StoreIOError: It cannot be written to.
        """

        def fill() -> None:
            (folder / SEGMENTS).mkdir(exist_ok=True)
            Manifest(0, ()).write(folder)

        timeout = options.get("lock_timeout", LOCK_TIMEOUT)
        found = make_folder(folder, description, (MANIFEST, SEGMENTS), fill, timeout)
        return cls(folder, found, model, **options)

    def verify(self) -> None:
        """Reads everything and compares checksums.

        Raises:
            StoreFileError: A file is damaged; the message names it.
        """
        self._check_open()
        for part in self._snapshot().parts:
            part.segment.verify()

    def _insert(self, rows: Rows, *, replace: bool) -> None:
        if not len(rows):
            return
        content = Content.of_rows(rows)
        with self._changing() as (snapshot, change):
            found = snapshot.find(rows.ids)
            if found and not replace:
                others = f", and so are {len(found) - 1} more" if len(found) > 1 else ""
                raise DuplicateIdError(
                    f"id {next(iter(found))!r} is in the store already{others}; use upsert to "
                    "replace entries"
                )
            _delete_all(change, list(found.values()))
            change.append(content)
            change.commit()

    def _delete(self, ids: list[str] | None, condition: Filter | None) -> int:
        with self._changing() as (snapshot, change):
            if ids is None:
                count = 0
                for number, rows in snapshot.places(condition):
                    change.delete(number, rows)
                    count += len(rows)
            else:
                places = snapshot.fulfilling(list(snapshot.find(ids).values()), condition)
                _delete_all(change, places)
                count = len(places)
            if count:
                change.commit()
            return count

    def _get(
        self,
        ids: list[str] | None,
        condition: Filter | None,
        limit: int | None,
        offset: int,
        fields: tuple[Field, ...],
    ) -> list[Record]:
        snapshot = self._snapshot()
        if ids is not None:
            found = snapshot.find(ids)
            known = [found[name] for name in ids if name in found]
            places = snapshot.fulfilling(known, condition)[offset:]
            places = places if limit is None else places[:limit]
        else:
            places = _page(snapshot, condition, limit, offset)
        return [Record(**record) for record in snapshot.read(places, fields)]

    def _scan(
        self, condition: Filter | None, fields: tuple[Field, ...], batch_size: int
    ) -> Iterator[list[Record]]:
        snapshot = self._snapshot()
        places = (
            (number, row) for number, rows in snapshot.places(condition) for row in rows.tolist()
        )
        while batch := list(islice(places, batch_size)):
            yield [Record(**record) for record in snapshot.read(batch, fields)]

    def _search(
        self,
        vectors: NDArray[np.float32],
        k: int,
        condition: Filter | None,
        offset: int,
        fields: tuple[Field, ...],
        **options: Any,
    ) -> list[list[Hit]]:
        if options:
            raise InvalidArgumentError(
                f"{', '.join(options)}: a lightweight store has no such option of a search"
            )
        snapshot = self._snapshot()
        if not snapshot.parts:
            return [[] for _ in vectors]
        rows, scores = _core.search_vectors(
            [part.segment.vectors for part in snapshot.parts],
            vectors,
            k + offset,
            metric=self._description.metric,
            keep=[part.keep(condition) for part in snapshot.parts],
        )
        starts = np.cumsum([0, *(len(part.segment) for part in snapshot.parts)])
        numbers = np.searchsorted(starts, rows, side="right") - 1
        places = np.stack([numbers, rows - starts[numbers]], axis=-1)[:, offset:]
        return [
            [
                Hit(**record, score=score)
                for record, score in zip(
                    snapshot.read([(n, row) for n, row in found.tolist()], fields),
                    best[offset:].tolist(),
                    strict=True,
                )
            ]
            for found, best in zip(places, scores, strict=True)
        ]

    def _count(self, condition: Filter | None) -> int:
        snapshot = self._snapshot()
        if condition is None:
            return snapshot.count
        return sum(len(rows) for _, rows in snapshot.places(condition))

    def _compact(self) -> None:
        # A segment at a time: so that others can write meanwhile, and little memory is needed.
        for _ in range(max(1, len(self._snapshot().parts))):
            with self._changing() as (snapshot, change):
                neighbours = in_compaction(
                    [weight(part, self._limits) for part in snapshot.parts],
                    [part.live is not None for part in snapshot.parts],
                    self._limits.rows,
                )
                if neighbours is None:
                    return
                change.merge(neighbours)
                change.commit()

    def _details(self) -> dict[str, Any]:
        snapshot = self._snapshot()
        rows = sum(len(part.segment) for part in snapshot.parts)
        return {
            "segments": len(snapshot.parts),
            "deleted": rows - snapshot.count,
            "changes": snapshot.manifest.number,
        }

    def _close(self) -> None:
        self._current = None

    def _snapshot(self) -> Snapshot:
        """The newest state. Whoever has one may go on using it."""
        snapshot = Snapshot.open(self._path, self._description, self._current)
        self._current = snapshot
        return snapshot

    @contextmanager
    def _changing(self) -> Iterator[tuple[Snapshot, Change]]:
        """Holds the lock; gives the newest state and a change to it."""
        with (
            writing_to(self._path),
            write_lock(self._path / LOCK, self._lock_timeout),
        ):
            self._check_open()
            self._remove_remainders()
            snapshot = self._snapshot()
            try:
                yield snapshot, Change(self._path, snapshot, self._description.dtype, self._limits)
            finally:
                self._remove_remainders()

    def _remove_remainders(self) -> None:
        """Removes files that the newest state does not name. Who has them open keeps them."""
        manifest = self._snapshot().manifest
        named = {file for entry in manifest.segments for file in entry.files()}
        folder = self._path / SEGMENTS
        for path in folder.iterdir():
            if path.name not in named and is_our_file(path.name):
                with suppress(OSError):  # Windows keeps what is open; the next writer tries again.
                    path.unlink()
        for name in (MANIFEST, FILE_NAME):
            for path in self._path.glob(f".{name}.*"):
                path.unlink(missing_ok=True)


def _delete_all(change: Change, places: Sequence[Place]) -> None:
    rows: dict[int, list[int]] = {}
    for number, row in places:
        rows.setdefault(number, []).append(row)
    for number, those in rows.items():
        change.delete(number, those)


def _page(
    snapshot: Snapshot, condition: Filter | None, limit: int | None, offset: int
) -> list[Place]:
    """Entries from `offset` on, at most `limit`."""
    places: list[Place] = []
    for number, rows in snapshot.places(condition):
        room = None if limit is None else limit - len(places)
        if room == 0:
            break
        wanted = rows[offset:][:room]
        offset = max(0, offset - len(rows))
        places += [(number, row) for row in wanted.tolist()]
    return places
