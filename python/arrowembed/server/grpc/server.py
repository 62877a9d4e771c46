"""The server: where it listens, whether it is ready, how it stops."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import grpc
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health import SERVICE_NAME as HEALTH
from grpc_health.v1.health import aio as health
from grpc_health.v1.health_pb2 import HealthCheckResponse
from grpc_reflection.v1alpha import reflection

from arrowembed.server.grpc import api
from arrowembed.server.grpc.calls import Calls
from arrowembed.server.grpc.guard import Guard
from arrowembed.server.grpc.observing import Observer
from arrowembed.server.grpc.ports import address_of, cannot_listen
from arrowembed.server.grpc.service import EmbeddingService

if TYPE_CHECKING:
    from starlette.datastructures import State

    from arrowembed.server.settings import ServerSettings

logger = logging.getLogger("arrowembed.server")

_UNCOMPRESSED = 1 << grpc.Compression.NoCompression
_KEEPALIVE_SECONDS = 60
"""After so long a silence a client is asked whether it is still there."""


class GrpcServer:
    """Serves what the application serves over HTTP, on the same event loop.

    Args:
        state: That of the application.
        port: Port to listen on; 0 takes a free one.
    """

    def __init__(self, state: State, port: int) -> None:
        self._settings: ServerSettings = state.settings
        self.port = port
        """The port; after `start` the real one."""
        self._calls = Calls()
        observer = Observer(state.metrics, state.tracing)
        self._guard = Guard(
            state.access,
            self._calls,
            observer,
            seconds=self._settings.request_seconds,
            trusted_proxies=self._settings.trusted_proxies,
        )
        self._service = EmbeddingService(
            self._settings,
            state.models,
            state.rate_limiter,
            self._calls,
            observer,
            stores=state.stores,
            started=state.started,
        )
        self._health = health.HealthServicer()
        self._stopping: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listens; health checks say no until `set_ready`.

        Raises:
            InvalidArgumentError: Somebody else listens there.
        """
        self._server = grpc.aio.server(interceptors=[self._guard], options=self._options())
        api.add_EmbeddingServiceServicer_to_server(self._service, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = (api.SERVICE, HEALTH, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)
        await self._set_health(HealthCheckResponse.NOT_SERVING)
        self.port = self._listen()
        await self._server.start()
        logger.info("gRPC on %s", address_of(self._settings.host, self.port))

    async def set_ready(self) -> None:
        """Has health checks say yes."""
        await self._set_health(HealthCheckResponse.SERVING)

    async def set_draining(self) -> None:
        """Has health checks say no for good."""
        await self._health.enter_graceful_shutdown()

    async def stop(self) -> None:
        """Takes no more calls and waits for those that are being answered, up to the deadline.

        Can be called several times; the first one counts.
        """
        if self._stopping is None:
            self._stopping = asyncio.create_task(self._stop())
        await asyncio.shield(self._stopping)

    async def _stop(self) -> None:
        await self.set_draining()
        self._calls.stop()
        stopped = asyncio.create_task(self._server.stop(self._settings.shutdown_seconds))
        ended = asyncio.create_task(self._calls.ended())
        await asyncio.wait((stopped, ended), return_when=asyncio.FIRST_COMPLETED)
        # Who watches health or asks for reflection need not be waited for.
        await self._server.stop(None)
        await asyncio.gather(stopped, ended)

    async def _set_health(self, status: HealthCheckResponse.ServingStatus) -> None:
        for name in ("", api.SERVICE):
            await self._health.set(name, status)

    def _options(self) -> list[tuple[str, int]]:
        return [
            # Workers share the port; a second service must not.
            ("grpc.so_reuseport", int(self._settings.workers > 1)),
            ("grpc.max_receive_message_length", self._settings.max_body_bytes),
            # gRPC looks at the size of what was compressed only when it has unpacked all of it.
            ("grpc.compression_enabled_algorithms_bitset", _UNCOMPRESSED),
            ("grpc.max_connection_idle_ms", self._settings.keep_alive_seconds * 1000),
            ("grpc.keepalive_time_ms", _KEEPALIVE_SECONDS * 1000),
        ]

    def _listen(self) -> int:
        settings = self._settings
        address = address_of(settings.host, self.port)
        try:
            if settings.tls_certificate is None or settings.tls_key is None:
                return self._server.add_insecure_port(address)
            pair = (settings.tls_key.read_bytes(), settings.tls_certificate.read_bytes())
            return self._server.add_secure_port(address, grpc.ssl_server_credentials([pair]))
        except RuntimeError:
            raise cannot_listen(address) from None
