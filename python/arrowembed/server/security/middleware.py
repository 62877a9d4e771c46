"""Lets nobody in who is not known, before anything of a request's body is read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

from fastapi import Depends, Request
from fastapi.security import APIKeyHeader, HTTPBearer
from starlette.datastructures import MutableHeaders

from arrowembed.server.errors import ServiceError, error_response, told
from arrowembed.server.observe.record import current
from arrowembed.server.security.access import Credentials, host_of
from arrowembed.server.security.principal import Principal, Scope

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping

    from starlette.types import ASGIApp, Message, Receive, Send
    from starlette.types import Scope as Connection

    from arrowembed.server.security.access import Access

_FORWARDING: Final = frozenset((b"forwarded", b"x-forwarded-for", b"x-real-ip"))
"""What proxies add."""

_HEADERS: Final = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
}

_bearer = HTTPBearer(auto_error=False, description="An API key or a token.")
_api_key = APIKeyHeader(name="X-API-Key", auto_error=False, description="An API key.")


class Authenticate:
    """Finds out who sends each request, and refuses those of strangers where there are none.

    Args:
        app: What answers the others.
        access: Decides.
        public: Paths that anybody may ask for. All others need credentials, so that a route that
            forgets to say what it needs is open to nobody.
        allowed_hosts: Names that requests may be sent to, without ports; empty is all.
    """

    def __init__(
        self,
        app: ASGIApp,
        access: Access,
        public: Collection[str],
        allowed_hosts: Collection[str] = (),
    ) -> None:
        self._app = app
        self._access = access
        self._public = frozenset(public)
        self._allowed_hosts = frozenset(host.lower() for host in allowed_hosts)

    async def __call__(self, scope: Connection, receive: Receive, send: Send) -> None:
        """The ASGI application."""
        if scope["type"] == "http" and _path(scope) not in self._public:
            try:
                scope["state"]["principal"] = await self._admit(_credentials(scope))
            except ServiceError as error:
                refusal = error_response(scope, told(error), error.headers)
                await refusal(scope, receive, send)
                return
        await self._app(scope, receive, send)

    async def _admit(self, credentials: Credentials) -> Principal:
        if self._allowed_hosts and host_of(credentials) not in self._allowed_hosts:
            raise ServiceError("forbidden", "host: this service does not answer to that name")
        principal = await self._access.authenticate(credentials)
        current().client = principal.kind
        return principal


class SecurityHeaders:
    """Tells browsers to take answers for what they are, and to load nothing for them.

    Args:
        app: What answers.
        policies: The Content-Security-Policy of paths that need another than the strictest.
    """

    def __init__(self, app: ASGIApp, policies: Mapping[str, str]) -> None:
        self._app = app
        self._policies = policies

    async def __call__(self, scope: Connection, receive: Receive, send: Send) -> None:
        """The ASGI application."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = _HEADERS
        if policy := self._policies.get(_path(scope)):
            headers = {**headers, "content-security-policy": policy}

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(headers)
            await send(message)

        await self._app(scope, receive, send_with_headers)


def require(scope: Scope) -> Callable[..., Awaitable[Principal]]:
    """A dependency of routes: the client, which must have this scope."""

    async def check(
        request: Request,
        # For the OpenAPI document; what they hold has been checked by then.
        bearer: Annotated[object, Depends(_bearer)],
        api_key: Annotated[object, Depends(_api_key)],
    ) -> Principal:
        del bearer, api_key
        principal: Principal = request.state.principal
        principal.demand(scope)
        return principal

    return check


def _path(scope: Connection) -> str:
    """The path without what a proxy takes off."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


def _credentials(scope: Connection) -> Credentials:
    headers = dict(scope["headers"])

    def value(name: bytes) -> str | None:
        return headers[name].decode("latin-1") if name in headers else None

    client = scope.get("client")
    return Credentials(
        authorization=value(b"authorization"),
        api_key=value(b"x-api-key"),
        address=client[0] if client else None,
        forwarded=not _FORWARDING.isdisjoint(headers),
        host=value(b"host"),
        origin=value(b"origin"),
    )
