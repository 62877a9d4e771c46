"""The keys that tokens are signed with."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jwt.algorithms import ECAlgorithm, RSAAlgorithm
from jwt.utils import base64url_encode

from arrowembed.errors import InvalidArgumentError
from arrowembed.server.errors import ServiceError

if TYPE_CHECKING:
    from collections.abc import Callable

_logger = logging.getLogger(__name__)

_PUBLIC_ALGORITHMS = ("RS256", "ES256")
_SHORTEST_SECRET = 32
"""Bytes; an HMAC's key must not be shorter than its output (RFC 7518, section 3.2)."""
_SHORTEST_RSA = 2048
"""Bits (RFC 7518, section 3.3)."""
_FETCH_TIMEOUT = 5.0
"""Seconds."""


class SigningKeys(Protocol):
    """Where a token's key is looked up."""

    async def find(self, kid: str | None) -> jwt.PyJWK | None:
        """The key of that id; without an id, the one key if there is only one.

        A `PyJWK` is bound to its algorithm: PyJWT refuses a token that names another, so neither
        `none` nor an HMAC with a public key as its secret gets through.
        """
        ...


class OneKey:
    """A secret or a public key that the operator gave."""

    def __init__(self, key: jwt.PyJWK) -> None:
        self._key = key

    async def find(self, kid: str | None) -> jwt.PyJWK | None:
        """The key, whatever id the token gives it."""
        del kid
        return self._key


class KeySet:
    """The keys of an issuer, fetched when they are needed and kept.

    They are fetched in a thread, by one caller at a time. Keys that have become old go on being
    used while new ones are fetched, and for as long as that fails. A token with an unknown key has
    them fetched at once, but not again within `min_interval`: otherwise anybody could have the
    service flood the issuer with requests.

    Args:
        fetch: Gets the current keys; may block.
        keys: Those that are known already.
        lifespan: Seconds after which keys are old.
        min_interval: Seconds from one attempt to fetch them to the next.
    """

    def __init__(
        self,
        fetch: Callable[[], list[jwt.PyJWK]],
        keys: list[jwt.PyJWK] | None = None,
        *,
        lifespan: float = 300.0,
        min_interval: float = 30.0,
    ) -> None:
        self._fetch = fetch
        self._lifespan = lifespan
        self._min_interval = min_interval
        self._keys = keys or []
        self._fetched_at = time.monotonic()
        self._tried_at = float("-inf")
        self._fetching: asyncio.Task[None] | None = None

    async def find(self, kid: str | None) -> jwt.PyJWK | None:
        """See `SigningKeys`.

        Raises:
            ServiceError: The keys have never been had (`authentication_unavailable`).
        """
        found = self._match(kid)
        if found is None:
            fetching = self._refresh()
            if fetching is not None:
                # A client that gives up must not stop the fetch that others wait for.
                await asyncio.shield(fetching)
                found = self._match(kid)
        elif time.monotonic() - self._fetched_at > self._lifespan:
            self._refresh()
        if found is None and not self._keys:
            raise ServiceError(
                "authentication_unavailable",
                "tokens cannot be checked now, because the keys of their issuer could not be "
                "fetched; try again later",
            )
        return found

    def _match(self, kid: str | None) -> jwt.PyJWK | None:
        if kid is None:
            return self._keys[0] if len(self._keys) == 1 else None
        return next((key for key in self._keys if key.key_id == kid), None)

    def _refresh(self) -> asyncio.Task[None] | None:
        """The fetch that is under way, a new one, or None if the last is too recent."""
        if self._fetching is not None:
            return self._fetching
        now = time.monotonic()
        if now - self._tried_at < self._min_interval:
            return None
        self._tried_at = now
        self._fetching = asyncio.create_task(self._fetch_now())
        return self._fetching

    async def _fetch_now(self) -> None:
        try:
            self._keys = await asyncio.to_thread(self._fetch)
            self._fetched_at = time.monotonic()
        except (jwt.PyJWTError, InvalidArgumentError, OSError, ValueError) as error:
            _logger.warning(
                "the keys for tokens could not be fetched (%s); %d are kept",
                type(error).__name__,
                len(self._keys),
            )
        finally:
            self._fetching = None


def secret_key(secret: str) -> OneKey:
    """A shared secret for HS256.

    Raises:
        InvalidArgumentError: It is too short to be safe.
    """
    value = secret.encode()
    if len(value) < _SHORTEST_SECRET:
        raise InvalidArgumentError(
            f"jwt_secret: has {len(value)} bytes; HS256 needs {_SHORTEST_SECRET} or more, for "
            "example from `openssl rand -hex 32`"
        )
    encoded = base64url_encode(value).decode()
    return OneKey(jwt.PyJWK({"kty": "oct", "k": encoded}, "HS256"))


def public_key(path: Path) -> OneKey:
    """A public key from a PEM file: RSA for RS256, or of the curve P-256 for ES256.

    Raises:
        InvalidArgumentError: The file cannot be read, or holds no such key.
    """
    try:
        key = load_pem_public_key(path.read_bytes())
    except (OSError, ValueError, UnsupportedAlgorithm) as error:
        raise InvalidArgumentError(f"jwt_public_key_file: {path}: {error}") from error
    if isinstance(key, RSAPublicKey) and key.key_size >= _SHORTEST_RSA:
        return OneKey(jwt.PyJWK(RSAAlgorithm.to_jwk(key, as_dict=True), "RS256"))
    if isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1):
        return OneKey(jwt.PyJWK(ECAlgorithm.to_jwk(key, as_dict=True), "ES256"))
    raise InvalidArgumentError(
        f"jwt_public_key_file: {path}: expected a public RSA key of {_SHORTEST_RSA} bits or more, "
        "or one of the curve P-256"
    )


def key_set(location: str) -> KeySet:
    """The keys at an https address or in a file, as a JSON Web Key Set (RFC 7517).

    Raises:
        InvalidArgumentError: The file holds no key, or the address is not one of https. Plain http
            is for this machine only, because who can change the answer can sign tokens.
    """
    address = urlsplit(location)
    if address.scheme in ("http", "https"):
        if address.scheme == "http" and address.hostname not in ("127.0.0.1", "::1", "localhost"):
            raise InvalidArgumentError(f"jwt_jwks: {location}: expected an https address")
        client = jwt.PyJWKClient(location, cache_jwk_set=False, timeout=_FETCH_TIMEOUT)
        return KeySet(lambda: _usable(client.get_jwk_set()))
    if "://" in location:
        raise InvalidArgumentError(f"jwt_jwks: {location}: expected an https address or a file")
    path = Path(location)
    return KeySet(lambda: _from_file(path), _from_file(path))


def _from_file(path: Path) -> list[jwt.PyJWK]:
    try:
        content = json.loads(path.read_text("utf-8"))
        if not isinstance(content, dict):
            raise InvalidArgumentError(f"jwt_jwks: {path}: expected a JSON object with `keys`")
        return _usable(jwt.PyJWKSet.from_dict(content))
    except (OSError, ValueError, jwt.PyJWTError) as error:
        raise InvalidArgumentError(f"jwt_jwks: {path}: {error}") from error


def _usable(keys: jwt.PyJWKSet) -> list[jwt.PyJWK]:
    """Public keys for signatures. A set must not smuggle in a shared secret."""
    found = [
        key
        for key in keys.keys
        if key.algorithm_name in _PUBLIC_ALGORITHMS and key.public_key_use in ("sig", None)
    ]
    if not found:
        raise InvalidArgumentError(
            f"jwt_jwks: holds no key for {' or '.join(_PUBLIC_ALGORITHMS)} signatures"
        )
    return found
