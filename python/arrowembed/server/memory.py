"""Memory that is free goes back to the system.

Each thread that allocates has an arena of its own (glibc), and of many blocks of all sizes some
stay behind in each. What lies between them is free, but the process keeps it, and has ever more.
"""

from __future__ import annotations

import asyncio
import ctypes
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_INTERVAL = 30.0
"""Seconds; it takes a millisecond or two."""


async def give_back_regularly() -> None:
    """Gives free memory back until it is cancelled; ends at once where the system cannot."""
    trim = _trim()
    while trim is not None:
        await asyncio.sleep(_INTERVAL)
        await asyncio.to_thread(trim, 0)


def _trim() -> Callable[[int], int] | None:
    """`malloc_trim` of glibc, which takes the bytes to keep; None where there is none."""
    try:
        return ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        return None
