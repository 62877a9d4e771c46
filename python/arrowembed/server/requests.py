"""What happens to every request before and around its answer."""

from __future__ import annotations

import asyncio
import random
import re
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, cast

from arrowembed.server.errors import ServiceError, error_response, told

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_REQUEST_ID = re.compile(r"[A-Za-z0-9._~-]{1,128}")
"""What is taken over from clients: nothing that could forge a line of a log."""

_PATIENCE = 0.05
"""Seconds after which it is worth to watch the time, and whether the client is still there."""


class RequestId:
    """Gives each request an id, its `X-Request-ID` if it has one, which the answer has, too."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI application."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = id_of(_header(scope, b"x-request-id"))
        scope.setdefault("state", {})["request_id"] = request_id

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                header = (b"x-request-id", request_id.encode("ascii"))
                message["headers"] = [*message.get("headers", []), header]
            await send(message)

        await self._app(scope, receive, send_with_id)


class Farewell:
    """Closes connections with their next answer once the service drains.

    The server tells those that it knows to close when it stops. One that was taken just then it
    does not know yet; a client that always has another request would keep it until the deadline,
    and its last request would be cut off there.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI application."""
        if scope["type"] != "http" or not scope["app"].state.draining:
            await self._app(scope, receive, send)
            return

        async def send_and_close(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), (b"connection", b"close")]
            await send(message)

        await self._app(scope, receive, send_and_close)


class CatchAll:
    """Answers errors that nobody foresaw, with nothing of what they say."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI application."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def send_and_note(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, send_and_note)
        except Exception as error:
            if started:
                raise
            await error_response(scope, told(error))(scope, receive, send)


class BodyLimit:
    """Refuses a body that is too large before it is read, or as soon as it turns out to be.

    Starlette's own answers in plain text, without a code.
    """

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app, self._max_bytes = app, max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI application."""
        declared = _header(scope, b"content-length") if scope["type"] == "http" else "0"
        if not declared:
            # Sent in chunks, or without a body.
            await self._app(scope, self._counting(receive), send)
        elif declared.isdecimal() and int(declared) > self._max_bytes:
            await error_response(scope, told(self._too_large()))(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _counting(self, receive: Receive) -> Receive:
        received = 0

        async def receive_and_count() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._max_bytes:
                raise self._too_large()
            return message

        return receive_and_count

    def _too_large(self) -> ServiceError:
        return ServiceError(
            "payload_too_large",
            f"the body is larger than {self._max_bytes} bytes; send fewer texts at a time",
        )


@asynccontextmanager
async def within(seconds: float, request: Request) -> AsyncIterator[None]:
    """Gives up what is done inside when time is up or the client is gone; its body must be read.

    Raises:
        ServiceError: With the code `timeout` or `client_closed_request`.
    """
    task = cast("asyncio.Task[object]", asyncio.current_task())
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    given_up: list[ServiceError] = []

    async def watch() -> None:
        try:
            async with asyncio.timeout_at(end):
                while (await request.receive())["type"] != "http.disconnect":
                    pass
            given_up.append(ServiceError("client_closed_request", "the client is gone"))
        except TimeoutError:
            given_up.append(_too_slow(seconds))
        task.cancel()

    watching: list[asyncio.Task[None]] = []

    # Most answers are there before it would have been worth to watch.
    timer = loop.call_later(_PATIENCE, lambda: watching.append(loop.create_task(watch())))
    try:
        yield
    except asyncio.CancelledError:
        if not given_up:
            raise
        task.uncancel()
        raise given_up[0] from None
    finally:
        timer.cancel()
        for watcher in watching:
            watcher.cancel()


@asynccontextmanager
async def in_time(seconds: float) -> AsyncIterator[None]:
    """Gives up what is done inside when time is up.

    Raises:
        ServiceError: With the code `timeout`.
    """
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise _too_slow(seconds) from None


def id_of(given: str) -> str:
    """The id of a request: what its client calls it, or a new one if that is nothing or too odd."""
    if _REQUEST_ID.fullmatch(given):
        return given
    # It has to be different, not secret, and so is worth no call of the system.
    return f"{random.getrandbits(128):032x}"


def _too_slow(seconds: float) -> ServiceError:
    return ServiceError(
        "timeout", f"not done within {seconds:g} seconds; send fewer texts at a time"
    )


def _header(scope: Scope, name: bytes) -> str:
    """A header's value, "" if it is not there."""
    for key, value in scope["headers"]:
        if key == name:
            return str(value.decode("latin-1"))
    return ""
