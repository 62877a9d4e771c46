"""The service's own dialect: embed, compare and tokenize texts."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from arrowembed.server import arrow_stream
from arrowembed.server.arrow_stream import ARROW
from arrowembed.server.bodies import (
    checked,
    checked_query,
    media_type,
    read_body,
    read_json,
)
from arrowembed.server.errors import ServiceError
from arrowembed.server.native import (
    compare_options,
    comparison,
    embed_options,
    quantized,
    similarities,
    texts_to_compare,
)
from arrowembed.server.requests import within
from arrowembed.server.routes import tei as tei_routes
from arrowembed.server.routes.answering import (
    admit,
    encode,
    json_response,
    models_of,
    settings_of,
    usage_of,
    variant_header,
)
from arrowembed.server.routes.direct import DirectRoute
from arrowembed.server.routes.documented import arrow_too, errors_in, json_body
from arrowembed.server.schemas import native, tei
from arrowembed.server.security.dependency import require
from arrowembed.server.variant import check_options
from arrowembed.server.vectors import written

router = APIRouter(
    tags=["native"], route_class=DirectRoute, dependencies=[Depends(require("embed"))]
)

_ERRORS = errors_in(native.ErrorResponse | tei.ErrorInTei)


@router.post(
    "/embed",
    summary="Embed texts",
    response_model=native.EmbedResponse | tei.Vectors,
    responses={**_ERRORS, 200: arrow_too("Vectors in the order of their texts.")},
    openapi_extra=json_body(
        native.EmbedRequest, tei.EmbedRequest, arrow=True, query=native.EmbedOptions
    ),
)
async def embed(request: Request) -> Response:
    """The vectors of texts, in their order.

    With `texts` the answer is an object. With `inputs` request and answer are those of
    text-embeddings-inference: a bare list of vectors. An Arrow stream with one column of texts is
    taken, too, and is the answer to those who accept it; its options stand in the query.
    """
    has_query = request.scope["query_string"]
    options = checked_query(native.EmbedOptions, request) if has_query else {}
    if media_type(request) == ARROW:
        settings = settings_of(request)
        body = await read_body(request, settings.request_seconds)
        texts = arrow_stream.read_texts(body, settings)
        return await _embed(request, checked(native.EmbedRequest, {**options, "texts": texts}))
    fields = {**options, **await read_json(request, settings_of(request).request_seconds)}
    if _is_tei(fields, "texts"):
        return await tei_routes.embeddings(request, fields)
    return await _embed(request, checked(native.EmbedRequest, fields))


@router.post(
    "/similarity",
    summary="Compare texts",
    response_model=native.SimilarityResponse | list[float],
    responses=_ERRORS,
    openapi_extra=json_body(native.TargetsRequest, native.PairsRequest, tei.SimilarityRequest),
)
async def compare(request: Request) -> Response:
    """How similar the texts of each pair are, or one text and each of several.

    With `inputs` request and answer are those of text-embeddings-inference: a bare list of cosines.
    An error's `index` counts all texts in the order in which they stand in the request.
    """
    fields = await read_json(request, settings_of(request).request_seconds)
    if _is_tei(fields, "source", "targets", "pairs"):
        return await tei_routes.similarities(request, fields)
    wanted = comparison(fields)
    served, encoded = await encode(
        request, wanted.model, texts_to_compare(wanted), **compare_options(wanted)
    )
    function = served.embedder.similarity_function
    answer = {
        "similarities": similarities(wanted, function, encoded.vectors),
        "function": function,
        "model": served.name,
        "usage": usage_of(encoded),
    }
    return json_response(answer, variant_header(request, served))


@router.post(
    "/tokenize",
    summary="Take texts apart into tokens",
    response_model=native.TokenizeResponse | list[list[tei.Token]],
    responses=_ERRORS,
    openapi_extra=json_body(native.TokenizeRequest, tei.TokenizeRequest),
)
async def tokenize(request: Request) -> Response:
    """The ids of each text's tokens, as the model sees them.

    With `inputs` request and answer are those of text-embeddings-inference: a bare list with a list
    of tokens for each text.
    """
    settings = settings_of(request)
    fields = await read_json(request, settings.request_seconds)
    if _is_tei(fields, "texts"):
        return await tei_routes.tokens(request, fields)
    wanted = checked(native.TokenizeRequest, fields)
    await admit(request, wanted.texts)
    async with within(settings.request_seconds, request):
        served = await models_of(request).get(wanted.model)
        check_options(served, {"prompt_name": wanted.prompt_name})
        features = await asyncio.to_thread(
            served.embedder.tokenize,
            wanted.texts,
            prompt_name=wanted.prompt_name,
            prompt=wanted.prompt,
        )
    answer = {
        "input_ids": features["input_ids"],
        "model": served.name,
        "max_seq_length": served.embedder.max_seq_length,
    }
    return json_response(answer, variant_header(request, served))


async def _embed(request: Request, wanted: native.EmbedRequest) -> Response:
    served, encoded = await encode(request, wanted.model, wanted.texts, **embed_options(wanted))
    vectors = quantized(wanted, encoded.vectors)
    facts = {
        "model": served.name,
        "dimensions": encoded.vectors.shape[1],
        "precision": wanted.precision,
        "usage": usage_of(encoded),
    }
    headers = variant_header(request, served)
    if ARROW in request.headers.get("accept", "") or media_type(request) == ARROW:
        return Response(arrow_stream.write_vectors(vectors, facts), 200, headers, ARROW)
    return json_response({"embeddings": written(vectors, wanted.encoding), **facts}, headers)


def _is_tei(fields: dict[str, Any], *ours: str) -> bool:
    """Whether a request is in the dialect of text-embeddings-inference.

    Args:
        fields: The request.
        ours: Fields that say the same in our own dialect.
    """
    if "inputs" not in fields:
        return False
    for field in ours:
        if field in fields:
            raise ServiceError("invalid_request", f"{field}, inputs: one of them, not both")
    return True
