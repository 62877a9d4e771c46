"""Why a request was refused because of who sends it."""

from __future__ import annotations

from arrowembed.server.errors import ServiceError

_CHALLENGE = 'Bearer realm="arrowembed"'


def unauthorized(message: str, *, sent: bool = True) -> ServiceError:
    """Credentials are missing or do not hold.

    Args:
        message: Why.
        sent: Whether there were any: only then an error is named (RFC 6750, section 3.1).
    """
    error = ', error="invalid_token"' if sent else ""
    headers = {"www-authenticate": f"{_CHALLENGE}{error}"}
    return ServiceError("unauthorized", message, headers=headers)


def missing_scope(scope: str) -> ServiceError:
    """The client is known, but may not do what it asks for."""
    challenge = f'{_CHALLENGE}, error="insufficient_scope", scope="{scope}"'
    return ServiceError(
        "forbidden", f"this needs the scope {scope!r}", headers={"www-authenticate": challenge}
    )
