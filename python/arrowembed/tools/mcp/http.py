"""Serves clients over streamable HTTP, at `/mcp`."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import sys
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final

import uvicorn
from mcp.server.auth.middleware.auth_context import AuthContextMiddleware
from mcp.server.auth.middleware.bearer_auth import BearerAuthBackend, RequireAuthMiddleware
from mcp.server.auth.provider import AccessToken
from mcp.server.streamable_http_manager import (
    StreamableHTTPASGIApp,
    StreamableHTTPSessionManager,
)
from mcp.server.transport_security import TransportSecuritySettings
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.routing import Route

from arrowembed.errors import InvalidArgumentError
from arrowembed.tools.mcp.server import make_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Sequence
    from pathlib import Path

    from arrowembed.server.security.keys import ApiKeys
    from arrowembed.tools.mcp.offer import Offer

logger = logging.getLogger("arrowembed.mcp")

PATH: Final = "/mcp"
KEYS_VARIABLE: Final = "ARROWEMBED_API_KEYS"

_LOOPBACK: Final = ("127.0.0.1", "localhost", "[::1]")
_SHUTDOWN_SECONDS: Final = 2
"""For calls that are under way when it is told to stop."""


def run(
    offer: Offer,
    *,
    host: str,
    port: int,
    allowed_hosts: Sequence[str] = (),
    api_keys_file: Path | None = None,
) -> None:
    """Serves until the process is told to stop.

    Args:
        offer: What is served.
        host: Address or name to listen on.
        port: 0 takes a free one.
        allowed_hosts: More names that clients may call it by.
        api_keys_file: Keys of which clients need one, besides those in `ARROWEMBED_API_KEYS`;
            without any, everybody is let in.

    Raises:
        InvalidArgumentError: Keys cannot be read, or nobody could reach it by any name.
        MissingDependencyError: There are keys, and what reads them is not installed.
        OSError: The port is taken, or the address is not of this machine.
    """
    keys = read_api_keys(api_keys_file)
    names = _names(host, allowed_hosts)
    config = uvicorn.Config(
        make_app(offer, names, keys),
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        ws="none",
        timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
    )
    if keys is None and not _is_loopback(host):
        logger.warning(
            "ANYBODY WHO REACHES %s MAY USE THESE TOOLS%s: no key is asked for. Make one with "
            "`arrowembed keys new` and pass --api-keys-file, or listen on 127.0.0.1",
            host,
            "" if not offer.identity.has_store else " AND READ AND CHANGE THE STORE",
        )
    # uvicorn raises a signal again after it has stopped as asked; that is no failure.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with _bind(host, port) as listener, offer:
        shown = f"[{host}]" if ":" in host else host
        sys.stderr.write(f"MCP at http://{shown}:{listener.getsockname()[1]}{PATH}\n")
        offer.warm_up()
        uvicorn.Server(config).run([listener])


def make_app(offer: Offer, names: Iterable[str], keys: ApiKeys | None) -> Starlette:
    """The ASGI application.

    Args:
        offer: What is served.
        names: By which clients may call it. Requests to other names are refused, and those of web
            pages from elsewhere: else a page could reach a server on its visitor's own machine.
        keys: Of which clients need one; None lets everybody in.
    """
    hosts = [shown for name in names for shown in (name, f"{name}:*")]
    manager = StreamableHTTPSessionManager(
        make_server(offer),
        security_settings=TransportSecuritySettings(
            allowed_hosts=hosts,
            allowed_origins=[
                f"{scheme}://{shown}" for scheme in ("http", "https") for shown in hosts
            ],
        ),
    )
    endpoint: Any = StreamableHTTPASGIApp(manager)
    middleware: list[Middleware] = []
    if keys is not None:
        endpoint = RequireAuthMiddleware(endpoint, required_scopes=[])
        middleware = [
            Middleware(AuthenticationMiddleware, backend=BearerAuthBackend(_Verifier(keys))),
            Middleware(AuthContextMiddleware),
        ]

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        del app
        async with manager.run():
            yield

    return Starlette(
        routes=[Route(PATH, endpoint=endpoint)], middleware=middleware, lifespan=lifespan
    )


def read_api_keys(file: Path | None) -> ApiKeys | None:
    """The keys of a file and of the environment, as `arrowembed serve` has them; None without any.

    Raises:
        InvalidArgumentError: They cannot be read.
        MissingDependencyError: `arrowembed[server]` is not installed.
    """
    variable = os.environ.get(KEYS_VARIABLE)
    if file is None and not variable:
        return None
    from arrowembed.server.security.keys import (  # noqa: PLC0415 - an extra, and slow to import
        ApiKeys,
        read_keys,
    )

    keys = read_keys(variable or "", KEYS_VARIABLE)
    if file is not None:
        try:
            found = read_keys(file.read_text("utf-8"), str(file))
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidArgumentError(f"--api-keys-file: {file}: {error}") from error
        if not found:
            # Without any, everybody would be let in.
            raise InvalidArgumentError(f"--api-keys-file: {file}: holds no key")
        keys += found
    return ApiKeys(keys)


class _Verifier:
    """Tells the package `mcp` whose a key is."""

    def __init__(self, keys: ApiKeys) -> None:
        self._keys = keys

    async def verify_token(self, token: str) -> AccessToken | None:
        """The client, or None if the key is not known."""
        principal = self._keys.find(token)
        if principal is None:
            return None
        # The key itself need not be kept.
        return AccessToken(token="", client_id=principal.name, scopes=sorted(principal.scopes))


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family)


def _names(host: str, more: Sequence[str]) -> list[str]:
    """By which names clients may call a server that listens on `host`.

    Raises:
        InvalidArgumentError: It listens on all addresses, and no name is given.
    """
    names = list(more)
    if _is_loopback(host):
        names += _LOOPBACK
    elif _is_any(host):
        if not more:
            raise InvalidArgumentError(
                f"--host {host} is every address of this machine; say by --allowed-host under "
                "which names clients reach it"
            )
        names += _LOOPBACK
    else:
        names.append(f"[{host}]" if ":" in host else host)
    return list(dict.fromkeys(names))


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _is_any(host: str) -> bool:
    try:
        return ip_address(host).is_unspecified
    except ValueError:
        return not host
