"""What this process shares: put down, held while it lives, and taken away.

Each file is locked (`flock`) by the process that shared it. The system lets go of the lock when
that process ends, however it ends: a file that can be locked has no owner and is removed by whoever
comes next. A forked child shares nothing of its parent's; the lock remains the parent's alone.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Final

from arrowembed.errors import InvalidArgumentError, SharedMemoryError
from arrowembed.tools.sharing.buffers import pyarrow, to_arrow
from arrowembed.tools.sharing.folder import locked, opened, shared_folder
from arrowembed.tools.sharing.handles import Handle, checked, expiry, is_name, new_name

if sys.platform != "win32":
    import fcntl

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pyarrow as pa
    from numpy.typing import ArrayLike

LIMIT_VARIABLE: Final = "ARROWEMBED_SHARED_BYTES"
"""Environment variable: most bytes that all shared results of a user may take."""

DEFAULT_LIMIT: Final = 1 << 30

_MAX_TTL: Final = 1e9

_NEW: Final = "new-"
"""Before the name of a file that is being written."""


def share(
    vectors: ArrayLike | Any,
    ids: Sequence[str] | None = None,
    texts: Sequence[str | None] | None = None,
    *,
    ttl: float | None = None,
    max_bytes: int | None = None,
) -> Handle:
    """Puts vectors where all processes of this user can map them, and gives a handle.

    They are copied once, here. They stay until `release`, until they expire, or until this process
    ends.

    Args:
        vectors: Shape (n, dim), float32, float16, int8 or uint8; or an Arrow column of vectors.
        ids: One for each vector; a column `id` of the table.
        texts: One for each vector; a column `text` of the table.
        ttl: Seconds after which they may be removed; None keeps them.
        max_bytes: Most bytes that all shared results of this user may take, these included; by
            default what `ARROWEMBED_SHARED_BYTES` says, else 1 GiB.

    Raises:
        InvalidArgumentError: Something is of another shape, type or length.
        SharedMemoryError: There is no room, or no safe place.
        MissingDependencyError: pyarrow is not installed.
    """
    batch = _batch(vectors, ids, texts)
    kind = batch.schema.field("vector").type
    size = _file_size(batch)
    limit = _limit() if max_bytes is None else max_bytes
    expires = _expires(ttl)
    folder = shared_folder()
    name = new_name(expires)
    with opened(folder, make=True) as place:
        try:
            with locked(place):
                _check_room(size, _tidy(place), limit)
                descriptor = _reserve(place, name, size)
            _write(batch, descriptor)
            os.rename(_NEW + name, name, src_dir_fd=place, dst_dir_fd=place)
        except BaseException as error:
            _SHELF.drop(_NEW + name, place)
            if not isinstance(error, OSError) or isinstance(error, SharedMemoryError):
                raise
            raise SharedMemoryError(
                f"{size} bytes cannot be put into {folder}: {error.strerror or error}"
            ) from error
        _SHELF.rename(_NEW + name, name)
    return {
        "path": str(folder / name),
        "bytes": size,
        "rows": batch.num_rows,
        "dimension": kind.list_size,
        "dtype": kind.value_type.to_pandas_dtype().__name__,
        "expires": expires,
    }


def release(handle: Handle | dict[str, Any]) -> bool:
    """Removes what was shared; whoever has it open goes on reading.

    Any process of the user may do so. Where it is not the one that shared it, that one gives the
    memory back when it next shares, releases or ends.

    Returns:
        Whether it was still there.

    Raises:
        HandleError: It is no handle of a shared result.
    """
    folder = shared_folder()
    _, name = checked(handle, folder)
    try:
        with opened(folder) as place:
            return _SHELF.drop(name, place)
    except FileNotFoundError:
        return False


def clean_shared() -> int:
    """Removes what has expired, and what was left by processes that are gone.

    `share` does so, too.

    Returns:
        The bytes that shared results take now.
    """
    try:
        with opened(shared_folder()) as place, locked(place):
            return _tidy(place)
    except FileNotFoundError:
        return 0


class _Shelf:
    """The files that this process has shared, by name, with descriptors that hold their locks."""

    def __init__(self) -> None:
        self._held: dict[str, int] = {}
        self._folder: Path | None = None
        # Also taken by the forks of this process: a child finds it whole.
        self._lock = threading.RLock()
        if sys.platform != "win32":
            os.register_at_fork(
                before=self._lock.acquire,
                after_in_parent=self._lock.release,
                after_in_child=self._forget,
            )
        atexit.register(self.clear)

    def take(self, place: int, name: str) -> int:
        """Makes a file that is this process's."""
        with self._lock:
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(name, flags, 0o600, dir_fd=place)
            self._held[name] = descriptor
            self._folder = shared_folder()
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor

    def rename(self, old: str, new: str) -> None:
        """A file has another name now."""
        with self._lock:
            self._held[new] = self._held.pop(old)

    def drop(self, name: str, place: int) -> bool:
        """Removes a file; whether it was there."""
        with self._lock:
            there = _unlink(name, place)
            descriptor = self._held.pop(name, None)
            if descriptor is not None:
                os.close(descriptor)
            self.let_go()
            return there

    def let_go(self) -> None:
        """Closes what others have removed."""
        with self._lock:
            gone = [name for name, held in self._held.items() if not os.fstat(held).st_nlink]
            for name in gone:
                os.close(self._held.pop(name))

    def clear(self) -> None:
        """Removes all of this process's files."""
        with self._lock:
            if self._folder is None or not self._held:
                return
            try:
                with opened(self._folder) as place:
                    for name in list(self._held):
                        self.drop(name, place)
            except OSError:
                # It ends; what is left has no owner then, and the next process removes it.
                return

    def _forget(self) -> None:
        """In a forked child: the files are the parent's, who alone locks them."""
        for descriptor in self._held.values():
            os.close(descriptor)
        self._held.clear()
        self._lock.release()


