"""`Store`: texts or vectors with ids and metadata, searched by similarity.

What all backends have in common: arguments are checked, texts embedded and the model compared with
that of the store here, once. A backend stores and finds checked rows of vectors.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Self, TypedDict

import numpy as np

from arrowembed.errors import ClosedError, InvalidArgumentError
from arrowembed.store.filters import Filter, parse
from arrowembed.store.model import LazyEmbedder
from arrowembed.store.records import (
    DEFAULT_FIELDS,
    Field,
    Hit,
    Record,
    Rows,
    checked_count,
    checked_fields,
    checked_ids,
    checked_metadata,
    checked_texts,
    checked_vectors,
)
from arrowembed.texts import as_texts, is_texts

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import ArrayLike, NDArray

    from arrowembed.embedder import Embedder
    from arrowembed.store.description import Description
    from arrowembed.texts import Texts

MAX_K = 10_000
"""Most entries of one answer."""


_FLOAT16_OVERFLOW = 65_520.0
"""What is rounded to infinity from here on."""


class StoreInfo(TypedDict):
    """What `Store.info` tells."""

    path: str
    backend: str
    count: int
    dimension: int
    metric: str
    dtype: str
    model: str | None
    bytes: int
    """Of its files on disk."""
    details: dict[str, Any]
    """What only this backend has: segments, deleted rows, indexes."""


class Store(ABC):
    """Entries in a folder. Made by `open_store`; safe to share between threads.

    >>> from arrowembed.store import open_store
    >>> store = open_store("points", dimension=2, metric="euclidean")
    >>> store.add(["a", "b"], vectors=[[0, 0], [3, 4]], metadata=[{"n": 1}, {"n": 2}])
    >>> [(hit.id, hit.score) for hit in store.search([0, 0])]
    [('a', 0.0), ('b', -5.0)]
    >>> store.search([0, 0], filter={"n": {"$gt": 1}}, include=[])
    [Hit(id='b', text=None, metadata=None, vector=None, score=-5.0)]
    >>> store.upsert(["b"], ["now with a text"], vectors=[[1, 0]])
    >>> store.get(["b"])
    [Record(id='b', text='now with a text', metadata={}, vector=None)]
    >>> store.delete(["a"]), len(store)
    (1, 1)
    >>> store.close()

    Args:
        path: The folder.
        description: What the store was made for.
        model: The model, if it is open already.
    """

    def __init__(self, path: Path, description: Description, model: Embedder | None = None) -> None:
        self._path, self._description = path, description
        self._model = LazyEmbedder(description, path, model)
        self._closed = False

    @property
    def path(self) -> Path:
        """Its folder."""
        return self._path

    @property
    def description(self) -> Description:
        """What it was made for: backend, dimension, metric, dtype and model."""
        return self._description

    def add(
        self,
        ids: Sequence[str],
        texts: Texts | None = None,
        *,
        vectors: ArrayLike | None = None,
        metadata: Sequence[Mapping[str, Any] | None] | None = None,
    ) -> None:
        """Puts new entries in, all or none. They are on disk when this returns.

        Args:
            ids: One for each entry, 1 to 1024 bytes of UTF-8.
            texts: Stored, and embedded unless there are vectors for them.
            vectors: Finite numbers, shape (n, dimension).
            metadata: For each entry values by name, as JSON has them; or None.

        Raises:
            DuplicateIdError: One of the ids is there already.
            InvalidArgumentError: Lengths differ, or something is not of its kind.
            StoreLockedError: Another process keeps writing.
        """
        self._insert(self._rows(ids, texts, vectors, metadata), replace=False)

    def upsert(
        self,
        ids: Sequence[str],
        texts: Texts | None = None,
        *,
        vectors: ArrayLike | None = None,
        metadata: Sequence[Mapping[str, Any] | None] | None = None,
    ) -> None:
        """Like `add`, but entries whose ids are there already are replaced as a whole."""
        self._insert(self._rows(ids, texts, vectors, metadata), replace=True)

    def delete(
        self, ids: Sequence[str] | None = None, *, filter: Mapping[str, Any] | None = None
    ) -> int:
        """Takes out the entries with these ids that fulfil the filter.

        Returns:
            How many there were. Ids that are not there are no error.

        Raises:
            InvalidArgumentError: Neither ids nor a filter is given.
        """
        condition = parse(filter)
        if ids is None and condition is None:
            raise InvalidArgumentError("delete: give ids or a filter")
        self._check_open()
        return self._delete(None if ids is None else checked_ids(ids, unique=False), condition)

    def get(
        self,
        ids: Sequence[str] | None = None,
        *,
        filter: Mapping[str, Any] | None = None,
        limit: int | None = None,
        offset: int = 0,
        include: Iterable[str] = DEFAULT_FIELDS,
    ) -> list[Record]:
        """Entries by id, in the order of `ids`, or all, in the order in which they were put in.

        Args:
            ids: Those that are not there are left out.
            filter: See `arrowembed.store.filters`.
            limit: At most so many.
            offset: So many are passed over.
            include: Of "text", "metadata" and "vector", what is wanted.
        """
        offset = checked_count("offset", offset, 0)
        limit = None if limit is None else checked_count("limit", limit, 0)
        fields = checked_fields(include)
        condition = parse(filter)
        self._check_open()
        wanted = None if ids is None else checked_ids(ids, unique=False)
        return self._get(wanted, condition, limit, offset, fields)

    def scan(
        self,
        *,
        filter: Mapping[str, Any] | None = None,
        include: Iterable[str] = DEFAULT_FIELDS,
        batch_size: int = 1024,
    ) -> Iterator[list[Record]]:
        """All entries in the order in which they were put in, a batch at a time.

        They are those that were there when the first batch was read, whatever is written meanwhile.

        Args:
            filter: See `arrowembed.store.filters`.
            include: Of "text", "metadata" and "vector", what is wanted.
            batch_size: Most entries of a batch.

        Raises:
            StoreFileError: A store in LanceDB was compacted meanwhile, which removes what is being
                read; scan it again.
        """
        batch_size = checked_count("batch_size", batch_size, 1)
        fields = checked_fields(include)
        condition = parse(filter)
        self._check_open()
        return self._scan(condition, fields, batch_size)

    def search(
        self,
        query: str | ArrayLike,
        k: int = 10,
        *,
        filter: Mapping[str, Any] | None = None,
        offset: int = 0,
        include: Iterable[str] = DEFAULT_FIELDS,
        **options: Any,
    ) -> list[Hit]:
        """The `k` entries that are most similar to a text or a vector, the most similar first.

        Args:
            query: A text, embedded as a query, or a vector of shape (dimension,).
            k: How many; fewer come if there are no more. At most 10,000.
            filter: Only entries whose metadata fulfil it; see `arrowembed.store.filters`.
            offset: So many of the most similar are passed over.
            include: Of "text", "metadata" and "vector", what is wanted.
            options: What only the backend knows; see there.

        Raises:
            InvalidArgumentError: Something is not of its kind.
            StoreMismatchError: A text is given and the store has no model.
        """
        queries = [query] if isinstance(query, str) else np.asarray(query)[np.newaxis]
        return self.search_batch(
            queries, k, filter=filter, offset=offset, include=include, **options
        )[0]

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
        """`search` for many texts, or vectors of shape (n, dimension), at once."""
        k, condition, offset, fields = self._checked_search(k, filter, offset, include)
        vectors = self._query_vectors(queries)
        if not len(vectors):
            return []
        return self._search(vectors, k, condition, offset, fields, **options)

    def count(self, filter: Mapping[str, Any] | None = None) -> int:
        """How many entries there are, or fulfil a filter."""
        condition = parse(filter)
        self._check_open()
        return self._count(condition)

    def compact(self) -> None:
        """Rewrites what is fragmented and drops what was deleted. Searches go on meanwhile."""
        self._check_open()
        self._compact()

    def info(self) -> StoreInfo:
        """What the store was made for and how large it is."""
        self._check_open()
        model = self._description.model
        return {
            "path": str(self._path),
            "backend": self._description.backend,
            "count": self._count(None),
            "dimension": self._description.dimension,
            "metric": self._description.metric,
            "dtype": self._description.dtype,
            "model": None if model is None else model.name,
            "bytes": sum(map(_size, self._path.rglob("*"))),
            "details": self._details(),
        }

    def close(self) -> None:
        """Lets go of its files. Whatever is asked of it afterwards is a `ClosedError`."""
        if not self._closed:
            self._closed = True
            self._close()

    def __len__(self) -> int:
        return self.count()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({str(self._path)!r}, dimension={self._description.dimension})"
        )

    # What a backend has to do.

    @classmethod
    @abstractmethod
    def create(
        cls, folder: Path, description: Description, model: Embedder | None, **options: Any
    ) -> Self:
        """Makes the folder and an empty store in it, `Description.write` last, and opens it.

        Where two processes do so at once, both open the same store.
        """

    @abstractmethod
    def _insert(self, rows: Rows, *, replace: bool) -> None: ...

    @abstractmethod
    def _delete(self, ids: list[str] | None, condition: Filter | None) -> int: ...

    @abstractmethod
    def _get(
        self,
        ids: list[str] | None,
        condition: Filter | None,
        limit: int | None,
        offset: int,
        fields: tuple[Field, ...],
    ) -> list[Record]: ...

    def _scan(
        self, condition: Filter | None, fields: tuple[Field, ...], batch_size: int
    ) -> Iterator[list[Record]]:
        # A backend whose entries may be more than memory holds does better.
        records = self._get(None, condition, None, 0, fields)
        for start in range(0, len(records), batch_size):
            yield records[start : start + batch_size]

    @abstractmethod
    def _search(
        self,
        vectors: NDArray[np.float32],
        k: int,
        condition: Filter | None,
        offset: int,
        fields: tuple[Field, ...],
        **options: Any,
    ) -> list[list[Hit]]: ...

    @abstractmethod
    def _count(self, condition: Filter | None) -> int: ...

    @abstractmethod
    def _compact(self) -> None: ...

    @abstractmethod
    def _details(self) -> dict[str, Any]: ...

    @abstractmethod
    def _close(self) -> None: ...

    # What they have in common.

    def _checked_search(
        self, k: int, filter: Mapping[str, Any] | None, offset: int, include: Iterable[str]
    ) -> tuple[int, Filter | None, int, tuple[Field, ...]]:
        k, offset = checked_count("k", k, 1), checked_count("offset", offset, 0)
        if k + offset > MAX_K:
            raise InvalidArgumentError(f"k: {k} from {offset} on; at most {MAX_K} can be had")
        fields = checked_fields(include)
        condition = parse(filter)
        self._check_open()
        return k, condition, offset, fields

    def _rows(
        self,
        ids: Sequence[str],
        texts: Texts | None,
        vectors: ArrayLike | None,
        metadata: Sequence[Mapping[str, Any] | None] | None,
    ) -> Rows:
        self._check_open()
        names = checked_ids(ids)
        if texts is None and vectors is None:
            raise InvalidArgumentError("texts: give texts, vectors or both")
        if isinstance(texts, str):
            raise InvalidArgumentError("texts: expected a list of texts, got one; pass [text]")
        documents = None if texts is None else checked_texts(texts, optional=vectors is not None)
        for name, values in (("texts", documents), ("metadata", metadata)):
            if values is not None and len(values) != len(names):
                raise InvalidArgumentError(f"{name}: {len(values)} for {len(names)} ids")
        matrix = (
            self._model.get().encode_document(documents or [])
            if vectors is None
            else checked_vectors("vectors", vectors, self._description.dimension)
        )
        if len(matrix) != len(names):
            raise InvalidArgumentError(f"vectors: {len(matrix)} for {len(names)} ids")
        if self._description.dtype == "float16" and (np.abs(matrix) >= _FLOAT16_OVERFLOW).any():
            raise InvalidArgumentError("vectors: a number too large for float16; at most 65504")
        return Rows(
            names,
            matrix,
            [None] * len(names) if documents is None else list(documents),
            [checked_metadata(entry, i) for i, entry in enumerate(metadata or [None] * len(names))],
        )

    def _query_vectors(self, queries: Texts | ArrayLike) -> NDArray[np.float32]:
        if isinstance(queries, str):
            raise InvalidArgumentError("queries: expected several texts; use search for one")
        if is_texts(queries):
            vectors: NDArray[np.float32] = self._model.get().encode_query(as_texts(queries))
            return vectors
        return checked_vectors("query", queries, self._description.dimension)  # type: ignore[arg-type] # not texts

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError(f"the store at {str(self._path)!r} was closed")


def _size(file: Path) -> int:
    """Bytes of a file; 0 of none, and of what another process has just removed."""
    try:
        return file.stat().st_size if file.is_file() else 0
    except FileNotFoundError:
        return 0
