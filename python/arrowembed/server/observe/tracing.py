"""Traces (OpenTelemetry), off unless asked for.

FastAPI itself makes the span of a request, a child of the one that its `traceparent` names. Here
are the children of that: the time in the queue, the forward pass, and making an answer of the
vectors. Where spans go is said by OpenTelemetry's own variables, such as
OTEL_EXPORTER_OTLP_ENDPOINT.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from opentelemetry import trace

from arrowembed.errors import MissingDependencyError

if TYPE_CHECKING:
    from fastapi.telemetry import TelemetryConfig
    from opentelemetry.sdk.trace import TracerProvider

    from arrowembed.server.observe.record import RequestRecord

UNTRACED: TelemetryConfig = {"tracing": False, "metrics": False, "logs": False}
"""FastAPI's telemetry where none is wanted, whatever providers the process may have."""


class Tracing:
    """Makes the spans of requests, and sends them over OTLP in the background.

    Raises:
        MissingDependencyError: OpenTelemetry's SDK or its exporter are not installed.
    """

    def __init__(self) -> None:
        self._provider = _otlp()
        self._tracer = self._provider.get_tracer("arrowembed")

    @property
    def config(self) -> TelemetryConfig:
        """How FastAPI makes the span of a request.

        Only that: its logs would quote what is wrong with a request.
        """
        return {
            **UNTRACED,
            "tracing": True,
            "operation_spans": False,
            "tracer_provider": self._provider,
        }

    def begin(self, record: RequestRecord) -> None:
        """Notes the request's span, and has the answer tell it (`traceresponse`, W3C).

        What stands behind the ? of an address is the client's, and is left out.
        """
        span = trace.get_current_span()
        span.set_attribute("url.query", "REDACTED")
        context = span.get_span_context()
        record.trace_id = trace.format_trace_id(context.trace_id)
        record.headers["traceresponse"] = (
            f"00-{record.trace_id}-{trace.format_span_id(context.span_id)}"
            f"-{context.trace_flags:02x}"
        )

    def answered(self, record: RequestRecord) -> None:
        """Makes the spans of a request whose answer is about to be sent."""
        if not record.encoded:
            return
        trace.get_current_span().set_attributes(
            {
                "embedding.model": record.model,
                "embedding.texts": record.texts,
                "embedding.tokens": record.tokens,
                "embedding.cache_hits": record.cache_hits,
            }
        )
        computed = record.encoded_at
        taken = computed - int(record.compute_seconds * 1e9)
        queued = taken - int(record.queue_seconds * 1e9)
        for name, start, end in (
            ("queue", queued, taken),
            ("forward", taken, computed),
            ("serialise", computed, time.time_ns()),
        ):
            self._tracer.start_span(name, start_time=start).end(end)

    def close(self) -> None:
        """Sends what has not been sent yet; blocks."""
        self._provider.shutdown()


def _otlp() -> TracerProvider:
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415
            OTLPSpanExporter,
        )
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise MissingDependencyError.of(
            "OpenTelemetry's SDK", purpose="tracing", install='"arrowembed[telemetry]"'
        ) from error
    provider = TracerProvider(resource=Resource.create({"service.name": "arrowembed"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider
