"""The dialect of OpenAI: what its clients need for embeddings."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Request
from starlette.responses import Response

from arrowembed.server.bodies import checked, read_json
from arrowembed.server.routes.answering import (
    json_response,
    models_of,
    settings_of,
    variant_header,
)
from arrowembed.server.routes.direct import DirectRoute
from arrowembed.server.routes.documented import errors_in, json_body, refusals_in
from arrowembed.server.routes.inputs import encode_inputs
from arrowembed.server.schemas import openai
from arrowembed.server.security.dependency import require
from arrowembed.server.vectors import written

router = APIRouter(
    prefix="/v1", tags=["OpenAI"], route_class=DirectRoute, dependencies=[Depends(require("embed"))]
)

_ERRORS = errors_in(openai.ErrorInOpenAI, "openai")
_REFUSALS = refusals_in(openai.ErrorInOpenAI, "openai")


@router.post(
    "/embeddings",
    summary="Embed texts, as OpenAI does",
    response_model=openai.EmbeddingsResponseInOpenAI,
    responses=_ERRORS,
    openapi_extra=json_body(openai.EmbeddingsRequest),
)
async def embeddings(request: Request) -> Response:
    """The vectors of texts, in their order."""
    fields = await read_json(request, settings_of(request).request_seconds)
    wanted = checked(openai.EmbeddingsRequest, fields)
    served, encoded = await encode_inputs(
        request,
        wanted.model,
        wanted.input,
        # OpenAI's vectors have length one, and clients count on that.
        normalize="l2",
        truncate=wanted.truncate,
        truncate_dim=wanted.dimensions,
    )
    vectors = written(encoded.vectors, "base64" if wanted.encoding_format == "base64" else "json")
    answer = {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": vector}
            for index, vector in enumerate(vectors)
        ],
        "model": served.name,
        "usage": {"prompt_tokens": encoded.tokens, "total_tokens": encoded.tokens},
    }
    return json_response(answer, variant_header(request, served))


@router.get(
    "/models",
    summary="The models, as OpenAI lists them",
    response_model=openai.ModelsInOpenAI,
    responses=_REFUSALS,
)
async def models(request: Request) -> Response:
    """All models of the service, under each of their names."""
    served = models_of(request)
    names = [name for model in served for name in (model.name, *served.aliases(model))]
    return json_response({"object": "list", "data": [_model(request, name) for name in names]})


@router.get(
    "/models/{name:path}",
    summary="A model, as OpenAI shows it",
    response_model=openai.ModelInOpenAI,
    responses={**_REFUSALS, 404: _ERRORS[404]},
)
async def model(
    request: Request, name: Annotated[str, Path(description="Name or alias of a model.")]
) -> Response:
    """A model of the service, loaded or not."""
    models_of(request).find(name)
    return json_response(_model(request, name))


def _model(request: Request, name: str) -> dict[str, Any]:
    return {
        "id": name,
        "object": "model",
        "created": request.app.state.created,
        "owned_by": "arrowembed",
    }
