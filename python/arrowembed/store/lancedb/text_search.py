"""Search by words, and by words and meaning at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from arrowembed.errors import InvalidArgumentError

if TYPE_CHECKING:
    from arrowembed.store.lancedb.bounds import Query
    from arrowembed.store.lancedb.exact import Scored, Wanted
    from arrowembed.store.lancedb.snapshot import Snapshot


def matching(snapshot: Snapshot, text: str, query: Query | None, wanted: Wanted) -> Scored:
    """The `k` entries that are best by their words, or by words and meaning.

    Args:
        snapshot: Of the table.
        text: The words.
        query: The meaning; None for words alone.
        wanted: `sequence` is among its columns.

    Returns:
        Them and their scores: BM25 of words, else the reciprocal rank fusion.

    Raises:
        InvalidArgumentError: There is no index of words.
    """
    if "text" not in snapshot.indexes:
        raise InvalidArgumentError(
            "mode: there is no index of words; make one with create_text_index(), "
            "or search with mode='vector'"
        )
    if query is None:
        found, column = snapshot.by_words(text, wanted.k, wanted.where, wanted.columns), "_score"
    else:
        found, column = snapshot.by_both(query, text, wanted.k, wanted.where), "_relevance_score"
    scores = found[column].to_numpy().astype(np.float64)
    order = np.lexsort((found["sequence"].to_numpy(), -scores))[: wanted.k]
    return found.take(order), scores[order]
