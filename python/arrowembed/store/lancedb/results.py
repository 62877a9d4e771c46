"""Rows of the table as entries."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from arrowembed.store.lancedb.exact import vectors_of
from arrowembed.store.records import Hit, Record

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa

    from arrowembed.store.lancedb.exact import Scored
    from arrowembed.store.records import Field


def columns_of(fields: tuple[Field, ...], *others: str) -> list[str]:
    """The columns that are read for these fields, and others."""
    return list(dict.fromkeys(["id", *others, *fields]))


def records(table: pa.Table, fields: tuple[Field, ...]) -> list[Record]:
    """Entries in the order in which they were put in; `sequence` is among the columns."""
    return [Record(**entry) for entry in _entries(table.sort_by("sequence"), fields)]


def hits(scored: Scored, offset: int, fields: tuple[Field, ...]) -> list[Hit]:
    """What was found from `offset` on, in the order in which it comes."""
    table, scores = scored
    found = _entries(table.slice(offset), fields)
    return [
        Hit(**entry, score=score)
        for entry, score in zip(found, scores[offset:].tolist(), strict=True)
    ]


def _entries(table: pa.Table, fields: tuple[Field, ...]) -> Iterator[dict[str, Any]]:
    """What was asked for, entry by entry."""
    values: dict[str, Any] = {"id": table["id"].to_pylist()}
    if "text" in fields:
        values["text"] = table["text"].to_pylist()
    if "metadata" in fields:
        values["metadata"] = [json.loads(text) for text in table["metadata"].to_pylist()]
    if "vector" in fields:
        values["vector"] = vectors_of(table)
    for entry in zip(*values.values(), strict=True):
        yield dict(zip(values, entry, strict=True))
