"""What counts as texts, and what is said about all else."""

import collections

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from arrowembed.errors import InvalidTextError, TextTypeError

TEXTS = ["a cat", "ein Häuschen", "", "emoji 🦀 here"]

COLUMNS = {
    "tuple": tuple,
    "generator": iter,
    "dict keys": dict.fromkeys,
    "deque": collections.deque,
    "NumPy str": np.array,
    "NumPy object": lambda texts: np.array(texts, dtype=object),
    "NumPy StringDType": lambda texts: np.array(texts, dtype=np.dtypes.StringDType()),
    "NumPy str elements": lambda texts: [np.str_(text) for text in texts],
    "pandas": pd.Series,
    "pandas object": lambda texts: pd.Series(texts, dtype=object),
    "pandas index": pd.Index,
    "polars": pl.Series,
    "pyarrow": pa.array,
    "pyarrow large": lambda texts: pa.array(texts, pa.large_string()),
    "pyarrow view": lambda texts: pa.array(texts, pa.string_view()),
    "pyarrow chunked": lambda texts: pa.chunked_array([texts[:1], texts[1:]]),
}


@pytest.mark.parametrize("kind", COLUMNS)
def test_columns_of_every_kind(model, kind):
    column = COLUMNS[kind](TEXTS)
    if kind == "dict keys":
        column = column.keys()
    np.testing.assert_array_equal(model.encode(column), model.encode(TEXTS))


def test_a_numpy_string_is_one_text(model):
    np.testing.assert_array_equal(model.encode(np.str_("a cat")), model.encode("a cat"))


@pytest.mark.parametrize(
    ("value", "advice"),
    [
        (None, "got None"),
        (3, "int"),
        (2.5, "float"),
        (True, "bool"),
        (np.float32(1), "float32"),
        (b"bytes", "decode"),
        (bytearray(b"bytes"), "decode"),
        ({"text": "a"}, "mapping"),
        (object(), "object"),
        (np.zeros(3), "dtype float64"),
        (np.array([b"a"]), "dtype"),
        (np.array([["a", "b"]]), "2 dimensions"),
        (pd.DataFrame({"text": ["a"]}), "column"),
        (pl.DataFrame({"text": ["a"]}), "column"),
        (pa.table({"text": ["a"]}), "column"),
    ],
)
def test_what_is_no_text_is_refused_with_advice(model, value, advice):
    with pytest.raises(TextTypeError, match=advice) as caught:
        model.encode(value)
    assert isinstance(caught.value, TypeError)
    assert caught.value.code == "text_type"


@pytest.mark.parametrize(
    ("texts", "position", "what"),
    [
        (["a", None], 1, "None"),
        (["a", "b", 3], 2, "int"),
        ([b"a"], 0, "bytes"),
        (["a", ["b"]], 1, "list"),
        (pd.Series(["a", None]), 1, "float"),
        (pl.Series(["a", "b", None]), 2, "None"),
        (pa.array(["a", None]), 1, "None"),
        (np.array(["a", 1.5], dtype=object), 1, "float"),
    ],
)
def test_something_else_among_texts_is_named_with_its_position(model, texts, position, what):
    with pytest.raises(TextTypeError, match=what) as caught:
        model.encode(texts)
    assert str(position) in str(caught.value)


def test_a_lone_surrogate_is_named_with_its_position(model):
    with pytest.raises(InvalidTextError, match="surrogate") as caught:
        model.encode(["fine", "fine too", "broken \ud800"])
    assert "2" in str(caught.value)
    assert caught.value.index == 2
    assert isinstance(caught.value, ValueError)
    with pytest.raises(InvalidTextError):
        model.encode("\udfff")


def test_errors_never_repeat_the_text(model):
    with pytest.raises(InvalidTextError) as caught:
        model.encode(["my secret \ud800"])
    assert "secret" not in str(caught.value)


def test_tokenize_takes_the_same_inputs(model):
    one = model.tokenize("a cat")
    assert one == model.tokenize(np.array(["a cat"]))
    assert len(one["input_ids"]) == 1
    with pytest.raises(TextTypeError):
        model.tokenize(None)
