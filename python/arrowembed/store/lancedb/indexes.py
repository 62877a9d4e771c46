"""Indexes of vectors and of words, and what is looked for in them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from arrowembed.errors import InvalidArgumentError
from arrowembed.store.lancedb.bounds import LANCE_METRICS
from arrowembed.store.lancedb.library import load

if TYPE_CHECKING:
    from arrowembed.store.description import Metric

IndexKind: TypeAlias = Literal["ivf_pq", "ivf_hnsw_sq", "ivf_sq", "ivf_flat"]
INDEX_KINDS: tuple[IndexKind, ...] = get_args(IndexKind)

LEAST_ENTRIES = 256
"""So many an index of vectors is trained on at least."""

_CLASSES: dict[IndexKind, str] = {
    "ivf_pq": "IvfPq",
    "ivf_hnsw_sq": "HnswSq",
    "ivf_sq": "IvfSq",
    "ivf_flat": "IvfFlat",
}

_MOST = (1 << 31) - 1

NPROBES = 20
REFINE_FACTOR = 10
"""Measured (`benches/retrieval`) on paragraphs of 384 numbers: recall@10 of 0.95 and more."""


def vector_index(
    kind: str, metric: Metric, dimension: int, count: int, settings: dict[str, Any]
) -> Any:
    """LanceDB's description of an index of vectors.

    Raises:
        InvalidArgumentError: The kind or a setting is unknown, or there are too few entries.
    """
    if kind not in INDEX_KINDS:
        raise InvalidArgumentError(f"kind: {kind!r}; known are {', '.join(INDEX_KINDS)}")
    if count < LEAST_ENTRIES:
        raise InvalidArgumentError(
            f"an index needs {LEAST_ENTRIES} entries to learn from, and there are {count}; "
            "without one every search is exact"
        )
    for name, value in settings.items():
        if not _is_count(value):
            raise InvalidArgumentError(
                f"{name}: {value!r}; expected a whole number from 1 to {_MOST}"
            )
    if kind == "ivf_pq":
        settings = {"num_sub_vectors": _sub_vectors(dimension), **settings}
    if kind == "ivf_hnsw_sq":
        settings = {"num_partitions": 1, **settings}
    try:
        return getattr(load().index, _CLASSES[kind])(
            distance_type=LANCE_METRICS[metric], **settings
        )
    except TypeError as error:
        raise InvalidArgumentError(f"create_index: of {kind}: {error}") from error


def text_index(language: str, settings: dict[str, Any]) -> Any:
    """LanceDB's description of an index of words.

    Raises:
        InvalidArgumentError: A setting is unknown.
    """
    try:
        return load().index.FTS(language=language, **settings)
    except TypeError as error:
        raise InvalidArgumentError(f"create_text_index: {error}") from error


def look_up(options: dict[str, int | None], k: int) -> dict[str, int | None]:
    """How an index is looked into, with what was measured where nothing is said.

    Args:
        options: nprobes, refine_factor and ef, each perhaps None.
        k: How many entries are wanted.

    Raises:
        InvalidArgumentError: A number is below one, or beyond 31 bits.
    """
    for name, value in options.items():
        if value is not None and not _is_count(value):
            raise InvalidArgumentError(
                f"{name}: {value!r}; expected a whole number from 1 to {_MOST}"
            )
    nprobes, refine = options["nprobes"] or NPROBES, options["refine_factor"] or REFINE_FACTOR
    ef = options["ef"]
    # LanceDB refuses fewer candidates than it is to compare exactly.
    ef = None if ef is None else max(ef, k * refine)
    return {"nprobes": nprobes, "refine_factor": refine, "ef": ef}


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= _MOST


def _sub_vectors(dimension: int) -> int:
    """Into how many parts product quantisation cuts a vector: eight numbers to a byte if it can."""
    return next(dimension // each for each in (8, 4, 2, 1) if dimension % each == 0)
