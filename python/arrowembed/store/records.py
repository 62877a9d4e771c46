"""What is put into a store and what comes out of it."""

from __future__ import annotations

import json
import math
import operator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import numpy as np

from arrowembed.errors import InvalidArgumentError, InvalidTextError, TextTypeError
from arrowembed.texts import as_texts

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import ArrayLike, NDArray

    from arrowembed.texts import Texts

Field: TypeAlias = Literal["text", "metadata", "vector"]
"""What can be asked for beside ids and scores."""

FIELDS: tuple[Field, ...] = get_args(Field)
DEFAULT_FIELDS: tuple[Field, ...] = ("text", "metadata")

MAX_ID_BYTES = 1024

MAX_DEPTH = 64
"""How deeply lists and objects in metadata may be nested."""

_INT64 = range(-(1 << 63), 1 << 63)


@dataclass(frozen=True, slots=True)
class Record:
    """One entry. What was not asked for, or is not there, is None."""

    id: str
    text: str | None = None
    metadata: dict[str, Any] | None = None
    vector: NDArray[np.float32] | None = None
    """float32, shape (dimension,), as it was stored."""


@dataclass(frozen=True, slots=True)
class Hit(Record):
    """An entry that was found."""

    score: float = 0.0
    """Similarity, more is more similar: cosine, dot product, or negative Euclidean distance."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Checked entries on their way into a store, in their order."""

    ids: list[str]
    vectors: NDArray[np.float32]
    """Finite, C-contiguous, shape (n, dimension)."""
    texts: list[str | None]
    metadata: list[dict[str, Any]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.ids)


def checked_ids(ids: Iterable[str], *, name: str = "ids", unique: bool = True) -> list[str]:
    """The ids as a list.

    Raises:
        InvalidArgumentError: One is empty, too long, no string, no UTF-8, or comes twice.
    """
    if isinstance(ids, (str, bytes)):
        raise InvalidArgumentError(f"{name}: expected a list of ids, got one; pass [{ids!r}]")
    checked = list(ids)
    seen: set[str] = set()
    for index, value in enumerate(checked):
        if not isinstance(value, str):
            raise InvalidArgumentError(
                f"{name}[{index}]: expected a string, got {type(value).__name__}"
            )
        size = len(value.encode("utf-8", "surrogatepass"))
        if not 1 <= size <= MAX_ID_BYTES:
            raise InvalidArgumentError(
                f"{name}[{index}]: an id has 1 to {MAX_ID_BYTES} bytes, this one {size}"
            )
        _check_unicode(f"{name}[{index}]", value)
        if unique and value in seen:
            raise InvalidArgumentError(f"{name}[{index}]: {value!r} comes twice in one call")
        seen.add(value)
    return checked


def checked_texts(texts: Texts, *, optional: bool) -> list[Any]:
    """The texts as a list of strings, or of strings and None.

    Args:
        texts: One for each entry.
        optional: Whether some may be missing, because there are vectors.

    Raises:
        TextTypeError: Something is no text.
        InvalidTextError: A text is no UTF-8.
    """
    checked: list[Any] = as_texts(texts)
    for index, text in enumerate(checked):
        if isinstance(text, str):
            try:
                text.encode()
            except UnicodeEncodeError as error:
                raise InvalidTextError(
                    f"texts[{index}]: a lone surrogate, which is no UTF-8"
                ) from error
        elif text is not None or not optional:
            raise TextTypeError(f"texts[{index}]: expected a text, got {type(text).__name__}")
    return checked


def checked_metadata(metadata: Mapping[str, Any] | None, index: int) -> dict[str, Any]:
    """A copy of one entry's metadata, as JSON would give it back.

    Raises:
        InvalidArgumentError: A key is no string or starts with "$", or a value is no JSON: NaN, an
            integer beyond 64 bits, nested too deeply, or an object of some other kind.
    """
    if metadata is None:
        return {}
    if not hasattr(metadata, "items"):
        raise InvalidArgumentError(
            f"metadata[{index}]: expected a mapping, got {type(metadata).__name__}"
        )
    return {
        _checked_key(f"metadata[{index}]", key): _checked_value(
            f"metadata[{index}].{key}", value, 1
        )
        for key, value in metadata.items()
    }


def checked_fields(include: Iterable[str]) -> tuple[Field, ...]:
    """The fields that were asked for.

    Raises:
        InvalidArgumentError: One is unknown.
    """
    wanted = (include,) if isinstance(include, str) else tuple(include)
    for name in wanted:
        if name not in FIELDS:
            raise InvalidArgumentError(f"include: {name!r}; known are {', '.join(FIELDS)}")
    return tuple(name for name in FIELDS if name in wanted)


def checked_vectors(name: str, vectors: ArrayLike, dimension: int) -> NDArray[np.float32]:
    """Vectors as they are stored: C-contiguous, shape (n, dimension).

    Raises:
        InvalidArgumentError: They are of another shape, no numbers, or not finite.
    """
    try:
        with np.errstate(over="ignore"):  # what is too large becomes infinite, told below
            matrix = np.ascontiguousarray(vectors, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise InvalidArgumentError(f"{name}: expected numbers: {error}") from error
    if matrix.size == 0 and matrix.ndim <= 2:
        return np.empty((0, dimension), dtype=np.float32)
    if matrix.ndim != 2 or matrix.shape[1] != dimension:
        raise InvalidArgumentError(
            f"{name}: shape {matrix.shape}; the store has vectors of {dimension} numbers"
        )
    finite = np.isfinite(matrix).all(axis=1)
    if not finite.all():
        raise InvalidArgumentError(
            f"{name}[{int(finite.argmin())}]: holds a NaN, an infinity or a number too large "
            "for float32"
        )
    return matrix


def checked_count(name: str, value: Any, least: int) -> int:
    """A whole number, of Python or NumPy.

    Raises:
        InvalidArgumentError: It is none, or less than `least`.
    """
    try:
        count = -1 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        count = -1
    if count < least:
        raise InvalidArgumentError(f"{name}: {value!r}; expected a whole number from {least} on")
    return count


def _checked_key(where: str, key: object) -> str:
    if not isinstance(key, str) or not key or key.startswith("$"):
        raise InvalidArgumentError(
            f'{where}: a key is a non-empty string that does not start with "$", not {key!r}'
        )
    _check_unicode(where, key)
    return key


def _checked_value(where: str, value: Any, depth: int) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, (list, tuple, dict)):
        return _checked_nested(where, value, depth)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        _check_unicode(where, value)
        return str(value)
    if isinstance(value, int):
        if value not in _INT64:
            raise InvalidArgumentError(f"{where}: an integer beyond 64 bits; write it as a string")
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise InvalidArgumentError(f"{where}: {value} is no JSON; leave the key out")
        return float(value)
    raise InvalidArgumentError(
        f"{where}: {type(value).__name__} is no JSON; use strings, numbers, true, false, lists"
    )


def _checked_nested(where: str, value: Any, depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise InvalidArgumentError(f"{where[:200]}: nested more than {MAX_DEPTH} deep")
    if isinstance(value, dict):
        return {
            _checked_key(where, key): _checked_value(f"{where}.{key}", item, depth + 1)
            for key, item in value.items()
        }
    return [_checked_value(f"{where}[{i}]", item, depth + 1) for i, item in enumerate(value)]


def _check_unicode(where: str, value: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InvalidArgumentError(f"{where}: a lone surrogate, which is no UTF-8") from error


def to_json(metadata: Mapping[str, Any]) -> str:
    """Metadata as it is stored."""
    return json.dumps(metadata, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
