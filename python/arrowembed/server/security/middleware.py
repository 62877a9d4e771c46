"""Lets nobody in who is not known, before anything of a request's body is read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from arrowembed.server.errors import ServiceError, error_response, told
from arrowembed.server.observe.record import current
from arrowembed.server.security.access import Credentials, hostname

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from arrowembed.server.security.access import Access
    from arrowembed.server.security.principal import Principal

_FORWARDING: Final = frozenset((b"forwarded", b"x-forwarded-for", b"x-real-ip"))
"""What proxies add."""

_HEADERS: Final = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
}


class Authenticate:
    """Finds out who sends each request, and refuses those of strangers where there are none.

    Args:
        app: What answers the others.
        access: Decides.
        public: Paths that anybody may ask for. All others need credentials, so that a route that
            forgets to say what it needs is open to nobody.
        guarded: Methods and public paths that need credentials all the same.
        allowed_hosts: Names that requests may be sent to, without ports; empty is all.
    """

    def __init__(
        self,
        app: ASGIApp,
        access: Access,
        public: Collection[str],
        guarded: Collection[tuple[str, str]] = (),
        allowed_hosts: Collection[str] = (),
    ) -> None:
        self._app = app
        self._access = access
        self._public = frozenset(public)
        self._guarded = frozenset(guarded)
        self._allowed_hosts = frozenset(host.lower() for host in allowed_hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI application."""
        if scope["type"] == "http" and not self._is_public(scope):
            try:
                scope["state"]["principal"] = await self._admit(_credentials(scope))
            except ServiceError as error:
                refusal = error_response(scope, told(error), error.headers)
                await refusal(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _is_public(self, scope: Scope) -> bool:
        path = _path(scope)
        return path in self._public and (scope["method"], path) not in self._guarded

    async def _admit(self, credentials: Credentials) -> Principal:
        if self._allowed_hosts and hostname(credentials.host) not in self._allowed_hosts:
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
        self._headers = _encoded(_HEADERS)
        self._headers_of = {
            path: _encoded({**_HEADERS, "content-security-policy": policy})
            for path, policy in policies.items()
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI application."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = self._headers_of.get(_path(scope), self._headers)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *headers]
            await send(message)

        await self._app(scope, receive, send_with_headers)


def _encoded(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode()) for name, value in headers.items()]


def _path(scope: Scope) -> str:
    """The path without what a proxy takes off."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


def _credentials(scope: Scope) -> Credentials:
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
