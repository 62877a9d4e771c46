"""Lets clients in: finds out who asks, by key, by token, or not at all."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final, Literal, TypeAlias
from urllib.parse import urlsplit

from arrowembed.server.security.errors import unauthorized
from arrowembed.server.security.keys import PREFIX
from arrowembed.server.security.principal import Principal

if TYPE_CHECKING:
    from arrowembed.server.security.keys import ApiKeys
    from arrowembed.server.security.tokens import TokenVerifier

AnonymousAdmin: TypeAlias = Literal["loopback", "nobody", "everybody"]

_REMEMBERED = 1024
"""Addresses and names that need not be taken apart again."""

_STRANGER: Final = Principal("", "anonymous", frozenset(("embed", "search")))
_OPERATOR: Final = Principal("", "anonymous", frozenset(("embed", "search", "admin")))


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a request says about who sends it; fields are None where it says nothing.

    Attributes:
        authorization: The header Authorization.
        api_key: The header X-API-Key.
        address: The client's address, behind trusted proxies that which they tell.
        forwarded: Whether a proxy that is not trusted passed the request on.
        host: The header Host.
        origin: The header Origin: which page had a browser send this.
    """

    authorization: str | None = None
    api_key: str | None = None
    address: str | None = None
    forwarded: bool = False
    host: str | None = None
    origin: str | None = None


class Access:
    """Decides who a client is.

    Without keys and tokens everybody may embed and search.

    Args:
        keys: API keys that are accepted.
        tokens: Checks bearer tokens; None accepts none.
        anonymous_admin: Who may administer where there are neither keys nor tokens. "loopback":
            programs on this machine. "everybody" is for a port that only operators can reach.
    """

    def __init__(
        self,
        keys: ApiKeys | None = None,
        tokens: TokenVerifier | None = None,
        *,
        anonymous_admin: AnonymousAdmin = "loopback",
    ) -> None:
        self._keys = keys
        self._tokens = tokens
        self._anonymous_admin = anonymous_admin

    def renew(self, keys: ApiKeys, tokens: TokenVerifier | None = None) -> None:
        """Takes other keys from now on.

        Args:
            keys: All API keys that are accepted.
            tokens: Checks bearer tokens; None leaves what does.
        """
        self._keys = keys
        self._tokens = tokens or self._tokens

    @property
    def required(self) -> bool:
        """Whether clients need credentials."""
        return bool(self._keys) or self._tokens is not None

    async def authenticate(self, credentials: Credentials) -> Principal:
        """Whose request it is.

        Raises:
            ServiceError: Credentials are missing or do not hold (`unauthorized`), or a token cannot
                be checked now (`authentication_unavailable`).
        """
        if not self.required:
            return _OPERATOR if self._may_administer(credentials) else _STRANGER
        scheme, _, bearer = (credentials.authorization or "").partition(" ")
        bearer = bearer.strip()
        if scheme.lower() != "bearer" or not bearer:
            # Some other scheme may be meant for a proxy in front.
            bearer = ""
        if bearer and self._tokens is not None and not bearer.startswith(PREFIX):
            return await self._tokens.verify(bearer)
        key = bearer or credentials.api_key
        if not key:
            raise unauthorized(
                "this needs credentials; send an API key in the header X-API-Key, or a key or a "
                "token as Authorization: Bearer",
                sent=False,
            )
        principal = self._keys.find(key) if self._keys else None
        if principal is None:
            raise unauthorized("the API key is not known here")
        return principal

    def _may_administer(self, credentials: Credentials) -> bool:
        if self._anonymous_admin == "loopback":
            return _from_this_machine(credentials)
        return self._anonymous_admin == "everybody"


@lru_cache(maxsize=_REMEMBERED)
def is_loopback(address: str | None) -> bool:
    """Whether it is an address, or a name, by which a machine reaches itself only."""
    if address == "localhost":
        return True
    try:
        parsed = ip_address(address or "")
    except ValueError:
        return False
    # ::ffff:127.0.0.1 is how a socket for both families shows a client of version 4.
    mapped = getattr(parsed, "ipv4_mapped", None)
    return (mapped or parsed).is_loopback


def _from_this_machine(credentials: Credentials) -> bool:
    """Whether a program of this machine sends it, on its own account.

    A proxy here sends the requests of others, and a browser here those of pages from anywhere, even
    under a name of the page's that has come to mean this machine (DNS rebinding).
    """
    if credentials.forwarded or not is_loopback(credentials.address):
        return False
    try:
        page = urlsplit(credentials.origin).netloc if credentials.origin else credentials.host
    except ValueError:
        return False
    return is_loopback(hostname(credentials.host)) and page == credentials.host


@lru_cache(maxsize=_REMEMBERED)
def hostname(host: str | None) -> str | None:
    """The name in a header Host, without a port, in small letters."""
    try:
        return urlsplit(f"//{host or ''}").hostname
    except ValueError:
        return None
