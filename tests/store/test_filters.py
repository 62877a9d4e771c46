"""Filters: what they mean, what is none, and that stores agree with `filters.matches`."""

import math

import numpy as np
import pytest
from backends import BACKENDS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from arrowembed.errors import InvalidArgumentError
from arrowembed.store import open_store
from arrowembed.store.filters import AllOf, Compare, OneOf, matches, parse

KEYS = ["a", "b", "é '\"`\n", "a.b", "missing"]
INTEGERS = st.sampled_from([0, 1, -1, 2**53, 2**53 + 1, -(2**53) - 1, 2**63 - 1, -(2**63)])
FLOATS = st.sampled_from([0.0, -0.0, 0.5, 1.0, 2.0**53, -(2.0**53), 2.0**63, 1e308, -1e308, 5e-324])
STRINGS = st.sampled_from(
    ["", "a", "A", "é", "日本", "\U0001f600", "\uffff", "a'b\"`\\%_", "1", "\0"]
)
SCALARS = st.one_of(st.booleans(), INTEGERS, FLOATS, STRINGS, st.integers(-(2**63), 2**63 - 1))
OPERANDS = st.one_of(
    SCALARS, st.sampled_from([2**63, -(2**63) - 1, 10**400, -(10**400), 2**64 + 1])
)
VALUES = st.one_of(SCALARS, st.none(), st.lists(SCALARS, max_size=2), st.just({"a": 1}))
METADATA = st.dictionaries(st.sampled_from(KEYS[:-1]), VALUES, max_size=4)


CONDITIONS = st.one_of(
    OPERANDS,
    st.dictionaries(st.sampled_from(["$eq", "$ne"]), OPERANDS, min_size=1, max_size=2),
    st.dictionaries(
        st.sampled_from(["$gt", "$gte", "$lt", "$lte"]),
        OPERANDS.filter(lambda value: not isinstance(value, bool)),
        min_size=1,
        max_size=2,
    ),
    st.dictionaries(st.sampled_from(["$in", "$nin"]), st.lists(OPERANDS, max_size=4), min_size=1),
    st.fixed_dictionaries({"$exists": st.booleans()}),
)
FILTERS = st.recursive(
    st.dictionaries(st.sampled_from(KEYS), CONDITIONS, max_size=2),
    lambda parts: st.one_of(
        st.fixed_dictionaries({"$not": parts}),
        st.fixed_dictionaries({"$and": st.lists(parts, min_size=1, max_size=3)}),
        st.fixed_dictionaries({"$or": st.lists(parts, min_size=1, max_size=3)}),
    ),
    max_leaves=5,
)


@pytest.fixture(scope="module", params=BACKENDS)
def filled(request, tmp_path_factory):
    """A store with metadata of all kinds, and these."""
    entries = []
    rng = np.random.default_rng(3)
    for number in range(300):
        with_seed = np.random.default_rng(number)
        keys = [key for key in KEYS[:-1] if rng.random() < 0.7]
        entries.append({key: example(with_seed) for key in keys})
    folder = tmp_path_factory.mktemp("filters") / "store"
    with open_store(folder, dimension=2, backend=request.param) as store:
        # Several segments, columns that only some of them have, and deleted entries.
        for start, stop in ((0, 100), (100, 110), (110, 111), (111, 300)):
            ids = [f"{i}" for i in range(start, stop)]
            store.add(ids, vectors=np.ones((len(ids), 2)), metadata=entries[start:stop])
        store.delete([f"{i}" for i in range(0, 300, 7)])
        yield store, {f"{i}": entry for i, entry in enumerate(entries) if i % 7}


def example(rng):
    """Any value."""
    pool = [
        *(True, False, None, [1], [], {"a": 1}),
        *(0, 1, -1, 5, 2**53, 2**53 + 1, -(2**53) - 1, 2**63 - 1, -(2**63)),
        *(0.0, -0.0, 0.5, 1.0, 5.0, 2.0**53, -(2.0**53), 1e308, -1e308, 5e-324),
        *("", "a", "A", "é", "日本", "\U0001f600", "\uffff", "a'b\"`\\%_", "1", "\0"),
    ]
    return pool[rng.integers(len(pool))]


@settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(where=FILTERS)
def test_a_store_agrees_with_matches(filled, where):
    store, entries = filled
    condition = parse(where)
    expected = [
        name for name, entry in entries.items() if condition is None or matches(condition, entry)
    ]
    assert [record.id for record in store.get(filter=where, include=[])] == expected
    assert store.count(where) == len(expected)
    found = store.search([1, 1], k=300, filter=where, include=[])
    assert [hit.id for hit in found] == expected


