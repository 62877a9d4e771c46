"""One buffer of vectors, seen as NumPy, Arrow and DLPack: the address is the same."""

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from arrowembed.errors import InvalidArgumentError, MissingDependencyError
from arrowembed.tools.sharing import to_arrow, to_numpy


def address_of(column):
    """Where the numbers of an Arrow column of vectors start."""
    return column.flatten().buffers()[1].address


@pytest.mark.parametrize("precision", ["float32", "float16", "int8", "uint8"])
def test_vectors_of_encode_as_arrow_and_back(model, texts, precision):
    ranges = np.array([[-1.0] * 48, [1.0] * 48])
    vectors = model.encode(texts, precision=precision, ranges=ranges)
    column = to_arrow(vectors)
    assert (len(column), column.type.list_size) == vectors.shape
    assert address_of(column) == vectors.ctypes.data
    back = to_numpy(column)
    assert back.ctypes.data == vectors.ctypes.data
    np.testing.assert_array_equal(back, vectors)
    assert not back.flags.writeable


def test_vectors_of_encode_arrow_as_numpy(model):
    array = model.encode_arrow(pa.array(["a", "b", "c"]))
    vectors = to_numpy(array)
    assert vectors.ctypes.data == address_of(pa.array(array))
    np.testing.assert_array_equal(vectors, model.encode(["a", "b", "c"]))


def test_memory_outlives_what_it_came_from(model):
    expected = model.encode(["a", "b"])
    vectors = to_numpy(to_arrow(model.encode(["a", "b"])))
    np.testing.assert_array_equal(vectors, expected)
    column = to_arrow(to_numpy(model.encode_arrow(pa.array(["a", "b"]))))
    np.testing.assert_array_equal(to_numpy(column), expected)


def test_dlpack_shows_the_same_memory(model):
    vectors = model.encode(["a", "b"])
    assert np.from_dlpack(vectors).ctypes.data == vectors.ctypes.data
    column = pa.array(model.encode_arrow(pa.array(["a", "b"])))
    shown = np.from_dlpack(to_numpy(column))
    assert shown.ctypes.data == address_of(column)
    assert np.from_dlpack(column.flatten()).ctypes.data == address_of(column)


def test_a_slice_is_shown_as_a_slice(model):
    column = pa.array(model.encode_arrow(pa.array(["a", "b", "c"])))
    vectors = to_numpy(column[1:])
    assert vectors.ctypes.data == address_of(column) + 48 * 4
    np.testing.assert_array_equal(vectors, model.encode(["b", "c"]))


def test_columns_of_another_library(model):
    vectors = model.encode(["a", "b"])
    series = pl.Series("vector", vectors)
    np.testing.assert_array_equal(to_numpy(series), vectors)
    np.testing.assert_array_equal(to_numpy(to_arrow(series)), vectors)


def test_an_array_that_is_not_contiguous_is_copied(model):
    vectors = model.encode(["a", "b", "c"])
    for other in (vectors[::2], vectors[:, ::2], np.asfortranarray(vectors)):
        np.testing.assert_array_equal(to_numpy(to_arrow(other)), other)


def test_no_vectors_have_a_dimension():
    column = to_arrow(np.empty((0, 7), np.float32))
    assert to_numpy(column).shape == (0, 7)
    assert to_numpy(pa.chunked_array([], column.type)).shape == (0, 7)


@pytest.mark.parametrize(
    ("column", "said"),
    [
        (np.ones(3), "got ndarray"),
        (pa.array(["a"]), "string; expected"),
        (pa.array([[1.0]], pa.list_(pa.float32())), "expected fixed_size_list"),
        (pa.array([[1.0]], pa.list_(pa.float64(), 1)), "expected fixed_size_list"),
        (pa.array([[1.0], None], pa.list_(pa.float32(), 1)), "row 1 is null"),
        (pa.chunked_array([[[1.0]], [[2.0]]], pa.list_(pa.float32(), 1)), "2 pieces"),
    ],
)
def test_what_is_no_column_of_vectors(column, said):
    with pytest.raises(InvalidArgumentError, match=said):
        to_numpy(column)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(MissingDependencyError, match=r"arrowembed\[arrow\]"):
        to_arrow(np.ones((1, 1), np.float32))
