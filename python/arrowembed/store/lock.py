"""One writer at a time, whatever process or thread it is in."""

from __future__ import annotations

import os
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from arrowembed.errors import StoreLockedError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

LOCK = "lock"
"""Name of the file in a store's folder."""
LOCK_TIMEOUT = 30.0
"""Seconds."""

_SHORTEST_NAP = 0.0005
_LONGEST_NAP = 0.02

_held: set[int] = set()
"""Descriptors of locks that this process holds."""


@contextmanager
def write_lock(path: Path, timeout: float) -> Iterator[None]:
    """Holds the lock of a store. The operating system frees it when its holder dies.

    Args:
        path: The file that is locked; made if it is not there.
        timeout: Seconds to wait for it.

    Raises:
        StoreLockedError: Somebody else held it for longer.
    """
    # Opened anew each time: so that threads exclude each other as processes do.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o666)
    try:
        _wait_for(descriptor, path, timeout)
        _held.add(descriptor)
        try:
            yield
        finally:
            _held.discard(descriptor)
            # Not left to closing: a process that was forked meanwhile may still have it open.
            _unlock(descriptor)
    finally:
        os.close(descriptor)


def _wait_for(descriptor: int, path: Path, timeout: float) -> None:
    end = time.monotonic() + timeout
    nap = _SHORTEST_NAP
    while not _try_lock(descriptor):
        if time.monotonic() >= end:
            raise StoreLockedError(
                f"the store at {str(path.parent)!r} is being written to by somebody else, for "
                f"more than {timeout:g} s; try again, or wait longer with "
                "open_store(..., lock_timeout=...)"
            )
        time.sleep(nap)
        nap = min(2 * nap, _LONGEST_NAP)


if sys.platform == "win32":

    def _try_lock(descriptor: int) -> bool:
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def _unlock(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)

else:

    def _try_lock(descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _unlock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_UN)

    def _let_go_in_child() -> None:
        """Closes what the parent locked: else the lock would outlive a parent that is killed."""
        for descriptor in _held:
            os.close(descriptor)
        _held.clear()

    os.register_at_fork(after_in_child=_let_go_in_child)
