"""The application: settings, models, middlewares and routes, put together."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware

from arrowembed import __version__
from arrowembed.errors import ArrowEmbedError
from arrowembed.server.errors import answer_error, answer_http_error
from arrowembed.server.lifecycle import lifespan
from arrowembed.server.requests import BodyLimit, CatchAll, RequestId
from arrowembed.server.routes import admin, health, native
from arrowembed.server.served import ServedModels
from arrowembed.server.settings import ServerSettings, read_settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastapi import FastAPI


def create_app(
    settings: ServerSettings | None = None,
    *,
    on_failed_start: Callable[[Exception], object] | None = None,
) -> FastAPI:
    """The service as an ASGI application.

    Args:
        settings: All that can be set; None reads the environment.
        on_failed_start: Called when a model that is to be loaded at the start cannot be; without
            it, the service goes on and is never ready.

    Raises:
        InvalidArgumentError: A setting is wrong.
    """
    settings = settings or read_settings()
    app = FastAPIOffline(
        redoc_url=None,
        title="arrowembed",
        summary="Text embeddings.",
        version=__version__,
        root_path=settings.root_path,
        lifespan=partial(lifespan, on_failed_start=on_failed_start),
        middleware=_middlewares(settings),
        exception_handlers={ArrowEmbedError: answer_error, HTTPException: answer_http_error},
        # It would note what was in a request that failed.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    app.state.settings = settings
    app.state.models = ServedModels(settings)
    app.state.started = time.monotonic()
    app.state.draining = False
    for routes in (native, health, admin):
        app.include_router(routes.router)
    return app


def _middlewares(settings: ServerSettings) -> list[Middleware]:
    """What is around every request, the outermost first."""
    return [
        Middleware(RequestId),
        Middleware(BodyLimit, max_bytes=settings.max_body_bytes),
        Middleware(CatchAll),
    ]
