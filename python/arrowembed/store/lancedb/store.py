"""`LanceStore`: a table of LanceDB, exact without an index and approximate with one.

Each write is one commit of LanceDB: whoever reads sees the version before or after, and a writer
that dies leaves the one before. Writers take turns with a lock; readers need none.
"""

from __future__ import annotations

from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias, TypeVar, get_args

import numpy as np
import pyarrow as pa

from arrowembed.errors import DuplicateIdError, InvalidArgumentError, StoreFileError
from arrowembed.store.base import Store
from arrowembed.store.files import writing_to
from arrowembed.store.lancedb import columns
from arrowembed.store.lancedb.bounds import Norms
from arrowembed.store.lancedb.conditions import among, joined
from arrowembed.store.lancedb.durability import now, sync_since
from arrowembed.store.lancedb.exact import (
    NEEDED,
    Wanted,
    nearest,
    probably_nearest,
    queries_of,
)
from arrowembed.store.lancedb.indexes import look_up, text_index, vector_index
from arrowembed.store.lancedb.library import check_process, indexing, load, reading, writing
from arrowembed.store.lancedb.results import columns_of, hits, records
from arrowembed.store.lancedb.snapshot import TABLE, Snapshot
from arrowembed.store.lancedb.text_search import matching
from arrowembed.store.lancedb.upkeep import compact, is_due, merge_small_files
from arrowembed.store.lock import LOCK, LOCK_TIMEOUT, write_lock
from arrowembed.store.making import make_folder
from arrowembed.store.records import DEFAULT_FIELDS, checked_texts
from arrowembed.texts import is_texts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import ArrayLike, NDArray

    from arrowembed.embedder import Embedder
    from arrowembed.store.description import Description
    from arrowembed.store.filters import Filter
    from arrowembed.store.lancedb.bounds import Query
    from arrowembed.store.records import Field, Hit, Record, Rows
    from arrowembed.texts import Texts

T = TypeVar("T")

Mode: TypeAlias = Literal["vector", "text", "hybrid"]
MODES: tuple[Mode, ...] = get_args(Mode)


_ATTEMPTS = 3
"""At a read whose files somebody removes meanwhile, by compacting."""


