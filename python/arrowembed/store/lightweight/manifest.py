"""`manifest.json`: which files a store consists of. To replace it is to commit a change.

All other files are written once under a name of their own and are never changed, so that a manifest
that was read stays true as long as its files are there.
"""

from __future__ import annotations

import json
import re
import secrets
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

from arrowembed.errors import StoreFileError
from arrowembed.store.files import digest, write_whole

if TYPE_CHECKING:
    from pathlib import Path

FILE_NAME = "manifest.json"
SEGMENTS = "segments"
VERSION = 1

_NAME = re.compile(r"\d{8,}-[0-9a-f]{8}")
_FILE = re.compile(
    rf"{_NAME.pattern}\.(vectors\.arrow|rows\.arrow|live)"
    r"|\.arrowembed-\w+"  # as the engine calls a file of vectors that it has not written yet
)
_KEY = '"checksum"'


@dataclass(frozen=True, slots=True)
class Live:
    """Which rows of a segment are not deleted: a bitmap in a file of its own."""

    file: str
    count: int
    checksum: str


@dataclass(frozen=True, slots=True)
class Entry:
    """A segment as the manifest names it."""

    name: str
    rows: int
    payload: int
    """Bytes of ids, texts and metadata."""
    vectors_size: int
    rows_size: int
    rows_checksum: str
    live: Live | None = None
    """None where nothing was deleted."""

    @property
    def vectors_file(self) -> str:
        """Name of the file of vectors."""
        return f"{self.name}.vectors.arrow"

    @property
    def rows_file(self) -> str:
        """Name of the file of ids, texts and metadata."""
        return f"{self.name}.rows.arrow"

    @property
    def count(self) -> int:
        """Rows that are not deleted."""
        return self.rows if self.live is None else self.live.count

    def files(self) -> list[str]:
        """All its files, in the folder of segments."""
        live = [] if self.live is None else [self.live.file]
        return [self.vectors_file, self.rows_file, *live]


@dataclass(frozen=True, slots=True)
class Manifest:
    """The state of a store."""

    number: int
    """Of changes so far."""
    segments: tuple[Entry, ...]
    """In the order in which their entries were put in."""

    def next(self, segments: list[Entry]) -> Manifest:
        """The state after a change."""
        return replace(self, number=self.number + 1, segments=tuple(segments))

    def new_name(self) -> str:
        """A name for a file of the next state. No file of any state has or had it."""
        return f"{self.number + 1:08}-{secrets.token_hex(4)}"

    def write(self, folder: Path) -> None:
        """Makes it the store's; it is on disk when this returns."""
        segments = [_described(entry) for entry in self.segments]
        # No indentation: that would take Python's own encoder, which is ten times slower.
        body = json.dumps({"version": VERSION, "number": self.number, "segments": segments})
        content = f'{body[:-1]}, {_KEY}: "{digest(body.encode())}"}}\n'
        write_whole(folder / FILE_NAME, content.encode())

    @classmethod
    def parse(cls, content: bytes, path: Path) -> Self:
        """What `write` wrote.

        Raises:
            StoreFileError: It is damaged or of a later version.
        """
        try:
            return cls._parsed(content.decode())
        except StoreFileError as error:
            raise StoreFileError(f"{path} {error}") from None
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise StoreFileError(
                f"{path} is damaged: {error}; restore the store from a copy"
            ) from error

    @classmethod
    def _parsed(cls, text: str) -> Self:
        found = json.loads(text)
        checksum, version = found.pop("checksum"), found.pop("version")
        if version != VERSION:
            raise StoreFileError(
                f"has version {version!r}, this arrowembed reads {VERSION}; update it"
            )
        body = text[: text.rindex(f", {_KEY}")] + "}"
        if digest(body.encode()) != checksum:
            raise ValueError("its checksum is another one")
        return cls(found["number"], tuple(_entry(entry) for entry in found["segments"]))


def _described(entry: Entry) -> dict[str, Any]:
    live = entry.live
    return {
        "name": entry.name,
        "rows": entry.rows,
        "payload": entry.payload,
        "vectors_size": entry.vectors_size,
        "rows_size": entry.rows_size,
        "rows_checksum": entry.rows_checksum,
        "live": live and {"file": live.file, "count": live.count, "checksum": live.checksum},
    }


def _entry(found: dict[str, Any]) -> Entry:
    live = found.pop("live")
    entry = Entry(**found, live=None if live is None else Live(**live))
    if not _NAME.fullmatch(entry.name):
        raise ValueError(f"{entry.name!r} is no name of a segment")
    if entry.live and not re.fullmatch(rf"{_NAME.pattern}\.live", entry.live.file):
        raise ValueError(f"{entry.live.file!r} is no name of a file of deleted rows")
    return entry


def is_our_file(name: str) -> bool:
    """Whether a file in the folder of segments is of a store, or a remainder of writing one."""
    return bool(_FILE.fullmatch(name))
