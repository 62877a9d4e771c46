"""Opens what another process has shared, without a copy."""

from __future__ import annotations

import mmap
import os
import stat
import time
from typing import TYPE_CHECKING, Any

from arrowembed.errors import HandleError, HandleGoneError
from arrowembed.tools.sharing.buffers import pyarrow
from arrowembed.tools.sharing.folder import opened, shared_folder
from arrowembed.tools.sharing.handles import Handle, checked

if TYPE_CHECKING:
    import pyarrow as pa


def open_shared(handle: Handle | dict[str, Any]) -> pa.Table:
    """A shared result as a table over the mapped file: no byte of it is copied.

    Args:
        handle: What `share` gave, in this process or another one of the same user.

    Returns:
        Columns `vector`, and `id` and `text` where they were given. It stays readable after the
        result was released.

    Raises:
        HandleError: It is no handle of a shared result of this user.
        HandleGoneError: The result was released, has expired, or its process has ended.
        MissingDependencyError: pyarrow is not installed.
    """
    arrow = pyarrow()
    folder = shared_folder()
    said, name = checked(handle, folder)
    if said["expires"] is not None and said["expires"] <= time.time():
        raise HandleGoneError(f"handle: {said['path']} has expired; share it again")
    try:
        with opened(folder) as place:
            mapped = _map(place, name, said)
    except FileNotFoundError as error:
        raise HandleGoneError(
            f"handle: {said['path']} is there no longer: it was released, or its process has ended"
        ) from error
    try:
        table = arrow.ipc.open_file(arrow.BufferReader(arrow.py_buffer(mapped))).read_all()
        table.validate()
    except (arrow.ArrowInvalid, OSError) as error:
        raise HandleError(f"handle: {said['path']} is no shared result: {error}") from error
    _check(arrow, table, said)
    return table


def _map(place: int, name: str, said: Handle) -> mmap.mmap:
    try:
        # A pipe would keep this waiting without O_NONBLOCK.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(name, flags, dir_fd=place)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise HandleError(f"handle: {said['path']}: {error.strerror}") from error
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
            raise HandleError(f"handle: {said['path']} is no file of this user")
        if found.st_size != said["bytes"] or not found.st_size:
            raise HandleError(
                f"handle: {said['path']} has {found.st_size} bytes, not {said['bytes']}"
            )
        return mmap.mmap(descriptor, found.st_size, access=mmap.ACCESS_READ)
    finally:
        os.close(descriptor)


def _check(arrow: Any, table: pa.Table, said: Handle) -> None:
    names = table.schema.names
    kind = table.schema.field("vector").type if "vector" in names else None
    item = getattr(arrow, said["dtype"])()
    if (
        kind is None
        or not arrow.types.is_fixed_size_list(kind)
        or (kind.list_size, kind.value_type) != (said["dimension"], item)
        or table.num_rows != said["rows"]
    ):
        raise HandleError(
            f"handle: it says {said['rows']} vectors of {said['dimension']} {said['dtype']}, "
            f"the file has {table.num_rows} rows of {kind}"
        )
