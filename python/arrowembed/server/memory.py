"""How the service's memory is laid out, so that it does not grow for as long as it runs."""

from __future__ import annotations

import ctypes
import os
import sys

# Of <malloc.h>.
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8

_LARGE = 64 * 1024
"""From how many bytes on a block is the system's own and goes back to it at once."""
_ARENAS = 2

CHOICES = ("MALLOC_ARENA_MAX", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")
"""Environment variables by which operators choose for themselves."""


def keep_compact() -> None:
    """Has glibc keep bodies and answers apart from what lives long, and few arenas.

    As it comes, glibc takes to placing blocks of up to 32 MB between small ones, after the first of
    that size was freed, and has an arena for each of eight threads a core. With vectors that enter
    and leave the cache all the time, holes between them then grew by tens of megabytes an hour
    (docs/operations/performance.md). Other allocators are left as they are.
    """
    if sys.platform != "linux" or any(name in os.environ for name in CHOICES):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # musl
        return
    mallopt(_M_MMAP_THRESHOLD, _LARGE)
    mallopt(_M_ARENA_MAX, _ARENAS)
