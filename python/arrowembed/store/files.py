"""Files that are there whole or not at all, and errors of the operating system in our words."""

from __future__ import annotations

import errno
import hashlib
import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from arrowembed.errors import StoreIOError, StoreLockedError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_ADVICE = {
    errno.ENOSPC: "; make room and try again",
    errno.EDQUOT: "; make room and try again",
    errno.EFBIG: "; raise the limit on the size of files and try again",
    errno.EROFS: "; it can be searched, not changed",
    errno.EACCES: "; it can be searched, not changed, by this user",
}


@contextmanager
def writing_to(folder: Path) -> Iterator[None]:
    """Turns what the operating system refuses meanwhile into an error that says what that means.

    Raises:
        StoreIOError: Nothing was changed.
    """
    try:
        yield
    except (StoreIOError, StoreLockedError):
        raise
    except OSError as error:
        number = error.errno or 0
        why = os.strerror(number) if number else str(error)
        raised = StoreIOError(
            f"the store at {str(folder)!r} was not changed: {why}{_ADVICE.get(number, '')}"
        )
        raised.errno = error.errno
        raise raised from error


def write_whole(path: Path, content: bytes) -> None:
    """Writes or replaces a file; after a crash at any moment the old or the new one is there."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write_new(temporary, content)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_new(path: Path, content: bytes) -> None:
    """Writes a file that is not there yet. It is on disk when this returns, its name may not be."""
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        sync(file.fileno())


def sync(descriptor: int) -> None:
    """Waits until a file is on disk; what Python still holds of it has to be flushed before."""
    os.fsync(descriptor)


def sync_folder(folder: Path) -> None:
    """Waits until the names in a folder are on disk."""
    if sys.platform == "win32":  # where a folder cannot be opened, and a rename needs no such thing
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        sync(descriptor)
    finally:
        os.close(descriptor)


def digest(content: bytes | memoryview) -> str:
    """A checksum."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def digest_of_file(path: Path) -> str:
    """The same of what a file holds."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
