"""A model as `GET /models` and the routes that change it show it."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from arrowembed.server.served import Model, ServedModels
    from arrowembed.server.variant import Variant


def described(models: ServedModels, model: Model) -> dict[str, Any]:
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
