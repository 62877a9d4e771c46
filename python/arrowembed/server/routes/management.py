"""Keeps metrics and administration to a port of their own, where there is one."""

from __future__ import annotations

from fastapi import Request

from arrowembed.server.errors import ServiceError
from arrowembed.server.routes.answering import settings_of


async def management_only(request: Request) -> None:
    """A dependency of routes that are not there on the port for clients.

    Raises:
        ServiceError: The request came to that port (`not_found`).
    """
    port = settings_of(request).management_port
    server = request.scope.get("server")
    if port is not None and (server is None or server[1] != port):
        raise ServiceError("not_found", f"{request.method} {request.url.path}: Not Found")
