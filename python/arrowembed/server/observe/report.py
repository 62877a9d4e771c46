"""What is counted and logged of a request that has been answered, whichever way it came."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from arrowembed.server.observe.logs import request_log

if TYPE_CHECKING:
    from arrowembed.server.observe.metrics import Metrics
    from arrowembed.server.observe.record import RequestRecord


def report(
    metrics: Metrics,
    record: RequestRecord,
    *,
    method: str,
    route: str,
    status: int,
    seconds: float,
    level: int = logging.INFO,
) -> None:
    """Hands a request to metrics and logs.

    Args:
        metrics: What counts.
        record: What is known of the request.
        method: As logs show it.
        route: Template of its route.
        status: HTTP status, or the one that fits.
        seconds: Time that it took.
        level: Of its line in the log.
    """
    metrics.finished(record, route, status, seconds)
    log = request_log()
    if log.is_enabled_for(level):
        request = {"method": method, "route": route, "status": status}
        log.log(level, "request", **request, **_fields(record, seconds))


def _fields(record: RequestRecord, seconds: float) -> dict[str, str | float]:
    fields: dict[str, str | float] = {"duration_ms": _milliseconds(seconds)}
    if record.client:
        fields["client"] = record.client
    if record.code is not None:
        fields["code"] = record.code
    if record.encoded:
        fields |= {
            "model": record.model,
            "texts": record.texts,
            "tokens": record.tokens,
            "truncated": record.truncated,
            "cache_hits": record.cache_hits,
            "queue_ms": _milliseconds(record.queue_seconds),
            "compute_ms": _milliseconds(record.compute_seconds),
        }
    if record.store:
        fields |= {
            "store": record.store,
            "hits": record.hits,
            "search_ms": _milliseconds(record.search_seconds),
        }
    if record.trace_id:
        fields["trace_id"] = record.trace_id
    return fields


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 3)
