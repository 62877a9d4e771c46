"""What routes say about who may ask them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import Request
from fastapi.openapi.models import HTTPBearer
from fastapi.security.base import SecurityBase

from arrowembed.server.security.principal import Principal, Scope

if TYPE_CHECKING:
    from fastapi import FastAPI

_BEARER = "bearer"
_API_KEY = "apiKey"


class Require(SecurityBase):
    """A dependency of routes: the client, which must have a scope.

    `Authenticate` has found out who it is by then.

    Args:
        scope: The scope.
    """

    def __init__(self, scope: Scope) -> None:
        self.model = HTTPBearer(description="An API key, or a token (JWT).")
        self.scheme_name = _BEARER
        self._scope = scope

    async def __call__(self, request: Request) -> Principal:
        """The client.

        Raises:
            ServiceError: It may not do this (`forbidden`).
        """
        principal: Principal = request.state.principal
        principal.demand(self._scope)
        return principal


def require(scope: Scope) -> Require:
    """A dependency of routes: the client, which must have this scope."""
    return Require(scope)


def document_api_keys(app: FastAPI) -> None:
    """Says in the OpenAPI document that an API key may come in a header of its own, too.

    FastAPI would say so for a second dependency, which each request would have to pass.
    """
    original = app.openapi

    def openapi() -> dict[str, Any]:
        document = original()
        schemes = document["components"]["securitySchemes"]
        if _API_KEY not in schemes:
            schemes[_API_KEY] = {"type": "apiKey", "in": "header", "name": "X-API-Key"}
            for operations in document["paths"].values():
                for operation in operations.values():
                    if "security" in operation:
                        operation["security"].append({_API_KEY: []})
        return document

    app.openapi = openapi  # type: ignore[method-assign]
