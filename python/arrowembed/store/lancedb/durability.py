"""What LanceDB wrote is brought to the disk: it gives files to the operating system, no further."""

from __future__ import annotations

import os
import time
from pathlib import Path

from arrowembed.store.files import sync_folder

_COARSE = 50_000_000
"""Nanoseconds by which the clock of files may be behind; a kernel's tick is 10 ms at most."""

_LAST = "_versions"
"""Of the folders of a table that which says what the others hold."""


def now() -> int:
    """The time as files have it, or somewhat before."""
    return time.time_ns() - _COARSE


def sync_since(table: Path, moment: int) -> None:
    """Waits until all files of a table that are younger than `moment` are on disk."""
    folders = [(Path(folder), names) for folder, _, names in os.walk(table)]
    for folder, names in sorted(folders, key=lambda found: found[0].name == _LAST):
        new = [path for name in names if _is_since(path := folder / name, moment)]
        for path in new:
            with path.open("rb+") as file:
                os.fsync(file.fileno())
        if new:
            sync_folder(folder)
    sync_folder(table)


def _is_since(path: Path, moment: int) -> bool:
    return path.stat().st_mtime_ns >= moment