@settings(max_examples=200, deadline=None, derandomize=True)
@given(found=st.one_of(INTEGERS, FLOATS), operand=OPERANDS)
def test_numbers_compare_exactly(found, operand):
    """As fractions do, which have no rounding."""
    from fractions import Fraction

    if isinstance(operand, (bool, str)):
        return
    exact, wanted = Fraction(found), Fraction(operand)
    for operator, holds in {
        "$eq": exact == wanted,
        "$gt": exact > wanted,
        "$gte": exact >= wanted,
        "$lt": exact < wanted,
        "$lte": exact <= wanted,
    }.items():
        assert matches(parse({"a": {operator: operand}}), {"a": found}) == holds


@pytest.mark.parametrize(
    ("where", "metadata", "holds"),
    [
        ({"a": 1}, {"a": 1.0}, True),
        ({"a": 1}, {"a": True}, False),
        ({"a": True}, {"a": 1}, False),
        ({"a": "1"}, {"a": 1}, False),
        ({"a": "x"}, {"a": ["x"]}, False),
        ({"a": {"$ne": 1}}, {}, True),
        ({"a": {"$ne": 1}}, {"a": None}, True),
        ({"a": {"$nin": [1, "x"]}}, {"a": "x"}, False),
        ({"a": {"$in": []}}, {"a": "x"}, False),
        ({"a": {"$exists": True}}, {"a": None}, False),
        ({"a": {"$exists": True}}, {"a": []}, True),
        ({"a": {"$exists": False}}, {}, True),
        ({"a": {"$gt": "B"}}, {"a": "a"}, True),
        ({"a": {"$gt": 1, "$lt": 3}}, {"a": 2}, True),
        ({"a": {"$gt": 1, "$lt": 3}}, {"a": 3}, False),
        ({"a": 1, "b": 2}, {"a": 1}, False),
        ({"$or": [{"a": 1}, {"b": 2}]}, {"b": 2}, True),
        ({"$not": {"a": {"$gt": 1}}}, {"a": "x"}, True),
        ({"a.b": 1}, {"a": {"b": 1}}, False),
        ({"$and": [{}]}, {}, True),
    ],
)
def test_what_filters_mean(where, metadata, holds):
    assert matches(parse(where), metadata) is holds


def test_no_filter_is_no_condition():
    assert parse(None) is None
    assert parse({}) is None
    assert parse({"a": 1}) == Compare("a", "$eq", 1)
    assert parse({"a": {"$in": [1]}, "b": 2}) == AllOf((OneOf("a", (1,)), Compare("b", "$eq", 2)))


@pytest.mark.parametrize(
    ("where", "message"),
    [
        (5, "filter: expected an object"),
        ([{"a": 1}], "filter: expected an object"),
        ({"": 1}, "filter.: a key is a non-empty string"),
        ({1: 1}, "filter.1: a key is a non-empty string"),
        ({"$and": {}}, r"filter\.\$and: expected a list"),
        ({"$or": []}, r"filter\.\$or: expected a list"),
        ({"$or": [{"a": {}}]}, r"filter\.\$or\[0\]\.a: expected a condition"),
        ({"$nor": []}, r"filter\.\$nor: unknown"),
        ({"a": {"b": 1}}, r"filter\.a\.b: unknown; conditions are \$eq"),
        ({"a": None}, r'filter\.a: null; use {"\$exists": false}'),
        ({"a": [1]}, r"filter\.a: expected a string, a number, true or false, got list"),
        ({"a": {"$in": "xy"}}, r"filter\.a\.\$in: expected a list"),
        ({"a": {"$in": [None]}}, r"filter\.a\.\$in: null"),
        ({"a": {"$gt": True}}, "true and false have no order"),
        ({"a": {"$gt": math.nan}}, "nan compares with nothing"),
        ({"a": {"$exists": 1}}, "expected true or false"),
        ({"$or": [{"a": 1}] * 1025}, "more than 1024 conditions"),
    ],
)
def test_what_is_no_filter_is_told_with_its_place(where, message):
    with pytest.raises(InvalidArgumentError, match=message):
        parse(where)


def test_filters_are_nested_only_so_deep():
    where = {"a": 1}
    for _ in range(40):
        where = {"$not": where}
    with pytest.raises(InvalidArgumentError, match="nested more than 32 deep"):
        parse(where)
