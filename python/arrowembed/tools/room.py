"""What was found in a store, in no more room than a model's context has for it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from arrowembed.store.records import Hit
    from arrowembed.tools.kinds import Entry, Found

MIN_BYTES = 32 << 10
"""In so many bytes the largest entry fits, however its characters are written."""

MAX_TEXT = 4000
"""Characters of one text, at most; a control character takes six bytes."""

_MAX_METADATA = 2048
"""Bytes of one entry's metadata."""

_written = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode

_AROUND = 64
"""Bytes of a result around its entries."""


def fitted(hits: Iterable[Hit], max_bytes: int, max_characters: int) -> Found:
    """As many entries as fit, their texts and metadata shortened.

    Args:
        hits: The most similar first.
        max_bytes: Of the result as JSON; at least `MIN_BYTES`, so that the first always fits.
        max_characters: Of each text; at most `MAX_TEXT`.
    """
    entries: list[Entry] = []
    free = max_bytes - _AROUND
    omitted = 0
    for hit in hits:
        entry, size = _entry(hit, max_characters)
        free -= size + 1
        if omitted or free < 0:
            omitted += 1
        else:
            entries.append(entry)
    return {"hits": entries, "omitted": omitted}


def json_bytes(value: Any) -> int:
    """Length of a value as JSON, in UTF-8.

    Raises:
        ValueError: It holds a NaN, an infinity or half a surrogate pair, or goes round in a circle.
    """
    return len(_written(value).encode())


def _entry(hit: Hit, max_characters: int) -> tuple[Entry, int]:
    """An entry as it is shown, and its bytes."""
    text, metadata = hit.text, hit.metadata or {}
    entry: Entry = {"id": hit.id, "score": round(hit.score, 6), "text": text, "metadata": metadata}
    if text is not None and len(text) > max_characters:
        marker = f"… [{max_characters} of {len(text)} characters]"
        entry["text"], entry["shortened"] = text[:max_characters] + marker, True
    size = json_bytes(entry)
    if size > _MAX_METADATA and json_bytes(metadata) > _MAX_METADATA:
        entry["metadata"], entry["shortened"] = {}, True
        size = json_bytes(entry)
    return entry, size
