"""Looks for model files that were changed, and has their models loaded anew."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, TypeAlias

from arrowembed.server.errors import ServiceError

if TYPE_CHECKING:
    from pathlib import Path

    from arrowembed.server.served import ServedModels
    from arrowembed.server.variant import Variant

logger = logging.getLogger("arrowembed.server")

Files: TypeAlias = frozenset[tuple[str, int, int, int]]
"""Name, inode, size and time of change of each file: other files are other models."""


def files_of(path: Path) -> Files:
    """What tells a model's files from those that may replace them.

    Links are followed, so that a folder that is a link can be pointed elsewhere. Files that vanish
    meanwhile are not there.
    """
    found = []
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        try:
            stat = file.stat()
        except OSError:
            continue
        if not file.is_dir():
            found.append((str(file), stat.st_ino, stat.st_size, stat.st_mtime_ns))
    return frozenset(found)


async def watch(models: ServedModels, seconds: float) -> None:
    """Looks at the files of all loaded models for ever, every so many seconds.

    Files are opened when they have changed and two looks in succession find them alike, so that
    nothing half-written is opened. Files that could not be opened are not tried again.
    """
    last: dict[Variant, Files] = {}
    tried: dict[Variant, Files] = {}
    while True:
        await asyncio.sleep(seconds)
        for variant in (variant for model in models for variant in model.variants):
            if (served := variant.current) is None:
                continue
            files = await asyncio.to_thread(files_of, served.embedder.path)
            settled = last.get(variant) == files
            last[variant] = files
            if not files or not settled or files in (served.files, tried.get(variant)):
                continue
            tried[variant] = files
            try:
                await variant.reload()
            except ServiceError:
                logger.warning("model %s goes on with its old files", variant.name)
