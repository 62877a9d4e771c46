"""What counts as texts: turns a caller's argument into a list of strings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from arrowembed.errors import TextTypeError

if TYPE_CHECKING:
    from numpy.typing import NDArray

Texts: TypeAlias = "str | Iterable[str] | NDArray[Any]"
"""One text, or any iterable of texts: list, NumPy, pandas, polars or pyarrow column, generator."""

_COLUMN_TO_LIST = ("to_pylist", "to_list", "tolist")
"""How pyarrow, polars and pandas (and NumPy scalars) spell "as a Python list"."""

_WRITTEN_FORM = "use str(...) if its written form is what you mean"
# What people pass by mistake, and what they can do instead.
_NO_TEXTS: tuple[tuple[tuple[type, ...], str], ...] = (
    ((type(None),), 'pass "" or [] for nothing'),
    ((bool, int, float, complex), _WRITTEN_FORM),
    ((bytes, bytearray, memoryview), 'decode it first, for example with .decode("utf-8")'),
    ((Mapping,), "pass list(mapping.values()) or the field that holds the text"),
)


def as_texts(sentences: object) -> list[str]:
    """The texts of any accepted argument but a single `str`, as a list.

    What the list holds is checked by the engine, which reports the position of anything that is
    not a text.

    Raises:
        TextTypeError: `sentences` is not a collection of texts.
    """
    if isinstance(sentences, list):
        return sentences
    import numpy as np  # noqa: PLC0415 - see arrowembed.embedder

    if isinstance(sentences, np.ndarray):
        return _from_numpy(sentences)
    for types, advice in (*_NO_TEXTS, ((np.generic,), _WRITTEN_FORM)):
        if isinstance(sentences, types):
            what = "None" if sentences is None else type(sentences).__name__
            raise TextTypeError(f"expected a text or a list of texts, got {what}; {advice}")
    if hasattr(sentences, "columns") or hasattr(sentences, "column_names"):
        raise TextTypeError(
            f"expected one column of texts, got a whole {type(sentences).__name__}; "
            'pass a column, for example table["text"]'
        )
    for method in _COLUMN_TO_LIST:
        if hasattr(sentences, method):
            texts: list[str] = getattr(sentences, method)()
            return texts
    if isinstance(sentences, Iterable):
        return list(sentences)
    raise TextTypeError(
        f"expected a text or a list of texts, got a value of type {type(sentences).__name__}; "
        "pass a str or an iterable of str"
    )


def is_texts(value: object) -> bool:
    """Whether `value` holds texts rather than vectors of numbers."""
    import numpy as np  # noqa: PLC0415 - see arrowembed.embedder

    if isinstance(value, np.ndarray):
        return value.dtype.kind in "UTO"
    if isinstance(value, str):
        return True
    if isinstance(value, (list, tuple)):
        return bool(value) and isinstance(value[0], str)
    return "str" in str(getattr(value, "dtype", getattr(value, "type", ""))).lower()


def _from_numpy(array: NDArray[Any]) -> list[str]:
    if array.dtype.kind not in "UTO" and array.size:
        raise TextTypeError(
            f"expected a NumPy array of strings, got dtype {array.dtype}; "
            "use array.astype(str) if the written form of its values is what you mean"
        )
    if array.ndim != 1:
        raise TextTypeError(
            f"expected a 1-D NumPy array of strings, got {array.ndim} dimensions; use array.ravel()"
        )
    texts: list[str] = array.tolist()
    return texts
