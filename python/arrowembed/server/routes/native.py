"""The service's own dialect: `POST /embed`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from arrowembed.quantization import quantize_embeddings
from arrowembed.server.bodies import check_texts, checked, checked_query, read_json
from arrowembed.server.errors import ServiceError, use_dialect
from arrowembed.server.requests import within
from arrowembed.server.routes import (
    json_response,
    models_of,
    settings_of,
    variant_header,
)
from arrowembed.server.routes.documented import ERRORS, json_body
from arrowembed.server.schemas import native, tei
from arrowembed.server.vectors import written

if TYPE_CHECKING:
    from collections.abc import Sequence

    from arrowembed.scheduler import Encoded
    from arrowembed.server.served import ServedModel

router = APIRouter(tags=["native"])


@router.post(
    "/embed",
    summary="Embed texts",
    response_model=native.EmbedResponse,
    responses=ERRORS,
    openapi_extra=json_body(native.EmbedRequest, tei.EmbedRequest),
)
async def embed(request: Request) -> Response:
    """The vectors of texts, in their order.

    With `texts` the answer is an object. With `inputs` request and answer are those of
    text-embeddings-inference: a bare list of vectors.
    """
    fields = await read_json(request, settings_of(request).request_seconds)
    if request.url.query:
        fields = {**checked_query(native.EmbedOptions, request), **fields}
    if "inputs" not in fields:
        return await _embed_native(request, checked(native.EmbedRequest, fields))
    if "texts" in fields:
        raise ServiceError("invalid_request", "texts, inputs: one of them, not both")
    use_dialect(request, "tei")
    return await _embed_tei(request, checked(tei.EmbedRequest, fields))


async def _embed_native(request: Request, wanted: native.EmbedRequest) -> Response:
    served, encoded = await encode(
        request,
        wanted.model,
        wanted.texts,
        prompt_name=wanted.prompt_name,
        prompt=wanted.prompt,
        normalize=_normalize(wanted.normalize),
        truncate=wanted.truncate,
        truncate_dim=wanted.dimensions,
    )
    vectors = quantize_embeddings(encoded.vectors, wanted.precision)
    answer = {
        "embeddings": written(vectors, wanted.encoding),
        "model": served.name,
        "dimensions": encoded.vectors.shape[1],
        "precision": wanted.precision,
        "usage": usage_of(encoded),
    }
    return json_response(answer, variant_header(request, served))


async def _embed_tei(request: Request, wanted: tei.EmbedRequest) -> Response:
    served, encoded = await encode(
        request,
        None,
        wanted.inputs,
        prompt_name=wanted.prompt_name,
        normalize=_normalize(wanted.normalize),
        truncate=bool(wanted.truncate),
        truncate_dim=wanted.dimensions,
    )
    return json_response(encoded.vectors, variant_header(request, served))


async def encode(
    request: Request, model: str | None, texts: Sequence[str], **options: Any
) -> tuple[ServedModel, Encoded]:
    """Embeds the texts of a request, within the limits of the service.

    Args:
        request: Whose answer it is for; its body has been read.
        model: Name of the model; None is the default one.
        texts: The texts.
        options: As for `Scheduler.encode`.
    """
    settings = settings_of(request)
    check_texts(texts, settings)
    async with within(settings.request_seconds, request):
        served, encoded = await models_of(request).encode(model, texts, **options)
    request.state.served, request.state.encoded = served, encoded
    return served, encoded


def usage_of(encoded: Encoded) -> dict[str, int]:
    """What a request cost, as `schemas.native.Usage` has it."""
    return {
        "texts": len(encoded.vectors),
        "tokens": encoded.tokens,
        "truncated": encoded.truncated,
        "cached": encoded.cache_hits,
    }


def _normalize(wanted: bool | None) -> str | None:
    if wanted is None:
        return None
    return "l2" if wanted else "none"
