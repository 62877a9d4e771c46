"""`open_store`: from a path to a store, made if it is not there."""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from arrowembed.errors import InvalidArgumentError, MissingDependencyError, StoreNotFoundError
from arrowembed.store.description import (
    BACKENDS,
    METRICS,
    VECTOR_TYPES,
    Backend,
    Description,
    Metric,
    ModelUse,
    VectorType,
)

if TYPE_CHECKING:
    from arrowembed.embedder import Embedder
    from arrowembed.store.base import Store

logger = logging.getLogger("arrowembed")

VARIABLE = "STORAGE_BACKEND"
"""Environment variable that names the backend of new stores."""

MAX_DIMENSION = 65_536


def open_store(
    path: str | os.PathLike[str],
    *,
    model: Embedder | str | os.PathLike[str] | None = None,
    dimension: int | None = None,
    metric: Metric | None = None,
    dtype: VectorType | None = None,
    backend: Backend | None = None,
    fallback: bool = False,
    **options: Any,
) -> Store:
    """Opens the store in a folder, or makes one there.

    >>> with open_store("memory", model="all-MiniLM-L6-v2") as store:
    ...     store.add(["1"], ["Her birthday is in May."])
    >>> open_store("memory").search("When was she born?")[0].text
    'Her birthday is in May.'

    A store remembers what it was made with; to open it again the path is enough. What is asked for
    all the same must be what it has.

    Args:
        path: The folder.
        model: For texts: an `Embedder`, or the name or path of a model. A new store of vectors
            needs none.
        dimension: Length of the vectors of a new store without a model.
        metric: "cosine", "dot" or "euclidean". A new store takes what its model was made for, else
            cosine.
        dtype: "float32", "float16" or "int8", as what vectors are stored; a new store takes
            float32.
        backend: "lightweight" or "lancedb". A new store takes what `STORAGE_BACKEND` says, else
            lightweight.
        fallback: Whether a new store may be lightweight, with a warning, where LanceDB cannot be
            used.
        options: What only the backend knows; see there.

    Raises:
        StoreNotFoundError: There is no store, and neither model nor dimension to make one with.
        StoreMismatchError: It was made for something else.
        StoreFileError: Its files are damaged.
        MissingDependencyError: The backend's package is not installed.
        InvalidArgumentError: An argument is outside what is allowed.
    """
    folder = Path(path).expanduser().absolute()
    embedder = _opened(model)
    for name, value, known in (
        ("backend", backend, BACKENDS),
        ("metric", metric, METRICS),
        ("dtype", dtype, VECTOR_TYPES),
    ):
        if value is not None and value not in known:
            raise InvalidArgumentError(f"{name}: {value!r}; known are {', '.join(known)}")
    try:
        description = Description.read(folder)
    except StoreNotFoundError:
        if embedder is None and dimension is None:
            raise
        wanted = _described(embedder, dimension, metric, dtype)
        return _make(folder, wanted, embedder, backend, fallback=fallback, **options)
    description.check(folder, dimension=dimension, metric=metric, dtype=dtype, backend=backend)
    return backend_class(description.backend)(folder, description, embedder, **options)


def _opened(model: Embedder | str | os.PathLike[str] | None) -> Embedder | None:
    if not isinstance(model, (str, os.PathLike)):
        return model
    from arrowembed.registry import shared  # noqa: PLC0415 - opens the engine

    return shared(os.fspath(model))


def _described(
    embedder: Embedder | None,
    dimension: int | None,
    metric: Metric | None,
    dtype: VectorType | None,
) -> Description:
    """What a new store is made for; its backend is decided later."""
    if embedder is not None:
        if dimension not in (None, embedder.dimension):
            raise InvalidArgumentError(
                f"dimension: {dimension}; the model's vectors have {embedder.dimension} numbers, "
                "Embedder(truncate_dim=...) cuts them"
            )
        dimension = embedder.dimension
        if metric is None and embedder.similarity_function not in METRICS:
            raise InvalidArgumentError(
                f"metric: the model was made for {embedder.similarity_function}, which stores do "
                f"not have; choose one of {', '.join(METRICS)}"
            )
        metric = metric or cast("Metric", embedder.similarity_function)
    if dimension is None or not 1 <= dimension <= MAX_DIMENSION:
        raise InvalidArgumentError(f"dimension: {dimension}; expected 1 to {MAX_DIMENSION}")
    return Description(
        backend="lightweight",
        dimension=dimension,
        metric=metric or "cosine",
        dtype=dtype or "float32",
        model=None if embedder is None else ModelUse.of(embedder),
    )


def _make(
    folder: Path,
    wanted: Description,
    embedder: Embedder | None,
    backend: Backend | None,
    *,
    fallback: bool,
    **options: Any,
) -> Store:
    """A new store of the backend that was asked for, or of the one that is always there."""
    named = backend or os.environ.get(VARIABLE) or "lightweight"
    if named not in BACKENDS:
        raise InvalidArgumentError(f"{VARIABLE}={named!r}; known are {', '.join(BACKENDS)}")
    description = replace(wanted, backend=named)
    try:
        return backend_class(description.backend).create(folder, description, embedder, **options)
    except (MissingDependencyError, OSError) as error:
        if not fallback or description.backend == "lightweight":
            raise
        logger.warning(
            "a lightweight store is made at %s, because %s cannot be used: %s",
            folder,
            named,
            error,
        )
    description = replace(wanted, backend="lightweight")
    return backend_class("lightweight").create(folder, description, embedder)


def backend_class(backend: Backend) -> type[Store]:
    """The class of a backend.

    Raises:
        MissingDependencyError: It needs a package that is not installed.
    """
    if backend == "lancedb":
        from arrowembed.store.lancedb import LanceStore  # noqa: PLC0415 - an extra

        return LanceStore
    from arrowembed.store.lightweight import LightweightStore  # noqa: PLC0415 - needs pyarrow

    return LightweightStore
