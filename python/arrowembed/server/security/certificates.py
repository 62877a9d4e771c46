"""The certificate by which clients know the service; a renewed one is taken without a restart."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from arrowembed.errors import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from uvicorn import Config

    from arrowembed.server.settings import ServerSettings

_in_use: list[ssl.SSLContext] = []
"""What connections of this process are made with."""


def make_context(config: Config, make: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
    """Makes what uvicorn encrypts connections with, and remembers it for `renew`."""
    del config
    context = make()
    _in_use.append(context)
    return context


def check(settings: ServerSettings) -> None:
    """Tries the certificate and its key.

    Raises:
        InvalidArgumentError: They cannot be read, or do not belong together.
    """
    if settings.tls_certificate is not None:
        _load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), settings.tls_certificate, settings.tls_key)


def renew(settings: ServerSettings) -> None:
    """Reads the certificate and its key anew, for connections that are made from now on.

    Raises:
        InvalidArgumentError: As `check`; the old ones stay.
    """
    # One that does not fit its key would spoil what is in use.
    check(settings)
    if settings.tls_certificate is not None:
        for context in _in_use:
            _load(context, settings.tls_certificate, settings.tls_key)


def _load(context: ssl.SSLContext, certificate: Path, key: Path | None) -> None:
    try:
        context.load_cert_chain(certificate, key)
    except OSError as error:
        raise InvalidArgumentError(
            f"tls_certificate, tls_key: {certificate}, {key}: expected a certificate and its key, "
            f"both in PEM: {error.strerror or error}"
        ) from error
