"""From messages to checked requests, and from vectors to messages.

Requests become those of the native dialect, so that one set of rules holds for both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from arrowembed.server import stores
from arrowembed.server.bodies import checked, parse_json
from arrowembed.server.errors import ServiceError
from arrowembed.server.grpc import api
from arrowembed.server.native import comparison
from arrowembed.server.routes.answering import usage_of
from arrowembed.server.schemas import native
from arrowembed.server.vectors import packed
from arrowembed.store.records import FIELDS, to_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper
    from google.protobuf.message import Message
    from numpy.typing import NDArray

    from arrowembed.options import Precision
    from arrowembed.scheduler import Encoded
    from arrowembed.server.native import Comparison
    from arrowembed.server.schemas.search import SearchRequest
    from arrowembed.server.stores import Found

_PRECISION = "PRECISION_"
_HIT_FIELD = "HIT_FIELD_"


def embed_request(message: api.EmbedRequest) -> native.EmbedRequest:
    """What a message asks for.

    Raises:
        ServiceError: A field is missing or wrong (`invalid_request`); the message names it.
    """
    fields = _fields_of(message)
    vector_format = fields.pop("format", api.VECTOR_FORMAT_UNSPECIFIED)
    _name(api.VectorFormat, "format", vector_format)
    precision = fields.pop("precision", api.PRECISION_UNSPECIFIED)
    name = _name(api.Precision, "precision", precision).removeprefix(_PRECISION).lower()
    if precision != api.PRECISION_UNSPECIFIED:
        fields["precision"] = name
        if name != "float32" and vector_format != api.VECTOR_FORMAT_PACKED:
            raise ServiceError(
                "invalid_request", f"format: {name} comes packed only; ask for VECTOR_FORMAT_PACKED"
            )
    if "texts" in fields:
        fields["texts"] = list(message.texts)
    if "ranges" in fields:
        fields["ranges"] = [list(message.ranges.lowest), list(message.ranges.highest)]
    return checked(native.EmbedRequest, fields)


def similarity_request(message: api.SimilarityRequest) -> Comparison:
    """What a message asks for.

    Raises:
        ServiceError: As `embed_request`.
    """
    fields = _fields_of(message)
    if "targets" in fields:
        fields["targets"] = list(message.targets)
    if "pairs" in fields:
        fields["pairs"] = [[pair.first, pair.second] for pair in message.pairs]
    return comparison(fields)


def search_request(message: api.SearchRequest) -> SearchRequest:
    """What a message asks for.

    Raises:
        ServiceError: As `embed_request`.
    """
    fields = _fields_of(message)
    if "limit" in fields:
        fields["k"] = fields.pop("limit")
    if "vector" in fields:
        fields["vector"] = list(message.vector)
    if "filter" in fields:
        fields["filter"] = _filter(message.filter)
    if "include" in fields:
        names = {_name(api.HitField, "include", value) for value in message.include}
        named = {name.removeprefix(_HIT_FIELD).lower() for name in names}
        fields["include"] = [name for name in FIELDS if name in named]
    return stores.search_request(fields)


def search_response(found: Found, include: Sequence[str]) -> api.SearchResponse:
    """The answer to a search.

    Args:
        found: What was found.
        include: What is wanted of it.
    """
    response = api.SearchResponse(
        store=found.store.name,
        metric=found.store.store.description.metric,
        usage=None if found.encoded is None else usage_of(found.encoded),
    )
    for hit in found.hits:
        answer = response.hits.add(id=hit.id, score=hit.score)
        if "text" in include and hit.text is not None:
            answer.text = hit.text
        if "metadata" in include:
            answer.metadata = to_json(hit.metadata or {})
        if "vector" in include and hit.vector is not None:
            answer.vector.extend(hit.vector.tolist())
    return response


def embed_response(
    vectors: NDArray[Any],
    vector_format: api.VectorFormat,
    precision: Precision,
    encoded: Encoded,
    *,
    model: str,
    variant: str | None,
) -> api.EmbedResponse:
    """The answer to a request.

    Args:
        vectors: Vectors in the precision that was asked for, shape (n, dim).
        vector_format: How to write them.
        precision: Their precision.
        encoded: What they were before, and what they took.
        model: Name of the model.
        variant: Which of several it is.
    """
    response = api.EmbedResponse(
        dimensions=encoded.vectors.shape[1],
        precision=_PRECISION + precision.upper(),
        model=model,
        variant=variant,
        usage=usage_of(encoded),
    )
    if vector_format == api.VECTOR_FORMAT_PACKED:
        response.packed = packed(vectors)
    else:
        for values in vectors.tolist():
            response.vectors.add(values=values)
    return response


def _filter(text: str) -> Any:
    try:
        return parse_json(text.encode())
    except ServiceError as error:
        raise ServiceError("invalid_request", f"filter: expected JSON; {error}") from None


def _fields_of(message: Message) -> dict[str, Any]:
    """The fields that are set, by name."""
    return {field.name: value for field, value in message.ListFields()}


def _name(enum: EnumTypeWrapper, field: str, value: int) -> str:
    """What a number stands for; messages may have any."""
    try:
        return enum.Name(value)
    except ValueError:
        known = ", ".join(enum.keys())
        raise ServiceError(
            "invalid_request", f"{field}: {value} stands for nothing; known are {known}"
        ) from None
