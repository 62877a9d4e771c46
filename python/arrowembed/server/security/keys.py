"""API keys: made here, kept as hashes only.

A key is 256 random bits. Nobody can guess it, nor find it from its hash, however fast the hash is:
so SHA-256 is right, and a slow hash for passwords would only let strangers burn processor time.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from arrowembed.errors import InvalidArgumentError
from arrowembed.server.security.principal import SCOPES, Principal, Scope, known_scopes

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

PREFIX = "ae_"
"""What every key starts with, so that people and scanners for leaked secrets know one."""

_RANDOM_BYTES = 32
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_HASH = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class ApiKey:
    """What is kept of a key.

    Attributes:
        principal: Whom it makes of the client that has it.
        digest: Its SHA-256, 32 bytes.
    """

    principal: Principal
    digest: bytes

    def entry(self) -> str:
        """How it is written in a file of keys: `name:scope,scope:hash`."""
        scopes = ",".join(scope for scope in SCOPES if scope in self.principal.scopes)
        return f"{self.principal.name}:{scopes}:{self.digest.hex()}"


class ApiKeys:
    """All keys that are accepted.

    Args:
        keys: With different names.

    Raises:
        InvalidArgumentError: Two have the same name or are the same.
    """

    def __init__(self, keys: Iterable[ApiKey]) -> None:
        self._keys = tuple(keys)
        names: set[str] = set()
        digests: set[bytes] = set()
        for key in self._keys:
            name = key.principal.name
            if name in names:
                raise InvalidArgumentError(f"API keys: two are named {name!r}; rename one")
            if key.digest in digests:
                raise InvalidArgumentError(
                    f"API keys: {name!r} is the same key as another; make one for each client"
                )
            names.add(name)
            digests.add(key.digest)

    def __len__(self) -> int:
        return len(self._keys)

    def find(self, key: str) -> Principal | None:
        """Whose key it is, if anybody's.

        Takes as long whichever it is: all are compared, each in constant time.
        """
        digest = _digest(key)
        found = None
        for known in self._keys:
            if hmac.compare_digest(known.digest, digest):
                found = known.principal
        return found


def new_key(name: str, scopes: Sequence[str]) -> tuple[str, ApiKey]:
    """A new key, and what is to be kept of it.

    Raises:
        InvalidArgumentError: The name or a scope is none.
    """
    key = PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)
    return key, ApiKey(_principal(name, scopes, "API key"), _digest(key))


def read_keys(text: str, source: str) -> list[ApiKey]:
    """The keys of a file or a variable.

    Args:
        text: Entries `name:scope,scope:hash`, separated by white space; # starts a comment.
        source: Where the text is from, for messages.

    Raises:
        InvalidArgumentError: An entry cannot be read. The message does not repeat it, because it
            may hold a key.
    """
    return [
        _read_entry(entry, f"{source}, line {number}")
        for number, line in enumerate(text.splitlines(), start=1)
        for entry in line.partition("#")[0].split()
    ]


def _read_entry(entry: str, place: str) -> ApiKey:
    name, _, rest = entry.partition(":")
    scopes, _, digest = rest.partition(":")
    if PREFIX in entry:
        raise InvalidArgumentError(
            f"{place}: holds a key; only its hash belongs here, as `arrowembed keys new` prints it"
        )
    if not _HASH.fullmatch(digest):
        raise InvalidArgumentError(
            f"{place}: expected name:scopes:hash with a SHA-256 of 64 hexadecimal digits; make one "
            "with `arrowembed keys new`"
        )
    return ApiKey(_principal(name, scopes.split(","), place), bytes.fromhex(digest))


def _principal(name: str, scopes: Sequence[str], place: str) -> Principal:
    if not _NAME.fullmatch(name):
        raise InvalidArgumentError(
            f"{place}: the name must be 1 to 64 letters, digits, dots, dashes and underscores"
        )
    known: frozenset[Scope] = known_scopes(scopes)
    if not scopes or len(known) != len(set(scopes)):
        raise InvalidArgumentError(f"{place}: the scopes must be some of {', '.join(SCOPES)}")
    return Principal(name, "key", known)


def _digest(key: str) -> bytes:
    # A header may hold any bytes, which arrive as latin-1.
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
