"""Filters as SQL.

Each condition becomes an expression that is true or false and never null, so that `Not` needs no
third value: negations are pushed down to the comparisons, which have opposites. Integers and
floating-point numbers lie in columns of their own; a number is compared with both exactly, where
SQL would round one of them.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from arrowembed.store.filters import (
    AllOf,
    AnyOf,
    Compare,
    Exists,
    Filter,
    Not,
    OneOf,
    kind,
)
from arrowembed.store.lancedb.columns import KINDS, Kind, Layout, column

if TYPE_CHECKING:
    from collections.abc import Iterable

    from arrowembed.store.filters import Operator, Scalar

TRUE, FALSE = "true", "false"

_LEAST, _MOST = -(1 << 63), (1 << 63) - 1

_SQL = {"$eq": "=", "$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}
_OPPOSITE = {"=": "<>", ">": "<=", ">=": "<", "<": ">=", "<=": ">"}

_KINDS: dict[str | None, tuple[Kind, ...]] = {
    "string": ("string",),
    "boolean": ("boolean",),
    "number": ("integer", "number"),
}


def to_sql(condition: Filter, layout: Layout, *, negated: bool = False) -> str:
    """A filter over the columns of a table; of values without a column it knows nothing.

    Args:
        condition: The filter.
        layout: The columns that there are.
        negated: Whether the opposite is wanted.
    """
    match condition:
        case Not(part):
            return to_sql(part, layout, negated=not negated)
        case AllOf(parts):
            each = (to_sql(part, layout, negated=negated) for part in parts)
            return _any(each) if negated else _all(each)
        case AnyOf(parts):
            each = (to_sql(part, layout, negated=negated) for part in parts)
            return _all(each) if negated else _any(each)
        case Exists(key):
            names = (column(each, key) for each in KINDS)
            return _on_columns(layout, dict.fromkeys(names, ""), negated=negated)
        case OneOf(key, values):
            return _on_columns(layout, _one_of(key, values), negated=negated)
        case Compare(key, operator, value):
            return _on_columns(layout, _compare(key, operator, value), negated=negated)


def is_covered(condition: Filter, layout: Layout) -> bool:
    """Whether the columns know all that the filter asks for."""
    match condition:
        case Not(part):
            return is_covered(part, layout)
        case AllOf(parts) | AnyOf(parts):
            return all(is_covered(part, layout) for part in parts)
        case Exists(key):
            return not layout.lacks(key, KINDS)
        case OneOf(key, values):
            return not layout.lacks(key, [each for v in values for each in _KINDS[kind(v)]])
        case Compare(key, _, value):
            return not layout.lacks(key, _KINDS[kind(value)])


def literal(value: str) -> str:
    """A string in SQL; LanceDB knows no escapes but the doubled quote."""
    return "'" + value.replace("'", "''") + "'"


def among(name: str, values: Iterable[str | int]) -> str:
    """`name IN (...)`; false of no values."""
    listed = ", ".join(literal(v) if isinstance(v, str) else str(v) for v in values)
    return f"{name} IN ({listed})" if listed else FALSE


def joined(*parts: str | None) -> str | None:
    """Conditions that must all hold; None is no condition."""
    given = [part for part in parts if part is not None]
    return _all(given) if given else None


def _on_columns(layout: Layout, tests: dict[str, str], *, negated: bool) -> str:
    """One of the columns that are there has a value that passes its test; or none, negated.

    Args:
        layout: The columns that there are.
        tests: What comes after the column's name, such as `= 1`; an empty test passes all values,
            `false` none.
        negated: Whether the opposite is wanted.
    """
    parts = []
    for name, test in tests.items():
        if name not in layout.names or test == FALSE:
            continue
        if not test:
            parts.append(f"{name} IS NULL" if negated else f"{name} IS NOT NULL")
        elif negated:
            parts.append(f"({name} IS NULL OR {name} {_opposite(test)})")
        else:
            parts.append(f"({name} IS NOT NULL AND {name} {test})")
    return _all(parts) if negated else _any(parts)


def _opposite(test: str) -> str:
    operator, _, operand = test.partition(" ")
    return f"NOT {test}" if operator == "IN" else f"{_OPPOSITE[operator]} {operand}"


def _compare(key: str, operator: Operator, value: Scalar) -> dict[str, str]:
    if isinstance(value, str):
        return {column("string", key): f"{_SQL[operator]} {literal(value)}"}
    if isinstance(value, bool):
        return {column("boolean", key): f"= {TRUE if value else FALSE}"}
    return {
        column("integer", key): _integer_test(operator, value),
        column("number", key): _number_test(operator, value),
    }


def _one_of(key: str, values: tuple[Scalar, ...]) -> dict[str, str]:
    tests: dict[Kind, list[str]] = {"string": [], "boolean": [], "integer": [], "number": []}
    for value in values:
        if isinstance(value, str):
            tests["string"].append(literal(value))
        elif isinstance(value, bool):
            tests["boolean"].append(TRUE if value else FALSE)
        else:
            if value == math.floor(value) and _LEAST <= value <= _MOST:
                tests["integer"].append(_integer(math.floor(value)))
            number = _nearest(value)
            if number == value:
                tests["number"].append(_number(number))
    return {
        column(each, key): f"IN ({', '.join(dict.fromkeys(listed))})" if listed else FALSE
        for each, listed in tests.items()
    }


def _integer_test(operator: Operator, value: float) -> str:
    """A test of whole numbers of 64 bits against any number, which SQL could not even write."""
    if operator == "$eq":
        whole = value == math.floor(value) and _LEAST <= value <= _MOST
        return f"= {_integer(math.floor(value))}" if whole else FALSE
    if operator in ("$gt", "$gte"):
        least = math.floor(value) + 1 if operator == "$gt" else math.ceil(value)
        if least > _MOST:
            return FALSE
        return "" if least <= _LEAST else f">= {_integer(least)}"
    most = math.ceil(value) - 1 if operator == "$lt" else math.floor(value)
    if most < _LEAST:
        return FALSE
    return "" if most >= _MOST else f"<= {_integer(most)}"


def _number_test(operator: Operator, value: float) -> str:
    """A test of floating-point numbers against any number."""
    number = _nearest(value)
    if math.isinf(number):
        beyond = operator in ("$lt", "$lte") if number > 0 else operator in ("$gt", "$gte")
        return "" if beyond else FALSE
    if number == value:
        return f"{_SQL[operator]} {_number(number)}"
    # There is no floating-point number between `value` and the one nearest to it.
    if operator == "$eq":
        return FALSE
    if operator in ("$gt", "$gte"):
        return f"{'>=' if number > value else '>'} {_number(number)}"
    return f"{'<' if number > value else '<='} {_number(number)}"


def _nearest(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _integer(value: int) -> str:
    # The least has no positive counterpart of which a parser could make it.
    return str(value) if value > _LEAST else f"CAST('{value}' AS BIGINT)"


def _number(value: float) -> str:
    return f"CAST('{value or 0.0!r}' AS DOUBLE)"


def _all(parts: Iterable[str]) -> str:
    return _joined(parts, " AND ", TRUE)


def _any(parts: Iterable[str]) -> str:
    return _joined(parts, " OR ", FALSE)


def _joined(parts: Iterable[str], word: str, of_none: str) -> str:
    listed = list(parts)
    if len(listed) <= 1:
        return listed[0] if listed else of_none
    return "(" + word.join(listed) + ")"
