"""Arrow columns in, Arrow arrays out, without Python objects between."""

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from arrowembed.errors import TextTypeError

TEXTS = ["a cat", "ein Häuschen", "", "emoji 🦀 here"]


def is_of_vectors(kind):
    return pa.types.is_fixed_size_list(kind) and (kind.value_type, kind.list_size) == (
        pa.float32(),
        48,
    )


def as_numpy(array):
    return np.asarray(pa.array(array).flatten()).reshape(len(array), -1)


@pytest.mark.parametrize(
    "column",
    [
        pa.array(TEXTS),
        pa.array(TEXTS, pa.large_string()),
        pa.array(TEXTS, pa.string_view()),
        pa.array(["left out", *TEXTS, "left out"])[1:5],
        pa.chunked_array([TEXTS[:1], TEXTS[1:], []]),
        pl.Series(TEXTS),
    ],
    ids=["string", "large string", "string view", "slice", "chunked", "polars"],
)
def test_columns_give_the_vectors_of_their_texts(model, column):
    array = model.encode_arrow(column)
    assert len(array) == 4
    assert is_of_vectors(pa.array(array).type)
    np.testing.assert_array_equal(as_numpy(array), model.encode(TEXTS))


def test_a_null_text_gives_a_null_vector(model):
    array = pa.array(model.encode_arrow(pa.array(["a", None, "b"])))
    assert array.is_null().to_pylist() == [False, True, False]
    np.testing.assert_array_equal(np.array(array[2].as_py(), np.float32), model.encode("b"))


def test_no_texts(model):
    array = model.encode_arrow(pa.array([], pa.string()))
    assert len(array) == 0
    assert is_of_vectors(pa.array(array).type)


def test_a_column_of_nulls(model):
    assert pa.array(model.encode_arrow(pa.array([None, None], pa.string()))).null_count == 2


def test_vectors_are_handed_over_without_a_copy(model):
    array = model.encode_arrow(pa.array(TEXTS))
    first, second = pa.array(array), pa.array(array)
    addresses = [a.buffers()[-1].address for a in (first, second)]
    assert addresses[0] == addresses[1]


def test_vectors_outlive_the_object_that_brought_them(model):
    array = model.encode_arrow(pa.array(TEXTS))
    taken = pa.array(array)
    expected = as_numpy(taken).copy()
    del array
    model.encode(TEXTS * 50)
    np.testing.assert_array_equal(as_numpy(taken), expected)


def test_polars_takes_the_array(model):
    series = pl.Series(model.encode_arrow(pl.Series(TEXTS)))
    assert series.dtype == pl.Array(pl.Float32, 48)
    np.testing.assert_array_equal(series.to_numpy(), model.encode(TEXTS))


def test_options(model):
    array = model.encode_arrow(
        pa.array(TEXTS),
        prompt="query: ",
        pooling="max",
        normalize="max_abs",
        truncate_dim=16,
        batch_size=1,
    )
    expected = model.encode(
        TEXTS, prompt="query: ", pooling="max", normalize="max_abs", truncate_dim=16
    )
    np.testing.assert_array_equal(as_numpy(array), expected)


@pytest.mark.parametrize(
    "column",
    [pa.array([1, 2]), pa.array([b"a"]), pa.table({"a": ["b"]}), TEXTS, "text", None],
    ids=["integers", "binary", "table", "list", "str", "None"],
)
def test_what_is_no_column_of_strings_is_refused(model, column):
    with pytest.raises(TextTypeError):
        model.encode_arrow(column)