class LanceStore(Store):
    """A table of LanceDB with indexes if they are wanted, used by any number of processes.

    Options of `search`: `mode` is "vector", "text" (by words) or "hybrid" (both). Where there is
    an index of vectors, `exact=True` passes over it, and `nprobes`, `refine_factor` and `ef` say
    how it is looked into.

    Args:
        path: The folder.
        description: What the store was made for.
        model: The model, if it is open already.
        lock_timeout: Seconds to wait for another writer.
    """

    def __init__(
        self,
        path: Path,
        description: Description,
        model: Embedder | None = None,
        *,
        lock_timeout: float = LOCK_TIMEOUT,
    ) -> None:
        super().__init__(path, description, model)
        self._lock_timeout = lock_timeout
        self._files = path / f"{TABLE}.lance"
        self._database = _connected(path)
        with reading(path):
            self._table = self._database.open_table(TABLE)
        self._current: Snapshot | None = None
        self._snapshot()

    @classmethod
    def create(
        cls, folder: Path, description: Description, model: Embedder | None, **options: Any
    ) -> Self:
        """See `Store.create`.

        Raises:
            InvalidArgumentError: The folder has files of something else.
            StoreIOError: It cannot be written to.
            MissingDependencyError: LanceDB is not installed.
        """
        load()

        def fill() -> None:
            with writing(folder):
                _make_table(folder, columns.schema(description))

        timeout = options.get("lock_timeout", LOCK_TIMEOUT)
        found = make_folder(folder, description, (f"{TABLE}.lance",), fill, timeout)
        return cls(folder, found, model, **options)

    def create_index(self, kind: str = "ivf_pq", **settings: Any) -> None:
        """Makes or replaces an index of the vectors; from then on searches are approximate.

        Entries that come later are compared one by one until `compact` puts them in.

        Args:
            kind: "ivf_pq" is small, "ivf_hnsw_sq" is faster and larger; "ivf_sq", "ivf_flat".
            settings: What LanceDB's class of that name takes: num_partitions, num_sub_vectors,
                num_bits, m, ef_construction, sample_rate, max_iterations.

        Raises:
            InvalidArgumentError: A setting is unknown or outside what LanceDB allows, or there are
                fewer than 256 entries.
        """
        with self._changing() as snapshot:
            config = vector_index(
                kind,
                self._description.metric,
                self._description.dimension,
                snapshot.count(None),
                settings,
            )
            with indexing(self._path):
                self._table.create_index("vector", config=config, replace=True)

    def create_text_index(self, language: str = "English", **settings: Any) -> None:
        """Makes or replaces an index of the words of the texts, for `mode="text"` and `"hybrid"`.

        Args:
            language: Whose endings and frequent words are passed over.
            settings: What LanceDB's class FTS takes: stem, remove_stop_words, base_tokenizer, …

        Raises:
            InvalidArgumentError: A setting or the language is unknown.
        """
        config = text_index(language, settings)
        with self._changing(), indexing(self._path):
            self._table.create_index("text", config=config, replace=True)

    def drop_index(self) -> None:
        """Removes the index of the vectors, if there is one; from then on searches are exact."""
        self._drop("vector")

    def drop_text_index(self) -> None:
        """Removes the index of the words, if there is one."""
        self._drop("text")

    def search_batch(
        self,
        queries: Texts | ArrayLike,
        k: int = 10,
        *,
        filter: Mapping[str, Any] | None = None,
        offset: int = 0,
        include: Iterable[str] = DEFAULT_FIELDS,
        **options: Any,
    ) -> list[list[Hit]]:
        """See `Store.search_batch`; by words, a score is BM25 or the fusion of both ranks.

        Raises:
            InvalidArgumentError: Words are asked for and there are no texts, or no index of them.
        """
        mode = options.pop("mode", "vector")
        if mode not in MODES:
            raise InvalidArgumentError(f"mode: {mode!r}; known are {', '.join(MODES)}")
        if mode == "vector":
            return super().search_batch(
                queries, k, filter=filter, offset=offset, include=include, **options
            )
        if options:
            raise InvalidArgumentError(f"{', '.join(options)}: only where mode is 'vector'")
        if not is_texts(queries):
            raise InvalidArgumentError(f"query: mode={mode!r} searches by words; give a text")
        k, condition, offset, fields = self._checked_search(k, filter, offset, include)
        texts: list[str] = checked_texts(queries, optional=False)  # type: ignore[arg-type]
        vectors = self._query_vectors(texts) if mode == "hybrid" else None
        names = columns_of(fields, "sequence")

        def found(snapshot: Snapshot) -> list[list[Hit]]:
            wanted = Wanted(k + offset, snapshot.where(condition), names)
            meanings: Sequence[Query | None] = [None] * len(texts)
            if vectors is not None:
                meanings = queries_of(snapshot, vectors, self._description.metric)
            return [
                hits(matching(snapshot, text, meaning, wanted), offset, fields)
                for text, meaning in zip(texts, meanings, strict=True)
            ]

        return self._read(found)

    def _insert(self, rows: Rows, *, replace: bool) -> None:
        if not len(rows):
            return
        vectors = columns.stored(rows.vectors, self._description)
        with self._changing() as snapshot:
            there = snapshot.by_ids(rows.ids, None, ["id"])["id"].to_pylist()
            if there and not replace:
                more = f" and {len(there) - 1} more are" if len(there) > 1 else " is"
                raise DuplicateIdError(
                    f"id {there[0]!r}{more} in the store already; use upsert to replace them"
                )
            first = snapshot.next_sequence
            norms = snapshot.norms.with_(Norms.of(columns.norms(vectors)))
            fields = snapshot.schema
            with writing(self._path):
                for field in snapshot.layout.wanted(rows):
                    fields = fields.append(field)
                if len(fields) > len(snapshot.schema):
                    self._table.add_columns(pa.schema(list(fields)[len(snapshot.schema) :]))
                sequences = np.arange(first, first + len(rows), dtype=np.int64)
                table = columns.table(rows, vectors, sequences, fields)
                if there:
                    merge = self._table.merge_insert("id").when_matched_update_all()
                    merge.when_not_matched_insert_all().execute(table)
                else:
                    self._table.add(table)
            self._remember(norms, first + len(rows))

    def _delete(self, ids: list[str] | None, condition: Filter | None) -> int:
        with self._changing() as snapshot:
            named = None if ids is None else among("id", dict.fromkeys(ids))
            where = joined(named, snapshot.where(condition))
            if not snapshot.count(where):
                return 0
            with writing(self._path):
                deleted = int(self._table.delete(where).num_deleted_rows)
            # Bounds of more than there is are bounds; a number is not given twice.
            self._remember(snapshot.norms, snapshot.next_sequence)
            return deleted

    def _get(
        self,
        ids: list[str] | None,
        condition: Filter | None,
        limit: int | None,
        offset: int,
        fields: tuple[Field, ...],
    ) -> list[Record]:
        end = None if limit is None else offset + limit
        names = columns_of(fields, "sequence")

        def by_ids(snapshot: Snapshot) -> list[Record]:
            table = snapshot.by_ids(ids or [], snapshot.where(condition), names)
            found = {record.id: record for record in records(table, fields)}
            return [found[name] for name in ids or [] if name in found][offset:end]

        def in_order(snapshot: Snapshot) -> list[Record]:
            where = snapshot.where(condition)
            sequences = snapshot.sequences(where, end)[offset:end]
            return [
                record
                for table in snapshot.pages(sequences, where, names)
                for record in records(table, fields)
            ]

        return self._read(in_order if ids is None else by_ids)

    def _scan(
        self, condition: Filter | None, fields: tuple[Field, ...], batch_size: int
    ) -> Iterator[list[Record]]:
        snapshot = self._snapshot()
        where = snapshot.where(condition)
        sequences = snapshot.sequences(where)
        for table in snapshot.pages(sequences, where, columns_of(fields, "sequence"), batch_size):
            with reading(self._path):
                batch = records(table, fields)
            yield batch

    def _search(
        self,
        vectors: NDArray[np.float32],
        k: int,
        condition: Filter | None,
        offset: int,
        fields: tuple[Field, ...],
        *,
        exact: bool = False,
        nprobes: int | None = None,
        refine_factor: int | None = None,
        ef: int | None = None,
        **options: Any,
    ) -> list[list[Hit]]:
        if options:
            raise InvalidArgumentError(
                f"{', '.join(options)}: LanceDB has no such option of a search; known are mode, "
                "exact, nprobes, refine_factor and ef"
            )
        lookup = look_up({"nprobes": nprobes, "refine_factor": refine_factor, "ef": ef}, k + offset)
        names = columns_of(fields, *NEEDED)

        def found(snapshot: Snapshot) -> list[list[Hit]]:
            queries = queries_of(snapshot, vectors, self._description.metric)
            wanted = Wanted(k + offset, snapshot.where(condition), names)
            index = snapshot.indexes.get("vector")
            if exact or index is None:
                scored = nearest(snapshot, queries, wanted)
            else:
                scored = probably_nearest(snapshot, queries, wanted, lookup)
            return [hits(one, offset, fields) for one in scored]

        return self._read(found)

    def _count(self, condition: Filter | None) -> int:
        return self._read(lambda snapshot: snapshot.count(snapshot.where(condition)))

    def _compact(self) -> None:
        moment = now()
        with self._changing() as snapshot, writing(self._path):
            compact(self._table, self._files, snapshot, moment)

    def _details(self) -> dict[str, Any]:
        return self._read(
            lambda snapshot: {"version": snapshot.version, "indexes": snapshot.indexes}
        )

    def _close(self) -> None:
        self._current = self._table = self._database = None

    def _drop(self, column: str) -> None:
        with self._changing() as snapshot:
            index = snapshot.indexes.get(column)
            if index is not None:
                with writing(self._path):
                    self._table.drop_index(index["name"])

    def _snapshot(self) -> Snapshot:
        """The newest version."""
        check_process()
        current = self._current
        with reading(self._path):
            version = self._table.version
        if current is None or current.version != version:
            current = self._current = Snapshot(self._path, self._database, version)
        return current

    def _read(self, action: Callable[[Snapshot], T]) -> T:
        """Reads from the newest version; once more where its files are removed meanwhile."""
        for _ in range(_ATTEMPTS - 1):
            snapshot = self._snapshot()
            try:
                with reading(self._path):
                    return action(snapshot)
            except StoreFileError:
                if self._snapshot() is snapshot:
                    raise
        with reading(self._path):
            return action(self._snapshot())

    @contextmanager
    def _changing(self) -> Iterator[Snapshot]:
        """Holds the lock; gives the newest version, and puts in order what became fragmented."""
        self._check_open()
        check_process()
        with (
            writing_to(self._path),
            write_lock(self._path / LOCK, self._lock_timeout),
        ):
            before, moment = self._snapshot(), now()
            yield before
            after = self._snapshot()
            if after is before:
                return
            sync_since(self._files, moment)
            if is_due(before.version, after.version):
                with writing(self._path):
                    merged = merge_small_files(self._table, self._files, after, moment)
                if merged:
                    self._remember(after.norms, after.next_sequence)

    def _remember(self, norms: Norms, next_sequence: int) -> None:
        """Takes over what is known of all entries, which would be read again otherwise."""
        self._snapshot().remember(norms=norms, next_sequence=next_sequence)


def _connected(folder: Path) -> Any:
    """LanceDB's connection, whose tables look for a newer version at each call."""
    with reading(folder):
        return load().connect(folder, read_consistency_interval=timedelta(0))


def _make_table(folder: Path, fields: pa.Schema) -> None:
    # Overwritten: what a process left that died before the store was one.
    there = (folder / f"{TABLE}.lance").exists()
    _connected(folder).create_table(TABLE, schema=fields, mode="overwrite" if there else "create")
