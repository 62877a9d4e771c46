"""Counts, logs and traces requests, as it is done over HTTP."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from time import perf_counter
from typing import TYPE_CHECKING

from arrowembed.server.errors import TABLE
from arrowembed.server.observe.record import begin
from arrowembed.server.observe.report import report

if TYPE_CHECKING:
    from collections.abc import Iterator

    from arrowembed.server.grpc.calls import Caller
    from arrowembed.server.observe.metrics import Metrics
    from arrowembed.server.observe.record import RequestRecord
    from arrowembed.server.observe.tracing import Tracing

_OK = 200


class Observer:
    """Keeps a `RequestRecord` of each request, and hands it to metrics and logs.

    Args:
        metrics: What counts.
        tracing: What makes spans; None makes none.
    """

    def __init__(self, metrics: Metrics, tracing: Tracing | None) -> None:
        self._metrics = metrics
        self._tracing = tracing

    @contextmanager
    def request(self, caller: Caller, part: str = "") -> Iterator[RequestRecord]:
        """What is done inside is the answering of one request.

        Args:
            caller: The call.
            part: What its id has more than that of the call.
        """
        started = perf_counter()
        record = begin(caller.request_id + part)
        self._metrics.in_progress.inc()
        traced = (
            nullcontext()
            if self._tracing is None
            else self._tracing.call(caller.method, caller.metadata, record)
        )
        try:
            with traced:
                yield record
        finally:
            self._metrics.in_progress.dec()
            report(
                self._metrics,
                record,
                method="gRPC",
                route=caller.method,
                status=_OK if record.code is None else TABLE[record.code].http,
                seconds=perf_counter() - started,
            )
