"""Watches every request: counts it and logs it when it has been answered."""

from __future__ import annotations

import asyncio
import logging
from time import perf_counter
from typing import TYPE_CHECKING

from starlette.datastructures import MutableHeaders

from arrowembed.server.observe.record import begin
from arrowembed.server.observe.report import report

if TYPE_CHECKING:
    from collections.abc import Collection

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from arrowembed.server.observe.metrics import Metrics
    from arrowembed.server.observe.tracing import Tracing

_NOBODY_WAITED = 499
_FAILED = 500


class Observe:
    """Keeps a `RequestRecord` of each request, and hands it to metrics and logs.

    Args:
        app: What answers.
        metrics: What counts.
        tracing: What makes spans; None makes none.
        quiet: Routes that are asked all the time by machines; logged at debug level only.
    """

    def __init__(
        self,
        app: ASGIApp,
        metrics: Metrics,
        tracing: Tracing | None = None,
        quiet: Collection[str] = (),
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._tracing = tracing
        self._quiet = frozenset(quiet)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI application."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = perf_counter()
        record = begin(scope["state"]["request_id"])
        status = _FAILED
        if self._tracing is not None:
            self._tracing.begin(record)

        async def send_and_note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if self._tracing is not None:
                    self._tracing.answered(record)
                if record.headers:
                    MutableHeaders(scope=message).update(record.headers)
            await send(message)

        self._metrics.in_progress.inc()
        try:
            await self._app(scope, receive, send_and_note)
        except asyncio.CancelledError:
            status = _NOBODY_WAITED
            raise
        finally:
            self._metrics.in_progress.dec()
            route = route_of(scope)
            report(
                self._metrics,
                record,
                method=scope["method"],
                route=route,
                status=status,
                seconds=perf_counter() - started,
                level=logging.DEBUG if route in self._quiet else logging.INFO,
            )


def route_of(scope: Scope) -> str:
    """The template of the route that answered; what else clients ask for is all the same."""
    return getattr(scope.get("route"), "path", "none")
