"""Vectors as answers have them."""

from __future__ import annotations

from base64 import b64encode
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from arrowembed.server.schemas.native import Encoding


def written(vectors: NDArray[Any], encoding: Encoding) -> NDArray[Any] | list[str]:
    """What stands in JSON for vectors.

    Args:
        vectors: Vectors, shape (n, dim).
        encoding: "json" for numbers, "base64" for a string for each vector: its numbers'
            bytes, little-endian.
    """
    if encoding == "json":
        return np.ascontiguousarray(vectors)
    return [b64encode(packed(vector)).decode("ascii") for vector in vectors]


def packed(vectors: NDArray[Any]) -> bytes:
    """The bytes of all numbers, one after the other, little-endian."""
    return vectors.astype(vectors.dtype.newbyteorder("<"), copy=False).tobytes()
