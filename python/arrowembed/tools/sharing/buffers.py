"""One buffer of vectors, seen as NumPy or as Arrow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from arrowembed.errors import InvalidArgumentError, MissingDependencyError

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import ArrayLike, NDArray

DTYPES: Final = ("float32", "float16", "int8", "uint8")
"""What vectors may consist of: all that `Embedder.encode` gives, in its precisions."""


def pyarrow() -> Any:
    """The package, where it is installed.

    Raises:
        MissingDependencyError: It is not.
    """
    try:
        import pyarrow as pa  # noqa: PLC0415 - optional, and slow to import
        import pyarrow.ipc  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise MissingDependencyError.of(
            "pyarrow", purpose="sharing vectors", install='"arrowembed[arrow]"'
        ) from error
    return pa


def to_arrow(vectors: ArrayLike | Any) -> pa.FixedSizeListArray:
    """Vectors as an Arrow array over the same memory.

    Args:
        vectors: Array of shape (n, dim), float32, float16, int8 or uint8, as `Embedder.encode`
            gives it; or an Arrow column of vectors from anywhere, such as `encode_arrow`. An array
            that is not C-contiguous is copied.

    Raises:
        InvalidArgumentError: It is of another shape or type.
        MissingDependencyError: pyarrow is not installed.
    """
    import numpy as np  # noqa: PLC0415 - not read when a model is opened

    arrow = pyarrow()
    if _is_arrow(vectors):
        return _column(arrow, vectors)
    array = np.ascontiguousarray(vectors)
    if np.ndim(vectors) != 2 or array.shape[1] < 1:
        raise InvalidArgumentError(
            f"vectors: shape {np.shape(vectors)}; expected (n, dimension), one row for each vector"
        )
    if array.dtype.name not in DTYPES:
        raise InvalidArgumentError(
            f"vectors: {array.dtype.name} numbers; expected {', '.join(DTYPES)}"
        )
    numbers = arrow.array(array.reshape(-1))
    item = arrow.field("item", numbers.type, nullable=False)
    return arrow.FixedSizeListArray.from_arrays(numbers, type=arrow.list_(item, array.shape[1]))


def to_numpy(column: Any) -> NDArray[Any]:
    """An Arrow column of vectors as a read-only array over the same memory.

    NumPy passes it on by DLPack: `torch.from_dlpack(to_numpy(column))`.

    Args:
        column: Fixed-size lists of numbers, without nulls, in one piece: what `encode_arrow` gives,
            a column of `open_shared`'s table, or one from another library.

    Returns:
        Array of shape (n, dim).

    Raises:
        InvalidArgumentError: It is no such column.
        MissingDependencyError: pyarrow is not installed.
    """
    vectors = _column(pyarrow(), column)
    if vectors.null_count:
        row = vectors.is_null().index(True).as_py()
        raise InvalidArgumentError(f"column: row {row} is null; leave it out or fill it first")
    numbers: NDArray[Any] = vectors.flatten().to_numpy(zero_copy_only=True)
    return numbers.reshape(len(vectors), vectors.type.list_size)


def _is_arrow(value: Any) -> bool:
    return hasattr(value, "__arrow_c_array__") or hasattr(value, "__arrow_c_stream__")


def _column(arrow: Any, column: Any) -> Any:
    """The column as one array of fixed-size lists of numbers that DTYPES has."""
    if hasattr(column, "__arrow_c_stream__"):
        pieces = arrow.chunked_array(column)
        if pieces.num_chunks > 1:
            raise InvalidArgumentError(
                f"column: {pieces.num_chunks} pieces, which no array can show without a copy; "
                "combine them first (combine_chunks, rechunk)"
            )
        array = pieces.chunk(0) if pieces.num_chunks else arrow.array([], pieces.type)
    elif hasattr(column, "__arrow_c_array__"):
        array = arrow.array(column)
    else:
        raise InvalidArgumentError(
            f"column: expected an Arrow column of vectors, got {type(column).__name__}"
        )
    kind = array.type
    known = {getattr(arrow, name)() for name in DTYPES}
    if not arrow.types.is_fixed_size_list(kind) or kind.value_type not in known:
        raise InvalidArgumentError(
            f"column: {kind}; expected fixed_size_list of one of {', '.join(DTYPES)}"
        )
    return array
