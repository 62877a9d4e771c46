"""Settings of logs, metrics and traces."""

from __future__ import annotations

from pydantic import BaseModel, Field

from arrowembed.server.observe.logs import LogForm, LogLevel


class ObserveSettings(BaseModel):
    """What operators see."""

    log_level: LogLevel = Field("info", description="What is logged: debug, info, warning, error.")
    log_form: LogForm = Field(
        "auto", description="Form of logs: json, console, or auto: console on a terminal."
    )
    tracing: bool = Field(False, description="Send traces where OTEL_EXPORTER_OTLP_ENDPOINT says.")
    management_port: int | None = Field(
        None, ge=0, le=65535, description="Port of its own for /metrics and administration."
    )
    management_host: str = Field(
        "127.0.0.1", description="Address to listen on for metrics and administration."
    )
