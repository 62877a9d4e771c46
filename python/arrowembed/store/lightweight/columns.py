"""Metadata as columns, so that a filter is a few passes over mapped arrays.

The values of a key lie in a column for each kind that occurs: strings, integers, other numbers,
true and false; a last one says where there is a list or an object, of which a filter can only ask
whether it exists. Keys beyond the commonest have no column; a filter that names one of them is
answered from the metadata's JSON.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from arrowembed.store.filters import (
    AllOf,
    AnyOf,
    Compare,
    Exists,
    Filter,
    Not,
    OneOf,
    Operator,
    Scalar,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MAX_KEYS = 64
"""Keys of one segment that have columns."""

TYPES = {
    "string": pa.large_string(),
    "integer": pa.int64(),
    "number": pa.float64(),
    "boolean": pa.bool_(),
    "other": pa.bool_(),
}
"""Kinds of values, in the names of columns, and as what they are stored."""

_COMPARISONS = {
    "$eq": pc.equal,
    "$gt": pc.greater,
    "$gte": pc.greater_equal,
    "$lt": pc.less,
    "$lte": pc.less_equal,
}


class Columns(Protocol):
    """Rows with columns of metadata."""

    def __len__(self) -> int: ...

    def values(self, kind: str, key: str) -> pa.Array | None:
        """The column; None where no row has a value of this kind under `key`."""
        ...


def column_name(kind: str, key: str) -> str:
    """Under which a column is found."""
    return f"{kind}:{key}"


def key_of(name: str) -> str | None:
    """The key of a column; None of one that holds no metadata."""
    kind, colon, key = name.partition(":")
    return key if colon and kind in TYPES else None


def columns_of(metadata: Sequence[Mapping[str, Any]]) -> tuple[dict[str, pa.Array], bool]:
    """Columns of the commonest keys, and whether these are all."""
    found: dict[tuple[str, str], dict[int, Any]] = {}
    counts: Counter[str] = Counter()
    for row, entry in enumerate(metadata):
        for key, value in entry.items():
            kind = _kind(value)
            if kind is not None:
                counts[key] += 1
                found.setdefault((kind, key), {})[row] = True if kind == "other" else value
    kept = {key for key, _ in counts.most_common(MAX_KEYS)}
    rows = range(len(metadata))
    columns = {
        column_name(kind, key): pa.array([values.get(row) for row in rows], TYPES[kind])
        for (kind, key), values in sorted(found.items())
        if key in kept
    }
    return columns, len(kept) == len(counts)


def _kind(value: object) -> str | None:
    if value is None:
        return None
    # bool first: it is an int, too.
    for kind, types in (("boolean", bool), ("string", str), ("integer", int), ("number", float)):
        if isinstance(value, types):
            return kind
    return "other"


def keys_of(condition: Filter) -> set[str]:
    """The keys that a filter asks about."""
    match condition:
        case Compare(key=key) | OneOf(key=key) | Exists(key=key):
            return {key}
        case Not(part):
            return keys_of(part)
        case AllOf(parts) | AnyOf(parts):
            return set().union(*map(keys_of, parts))


def mask(condition: Filter, columns: Columns) -> pa.BooleanArray:
    """Where a filter is fulfilled: for each row true or false, as `filters.matches` says."""
    match condition:
        case Compare(key, operator, value):
            return _any(columns, _compared(columns, key, operator, value))
        case OneOf(key, values):
            return _any(columns, _one_of(columns, key, values))
        case Exists(key):
            found = [columns.values(kind, key) for kind in TYPES]
            return _any(columns, [pc.is_valid(column) for column in found if column is not None])
        case Not(part):
            return pc.invert(mask(part, columns))
        case AllOf(parts):
            whole = pc.invert(_nowhere(len(columns)))
            for part in parts:
                whole = pc.and_(whole, mask(part, columns))
            return whole
        case AnyOf(parts):
            return _any(columns, [mask(part, columns) for part in parts])


def _any(columns: Columns, masks: Sequence[pa.Array]) -> pa.BooleanArray:
    """Where one of the masks is true; null counts as false."""
    whole = _nowhere(len(columns))
    for one in masks:
        whole = pc.or_(whole, pc.fill_null(one, fill_value=False))
    return whole


def _nowhere(rows: int) -> pa.BooleanArray:
    bits = pa.py_buffer(bytes((rows + 7) // 8))
    return pa.BooleanArray.from_buffers(pa.bool_(), rows, [None, bits])


def _compared(columns: Columns, key: str, operator: Operator, value: Scalar) -> list[pa.Array]:
    if isinstance(value, (str, bool)):
        column = columns.values("string" if isinstance(value, str) else "boolean", key)
        return [] if column is None else [_COMPARISONS[operator](column, value)]
    masks = []
    for kind, exact in (("integer", _for_integers), ("number", _for_floats)):
        column = columns.values(kind, key)
        if column is None:
            continue
        condition = exact(operator, value)
        if isinstance(condition, bool):
            masks += [pc.is_valid(column)] if condition else []
        else:
            name, operand = condition
            masks.append(_COMPARISONS[name](column, pa.scalar(operand, column.type)))
    return masks


def _one_of(columns: Columns, key: str, values: Sequence[Scalar]) -> list[pa.Array]:
    numbers = [value for value in values if not isinstance(value, (str, bool))]
    sets: dict[str, list[Any]] = {
        "string": [value for value in values if isinstance(value, str)],
        "boolean": [value for value in values if isinstance(value, bool)],
        "integer": _operands(_for_integers, numbers),
        # A set tells both zeros apart, comparison does not.
        "number": [
            same
            for value in _operands(_for_floats, numbers)
            for same in ([0.0, -0.0] if value == 0 else [value])
        ],
    }
    masks = []
    for kind, wanted in sets.items():
        column = columns.values(kind, key) if wanted else None
        if column is not None:
            masks.append(pc.is_in(column, pa.array(wanted, column.type)))
    return masks


def _operands(exact: Any, numbers: Sequence[int | float]) -> list[Any]:
    conditions = [exact("$eq", number) for number in numbers]
    return [condition[1] for condition in conditions if not isinstance(condition, bool)]


# Python compares integers with floats exactly; Arrow would round one of them to the type of the
# other. So the condition is put into words of the column's own type, or is true or false of all.


def _for_integers(operator: Operator, value: float) -> tuple[Operator, int] | bool:
    if isinstance(value, float):
        if operator == "$eq" and not value.is_integer():
            return False
        value = math.ceil(value) if operator in ("$gte", "$lt") else math.floor(value)
    if -(1 << 63) <= value < 1 << 63:
        return operator, value
    return operator in (("$lt", "$lte") if value > 0 else ("$gt", "$gte"))


def _for_floats(operator: Operator, value: float) -> tuple[Operator, float] | bool:
    try:
        near = float(value)
    except OverflowError:
        return operator in (("$lt", "$lte") if value > 0 else ("$gt", "$gte"))
    if near == value:
        return operator, near
    if operator == "$eq":
        return False
    # There is no float between the two.
    if operator in ("$gt", "$gte"):
        return "$gte" if near > value else "$gt", near
    return "$lt" if near > value else "$lte", near
