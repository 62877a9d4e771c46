"""What administrators do with models."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Request
from starlette.responses import Response

from arrowembed.server.errors import ServiceError
from arrowembed.server.routes.answering import (
    json_response,
    models_of,
    settings_of,
    stores_of,
)
from arrowembed.server.routes.described import described
from arrowembed.server.routes.documented import REFUSALS
from arrowembed.server.routes.management import management_only
from arrowembed.server.schemas.native import ErrorResponse, ModelInfo
from arrowembed.server.security.dependency import require

router = APIRouter(
    prefix="/models",
    tags=["administration"],
    dependencies=[Depends(management_only), Depends(require("admin"))],
    responses=REFUSALS
    | {
        404: {"model": ErrorResponse, "description": "There is no such model."},
        409: {"model": ErrorResponse, "description": "There are several workers."},
        503: {"model": ErrorResponse, "description": "The model cannot be loaded."},
    },
)

Name = Annotated[str, Path(description="Name or alias of a model.")]


@router.post("/{name:path}/load", summary="Load a model", response_model=ModelInfo)
async def load(request: Request, name: Name) -> Response:
    """Loads a model and all its variants, if they are not loaded."""
    _check_alone(request)
    await models_of(request).load(name)
    return _answer(request, name)


@router.post("/{name:path}/unload", summary="Unload a model", response_model=ModelInfo)
async def unload(request: Request, name: Name) -> Response:
    """Lets go of a model, once it has answered what it was asked; the next request loads it."""
    _check_alone(request)
    await models_of(request).unload(name)
    return _answer(request, name)


@router.post("/{name:path}/reload", summary="Load a model anew", response_model=ModelInfo)
async def reload(request: Request, name: Name) -> Response:
    """Opens a model's files anew; requests are answered meanwhile, and none is refused."""
    _check_alone(request)
    await models_of(request).reload(name)
    return _answer(request, name)


def _check_alone(request: Request) -> None:
    """With several workers, a request would change the models of whichever it came to."""
    if settings_of(request).workers > 1:
        raise ServiceError(
            "conflict",
            "there are several workers; send SIGHUP to the main process to load all models anew",
        )


def _answer(request: Request, name: str) -> Response:
    models = models_of(request)
    return json_response(described(models, stores_of(request), models.find(name)))
