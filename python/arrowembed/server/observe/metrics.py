"""Metrics for Prometheus; docs/operations/monitoring.md says what each is good for.

With several worker processes, `arrowembed serve` has prometheus_client keep all values in files of
one folder, and whichever worker is asked adds up those of all.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from arrowembed.server.errors import TABLE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from arrowembed.server.observe.record import RequestRecord

M = TypeVar("M", Counter, Histogram)

Mode: TypeAlias = Literal["livesum", "livemax"]
"""How a gauge's values of several workers become one; those of dead ones do not count."""

FOLDER_VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"
"""Where several workers keep their values; prometheus_client reads it when it is imported."""

_SECONDS = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0),
)
_LOAD_SECONDS = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 60.0, 300.0)
_TEXTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
_TOKENS = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)


class Metrics:
    """All metrics of one application.

    Labels take few values: routes are their templates, models the names that are served, statuses
    and codes those of the table of errors.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._known_series: dict[tuple[object, ...], Any] = {}
        self.duration = self._histogram(
            "request_duration_seconds",
            "Time from a request's arrival to the last byte of its answer.",
            ("route", "model"),
            _SECONDS,
        )
        self.requests = self._counter(
            "request",
            "Requests that were answered; their status is 499 if the client did not wait.",
            ("route", "model", "status"),
        )
        self.in_progress = self._gauge("requests_in_progress", "Requests that are being answered.")
        self.errors = self._counter("errors", "Errors that clients were told.", ("code",))
        for code in TABLE:
            # An increase from nothing to one would not be seen.
            self.errors.labels(code)
        self.rate_limited = self._counter("rate_limited", "Requests refused by the rate limit.")
        self.rate_limit_store_failures = self._counter(
            "rate_limit_store_failures", "Requests that the shared store could not count."
        )
        self.memory = self._gauge(
            "memory_usage_bytes",
            "Memory that is the workers' own (anonymous), and kept vectors in it (cache).",
            ("kind",),
        )
        self.model_memory = self._gauge(
            "model_memory_bytes",
            "Bytes of a loaded model's weights, which all workers share.",
            ("model",),
            mode="livemax",
        )
        self.model_load = self._histogram(
            "model_load_seconds", "Time that it took to load a model.", ("model",), _LOAD_SECONDS
        )
        self.texts = self._counter("texts", "Texts that were embedded.", ("model",))
        self.tokens = self._counter("tokens", "Tokens of these texts.", ("model",))
        self.truncated = self._counter(
            "truncated", "Texts that were cut to the model's limit.", ("model",)
        )
        self.cache_hits = self._counter(
            "cache_hits", "Texts whose vector was in the cache.", ("model",)
        )
        self.cache_misses = self._counter(
            "cache_misses", "Texts whose vector was computed.", ("model",)
        )
        self.queue_wait = self._histogram(
            "queue_wait_seconds",
            "Time that a request waited until the first of its texts was taken.",
            ("model",),
            _SECONDS,
        )
        self.queue_depth = self._gauge("queue_depth", "Texts that wait.", ("model",))
        self.queue_tokens = self._gauge(
            "queue_tokens", "Tokens of the texts that wait.", ("model",)
        )
        self.batch_texts = self._histogram(
            "batch_texts", "Texts that were computed together.", ("model",), _TEXTS
        )
        self.batch_tokens = self._histogram(
            "batch_tokens", "Tokens that were computed together.", ("model",), _TOKENS
        )

        self.search = self._histogram(
            "search_seconds",
            "Time that it took to look through a store, waiting for a thread included.",
            ("store",),
            _SECONDS,
        )

    def finished(self, record: RequestRecord, route: str, status: int, seconds: float) -> None:
        """Counts a request that has been answered.

        Args:
            record: What is known of it.
            route: Template of its route.
            status: HTTP status.
            seconds: Time that it took.
        """
        model = record.model
        self._series(self.duration, route, model).observe(seconds)
        self._series(self.requests, route, model, str(status)).inc()
        if record.code is not None:
            self._series(self.errors, record.code).inc()
        if record.code == "rate_limited":
            self.rate_limited.inc()
        if record.encoded:
            self._series(self.texts, model).inc(record.texts)
            self._series(self.tokens, model).inc(record.tokens)
            self._series(self.truncated, model).inc(record.truncated)
            self._series(self.cache_hits, model).inc(record.cache_hits)
            misses = record.texts - record.cache_hits
            self._series(self.cache_misses, model).inc(misses)
            if misses:
                self._series(self.queue_wait, model).observe(record.queue_seconds)
        if record.store:
            self._series(self.search, record.store).observe(record.search_seconds)

    def batch(self, model: str, texts: int, tokens: int) -> None:
        """Counts texts that are computed together."""
        self._series(self.batch_texts, model).observe(texts)
        self._series(self.batch_tokens, model).observe(tokens)

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """All metrics as Prometheus reads them, and their content type.

        Adds up the values of all workers, for which it reads files.

        Args:
            accept: The header of that name.
        """
        encode, content_type = choose_encoder(accept)
        folder = os.environ.get(FOLDER_VARIABLE)
        if folder is None:
            return encode(self.registry), content_type
        _forget_dead_workers(Path(folder))
        everybody = CollectorRegistry()
        MultiProcessCollector(everybody, path=folder)
        return encode(everybody), content_type

    def _series(self, metric: M, *labels: str) -> M:
        """`metric.labels(...)`, which takes longer than to count, looked up once."""
        found: M | None = self._known_series.get((metric, *labels))
        if found is None:
            found = self._known_series[metric, *labels] = metric.labels(*labels)
        return found

    def _counter(self, name: str, about: str, labels: Sequence[str] = ()) -> Counter:
        return Counter(f"embedding_{name}", about, labels, registry=self.registry)

    def _histogram(
        self, name: str, about: str, labels: Sequence[str], buckets: Sequence[float]
    ) -> Histogram:
        name = f"embedding_{name}"
        return Histogram(name, about, labels, buckets=buckets, registry=self.registry)

    def _gauge(
        self, name: str, about: str, labels: Sequence[str] = (), *, mode: Mode = "livesum"
    ) -> Gauge:
        name = f"embedding_{name}"
        return Gauge(name, about, labels, registry=self.registry, multiprocess_mode=mode)


def _forget_dead_workers(folder: Path) -> None:
    """Drops what gauges stood at in workers that are gone, killed ones too."""
    if sys.platform == "win32":
        return  # there, to ask whether a process lives would end it
    for process in {int(file.stem.rpartition("_")[2]) for file in folder.glob("gauge_live*.db")}:
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            mark_process_dead(process, str(folder))
        except PermissionError:
            continue
