"""Entries of files into a store, a chunk at a time."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from arrowembed.errors import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from arrowembed.cli.entries import Entry
    from arrowembed.store import Store

ON_DUPLICATE = ("error", "skip", "replace")

_CHUNK = 1024
"""Entries put in at a time: what an interrupted run has to do again at most."""


def fill(store: Store, entries: Iterator[Entry], on_duplicate: str) -> tuple[int, int]:
    """Puts entries into a store; what was put in stays if a later one is not as it should be.

    Args:
        store: The store.
        entries: Any number.
        on_duplicate: What is done with those whose ids are there: "error", "skip", "replace".

    Returns:
        How many were put in and how many passed over.

    Raises:
        DuplicateIdError: One is there already, and that is an error.
        InvalidArgumentError: An entry is not as it should be.
    """
    put = skipped = 0
    with tqdm(unit=" entries", disable=None, delay=1.0, leave=False) as bar:
        while chunk := list(islice(entries, _CHUNK)):
            _check_unique(chunk)
            new = _missing(store, chunk) if on_duplicate == "skip" else chunk
            if new:
                _put(store, new, replace=on_duplicate == "replace")
            put += len(new)
            skipped += len(chunk) - len(new)
            bar.update(len(chunk))
    return put, skipped


def _missing(store: Store, chunk: list[Entry]) -> list[Entry]:
    there = {record.id for record in store.get([entry.id for entry in chunk], include=())}
    return [entry for entry in chunk if entry.id not in there]


def _put(store: Store, chunk: list[Entry], *, replace: bool) -> None:
    write = store.upsert if replace else store.add
    vectors: list[Any] = [entry.vector for entry in chunk if entry.vector is not None]
    _check_lengths(store, chunk)
    write(
        [entry.id for entry in chunk],
        [entry.text for entry in chunk],  # type: ignore[misc] # beside vectors some may be missing
        vectors=vectors or None,
        metadata=[entry.metadata for entry in chunk],
    )


def _check_unique(chunk: list[Entry]) -> None:
    places: dict[str, str] = {}
    for entry in chunk:
        if entry.id in places:
            raise InvalidArgumentError(
                f"{entry.place}: the id {entry.id!r} comes twice, first in {places[entry.id]}"
            )
        places[entry.id] = entry.place


def _check_lengths(store: Store, chunk: list[Entry]) -> None:
    dimension = store.description.dimension
    for entry in chunk:
        if entry.vector is not None and len(entry.vector) != dimension:
            raise InvalidArgumentError(
                f"{entry.place}: a vector of {len(entry.vector)} numbers; those of the store have "
                f"{dimension}"
            )
