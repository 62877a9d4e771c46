"""Bearer tokens (JWT, RFC 7519) of an issuer that the operator trusts, as OAuth 2 gives them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jwt

from arrowembed.server.security.errors import unauthorized
from arrowembed.server.security.principal import Principal, known_scopes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from arrowembed.server.security.jwks import SigningKeys

_REASONS: tuple[tuple[type[jwt.InvalidTokenError], str], ...] = (
    (jwt.ExpiredSignatureError, "has expired"),
    (jwt.ImmatureSignatureError, "is not valid yet"),
    (jwt.InvalidAudienceError, "is meant for another audience"),
    (jwt.InvalidIssuerError, "is from another issuer"),
    (jwt.InvalidAlgorithmError, "is signed with an algorithm that its key is not for"),
    (jwt.InvalidSignatureError, "has a wrong signature"),
)


class TokenVerifier:
    """Checks tokens.

    Args:
        keys: What they are signed with.
        issuer: What `iss` must be.
        audience: What `aud` must be, or one of what it may be. Without it, a token that the same
            issuer made for another service would be good here.
        leeway: Seconds by which clocks may differ.
    """

    def __init__(
        self, keys: SigningKeys, *, issuer: str, audience: Sequence[str], leeway: float = 30.0
    ) -> None:
        self._keys = keys
        self._issuer = issuer
        self._audience = tuple(audience)
        self._leeway = leeway

    async def verify(self, token: str) -> Principal:
        """Whose token it is.

        Raises:
            ServiceError: It does not hold (`unauthorized`); the message says why. Or the issuer's
                keys could not be had (`authentication_unavailable`).
        """
        try:
            key = await self._keys.find(jwt.get_unverified_header(token).get("kid"))
            if key is None:
                raise unauthorized("the token is signed with a key that is not known")
            claims = jwt.decode(
                token,
                key,
                algorithms=[key.algorithm_name],
                issuer=self._issuer,
                audience=self._audience,
                leeway=self._leeway,
                options={
                    "require": ["exp", "iss", "aud", "sub"],
                    "enforce_minimum_key_length": True,
                },
            )
        except jwt.MissingRequiredClaimError as error:
            raise unauthorized(f"the token has no claim {error.claim!r}") from error
        except jwt.PyJWTError as error:
            reason = next((said for kind, said in _REASONS if isinstance(error, kind)), None)
            raise unauthorized(f"the token {reason or 'cannot be read'}") from error
        return Principal(claims["sub"], "token", known_scopes(_scopes(claims)))


def _scopes(claims: dict[str, Any]) -> list[str]:
    """The scopes in a token: `scope` (RFC 8693) or `scp`, a list or separated by spaces."""
    found: list[str] = []
    for claim in ("scope", "scp"):
        value = claims.get(claim)
        if isinstance(value, str):
            found += value.split()
        elif isinstance(value, list):
            found += [scope for scope in value if isinstance(scope, str)]
    return found
