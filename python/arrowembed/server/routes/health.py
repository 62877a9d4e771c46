"""How the service and its models stand."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from arrowembed.server.errors import ServiceError
from arrowembed.server.routes.answering import (
    json_response,
    models_of,
    settings_of,
    stores_of,
)
from arrowembed.server.routes.described import described, described_as_tei, service_info
from arrowembed.server.routes.documented import REFUSALS
from arrowembed.server.schemas.native import ErrorResponse, ModelList
from arrowembed.server.security.dependency import require

router = APIRouter(tags=["service"])
_known = [Depends(require("embed"))]


@router.get("/health", summary="Whether the process is alive")
async def health() -> dict[str, str]:
    """Answers as long as the process does."""
    return {"status": "ok"}


@router.get(
    "/ready",
    summary="Whether requests should be sent here",
    responses={503: {"model": ErrorResponse, "description": "Loading, or shutting down."}},
)
async def ready(request: Request) -> dict[str, str]:
    """Answers once the models are loaded, and until the service is told to stop."""
    if request.app.state.draining:
        raise ServiceError("closed", "the server is shutting down")
    if not models_of(request).ready:
        raise ServiceError("loading", "the models are not loaded yet")
    return {"status": "ready"}


@router.get("/info", summary="What the service is", dependencies=_known, responses=REFUSALS)
async def info(request: Request) -> Response:
    """Version, models, stores and limits; for clients of text-embeddings-inference some more."""
    settings, models, stores = settings_of(request), models_of(request), stores_of(request)
    info = await service_info(settings, models, stores, started=request.app.state.started)
    return json_response({**info, **described_as_tei(models, settings)})


@router.get(
    "/models",
    summary="The models",
    response_model=ModelList,
    dependencies=_known,
    responses=REFUSALS,
)
async def models(request: Request) -> Response:
    """All models of the service, loaded or not."""
    models, stores = models_of(request), stores_of(request)
    return json_response({"models": [described(models, stores, model) for model in models]})
