"""The dialect of text-embeddings-inference.

Its `/embed`, `/similarity` and `/tokenize` share their paths with our own, which tell requests with
`inputs` apart and have them answered here.
"""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from arrowembed.server.bodies import check_count, checked, read_json
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
from arrowembed.server.routes.documented import errors_in, json_body
from arrowembed.server.routes.inputs import decode, encode_inputs
from arrowembed.server.schemas import tei
from arrowembed.server.security.dependency import require
from arrowembed.server.variant import ServedModel, check_options
from arrowembed.similarity import similarity

router = APIRouter(tags=["text-embeddings-inference"], dependencies=[Depends(require("embed"))])

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
        answer = await asyncio.to_thread(_tokens, served, wanted)
    return json_response(answer, variant_header(request, served))


def _tokens(served: ServedModel, wanted: tei.TokenizeRequest) -> list[list[dict[str, Any]]]:
    embedder = served.embedder
    # Clients count tokens to split texts: what is cut must not be missing in silence.
    texts = embedder.tokenize(wanted.inputs, prompt_name=wanted.prompt_name, truncate=False)
    known: dict[int, dict[str, Any]] = {}
    for each in {token for ids in texts["input_ids"] for token in ids}:
        text = embedder.decode([each], skip_special_tokens=False)
        special = bool(text) and not embedder.decode([each])
        known[each] = {"id": each, "text": text, "special": special, "start": None, "stop": None}
    return [
        [known[each] for each in ids if wanted.add_special_tokens or not known[each]["special"]]
        for ids in texts["input_ids"]
    ]
