"""`Handle`: what stands for a shared result where only JSON can pass.

A handle may come from a language model or another program. Nothing in it is believed: it can name
a file of the user's own folder or nothing, and what it says of the file is compared with the file.
"""

from __future__ import annotations

import os
import re
import secrets
from typing import TYPE_CHECKING, Any, Final, TypedDict, cast

from arrowembed.errors import HandleError
from arrowembed.tools.sharing.buffers import DTYPES

if TYPE_CHECKING:
    from pathlib import Path

_RANDOM_BYTES: Final = 16
_NAME: Final = re.compile(r"[0-9a-f]{32}(?:-(\d{1,12}))?\.arrow", re.ASCII)


class Handle(TypedDict):
    """A result that was shared. All values are plain JSON."""

    path: str
    """The file, in the folder of the user's shared results."""
    bytes: int
    rows: int
    dimension: int
    dtype: str
    """Of the numbers: float32, float16, int8 or uint8."""
    expires: int | None
    """Seconds since 1970 from which on it may be removed; None: not by itself."""


_KINDS: Final = {
    "path": (str,),
    "bytes": (int,),
    "rows": (int,),
    "dimension": (int,),
    "dtype": (str,),
    "expires": (int, type(None)),
}


def new_name(expires: int | None) -> str:
    """The name of a file that nobody can guess; it says when it expires."""
    until = "" if expires is None else f"-{expires}"
    return f"{secrets.token_hex(_RANDOM_BYTES)}{until}.arrow"


def is_name(name: str) -> bool:
    """Whether a file is a shared result, by its name."""
    return _NAME.fullmatch(name) is not None


def expiry(name: str) -> int | None:
    """When a file expires, by its name."""
    match = _NAME.fullmatch(name)
    return int(match[1]) if match and match[1] else None


def checked(handle: Any, folder: Path) -> tuple[Handle, str]:
    """A handle of plausible form, and its file's name in `folder`.

    Raises:
        HandleError: It is none; the message says why.
    """
    if not isinstance(handle, dict):
        raise HandleError(f"handle: expected what share gave, got {type(handle).__name__}")
    if unknown := set(handle) ^ set(_KINDS):
        raise HandleError(
            f"handle: expected exactly {', '.join(_KINDS)}; "
            f"missing or unknown: {', '.join(sorted(map(str, unknown)))}"
        )
    for field, kinds in _KINDS.items():
        value = handle[field]
        if not isinstance(value, kinds) or isinstance(value, bool):
            raise HandleError(f"handle: {field} is {value!r}; pass what share gave, unchanged")
    parent, name = os.path.split(handle["path"])
    if parent != str(folder) or not is_name(name):
        raise HandleError(
            f"handle: {handle['path']!r} is no shared result of this user, which are in {folder}"
        )
    if handle["dtype"] not in DTYPES or handle["expires"] != expiry(name):
        raise HandleError("handle: it was changed; pass what share gave")
    return cast("Handle", handle), name
