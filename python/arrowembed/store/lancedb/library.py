"""The package LanceDB: imported when it is needed, its errors in our words, no use after a fork."""

from __future__ import annotations

import os
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from arrowembed.errors import (
    ArrowEmbedError,
    ClosedError,
    InvalidArgumentError,
    MissingDependencyError,
    StoreFileError,
    StoreIOError,
    StoreLockedError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_process: int | None = None
"""The process in which LanceDB started its threads."""

_CONFLICT = re.compile(
    r"commit conflict|too much write contention|concurrent modification", re.IGNORECASE
)
_REFUSED = re.compile(
    r"no space left|quota exceeded|file too large|permission denied|read-only file system"
    r"|too many open files|os error (?:13|24|27|28|30|122)\b",
    re.IGNORECASE,
)
_DETAIL = re.compile(r", /\S+\.rs:\d+(?::\d+)?")
"""Where in LanceDB's source an error was made: of no use to whoever reads it."""


def load() -> Any:
    """The package.

    Raises:
        MissingDependencyError: It is not installed.
        ClosedError: This process was forked from one that had used it.
    """
    global _process  # noqa: PLW0603 - belongs to the process
    check_process()
    try:
        import lancedb  # noqa: PLC0415 - optional, and takes seconds
        import lancedb.index  # noqa: PLC0415
        import lancedb.query  # noqa: PLC0415
        import lancedb.rerankers  # noqa: PLC0415
    except ImportError as error:
        raise MissingDependencyError.of(
            "lancedb", purpose="the backend lancedb", install='"arrowembed[lancedb]"'
        ) from error
    _process = os.getpid()
    return lancedb


def check_process() -> None:
    """Refuses to use LanceDB in the child of a process that used it: a call might never return.

    Raises:
        ClosedError: This is such a child.
    """
    if _process not in (None, os.getpid()):
        raise ClosedError(
            "LanceDB was in use when this process was forked, and its threads are not here: open "
            "the store after the fork only, or start processes with multiprocessing's spawn or "
            "forkserver"
        )


@contextmanager
def reading(folder: Path) -> Iterator[None]:
    """Turns LanceDB's errors of a read into ours.

    Raises:
        StoreFileError: What was to be read is damaged or not there.
        StoreIOError: The operating system refused to read it.
    """
    with _translated(f"the store at {str(folder)!r} cannot be read"):
        yield


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turns LanceDB's errors of a write into ours. A write that fails has changed nothing.

    Raises:
        StoreLockedError: Somebody else wrote to the same table at once, past our lock.
        StoreIOError: The operating system refused: no room, no permission.
        StoreFileError: What is there already is damaged.
    """
    with _translated(f"the store at {str(folder)!r} was not changed"):
        yield


@contextmanager
def indexing(folder: Path) -> Iterator[None]:
    """The same where an index is made, which fails by what it was to be like.

    Raises:
        InvalidArgumentError: LanceDB cannot make such an index; the message says why.
        StoreIOError: The operating system refused: no room, no permission.
    """
    with _translated(f"no index at {str(folder)!r}", otherwise=InvalidArgumentError):
        yield


@contextmanager
def _translated(failed: str, otherwise: type[ArrowEmbedError] = StoreFileError) -> Iterator[None]:
    try:
        yield
    except (ArrowEmbedError, KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError):
        raise
    except BaseException as error:
        # A panic of LanceDB is no Exception, and what it met is a damaged file.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        message = f"{failed}: {_DETAIL.sub('', str(error)).strip()}"
        if _CONFLICT.search(message):
            raise StoreLockedError(f"{message}; try again") from error
        if _REFUSED.search(message):
            raise StoreIOError(message) from error
        raise otherwise(message) from error
