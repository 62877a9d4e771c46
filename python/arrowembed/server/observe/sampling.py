"""What stands at some level is looked at regularly: queues and memory."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from arrowembed.server.observe.metrics import Metrics
    from arrowembed.server.served import ServedModels

_INTERVAL = 1.0
"""Seconds; of several workers Prometheus asks only one, so each writes down its own."""


async def sample_regularly(models: ServedModels, metrics: Metrics) -> None:
    """Samples until it is cancelled."""
    while True:
        sample(models, metrics)
        await asyncio.sleep(_INTERVAL)


def sample(models: ServedModels, metrics: Metrics) -> None:
    """Notes how long the queues of this process are, and how much memory it has."""
    cached = 0
    for variant in (variant for model in models for variant in model.variants):
        texts = tokens = weights = 0
        if (served := variant.current) is not None:
            queue = served.scheduler.info()
            texts, tokens = queue["queued_texts"], queue["queued_tokens"]
            weights = served.embedder.info()["weights_bytes"]
            cached += served.embedder.cache_info()["bytes"]
        metrics.queue_depth.labels(variant.label).set(texts)
        metrics.queue_tokens.labels(variant.label).set(tokens)
        metrics.model_memory.labels(variant.label).set(weights)
    metrics.memory.labels("cache").set(cached)
    if (own := _own_memory()) is not None:
        metrics.memory.labels("anonymous").set(own)


def _own_memory() -> int | None:
    """Bytes of memory that this process shares with no other; None where the system cannot tell."""
    try:
        status = Path("/proc/self/status").read_text("ascii")
    except OSError:
        return None
    kilobytes = status.partition("RssAnon:")[2].split(maxsplit=1)[0]
    return int(kilobytes) * 1024
