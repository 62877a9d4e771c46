"""Whose form an answer has: ours, or that of a service whose clients come here, too.

Errors go the same way in all of them, see `errors`; only their bodies and a few statuses differ.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from starlette.requests import Request
    from starlette.types import Scope

    from arrowembed.server.errors import Told

Dialect: TypeAlias = Literal["native", "tei", "openai", "ollama"]

_BY_PATH: Final[Mapping[str, Dialect]] = {"/": "tei", "/decode": "tei", "/embed_all": "tei"}
_BY_BEGINNING: Final[Mapping[str, Dialect]] = {"/v1/": "openai", "/api/": "ollama"}
"""What the beginning of a path says."""

_KEY: Final = "arrowembed.dialect"


def use_dialect(request: Request, dialect: Dialect) -> None:
    """Says what form the answer to a request is to have, where its path does not."""
    request.scope[_KEY] = dialect


def dialect_of(scope: Scope) -> Dialect:
    """What form the answer to a request is to have."""
    chosen: Dialect | None = scope.get(_KEY)
    if chosen is not None:
        return chosen
    path: str = scope["path"].removeprefix(scope.get("root_path", ""))
    if path in _BY_PATH:
        return _BY_PATH[path]
    return next(
        (_BY_BEGINNING[start] for start in _BY_BEGINNING if path.startswith(start)), "native"
    )


def error_body(dialect: Dialect, error: Told, request_id: str) -> dict[str, Any]:
    """The body of an error, in the form that clients of a dialect expect."""
    return _BODIES[dialect](error, request_id)


def status_in(dialect: Dialect, status: int) -> int:
    """What an HTTP status of ours is in a dialect, whose clients tell errors apart by it."""
    return _STATUSES[dialect].get(status, status)


def _native_body(error: Told, request_id: str) -> dict[str, Any]:
    body: dict[str, Any] = {"code": error.code, "message": error.message}
    if error.index is not None:
        body["index"] = error.index
    return {"error": {**body, "request_id": request_id}}


_TEI_TYPES = {429: "overloaded", 500: "backend", 503: "unhealthy", 504: "backend"}


def _tei_body(error: Told, request_id: str) -> dict[str, Any]:
    del request_id
    return {
        "error": error.message,
        "error_type": _TEI_TYPES.get(error.kind.http, "validation"),
    }


_OPENAI_CODES = {
    "unauthorized": "invalid_api_key",
    "unknown_model": "model_not_found",
    "text_too_long": "context_length_exceeded",
    "rate_limited": "rate_limit_exceeded",
    "queue_full": "rate_limit_exceeded",
}
"""Codes that clients may know; all others are ours."""
_OPENAI_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
_ABOUT_TEXTS = ("too_many_texts", "text_too_large", "text_too_long", "invalid_text")


def _openai_body(error: Told, request_id: str) -> dict[str, Any]:
    del request_id
    status = error.kind.http
    kind = "server_error" if status >= 500 else _OPENAI_TYPES.get(status, "invalid_request_error")
    about_texts = error.index is not None or error.code in _ABOUT_TEXTS
    field = error.field or ("input" if about_texts else None)
    code = _OPENAI_CODES.get(error.code, error.code)
    return {"error": {"message": error.message, "type": kind, "param": field, "code": code}}


def _ollama_body(error: Told, request_id: str) -> dict[str, Any]:
    del request_id
    return {"error": error.message}


_BODIES: Final[Mapping[Dialect, Callable[[Told, str], dict[str, Any]]]] = {
    "native": _native_body,
    "tei": _tei_body,
    "openai": _openai_body,
    "ollama": _ollama_body,
}

_STATUSES: Final[Mapping[Dialect, Mapping[int, int]]] = {
    "native": {},
    "tei": {},
    # They know no 422.
    "openai": {422: 400},
    "ollama": {422: 400},
}
