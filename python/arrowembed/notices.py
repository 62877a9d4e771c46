"""What an `Embedder` logs."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from arrowembed import _core

_logger = logging.getLogger("arrowembed")


def short_of_memory(info: _core.EngineInfo) -> None:
    """Says so if a model did not fit into memory when it was opened."""
    if info["short_of_memory"]:
        _logger.warning(
            "%s is larger than the memory that is available; its weights will be read from the "
            "disk again and again",
            info["path"],
        )


def truncated(stats: _core.EncodeStats, max_seq_length: int) -> None:
    """Says that texts were cut; for the first call that did."""
    _logger.warning(
        "%d of %d texts were longer than the model's %d tokens and were cut; later ones are only "
        "counted, in info()['truncated']. encode(..., truncate=False) refuses them instead",
        stats["truncated"],
        stats["texts"],
        max_seq_length,
    )
