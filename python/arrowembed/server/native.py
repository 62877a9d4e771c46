"""What the native dialect makes of requests, whichever way they came."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from arrowembed.quantization import quantize_embeddings
from arrowembed.server.bodies import checked
from arrowembed.server.errors import ServiceError
from arrowembed.server.schemas.native import PairsRequest, TargetsRequest
from arrowembed.similarity import similarity, similarity_pairwise

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from arrowembed.options import Normalize
    from arrowembed.server.schemas.native import EmbedRequest

    Comparison: TypeAlias = PairsRequest | TargetsRequest


def embed_options(wanted: EmbedRequest) -> dict[str, Any]:
    """How texts are to be embedded, as `Scheduler.encode` takes it."""
    return {
        "prompt_name": wanted.prompt_name,
        "prompt": wanted.prompt,
        "normalize": normalization(wanted.normalize),
        "truncate": wanted.truncate,
        "truncate_dim": wanted.dimensions,
    }


def normalization(wanted: bool | None) -> Normalize | None:
    """`normalize` of requests as that of `Embedder.encode`."""
    if wanted is None:
        return None
    return "l2" if wanted else "none"


def quantized(wanted: EmbedRequest, vectors: NDArray[np.float32]) -> NDArray[Any]:
    """Vectors in the precision that is asked for.

    Raises:
        ServiceError: Its ranges are missing, or are for vectors of another length.
    """
    if wanted.precision in ("int8", "uint8"):
        _check_ranges(wanted, vectors.shape[1])
    return quantize_embeddings(vectors, wanted.precision, wanted.ranges)


def comparison(fields: dict[str, Any]) -> Comparison:
    """What is to be compared, in either form.

    Raises:
        ServiceError: As `checked`.
    """
    if "pairs" in fields:
        return checked(PairsRequest, fields)
    return checked(TargetsRequest, fields)


def texts_to_compare(wanted: Comparison) -> list[str]:
    """All texts of a comparison, in the order in which they stand there."""
    if isinstance(wanted, PairsRequest):
        return [text for pair in wanted.pairs for text in pair]
    return [wanted.source, *wanted.targets]


def compare_options(wanted: Comparison) -> dict[str, Any]:
    """How they are to be embedded, as `Scheduler.encode` takes it."""
    return {
        "prompt_name": wanted.prompt_name,
        "prompt": wanted.prompt,
        "truncate": wanted.truncate,
    }


def similarities(
    wanted: Comparison, function: str, vectors: NDArray[np.float32]
) -> NDArray[np.float32]:
    """How similar the texts are: of each pair, or of each target to the source.

    Args:
        wanted: What is compared.
        function: The model's similarity function.
        vectors: Those of `texts_to_compare`.
    """
    if isinstance(wanted, PairsRequest):
        return similarity_pairwise(function, vectors[::2], vectors[1::2])
    of_source: NDArray[np.float32] = similarity(function, vectors[0], vectors[1:])[0]
    return of_source


def _check_ranges(wanted: EmbedRequest, dimensions: int) -> None:
    if wanted.ranges is None:
        raise ServiceError(
            "invalid_request",
            f"ranges: {wanted.precision} needs them, so that vectors of all requests are scaled "
            "alike; an Arrow stream has no place for them",
        )
    if any(len(row) != dimensions for row in wanted.ranges):
        raise ServiceError("invalid_request", f"ranges: expected two lists of {dimensions} numbers")
