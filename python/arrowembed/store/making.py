"""Making the folder of a new store, as every backend does it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from arrowembed.errors import InvalidArgumentError
from arrowembed.store.description import FILE_NAME, Description
from arrowembed.store.files import writing_to
from arrowembed.store.lock import LOCK, write_lock

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def make_folder(
    folder: Path,
    description: Description,
    contents: tuple[str, ...],
    fill: Callable[[], None],
    lock_timeout: float,
) -> Description:
    """Makes an empty store unless there is one; where several do so at once, one does.

    Args:
        folder: Of the store.
        description: What it is made for; written last, so that half a store is none.
        contents: Names of what the backend puts into the folder.
        fill: Puts it there.
        lock_timeout: Seconds to wait for somebody else.

    Returns:
        What the store that is there was made for.

    Raises:
        InvalidArgumentError: The folder has files of something else.
        StoreMismatchError: Somebody else has made it meanwhile, for something else.
        StoreIOError: It cannot be written to.
    """
    with writing_to(folder):
        folder.mkdir(parents=True, exist_ok=True)
        _check_ours(folder, {FILE_NAME, LOCK, "lost+found", *contents})
        with write_lock(folder / LOCK, lock_timeout):
            if not (folder / FILE_NAME).exists():
                fill()
                description.write(folder)
    found = Description.read(folder)
    found.check(
        folder,
        backend=description.backend,
        dimension=description.dimension,
        metric=description.metric,
        dtype=description.dtype,
    )
    return found


def _check_ours(folder: Path, ours: set[str]) -> None:
    for path in folder.iterdir():
        if path.name not in ours and not path.name.startswith("."):
            raise InvalidArgumentError(
                f"{str(folder)!r} is no store and not empty, it has {path.name!r}; "
                "name a folder of its own for the store"
            )
