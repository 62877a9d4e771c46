"""What stands in front of the routes, as the settings say."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from arrowembed.errors import InvalidArgumentError
from arrowembed.server.rate_limit import RateLimit, RateLimiter, RedisBuckets
from arrowembed.server.security.access import Access, is_loopback
from arrowembed.server.security.keys import ApiKeys, read_keys

if TYPE_CHECKING:
    from arrowembed.server.observe.metrics import Metrics
    from arrowembed.server.security.jwks import SigningKeys
    from arrowembed.server.security.tokens import TokenVerifier
    from arrowembed.server.settings import ServerSettings

logger = logging.getLogger("arrowembed.server")


def make_access(settings: ServerSettings) -> Access:
    """Decides who a client is.

    Raises:
        InvalidArgumentError: A key cannot be read.
    """
    return Access(
        _read_api_keys(settings),
        _make_tokens(settings),
        anonymous_admin=settings.anonymous_admin,
    )


def renew_access(settings: ServerSettings, access: Access) -> None:
    """Reads keys anew from their files; those of an issuer's key set are kept fresh anyway.

    Raises:
        InvalidArgumentError: A key cannot be read; all stay as they were.
    """
    tokens = _make_tokens(settings) if settings.jwt_public_key_file is not None else None
    access.renew(_read_api_keys(settings), tokens)


def _read_api_keys(settings: ServerSettings) -> ApiKeys:
    keys = []
    if settings.api_keys is not None:
        keys += read_keys(settings.api_keys.get_secret_value(), "api_keys")
    if settings.api_keys_file is not None:
        path = settings.api_keys_file
        try:
            keys += read_keys(path.read_text("utf-8"), str(path))
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidArgumentError(f"api_keys_file: {path}: {error}") from error
        if not keys:
            # Without any, everybody would be let in.
            raise InvalidArgumentError(f"api_keys_file: {path}: holds no key")
    return ApiKeys(keys)


def make_rate_limiter(settings: ServerSettings, metrics: Metrics) -> RateLimiter | None:
    """Limits how much clients may send; None if the settings do not.

    Raises:
        MissingDependencyError: Buckets are to be kept in Redis, and its package is missing.
        InvalidArgumentError: The address of Redis is none.
    """
    if settings.rate_limit is None:
        return None
    limit = RateLimit(settings.rate_limit, settings.rate_limit_burst or settings.rate_limit)
    address = settings.rate_limit_redis
    return RateLimiter(
        limit,
        RedisBuckets(limit, address.get_secret_value()) if address is not None else None,
        when_store_fails=settings.rate_limit_when_redis_fails,
        on_store_failure=metrics.rate_limit_store_failures.inc,
    )


def cors(settings: ServerSettings) -> list[Middleware]:
    """Lets pages of some origins ask from a browser; none unless the settings name them."""
    if not settings.cors_origins:
        return []
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["authorization", "content-type", "x-api-key", "x-request-id"],
            expose_headers=[
                "ratelimit",
                "ratelimit-policy",
                "retry-after",
                "x-model-variant",
                "x-request-id",
            ],
        )
    ]


def warn_of_open_doors(settings: ServerSettings) -> None:
    """Says loudly that anybody who reaches the service may use it, if that is so."""
    if make_access(settings).required:
        return
    if not is_loopback(settings.host):
        logger.warning(
            "ANYBODY WHO REACHES %s MAY USE THIS SERVICE: it asks for neither keys nor tokens. "
            "Make a key with `arrowembed keys new`, or listen on 127.0.0.1",
            settings.host,
        )


def _make_tokens(settings: ServerSettings) -> TokenVerifier | None:
    secret, file, jwks = settings.jwt_secret, settings.jwt_public_key_file, settings.jwt_jwks
    if secret is None and file is None and jwks is None:
        return None
    # Their import takes a tenth of the time until the service is ready.
    from arrowembed.server.security.jwks import key_set, public_key, secret_key  # noqa: PLC0415
    from arrowembed.server.security.tokens import TokenVerifier  # noqa: PLC0415

    keys: SigningKeys
    if secret is not None:
        keys = secret_key(secret.get_secret_value())
    elif file is not None:
        keys = public_key(file)
    else:
        keys = key_set(jwks or "")  # one of the three is there
    return TokenVerifier(
        keys,
        # SecuritySettings sees to it that there is one.
        issuer=settings.jwt_issuer or "",
        audience=settings.jwt_audience,
        leeway=settings.jwt_leeway_seconds,
    )
