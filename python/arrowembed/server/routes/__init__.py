"""What the service answers, a file for each dialect, and what all of them need."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
from starlette.responses import Response

if TYPE_CHECKING:
    from starlette.requests import Request

    from arrowembed.server.served import ServedModel, ServedModels
    from arrowembed.server.settings import ServerSettings


def models_of(request: Request) -> ServedModels:
    """The models of the service that a request came to."""
    models: ServedModels = request.app.state.models
    return models


def settings_of(request: Request) -> ServerSettings:
    """The settings of the service that a request came to."""
    settings: ServerSettings = request.app.state.settings
    return settings


def json_response(value: Any, headers: dict[str, str] | None = None) -> Response:
    """An answer in JSON; NumPy arrays in it are written as they are, without lists of floats."""
    body = orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(body, media_type="application/json", headers=headers)


def variant_header(request: Request, served: ServedModel) -> dict[str, str]:
    """Says which variant answered, where there are several."""
    if len(models_of(request).find(served.name).variants) == 1:
        return {}
    return {"x-model-variant": served.variant}
