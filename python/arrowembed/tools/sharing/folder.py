"""The folder of a user's shared results: in memory where the system has such a place.

It is looked into through a descriptor that was checked, never again by its path, so that nobody can
put another folder or a link in its place meanwhile.
"""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from arrowembed.errors import SharedMemoryError

if sys.platform != "win32":
    import fcntl

if TYPE_CHECKING:
    from collections.abc import Iterator

VARIABLE: Final = "ARROWEMBED_SHARED_DIR"
"""Environment variable that names another folder."""

_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - what is made there is checked and private


def shared_folder() -> Path:
    """Where the shared results of this user are; perhaps it is not there yet.

    Raises:
        SharedMemoryError: The system cannot do it.
    """
    if sys.platform == "win32":
        raise SharedMemoryError(
            "sharing between processes needs POSIX files, which can be removed while they are "
            "mapped; on Windows pass vectors as values"
        )
    if named := os.environ.get(VARIABLE):
        return Path(named).absolute()
    parent = _MEMORY if os.access(_MEMORY, os.W_OK) else Path(tempfile.gettempdir())
    return parent / f"arrowembed-{os.geteuid()}"


@contextmanager
def opened(folder: Path, *, make: bool = False) -> Iterator[int]:
    """A descriptor of the folder, which is the user's alone.

    Raises:
        FileNotFoundError: It is not there, and not to be made.
        SharedMemoryError: It is somebody else's, open to others, or no folder.
    """
    if make:
        try:
            folder.mkdir(mode=0o700)
        except FileExistsError:
            pass
        except OSError as error:
            raise SharedMemoryError(f"{folder} cannot be made: {error.strerror}") from error
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise SharedMemoryError(
            f"{folder} is no folder that can be used: {error.strerror}; remove it, or name another "
            f"one by {VARIABLE}"
        ) from error
    try:
        _check(folder, os.fstat(descriptor))
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def locked(descriptor: int) -> Iterator[None]:
    """Keeps other processes from adding or tidying up; readers go on."""
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield
    finally:
        # Not left to closing it: a fork meanwhile would keep the lock.
        fcntl.flock(descriptor, fcntl.LOCK_UN)


def _check(folder: Path, found: os.stat_result) -> None:
    if found.st_uid != os.geteuid():
        raise SharedMemoryError(
            f"{folder} belongs to user {found.st_uid}; remove it, or name another one by {VARIABLE}"
        )
    if stat.S_IMODE(found.st_mode) & 0o077:
        raise SharedMemoryError(
            f"{folder} is open to other users, mode {stat.S_IMODE(found.st_mode):o}; "
            f"chmod 700 {folder}"
        )