_SHELF: Final = _Shelf()


def _batch(
    vectors: ArrayLike | Any, ids: Sequence[str] | None, texts: Sequence[str | None] | None
) -> pa.RecordBatch:
    arrow = pyarrow()
    column = to_arrow(vectors)
    columns = {"vector": column}
    for name, field, values in (("ids", "id", ids), ("texts", "text", texts)):
        if values is None:
            continue
        if isinstance(values, str):
            raise InvalidArgumentError(f"{name}: expected a list, got one string; pass [{name}]")
        if len(values) != len(column):
            raise InvalidArgumentError(f"{name}: {len(values)} for {len(column)} vectors")
        try:
            columns[field] = arrow.array(list(values), arrow.large_string())
        except (arrow.ArrowInvalid, arrow.ArrowTypeError, UnicodeEncodeError) as error:
            raise InvalidArgumentError(f"{name}: expected strings: {error}") from error
    return arrow.RecordBatch.from_pydict(columns)


def _file_size(batch: pa.RecordBatch) -> int:
    arrow = pyarrow()
    counter = arrow.MockOutputStream()
    with arrow.ipc.new_file(counter, batch.schema) as writer:
        writer.write_batch(batch)
    size: int = counter.size()
    return size


def _write(batch: pa.RecordBatch, descriptor: int) -> None:
    arrow = pyarrow()
    with (
        os.fdopen(descriptor, "wb", closefd=False) as file,
        arrow.ipc.new_file(file, batch.schema) as writer,
    ):
        writer.write_batch(batch)


def _check_room(size: int, used: int, limit: int) -> None:
    if used + size > limit:
        raise SharedMemoryError(
            f"sharing {size} more bytes would make it {used + size} of at most {limit}; "
            f"release what is done with, or set {LIMIT_VARIABLE}"
        )


def _reserve(place: int, name: str, size: int) -> int:
    """A file of that size, so that other processes count it from now on."""
    descriptor = _SHELF.take(place, _NEW + name)
    os.ftruncate(descriptor, size)
    return descriptor


def _tidy(place: int) -> int:
    """Removes expired files and those without an owner; the bytes of the others. Needs the lock."""
    _SHELF.let_go()
    used = 0
    with os.scandir(place) as entries:
        for entry in entries:
            ours = is_name(entry.name.removeprefix(_NEW))
            if not ours or not entry.is_file(follow_symlinks=False):
                continue
            size = _size_if_used(place, entry.name)
            if size is None:
                _SHELF.drop(entry.name, place)
            else:
                used += size
    return used


def _size_if_used(place: int, name: str) -> int | None:
    """The size of a file that somebody holds, or None."""
    until = expiry(name)
    if until is not None and until <= time.time():
        return None
    try:
        descriptor = os.open(
            name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=place
        )
    except OSError:
        return None  # gone, or no file of ours
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return os.fstat(descriptor).st_size
    finally:
        os.close(descriptor)
    return None


def _unlink(name: str, place: int) -> bool:
    try:
        os.unlink(name, dir_fd=place)
    except FileNotFoundError:
        return False
    return True


def _expires(ttl: float | None) -> int | None:
    if ttl is None:
        return None
    if not 0 < ttl < _MAX_TTL:
        raise InvalidArgumentError(f"ttl: {ttl}; expected seconds, more than 0, or None")
    return int(time.time() + ttl) + 1


def _limit() -> int:
    given = os.environ.get(LIMIT_VARIABLE)
    if given is None:
        return DEFAULT_LIMIT
    try:
        limit = int(given)
    except ValueError:
        limit = -1
    if limit < 0:
        raise InvalidArgumentError(f"{LIMIT_VARIABLE}={given!r}; expected a number of bytes")
    return limit
