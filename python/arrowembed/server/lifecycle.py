"""What happens when the service starts, is told to read its models anew, and stops."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

from arrowembed import set_num_threads
from arrowembed.errors import InvalidArgumentError, StoreMismatchError
from arrowembed.server.errors import ServiceError
from arrowembed.server.guards import renew_access
from arrowembed.server.observe.sampling import sample_regularly
from arrowembed.server.security import certificates
from arrowembed.server.watch import watch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator

    from fastapi import FastAPI
    from starlette.datastructures import State

    from arrowembed.server.grpc import GrpcServer
    from arrowembed.server.served import ServedModels
    from arrowembed.server.settings import ServerSettings
    from arrowembed.server.stores import ServedStores

logger = logging.getLogger("arrowembed.server")


@asynccontextmanager
async def lifespan(
    app: FastAPI, *, on_failed_start: Callable[[Exception], object] | None
) -> AsyncIterator[None]:
    """Loads the models while it answers already, and lets them finish what they were asked."""
    settings: ServerSettings = app.state.settings
    models: ServedModels = app.state.models
    stores: ServedStores = app.state.stores
    grpc: GrpcServer | None = app.state.grpc
    if settings.num_threads is not None:
        set_num_threads(settings.num_threads)
    if grpc is not None:
        await _start(grpc, on_failed_start)
    tasks = [
        asyncio.create_task(_load(models, stores, grpc, on_failed_start)),
        asyncio.create_task(sample_regularly(models, app.state.metrics)),
    ]
    if settings.watch_seconds is not None:
        tasks.append(asyncio.create_task(watch(models, settings.watch_seconds)))
    with _on_signals(app, tasks):
        yield
    if grpc is not None:
        await grpc.stop()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.gather(models.close(), stores.close())
    if app.state.rate_limiter is not None:
        await app.state.rate_limiter.close()
    if app.state.tracing is not None:
        await asyncio.to_thread(app.state.tracing.close)


async def _start(grpc: GrpcServer, on_failed_start: Callable[[Exception], object] | None) -> None:
    try:
        await grpc.start()
    except InvalidArgumentError as error:
        if on_failed_start is None:
            raise
        on_failed_start(error)


async def _load(
    models: ServedModels,
    stores: ServedStores,
    grpc: GrpcServer | None,
    on_failed_start: Callable[[Exception], object] | None,
) -> None:
    try:
        await models.load_eager()
        stores.check(models)
    except (ServiceError, StoreMismatchError) as error:
        models.ready = False
        if on_failed_start is None:
            logger.warning("the service will not be ready: %s", error)
        else:
            on_failed_start(error)
    else:
        if grpc is not None:
            await grpc.set_ready()


async def _reload(state: State) -> None:
    """Reads anew what may have been renewed: keys, the certificate, models."""
    try:
        renew_access(state.settings, state.access)
        certificates.renew(state.settings)
        if state.grpc is not None:
            state.grpc.renew_certificate()
    except (InvalidArgumentError, OSError) as error:
        logger.warning("keys or certificates cannot be read anew; the old ones stay: %s", error)
    models: ServedModels = state.models
    try:
        await models.reload()
    except ServiceError:
        logger.warning("a model could not be loaded anew; it goes on with its old files")


@contextmanager
def _on_signals(app: FastAPI, tasks: list[asyncio.Task[None]]) -> Iterator[None]:
    """SIGHUP has models, keys and the certificate read anew; SIGTERM makes /ready say no first.

    The server acts on that a while later, because load balancers go on sending requests until they
    have seen it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    settings: ServerSettings = app.state.settings
    stop = signal.getsignal(signal.SIGTERM)

    def start(work: Coroutine[Any, Any, None]) -> None:
        tasks.append(loop.create_task(work))

    async def stop_grpc(grpc: GrpcServer) -> None:
        await grpc.set_draining()
        await asyncio.sleep(settings.drain_delay_seconds)
        await grpc.stop()

    def drain(number: int, frame: Any) -> None:
        app.state.draining = True
        if app.state.grpc is not None:
            # At the same time as HTTP, not after it, so that both have the whole deadline.
            loop.call_soon_threadsafe(start, stop_grpc(app.state.grpc))
        if callable(stop):
            delay = settings.drain_delay_seconds
            loop.call_soon_threadsafe(loop.call_later, delay, stop, number, frame)

    if callable(stop):
        signal.signal(signal.SIGTERM, drain)
    if hasattr(signal, "SIGHUP"):
        loop.add_signal_handler(signal.SIGHUP, lambda: start(_reload(app.state)))
    try:
        yield
    finally:
        app.state.draining = True
        if hasattr(signal, "SIGHUP"):
            loop.remove_signal_handler(signal.SIGHUP)
