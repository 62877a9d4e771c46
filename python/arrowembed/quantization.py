"""Smaller vectors: float16, 8-bit and binary, as sentence-transformers defines them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, cast

from arrowembed import _core
from arrowembed.errors import InvalidArgumentError
from arrowembed.options import PRECISIONS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    from arrowembed.options import Precision

logger = logging.getLogger("arrowembed")

_RELIABLE_SAMPLE = 100
"""Fewer vectors than this give poor 8-bit ranges."""


def quantize_embeddings(
    embeddings: ArrayLike,
    precision: Precision,
    ranges: ArrayLike | None = None,
    calibration_embeddings: ArrayLike | None = None,
) -> NDArray[Any]:
    """Writes float32 vectors in a smaller type.

    With lowest and highest values `lo` and `hi` of a dimension, `step = (hi - lo) / 255`, a value x
    becomes `(x - lo) / step` in uint8 and 128 less in int8. Binary types keep one bit, `x > 0`,
    eight to a byte, most significant first; `binary` is `ubinary` minus 128.

    Args:
        embeddings: Vectors, shape (n, dim) or (dim,).
        precision: "float32", "float16", "int8", "uint8", "binary" or "ubinary".
        ranges: For int8 and uint8: lowest and highest value of each dimension, shape (2, dim).
        calibration_embeddings: Vectors from which to take the ranges, shape (m, dim). Without
            either, the ranges are those of `embeddings`.

    Returns:
        Array of shape (n, dim), or (n, dim / 8) for the binary types.

    Raises:
        InvalidArgumentError: Unknown precision, wrong shapes, or 8 bits asked for fewer than two
            vectors without ranges.
    """
    import numpy as np  # noqa: PLC0415 - see arrowembed.embedder

    if precision not in PRECISIONS:
        raise InvalidArgumentError(f"precision: {precision!r}; known are {', '.join(PRECISIONS)}")
    vectors = np.ascontiguousarray(embeddings, dtype=np.float32)
    if vectors.ndim == 1:
        quantized = quantize_embeddings(
            vectors[np.newaxis], precision, ranges, calibration_embeddings
        )
        return cast("NDArray[Any]", quantized[0])
    if vectors.ndim != 2:
        raise InvalidArgumentError(
            f"embeddings: {vectors.ndim} dimensions; expected shape (n, dim) or (dim,)"
        )
    if precision == "float32":
        return vectors
    if precision not in ("int8", "uint8"):
        return _core.quantize(vectors, precision)
    return _core.quantize(
        vectors, precision, _ranges(vectors, precision, ranges, calibration_embeddings)
    )


def _ranges(
    vectors: NDArray[np.float32],
    precision: str,
    ranges: ArrayLike | None,
    calibration_embeddings: ArrayLike | None,
) -> NDArray[np.float32]:
    """Lowest and highest value of each dimension, shape (2, dim)."""
    import numpy as np  # noqa: PLC0415 - see arrowembed.embedder

    dim = vectors.shape[1]
    if ranges is not None:
        given = np.ascontiguousarray(ranges, dtype=np.float32)
        if given.shape != (2, dim):
            raise InvalidArgumentError(
                f"ranges: shape {given.shape}; expected (2, {dim}), "
                "the lowest and the highest value of each dimension"
            )
        return given
    sample = vectors
    if calibration_embeddings is not None:
        sample = np.asarray(calibration_embeddings, dtype=np.float32)
        if sample.ndim != 2 or sample.shape[1] != dim:
            raise InvalidArgumentError(
                f"calibration_embeddings: shape {sample.shape}; expected (m, {dim})"
            )
    if sample is vectors and not len(vectors):
        return np.zeros((2, dim), dtype=np.float32)
    if len(sample) < 2:
        raise InvalidArgumentError(
            f"precision: {precision} needs the range of each dimension, which "
            f"{len(sample)} vector{'s' * (len(sample) != 1)} cannot give; "
            "pass ranges or calibration_embeddings"
        )
    if len(sample) < _RELIABLE_SAMPLE:
        logger.warning(
            "%s ranges are taken from only %d vectors; pass ranges or calibration_embeddings "
            "of at least %d for stable results",
            precision,
            len(sample),
            _RELIABLE_SAMPLE,
        )
    return np.stack((sample.min(axis=0), sample.max(axis=0)))
