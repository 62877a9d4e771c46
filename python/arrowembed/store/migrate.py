"""`migrate`: a store's entries into a new store of another backend or type of numbers.

The new store is made under another name beside its place and takes its name when it is complete: a
run that is killed leaves the old store as it was and no new one, and the next run starts anew.
"""

from __future__ import annotations

import glob
import secrets
import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from arrowembed.errors import InvalidArgumentError, StoreLockedError, StoreMismatchError
from arrowembed.progress import Progress
from arrowembed.store.factory import backend_class, open_store
from arrowembed.store.files import sync_folder, writing_to
from arrowembed.store.lock import write_lock
from arrowembed.store.records import FIELDS

if TYPE_CHECKING:
    import os

    from arrowembed.store.base import Store
    from arrowembed.store.description import Backend, Description, VectorType

_LOCK = ".migrating"
"""File whose lock says that somebody is at it."""

_BYTES = 32 << 20
"""Of vectors that are copied at a time."""


def migrate(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    backend: Backend | None = None,
    dtype: VectorType | None = None,
    show_progress_bar: bool | None = None,
) -> int:
    """Copies a store: ids, texts, metadata and vectors in their order; nothing is embedded again.

    What is written to the source meanwhile is not copied. Indexes are not copied either.

    Args:
        source: Its folder.
        target: Folder of the new store; there must be nothing, or an empty folder.
        backend: Of the new store; that of the source if it is not given.
        dtype: As what the new store keeps vectors; as the source if it is not given. From float32
            to float16 they are rounded.
        show_progress_bar: None shows a bar on a terminal once it takes a second.

    Returns:
        How many entries there are.

    Raises:
        StoreNotFoundError: There is no source.
        InvalidArgumentError: There is something at the target.
        StoreMismatchError: The new store counts other entries than were copied; it was not kept.
    """
    final = Path(target).expanduser().absolute()
    with open_store(source) as old:
        description = replace(
            old.description,
            backend=backend or old.description.backend,
            dtype=dtype or old.description.dtype,
        )
        _check_free(final)
        with writing_to(final):
            final.parent.mkdir(parents=True, exist_ok=True)
            _remove_unfinished(final)
            unfinished = final.with_name(f"{_beginning(final)}{secrets.token_hex(4)}")
            unfinished.mkdir()
            try:
                with write_lock(unfinished / _LOCK, timeout=0.0):
                    count = _copy(old, unfinished, description, show_progress_bar)
                (unfinished / _LOCK).unlink()
                _check_free(final)
                if final.exists():
                    final.rmdir()  # Windows renames to no folder that is there.
                unfinished.replace(final)
                sync_folder(final.parent)
            finally:
                shutil.rmtree(unfinished, ignore_errors=True)
    return count


def _beginning(final: Path) -> str:
    """Of the names of folders in which a store is made that will be `final`."""
    return f".{final.name}.migrating-"


def _remove_unfinished(final: Path) -> None:
    """Removes what runs left that were killed: nobody holds the locks of these."""
    for folder in final.parent.glob(f"{glob.escape(_beginning(final))}*"):
        with suppress(StoreLockedError), write_lock(folder / _LOCK, timeout=0.0):
            shutil.rmtree(folder, ignore_errors=True)


def _copy(old: Store, folder: Path, description: Description, show: bool | None) -> int:
    """Makes the new store in `folder`; gives the number of its entries."""
    size = max(1, min(4096, _BYTES // (4 * description.dimension)))
    copied = 0
    with (
        backend_class(description.backend).create(folder, description, None) as new,
        Progress(old.count(), show, " entries") as progress,
    ):
        for records in old.scan(include=FIELDS, batch_size=size):
            new.add(
                [record.id for record in records],
                [record.text for record in records],  # type: ignore[misc] # some may have none
                vectors=[record.vector for record in records],  # type: ignore[arg-type]
                metadata=[record.metadata for record in records],
            )
            copied += len(records)
            if progress.callback is not None:
                progress.callback(copied)
        new.compact()
        if new.count() != copied:
            raise StoreMismatchError(
                f"{copied} entries of the store at {str(old.path)!r} were copied and the new one "
                f"counts {new.count()}; it was not kept, please report this"
            )
    return copied


def _check_free(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InvalidArgumentError(
            f"there is something at {str(folder)!r} already; a store is copied to a new folder"
        )
