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
from arrowembed.server.guards import cors, make_access, make_rate_limiter
from arrowembed.server.lifecycle import lifespan
from arrowembed.server.observe.metrics import Metrics
from arrowembed.server.observe.middleware import Observe
from arrowembed.server.observe.tracing import UNTRACED, Tracing
from arrowembed.server.requests import BodyLimit, CatchAll, Farewell, RequestId
from arrowembed.server.routes import (
    admin,
    health,
    monitoring,
    native,
    ollama,
    openai,
    page,
    search,
    tei,
)
from arrowembed.server.security.dependency import document_api_keys
from arrowembed.server.security.middleware import Authenticate, SecurityHeaders
from arrowembed.server.served import ServedModels
from arrowembed.server.settings import ServerSettings, read_settings
from arrowembed.server.stores import ServedStores

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastapi import FastAPI
    from starlette.datastructures import State

    from arrowembed.server.grpc import GrpcServer
    from arrowembed.server.security.access import Access

_DOCS = (
    "/docs",
    "/openapi.json",
    "/static-offline-docs/favicon.png",
    "/static-offline-docs/swagger-ui-bundle.js",
    "/static-offline-docs/swagger-ui.css",
)
_MACHINES = ("/health", "/ready", "/metrics")
"""What orchestrators and Prometheus ask for all the time."""
_POLICY_OF_DOCS = (
    "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; frame-ancestors 'none'"
)


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
        StoreNotFoundError: There is no store where one is to be.
        StoreFileError: A store's files are damaged.
        MissingDependencyError: A setting needs a package that is not installed.
    """
    settings = settings or read_settings()
    metrics = Metrics()
    tracing = Tracing() if settings.tracing else None
    access = make_access(settings)
    app = FastAPIOffline(
        redoc_url=None,
        title="arrowembed",
        summary="Text embeddings.",
        version=__version__,
        root_path=settings.root_path,
        lifespan=partial(lifespan, on_failed_start=on_failed_start),
        middleware=_middlewares(settings, access, metrics, tracing),
        exception_handlers={ArrowEmbedError: answer_error, HTTPException: answer_http_error},
        telemetry=UNTRACED if tracing is None else tracing.config,
    )
    app.state.settings = settings
    app.state.access = access
    app.state.models = ServedModels(settings, metrics)
    app.state.stores = ServedStores(settings)
    app.state.metrics = metrics
    app.state.tracing = tracing
    app.state.rate_limiter = make_rate_limiter(settings, metrics)
    app.state.started = time.monotonic()
    app.state.created = int(time.time())
    app.state.draining = False
    app.state.grpc = _make_grpc(app.state, settings.grpc_port)
    for routes in (native, search, openai, tei, ollama, health, admin, monitoring, page):
        # Not include_router: requests would be matched anew within each router before theirs.
        app.router.routes.extend(routes.router.routes)
    app.mount("/page", page.FILES)
    document_api_keys(app)
    return app


def _middlewares(
    settings: ServerSettings, access: Access, metrics: Metrics, tracing: Tracing | None
) -> list[Middleware]:
    """What is around every request, the outermost first."""
    return [
        Middleware(Farewell),
        Middleware(RequestId),
        Middleware(Observe, metrics=metrics, tracing=tracing, quiet=_MACHINES),
        Middleware(SecurityHeaders, policies={page.PATH: page.POLICY, "/docs": _POLICY_OF_DOCS}),
        *cors(settings),
        Middleware(BodyLimit, max_bytes=settings.max_body_bytes),
        Middleware(CatchAll),
        Middleware(
            Authenticate,
            access=access,
            public=(*_MACHINES, *_DOCS, *page.PATHS),
            guarded=[("POST", page.PATH)],
            allowed_hosts=settings.allowed_hosts,
        ),
    ]


def _make_grpc(state: State, port: int | None) -> GrpcServer | None:
    """The door for gRPC, if there is to be one.

    Raises:
        MissingDependencyError: grpcio or one of its packages is not installed.
    """
    if port is None:
        return None
    from arrowembed.server.grpc import GrpcServer  # noqa: PLC0415 - an extra of its own

    return GrpcServer(state, port)
