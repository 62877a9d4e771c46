"""Conditions on columns of metadata hold of exactly the rows of which they hold one by one."""

import itertools

import pytest

from arrowembed.store.filters import matches, parse
from arrowembed.store.lightweight.columns import columns_of, keys_of, mask

INTEGERS = [
    *(0, 1, -1, 2, 2**53 - 1, 2**53, 2**53 + 1, 2**53 + 2, -(2**53), -(2**53) - 1),
    *(2**63 - 1, 2**63 - 512, 2**63 - 513, -(2**63), -(2**63) + 1),
]
FLOATS = [
    *(0.0, -0.0, 0.5, -0.5, 1.0, 1.5, -1.5, 2.0, 5e-324, 1e308, -1e308, float(2**63)),
    *(2.0**53, 2.0**53 - 1, 2.0**53 + 2, -(2.0**53), -(2.0**53) - 2, 2.0**62, -(2.0**63)),
]
BEYOND = [2**63, -(2**63) - 1, 2**64 + 1, 10**400, -(10**400), 2**1024]
OTHERS = [True, False, "", "0", "1", "a", "A", "é", "\U0001f600", "\uffff"]


class Table:
    """Columns of a list of metadata."""

    def __init__(self, metadata):
        self.metadata = metadata
        self.columns, self.complete = columns_of(metadata)

    def __len__(self):
        return len(self.metadata)

    def values(self, kind, key):
        return self.columns.get(f"{kind}:{key}")


TABLE = Table([{"a": value} for value in [*INTEGERS, *FLOATS, *OTHERS, None, [1], {"b": 1}]] + [{}])


def agree(where):
    condition = parse(where)
    found = mask(condition, TABLE)
    assert found.null_count == 0
    expected = [matches(condition, entry) for entry in TABLE.metadata]
    assert found.to_pylist() == expected, where


@pytest.mark.parametrize("operator", ["$eq", "$ne", "$gt", "$gte", "$lt", "$lte"])
def test_each_value_with_each_operand(operator):
    for operand in [*INTEGERS, *FLOATS, *BEYOND, *OTHERS]:
        if not (isinstance(operand, bool) and operator not in ("$eq", "$ne")):
            agree({"a": {operator: operand}})


@pytest.mark.parametrize("operator", ["$in", "$nin"])
def test_each_value_with_sets_of_operands(operator):
    operands = [*INTEGERS, *FLOATS, *BEYOND, *OTHERS]
    agree({"a": {operator: []}})
    for pair in itertools.pairwise(operands):
        agree({"a": {operator: list(pair)}})
    for value in operands:
        agree({"a": {operator: [value]}})
    agree({"a": {operator: operands}})


def test_whether_there_is_a_value():
    agree({"a": {"$exists": True}})
    agree({"a": {"$exists": False}})
    agree({"b": {"$exists": True}})
    agree({"b": {"$ne": 1}})


def test_the_commonest_keys_have_columns():
    metadata = [{"common": i, f"rare {i}": i} for i in range(100)]
    table = Table(metadata)
    assert not table.complete
    assert len(table.columns) == 64
    assert table.values("integer", "common") is not None
    assert Table(metadata[:10]).complete


def test_the_keys_of_a_filter():
    where = {"$or": [{"a": 1}, {"$not": {"b": {"$in": [1]}}}], "c": {"$exists": True}}
    assert keys_of(parse(where)) == {"a", "b", "c"}
