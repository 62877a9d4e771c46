"""Small files are merged, indexes brought up to date, and what is no longer needed removed.

All of it is done by whoever holds the lock, so that nobody else is writing.
"""

from __future__ import annotations

import math
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from arrowembed.store.lancedb.durability import sync_since
from arrowembed.store.lancedb.library import load

if TYPE_CHECKING:
    from pathlib import Path

    from arrowembed.store.lancedb.snapshot import Snapshot

_LOOK_EVERY = 64
"""After so many versions it is looked whether there are too many small files."""

_GRACE = timedelta(minutes=10)
"""Versions younger than that stay when files are merged on the way: somebody may be reading."""

_AT_ONCE = timedelta(milliseconds=1)


def is_due(before: int, after: int) -> bool:
    """Whether it is time to look, where a write led from one version to another."""
    return before // _LOOK_EVERY < after // _LOOK_EVERY


def merge_small_files(table: Any, folder: Path, snapshot: Snapshot, moment: int) -> bool:
    """Merges small files if there are too many of them.

    Args:
        table: The table.
        folder: Of its files.
        snapshot: Its newest version.
        moment: Files that are younger are brought to the disk.

    Returns:
        Whether there were too many.
    """
    fragments = table.stats()["fragment_stats"]["num_small_fragments"]
    # More of a large table, whose rows would all be written again for few new ones.
    if fragments <= _LOOK_EVERY + math.isqrt(snapshot.count(None)):
        return False
    _index_ids(table, snapshot)
    table.optimize(cleanup_older_than=_GRACE)
    sync_since(folder, moment)
    return True


def compact(table: Any, folder: Path, snapshot: Snapshot, moment: int) -> None:
    """Merges all files that are small or have deleted rows, and removes all older versions."""
    _index_ids(table, snapshot)
    table.optimize()
    # What it replaces is removed only when it is on disk itself.
    sync_since(folder, moment)
    # What no version has is of writers that died. Those who read an older version find that it is
    # gone, and read the newest.
    table.optimize(cleanup_older_than=_AT_ONCE, delete_unverified=True)


def _index_ids(table: Any, snapshot: Snapshot) -> None:
    """Makes the index by which entries are found by id, if there is none and are entries."""
    if "id" not in snapshot.indexes and snapshot.count(None):
        table.create_index("id", config=load().index.BTree())
