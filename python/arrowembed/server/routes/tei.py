"""The dialect of text-embeddings-inference.

Its `/embed`, `/similarity` and `/tokenize` share their paths with our own, which tell requests with
`inputs` apart and have them answered here.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import orjson
from fastapi import APIRouter, Depends, Request
from starlette.responses import Response, StreamingResponse

from arrowembed.server.bodies import JSON, check_count, checked, read_json
from arrowembed.server.dialects import use_dialect
from arrowembed.server.native import normalization
from arrowembed.server.requests import within
from arrowembed.server.routes.answering import (
    admit,
    charge,
    encode,
    json_response,
    models_of,
    settings_of,
    variant_header,
)
from arrowembed.server.routes.direct import DirectRoute
from arrowembed.server.routes.documented import errors_in, json_body
from arrowembed.server.routes.inputs import decode, encode_inputs, texts_of
from arrowembed.server.schemas import tei
from arrowembed.server.security.dependency import require
from arrowembed.server.variant import check_options
from arrowembed.similarity import similarity

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

router = APIRouter(
    tags=["text-embeddings-inference"],
    route_class=DirectRoute,
    dependencies=[Depends(require("embed"))],
)

_ERRORS = errors_in(tei.ErrorInTei, "tei")


@router.post(
    "/",
    summary="Embed or compare texts, as text-embeddings-inference does",
    response_model=tei.Vectors | list[float],
    responses=_ERRORS,
    openapi_extra=json_body(tei.EmbedRequest, tei.SimilarityRequest),
)
async def root(request: Request) -> Response:
    """As `/embed`, or as `/similarity` if `inputs` is an object.

    Clients that are given nothing but the address of the service come here.
    """
    fields = await read_json(request, settings_of(request).request_seconds)
    if isinstance(fields.get("inputs"), dict):
        return await similarities(request, fields)
    return await embeddings(request, fields)


@router.post(
    "/decode",
    summary="Put tokens together to texts",
    response_model=list[str],
    responses=_ERRORS,
    openapi_extra=json_body(tei.DecodeRequest),
)
async def decoded(request: Request) -> Response:
    """The text that the ids of tokens stand for, as near as the tokenizer can tell."""
    settings = settings_of(request)
    wanted = checked(tei.DecodeRequest, await read_json(request, settings.request_seconds))
    check_count(len(wanted.ids), settings)
    await charge(request, len(wanted.ids))
    async with within(settings.request_seconds, request):
        served = await models_of(request).get()
        texts = await asyncio.to_thread(
            decode, served, wanted.ids, skip_special_tokens=wanted.skip_special_tokens
        )
    return json_response(texts, variant_header(request, served))


@router.post(
    "/embed_all",
    summary="Embed each token of texts",
    response_model=tei.TokenVectors,
    responses=_ERRORS,
    openapi_extra=json_body(tei.EmbedAllRequest),
)
async def token_embeddings(request: Request) -> Response:
    """The vectors of all tokens of texts, special ones included, before pooling."""
    settings = settings_of(request)
    wanted = checked(tei.EmbedAllRequest, await read_json(request, settings.request_seconds))
    model, texts = await texts_of(request, None, wanted.inputs)
    await admit(request, texts)
    async with within(settings.request_seconds, request):
        served, vectors = await models_of(request).encode_tokens(
            model, texts, prompt_name=wanted.prompt_name, truncate=bool(wanted.truncate)
        )
    return StreamingResponse(
        _lines(vectors), media_type=JSON, headers=variant_header(request, served)
    )


async def embeddings(request: Request, fields: dict[str, Any]) -> Response:
    """The vectors of texts, as a bare list."""
    use_dialect(request, "tei")
    wanted = checked(tei.EmbedRequest, fields)
    served, encoded = await encode_inputs(
        request,
        None,
        wanted.inputs,
        prompt_name=wanted.prompt_name,
        normalize=normalization(wanted.normalize),
        truncate=bool(wanted.truncate),
        truncate_dim=wanted.dimensions,
    )
    return json_response(encoded.vectors, variant_header(request, served))


async def similarities(request: Request, fields: dict[str, Any]) -> Response:
    """The cosines of one text and several, as a bare list."""
    use_dialect(request, "tei")
    wanted = checked(tei.SimilarityRequest, fields)
    options = wanted.parameters or tei.TextOptions()
    served, encoded = await encode(
        request,
        None,
        [wanted.inputs.source_sentence, *wanted.inputs.sentences],
        prompt_name=options.prompt_name,
        truncate=bool(options.truncate),
    )
    vectors = encoded.vectors
    cosines = similarity("cosine", vectors[0], vectors[1:])[0]
    return json_response(cosines, variant_header(request, served))


async def tokens(request: Request, fields: dict[str, Any]) -> Response:
    """The tokens of each text, as a bare list of lists."""
    use_dialect(request, "tei")
    wanted = checked(tei.TokenizeRequest, fields)
    await admit(request, wanted.inputs)
    async with within(settings_of(request).request_seconds, request):
        served = await models_of(request).get()
        check_options(served, {"prompt_name": wanted.prompt_name})
        found = await asyncio.to_thread(
            served.embedder.tokenize_with_offsets,
            wanted.inputs,
            prompt_name=wanted.prompt_name,
            add_special_tokens=wanted.add_special_tokens,
        )
    answer = [[token._asdict() for token in of_text] for of_text in found]
    return json_response(answer, variant_header(request, served))


def _lines(vectors: Sequence[NDArray[np.float32]]) -> Iterator[bytes]:
    """A list in JSON, a text at a time: all of it may be a hundred megabytes."""
    for number, of_text in enumerate(vectors):
        yield (b",\n" if number else b"[") + orjson.dumps(
            of_text, option=orjson.OPT_SERIALIZE_NUMPY
        )
    yield b"]"
