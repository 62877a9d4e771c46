"""Runs the service with uvicorn, in one process or several."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import tempfile
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

import uvicorn
from prometheus_client import disable_created_metrics
from uvicorn.supervisors import Multiprocess

from arrowembed import get_num_threads
from arrowembed.server.app import create_app
from arrowembed.server.errors import ServiceError
from arrowembed.server.guards import warn_of_open_doors
from arrowembed.server.memory import keep_compact
from arrowembed.server.observe.logs import configure_logging
from arrowembed.server.observe.metrics import FOLDER_VARIABLE
from arrowembed.server.security import certificates

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from fastapi import FastAPI

    from arrowembed.server.served import ServedModels
    from arrowembed.server.settings import ServerSettings
    from arrowembed.server.stores import ServedStores


def run(settings: ServerSettings) -> None:
    """Serves until it is told to stop by SIGTERM or SIGINT.

    Raises:
        ArrowEmbedError: A model that is to be loaded at the start cannot be, or keys or
            certificates cannot be read.
    """
    keep_compact()
    _observe(settings)
    certificates.check(settings)
    warn_of_open_doors(settings)
    # uvicorn raises a signal again after it has stopped as asked; that is no failure.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    if settings.workers > 1:
        _run_several(settings)
    else:
        _run_one(settings)


def _run_one(settings: ServerSettings) -> None:
    failures: list[BaseException] = []

    def stop(error: Exception) -> None:
        failures.append(error.__cause__ or error)
        server.should_exit = True

    settings, management = _bind_management(settings)
    app = create_app(settings, on_failed_start=stop)
    config = _config(settings, app)
    server = uvicorn.Server(config)
    server.run([_bind(config), *management] if management else None)
    if failures:
        raise failures[0]


def _run_several(settings: ServerSettings) -> None:
    asyncio.run(_open_once(settings))
    if settings.num_threads is None:
        threads = max(1, get_num_threads() // settings.workers)
        settings = settings.model_copy(update={"num_threads": threads})
    settings, management = _bind_management(settings)
    settings, held = _hold_grpc_port(settings)
    config = _config(settings, partial(_worker_app, settings), factory=True)
    with held, tempfile.TemporaryDirectory(prefix="arrowembed-metrics-") as folder:
        os.environ[FOLDER_VARIABLE] = folder
        _Workers(config, [_bind(config), *management]).run()


def _worker_app(settings: ServerSettings) -> FastAPI:
    keep_compact()
    _observe(settings)
    return create_app(settings)


def _observe(settings: ServerSettings) -> None:
    configure_logging(settings.log_level, settings.log_form)
    # Series of when others began, as many as there are of those.
    disable_created_metrics()


def _bind(config: uvicorn.Config) -> socket.socket:
    """A socket to listen on, whose connections send at once what is written to them.

    asyncio has the sockets that it makes itself do so. Those made here must be told; without it,
    an answer waits up to 40 ms for the client to acknowledge its head.
    """
    bound = config.bind_socket()
    bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return bound


def _bind_management(settings: ServerSettings) -> tuple[ServerSettings, list[socket.socket]]:
    """The socket for metrics and administration, if it is wanted, and settings that know its port.

    The same application answers there; its routes look at where a request came in.
    """
    if settings.management_port is None:
        return settings, []
    config = uvicorn.Config(
        "", host=settings.management_host, port=settings.management_port, log_config=None
    )
    bound = _bind(config)
    return settings.model_copy(update={"management_port": bound.getsockname()[1]}), [bound]


def _hold_grpc_port(settings: ServerSettings) -> tuple[ServerSettings, AbstractContextManager[Any]]:
    """Holds the port for gRPC, if it is wanted, and settings that know it.

    gRPC takes no socket from outside: each worker listens itself.
    """
    if settings.grpc_port is None:
        return settings, nullcontext()
    from arrowembed.server.grpc.ports import hold_port  # noqa: PLC0415 - an extra of its own

    held = hold_port(settings.host, settings.grpc_port)
    return settings.model_copy(update={"grpc_port": held.getsockname()[1]}), held


async def _open_once(settings: ServerSettings) -> None:
    """So that what is wrong is said once, and no worker fetches or packs what another does, too."""
    state = create_app(settings).state
    models: ServedModels = state.models
    stores: ServedStores = state.stores
    try:
        await models.load_eager()
        stores.check(models)
    except ServiceError as error:
        raise error.__cause__ or error from None
    finally:
        await models.close()
        await stores.close()


class _Workers(Multiprocess):
    """Several processes behind one socket; one that dies is replaced."""

    def terminate_all(self) -> None:
        """Stops the processes; the last of them to go ends the listening, not this one."""
        super().terminate_all()
        for listener in self.sockets:
            listener.close()

    def handle_hup(self) -> None:
        """Has each process load its models anew, instead of starting new processes."""
        for process in self.processes:
            if process.pid is not None:
                os.kill(process.pid, signal.SIGHUP)


def _config(settings: ServerSettings, app: Any, *, factory: bool = False) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        factory=factory,
        host=settings.host,
        port=settings.port,
        workers=settings.workers,
        root_path=settings.root_path,
        http="httptools",
        # uvloop takes on one new connection each time it has answered all others: of 256 clients
        # that come at once, the last waited for ten seconds. Nor is it any faster here.
        loop="asyncio",
        ws="none",
        log_config=None,
        access_log=False,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=settings.trusted_proxies,
        ssl_certfile=settings.tls_certificate,
        ssl_keyfile=settings.tls_key,
        ssl_context_factory=certificates.make_context if settings.tls_certificate else None,
        server_header=False,
        timeout_keep_alive=settings.keep_alive_seconds,
        timeout_graceful_shutdown=settings.shutdown_seconds,
    )
