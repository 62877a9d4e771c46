"""The service and its models, as routes show them."""

from __future__ import annotations

import time
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from arrowembed import __version__, _core, get_num_threads

if TYPE_CHECKING:
    from arrowembed.server.served import Model, ServedModels
    from arrowembed.server.settings import ServerSettings
    from arrowembed.server.stores import ServedStores
    from arrowembed.server.variant import Variant


async def service_info(
    settings: ServerSettings, models: ServedModels, stores: ServedStores, *, started: float
) -> dict[str, Any]:
    """Version, models, stores and limits.

    Args:
        settings: Those of the service.
        models: Its models.
        stores: Its stores.
        started: When it was started, by `time.monotonic`.
    """
    return {
        "version": __version__,
        "default_model": models.default.name,
        "models": [described(models, stores, model) for model in models],
        "stores": await stores.described(),
        "limits": {
            "max_texts": settings.max_texts,
            "max_text_chars": settings.max_text_chars,
            "max_body_bytes": settings.max_body_bytes,
            "request_seconds": settings.request_seconds,
            "max_hits": settings.max_hits,
        },
        "num_threads": get_num_threads(),
        "isa": _core.isa(),
        "uptime_seconds": round(time.monotonic() - started, 3),
    }


def described(models: ServedModels, stores: ServedStores, model: Model) -> dict[str, Any]:
    """A model, as `schemas.native.ModelInfo` has it."""
    weights = [0.0, *model.cumulative_weights]
    shares = [(until - since) / weights[-1] for since, until in pairwise(weights)]
    return {
        "name": model.name,
        "default": model is models.default,
        "aliases": models.aliases(model),
        "variants": [
            _variant(variant, share) for variant, share in zip(model.variants, shares, strict=True)
        ],
        "stores": stores.of_model(model.name),
    }


def described_as_tei(models: ServedModels, settings: ServerSettings) -> dict[str, Any]:
    """The default model and the limits, as `/info` of text-embeddings-inference has them.

    What is known only of a model in memory is None until it is loaded.
    """
    current = models.default.variants[0].current
    info = current.embedder.info() if current else None
    return {
        "model_id": models.default.name,
        "model_sha": None,
        "model_dtype": info["dtype"] if info else None,
        "served_model_name": models.default.name,
        "model_type": {"embedding": {"pooling": info["pooling"] if info else None}},
        # Nothing bounds the number of requests but that of their texts, of which each has one.
        "max_concurrent_requests": settings.max_queued_texts,
        "max_input_length": info["max_seq_length"] if info else None,
        "max_batch_tokens": settings.max_queued_tokens,
        "max_batch_requests": None,
        "max_client_batch_size": settings.max_texts,
        "auto_truncate": False,
        "tokenization_workers": get_num_threads(),
    }


def _variant(variant: Variant, share: float) -> dict[str, Any]:
    embedder = variant.current.embedder if variant.current else None
    return {
        "name": variant.variant,
        "state": variant.state,
        "share": share,
        "dimensions": embedder.dimension if embedder else None,
        "max_seq_length": embedder.max_seq_length if embedder else None,
    }
