"""Conditions on metadata.

A filter is a mapping, in the form that MongoDB made common:

- `{"lang": "en"}`: the value is equal;
- `{"year": {"$gte": 2020, "$lt": 2025}}`: `$eq`, `$ne`, `$gt`, `$gte`, `$lt`, `$lte`;
- `{"lang": {"$in": ["en", "de"]}}`, `$nin`; `{"year": {"$exists": true}}`;
- `{"$and": [...]}`, `{"$or": [...]}`, `{"$not": {...}}`; several keys are joined by and.

Values are strings, numbers and booleans. Numbers compare with numbers, whole or not; strings with
strings, by code points; true and false only for being equal. A value of another kind, null, a list
or a missing key fulfils no condition but `$ne` and `$nin`, which are the opposites of `$eq` and
`$in`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from arrowembed.errors import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Mapping

Scalar: TypeAlias = str | int | float | bool
Operator: TypeAlias = Literal["$eq", "$gt", "$gte", "$lt", "$lte"]

_MAX_DEPTH = 32
_MAX_CONDITIONS = 1024


@dataclass(frozen=True, slots=True)
class Compare:
    """The value of `key` compares so with `value`."""

    key: str
    operator: Operator
    value: Scalar


@dataclass(frozen=True, slots=True)
class OneOf:
    """The value of `key` equals one of `values`."""

    key: str
    values: tuple[Scalar, ...]


@dataclass(frozen=True, slots=True)
class Exists:
    """There is a value of `key`, and it is not null."""

    key: str


@dataclass(frozen=True, slots=True)
class Not:
    """`part` is not fulfilled."""

    part: Filter


@dataclass(frozen=True, slots=True)
class AllOf:
    """Each of `parts` is fulfilled; true of none."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    """One of `parts` is fulfilled; false of none."""

    parts: tuple[Filter, ...]


Filter: TypeAlias = Compare | OneOf | Exists | Not | AllOf | AnyOf


def parse(condition: Mapping[str, Any] | None) -> Filter | None:
    """A filter in the form above; None and an empty mapping are no condition.

    Raises:
        InvalidArgumentError: It is not of that form; the message says where.
    """
    if condition is None:
        return None
    parser = _Parser()
    parsed = parser.mapping(condition, "filter", 0)
    return None if parsed == AllOf(()) else parsed


def matches(condition: Filter, metadata: Mapping[str, Any]) -> bool:
    """Whether metadata fulfils a filter; what the faster ways of stores must agree with."""
    match condition:
        case Compare(key, operator, value):
            return _compare(metadata.get(key), operator, value)
        case OneOf(key, values):
            return any(_compare(metadata.get(key), "$eq", value) for value in values)
        case Exists(key):
            return metadata.get(key) is not None
        case Not(part):
            return not matches(part, metadata)
        case AllOf(parts):
            return all(matches(part, metadata) for part in parts)
        case AnyOf(parts):
            return any(matches(part, metadata) for part in parts)


def kind(value: object) -> Literal["boolean", "number", "string"] | None:
    """What a value is to a filter; None for what no condition but `$exists` holds of."""
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, (int, float)):
        return "number"
    return "string" if isinstance(value, str) else None


def _compare(found: Any, operator: Operator, value: Scalar) -> bool:
    if kind(found) != kind(value):
        return False
    if operator == "$eq":
        return bool(found == value)
    if operator == "$gt":
        return bool(found > value)
    if operator == "$gte":
        return bool(found >= value)
    return bool(found < value if operator == "$lt" else found <= value)


class _Parser:
    def __init__(self) -> None:
        self._conditions = 0

    def mapping(self, condition: object, where: str, depth: int) -> Filter:
        if not hasattr(condition, "items"):
            raise InvalidArgumentError(
                f'{where}: expected an object such as {{"key": "value"}}, '
                f"got {type(condition).__name__}"
            )
        if depth > _MAX_DEPTH:
            raise InvalidArgumentError(f"{where}: nested more than {_MAX_DEPTH} deep")
        parts = tuple(self._entry(key, value, where, depth + 1) for key, value in condition.items())
        return parts[0] if len(parts) == 1 else AllOf(parts)

    def _entry(self, key: object, value: Any, where: str, depth: int) -> Filter:
        where = f"{where}.{key}"
        if not isinstance(key, str) or not key:
            raise InvalidArgumentError(f"{where}: a key is a non-empty string")
        if key in ("$and", "$or"):
            if not isinstance(value, (list, tuple)) or not value:
                raise InvalidArgumentError(f"{where}: expected a list of conditions")
            parts = tuple(
                self.mapping(part, f"{where}[{i}]", depth) for i, part in enumerate(value)
            )
            return AllOf(parts) if key == "$and" else AnyOf(parts)
        if key == "$not":
            return Not(self.mapping(value, where, depth))
        if key.startswith("$"):
            raise InvalidArgumentError(
                f"{where}: unknown; conditions are joined by $and, $or and $not"
            )
        if not hasattr(value, "items"):
            return self._condition(key, "$eq", value, where)
        if not value:
            raise InvalidArgumentError(f'{where}: expected a condition such as {{"$gt": 1}}')
        parts = tuple(
            self._condition(key, operator, operand, f"{where}.{operator}")
            for operator, operand in value.items()
        )
        return parts[0] if len(parts) == 1 else AllOf(parts)

    def _condition(self, key: str, operator: object, operand: Any, where: str) -> Filter:
        self._conditions += 1
        if self._conditions > _MAX_CONDITIONS:
            raise InvalidArgumentError(f"{where}: more than {_MAX_CONDITIONS} conditions")
        match operator:
            case "$eq" | "$gt" | "$gte" | "$lt" | "$lte":
                value = _scalar(operand, where)
                if isinstance(value, bool) and operator != "$eq":
                    raise InvalidArgumentError(f"{where}: true and false have no order")
                return Compare(key, operator, value)
            case "$ne":
                return Not(Compare(key, "$eq", _scalar(operand, where)))
            case "$in" | "$nin":
                if not isinstance(operand, (list, tuple, set, frozenset)):
                    raise InvalidArgumentError(f"{where}: expected a list of values")
                found = OneOf(key, tuple(_scalar(value, where) for value in operand))
                return found if operator == "$in" else Not(found)
            case "$exists":
                if not isinstance(operand, bool):
                    raise InvalidArgumentError(f"{where}: expected true or false")
                return Exists(key) if operand else Not(Exists(key))
        raise InvalidArgumentError(
            f"{where}: unknown; conditions are $eq, $ne, $gt, $gte, $lt, $lte, $in, $nin, $exists"
        )


def _scalar(value: Any, where: str) -> Scalar:
    if value is None:
        raise InvalidArgumentError(f'{where}: null; use {{"$exists": false}}')
    if kind(value) is None:
        raise InvalidArgumentError(
            f"{where}: expected a string, a number, true or false, got {type(value).__name__}"
        )
    if isinstance(value, float) and not math.isfinite(value):
        raise InvalidArgumentError(f"{where}: {value} compares with nothing")
    scalar: Scalar = value
    return scalar
