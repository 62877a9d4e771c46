"""Traces (OpenTelemetry), off unless asked for.

FastAPI itself makes the span of a request, a child of the one that its `traceparent` names. Here
are the children of that: the time in the queue, the forward pass, and making an answer of the
vectors. Where spans go is said by OpenTelemetry's own variables, such as
OTEL_EXPORTER_OTLP_ENDPOINT.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from opentelemetry import trace
from opentelemetry.propagate import extract

from arrowembed.errors import MissingDependencyError
from arrowembed.server.errors import TABLE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from fastapi.telemetry import TelemetryConfig
    from opentelemetry.sdk.trace import TracerProvider

    from arrowembed.server.observe.record import RequestRecord

UNTRACED: TelemetryConfig = {"tracing": False, "metrics": False, "logs": False}
"""FastAPI's telemetry where none is wanted, whatever providers the process may have."""

_SERVERS_FAULT = 500
"""From this HTTP status on, the failure is not the client's."""


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
        trace.get_current_span().set_attribute("url.query", "REDACTED")
        self._note(record)

    @contextmanager
    def call(
        self, method: str, metadata: Mapping[str, str], record: RequestRecord
    ) -> Iterator[None]:
        """Makes the span of a call over gRPC, and those of its parts when it ends.

        Args:
            method: Full name of what is called.
            metadata: Names the span that this one is a child of, if there is one.
            record: What is known of the request.
        """
        service, _, name = method.removeprefix("/").rpartition("/")
        with self._tracer.start_as_current_span(
            method.removeprefix("/"),
            extract(metadata),
            trace.SpanKind.SERVER,
            {"rpc.system": "grpc", "rpc.service": service, "rpc.method": name},
            # What an exception says may quote a text.
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            self._note(record)
            try:
                yield
            finally:
                self.answered(record)
                if record.code is not None:
                    span.set_attribute("error.type", record.code)
                    if TABLE[record.code].http >= _SERVERS_FAULT:
                        span.set_status(trace.StatusCode.ERROR)

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

    def _note(self, record: RequestRecord) -> None:
        context = trace.get_current_span().get_span_context()
        record.trace_id = trace.format_trace_id(context.trace_id)
        record.headers["traceresponse"] = (
            f"00-{record.trace_id}-{trace.format_span_id(context.span_id)}"
            f"-{context.trace_flags:02x}"
        )

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
