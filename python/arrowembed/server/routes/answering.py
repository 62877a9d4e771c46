"""What the routes of all dialects need: from a request to vectors, and from there to an answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
from starlette.responses import Response

from arrowembed.server.bodies import check_texts
from arrowembed.server.rate_limit import charge_client
from arrowembed.server.requests import within

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.requests import Request

    from arrowembed.scheduler import Encoded
    from arrowembed.server.served import ServedModels
    from arrowembed.server.settings import ServerSettings
    from arrowembed.server.stores import ServedStores
    from arrowembed.server.variant import ServedModel


def models_of(request: Request) -> ServedModels:
    """The models of the service that a request came to."""
    models: ServedModels = request.app.state.models
    return models


def stores_of(request: Request) -> ServedStores:
    """The stores of the service that a request came to."""
    stores: ServedStores = request.app.state.stores
    return stores


def settings_of(request: Request) -> ServerSettings:
    """The settings of the service that a request came to."""
    settings: ServerSettings = request.app.state.settings
    return settings


async def admit(request: Request, texts: Sequence[str]) -> None:
    """Lets texts in; the answer says how many more the client may send.

    Raises:
        ServiceError: They are more or larger than a request may have, or more than the client may
            send now (`rate_limited`).
    """
    check_texts(texts, settings_of(request))
    await charge(request, len(texts))


async def charge(request: Request, texts: int) -> None:
    """Counts texts against what the client may send.

    Raises:
        ServiceError: It may not send so many now (`rate_limited`).
    """
    address = request.client.host if request.client else None
    state = request.app.state
    await charge_client(state.rate_limiter, request.state.principal, address, texts)


async def encode(
    request: Request, model: str | None, texts: Sequence[str], **options: Any
) -> tuple[ServedModel, Encoded]:
    """Embeds the texts of a request, within the limits of the service.

    Args:
        request: Whose answer it is for; its body has been read.
        model: Name of the model; None is the default one.
        texts: The texts.
        options: As for `Scheduler.encode`.

    Raises:
        ServiceError: A limit is passed, there is no such model, or it has not what is asked for.
        ArrowEmbedError: As `Scheduler.encode`.
    """
    await admit(request, texts)
    async with within(settings_of(request).request_seconds, request):
        return await models_of(request).encode(model, texts, **options)


def usage_of(encoded: Encoded) -> dict[str, int]:
    """What a request cost, as `schemas.native.Usage` has it."""
    return {
        "texts": len(encoded.vectors),
        "tokens": encoded.tokens,
        "truncated": encoded.truncated,
        "cached": encoded.cache_hits,
    }


def json_response(value: Any, headers: dict[str, str] | None = None) -> Response:
    """An answer in JSON; NumPy arrays in it are written as they are, without lists of floats."""
    body = orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(body, media_type="application/json", headers=headers)


def variant_header(request: Request, served: ServedModel) -> dict[str, str]:
    """Says which variant answered, where there are several."""
    variant = models_of(request).variant_of(served)
    return {} if variant is None else {"x-model-variant": variant}
